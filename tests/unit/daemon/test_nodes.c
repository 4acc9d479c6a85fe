/* Nodes: the daemon's own machine, and what ranks on it and elsewhere report. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/daemon.h"
#include "daemon/machine.h"
#include "daemon/rpc.h"
#include "proto/message.h"
#include "tests/quiet_io.h"

static void put(const char *dir, const char *bus, const char *text)
{
    char path[256];
    struct err e;

    snprintf(path, sizeof path, "%s/%s", dir, bus);
    assert_int_equal(file_make_dirs(path, &e), 0);
    snprintf(path, sizeof path, "%s/%s/information", dir, bus);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &e), 0);
}

/* As the driver's folder looks; what is not of that form is no GPU. */
static void test_gpus(void **state)
{
    char dir[] = "/tmp/hone-test-XXXXXX";
    struct machine_gpu gpu[3];
    struct err e;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(machine_gpus(dir, gpu, 3), 0);
    put(dir, "0000:81:00.0", "Model: \t\t NVIDIA V100\nIRQ:   \t 17\nDevice Minor: \t 0\n");
    put(dir, "0000:01:00.0", "IRQ: 1\nModel: \t\t NVIDIA GeForce RTX 4090");
    put(dir, "readme", "Model: nothing\n");
    assert_int_equal(machine_gpus(dir, gpu, 3), 2);
    assert_string_equal(gpu[0].name, "NVIDIA GeForce RTX 4090");
    assert_string_equal(gpu[1].name, "NVIDIA V100");
    put(dir, "0000:c1:00.0", "");
    assert_int_equal(machine_gpus(dir, gpu, 3), 3);
    assert_string_equal(gpu[2].name, "");
    assert_int_equal(machine_gpus(dir, gpu, 1), 1);
    assert_int_equal(file_remove_tree(dir, &e), 0);
    assert_int_equal(machine_gpus(dir, gpu, 3), 0);
}

static void test_machine(void **state)
{
    struct cores cores = {0};

    (void)state;
    machine_cores(&cores);
    assert_true(cores_count(&cores) >= 1);
    assert_true(machine_memory() > 1 << 20);
    assert_true(machine_free() > 1 << 20);
    assert_true(machine_load() >= 0);
}

/* The tightest limit on the way up counts; "max" is none. */
static void test_limit(void **state)
{
    static const char *const limits[][2] = {
        {"", "max"}, {"/a", "5000\n"}, {"/a/b", "max\n"}, {"/a/b/c", "7000\n"}};
    char dir[] = "/tmp/hone-test-XXXXXX", path[128];
    struct err e;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(machine_limit(dir, "/a/b/c"), 0);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        snprintf(path, sizeof path, "%s%s", dir, limits[i][0]);
        assert_int_equal(file_make_dirs(path, &e), 0);
        strcat(path, "/memory.max");
        assert_int_equal(file_write_atomic(path, limits[i][1], strlen(limits[i][1]), &e),
                         0);
    }
    assert_int_equal(machine_limit(dir, ""), 0);
    assert_int_equal(machine_limit(dir, "/a/b/c"), 5000);
    assert_int_equal(machine_limit(dir, "/a/b/none/c"), 5000);
    assert_int_equal(machine_limit(dir, "/../x"), 0);
    assert_int_equal(file_remove_tree(dir, &e), 0);
}

static Hone__V1__NodeList *got;

static void take(struct rpc_call *call, const void *p, size_t n, int more)
{
    ProtobufCMessage *m;
    struct err e;

    assert_int_equal(more, 0);
    assert_int_equal(message_unpack(call->method->output, p, n, &m, &e), 0);
    got = (Hone__V1__NodeList *)m;
}

static void refused(struct rpc_call *call, const struct err *e)
{
    (void)call;
    fail_msg("%s", e->msg);
}

static void ask(struct daemon *d)
{
    static const struct rpc_sink sink = {take, refused};
    struct access who = {.role = ACCESS_VIEWER, .user = "eve"};
    struct rpc_call call = {.d = d, .conn = QUIET_ID, .who = who, .sink = &sink};
    Hone__V1__NodesRequest m = HONE__V1__NODES_REQUEST__INIT;
    struct err e;

    assert_int_equal(rpc_find_method(d, &who, "Nodes", &call.method, &e), 0);
    rpc_begin(&call, &m.base);
}

