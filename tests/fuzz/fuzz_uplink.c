/* Fuzzer: what a worker says once its Hello was accepted (daemon/uplink.c), over TCP as one
 * of a run that was started elsewhere. Whatever comes, the daemon takes it in, or closes
 * the connection; the job stays one that its state machine knows. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/attach.h"
#include "daemon/event.h"
#include "daemon/rpc.h"
#include "proto/message.h"
#include "tests/quiet_io.h"
#include "worker.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64] = "/tmp/hone-fuzz-XXXXXX";
static struct store *store;
static unsigned count;

static void remove_store(void)
{
    struct err e;

    store_close(store);
    file_remove_tree(dir, &e);
}

static void open_store(void)
{
    struct err e;

    invariant(mkdtemp(dir) && !store_open(&store, dir, STORE_EPHEMERAL, &e));
    atexit(remove_store);
}

static void say(struct quiet *q, const ProtobufCMessage *m)
{
    struct str out = {0};
    struct err e;

    invariant(!message_frame(m, &out, &e));
    q->io.events->received(q->io.ctx, QUIET_ID, out.s, out.len);
    str_fini(&out);
}

static void ignore(struct rpc_call *call, const void *p, size_t n, int more)
{
    (void)call, (void)p, (void)n, (void)more;
}

static void refuse(struct rpc_call *call, const struct err *e)
{
    (void)call, (void)e;
    abort();
}

/* Attach, and be the worker of its stage. */
static struct job *begin(struct quiet *q, struct daemon *d)
{
    static const struct rpc_sink sink = {ignore, refuse};
    static char *stage = (char *)"sft";
    Hone__V1__AttachRequest a = HONE__V1__ATTACH_REQUEST__INIT;
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;
    struct rpc_call *call = calloc(1, sizeof *call);
    char number[24], key[33];
    struct job *j;

    invariant(call);
    *call = (struct rpc_call){.d = d, .conn = QUIET_ID, .who = d->self, .sink = &sink};
    snprintf(key, sizeof key, "%032x", ++count);
    a.key = key;
    a.attempt = 1;
    a.name = a.host = a.file = a.run = (char *)"x";
    a.stages = &stage;
    a.n_stages = 1;
    attach_begin(call, &a);
    invariant(d->n_jobs == 1);
    j = d->jobs[0];
    snprintf(number, sizeof number, "%llu", (unsigned long long)j->id);
    q->io.events->connected(q->io.ctx, QUIET_ID);
    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__WORKER;
    h.job = number;
    h.stage = stage;
    h.token = j->stage[0].token;
    h.has_attempt = h.has_rank = h.has_instance = 1;
    h.attempt = 1;
    h.instance = count;
    say(q, &h.base);
    invariant(j->stage[0].state == STAGE_RUNNING);
    return j;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct quiet q;
    struct daemon d;
    struct job *j;
    struct err e;
    uint64_t id;

    log_set_level(LOG_ERROR + 1);
    if (!store)
        open_store();
    quiet_open(&q);
    daemon_init(&d, &q.io, store, dir, "unix:/nowhere", 0);
    invariant(!daemon_recover(&d, &e));
    j = begin(&q, &d);
    id = j->id;
    for (size_t at = 0; at < size; at += 61)
        q.io.events->received(q.io.ctx, QUIET_ID, data + at,
                              size - at < 61 ? size - at : 61);
    q.io.events->closed(q.io.ctx, QUIET_ID);
    j = daemon_find_job(&d, id);
    invariant(j && !d.conns);
    invariant(j->stage[0].state == STAGE_RUNNING ? j->state == JOB_RUNNING : job_ended(j));
    event_remove_journal(&d, j);
    invariant(!store_remove_job(store, id, &e));
    daemon_fini(&d);
    quiet_close_all(&q);
    return 0;
}