/* A job whose one stage runs with three ranks: two here, one of them silent so far, each
 * with a GPU, and one on another host. */
static struct job *make_job(void)
{
    struct job *j = job_new();
    struct job_stage *s;
    char host[256] = "";

    assert_non_null(j);
    gethostname(host, sizeof host - 1);
    j->id = 4;
    j->name = "tiny";
    j->stage = s = arena_array(&j->arena, 1, sizeof *s);
    assert_non_null(s);
    j->n_stages = 1;
    s->name = "ppo";
    s->workers = 3;
    s->memory = 1000;
    s->state = STAGE_RUNNING;
    s->attempt = 1;
    cores_add(&s->cores, 2);
    cores_add(&s->cores, 5);
    assert_int_equal(stage_open_ranks(s), 0);
    s->rank[0].host = mem_strdup(host);
    s->rank[0].pid = 123;
    s->rank[0].phase = mem_strdup("train");
    s->rank[0].heard = 0.5; /* it is 1 */
    s->rank[2].host = mem_strdup("far");
    s->rank[2].heard = 0.25;
    cores_add(&s->gpus, 1);
    cores_add(&s->gpus, 3);
    return j;
}

static void test_list(void **state)
{
    const Hone__V1__Node *own, *far;
    struct quiet w;
    struct daemon d;
    struct job *j;

    (void)state;
    quiet_open(&w);
    daemon_init(&d, &w.io, NULL, "/nowhere", "unix:/nowhere", 0);
    for (int i = 0; i < 4; i++)
        if (i != 2)
            cores_add(&d.resources.gpus, i);
    ask(&d);
    assert_int_equal(got->n_nodes, 1);
    own = got->nodes[0];
    assert_true(own->has_own && own->own);
    assert_int_equal(own->cores, cores_count(&d.resources.cores));
    assert_int_equal(own->cores_used, 0);
    assert_int_equal(own->n_ranks, 0);
    assert_false(own->has_heard);
    message_free(&got->base);

    j = make_job();
    d.jobs = mem_array(1, sizeof *d.jobs);
    assert_non_null(d.jobs);
    d.jobs[0] = j;
    d.n_jobs = 1;
    ask(&d);
    assert_int_equal(got->n_nodes, 2);
    own = got->nodes[0];
    far = got->nodes[1];
    assert_int_equal(own->cores_used, 2);
    assert_int_equal(own->memory_used, 1000);
    assert_int_equal(own->n_ranks, 1);
    assert_int_equal(own->ranks[0]->job, 4);
    assert_int_equal(own->ranks[0]->pid, 123);
    assert_string_equal(own->ranks[0]->stage, "ppo");
    assert_string_equal(own->ranks[0]->phase, "train");
    assert_int_equal(own->ranks[0]->n_cores, 2);
    assert_int_equal(own->ranks[0]->cores[1], 5);
    assert_true(own->has_heard && own->heard == 0.5);
    assert_string_equal(far->host, "far");
    assert_false(far->has_own || far->has_cores || far->has_load);
    assert_true(far->heard == 0.75);
    assert_int_equal(far->ranks[0]->rank, 2);
    assert_int_equal(far->ranks[0]->n_cores, 0);
    assert_int_equal(far->n_gpus, 0);
    assert_int_equal(own->n_gpus, 3);
    assert_false(own->gpus[0]->has_job);
    assert_int_equal(own->gpus[1]->index, 1);
    assert_int_equal(own->gpus[1]->rank, 0);
    assert_int_equal(own->gpus[2]->index, 3);
    assert_int_equal(own->gpus[2]->job, 4);
    assert_int_equal(own->gpus[2]->rank, 1);
    assert_string_equal(own->gpus[2]->stage, "ppo");
    message_free(&got->base);

    daemon_fini(&d);
    quiet_close_all(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpus),
        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_list),
    };

    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
