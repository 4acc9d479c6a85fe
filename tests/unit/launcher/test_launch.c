/* Launcher back ends are pure: a request becomes arguments and environment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "launcher/backend/launch.h"

static const char *const set[] = {"seed=2", "name=x"};
static const struct launch_request request = {.worker = "/opt/hone/bin/hone-worker",
                                              .file = "/jobs/a.yaml",
                                              .set = set,
                                              .n_set = 2,
                                              .stage = "sft",
                                              .run = "/runs/a-1",
                                              .resume = 1,
                                              .workers = 3,
                                              .uplink = "unix:/run/h",
                                              .token = "secret",
                                              .job = 7,
                                              .attempt = 2,
                                              .orphan_stop = 1};

static const char *value(const struct launch_command *c, const char *name)
{
    const char *found = NULL;
    size_t n = strlen(name);

    for (size_t i = 0; c->env[i]; i++)
        if (!strncmp(c->env[i], name, n) && c->env[i][n] == '=') {
            assert_null(found); /* once */
            found = c->env[i] + n + 1;
        }
    return found;
}

static void check_worker(const struct launch_command *c, size_t at)
{
    static const char *const want[] = {"/opt/hone/bin/hone-worker",
                                       "/jobs/a.yaml",
                                       "--stage",
                                       "sft",
                                       "--out",
                                       "/runs/a-1",
                                       "--resume",
                                       "--set",
                                       "seed=2",
                                       "--set",
                                       "name=x"};

    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_string_equal(c->argv[at + i], want[i]);
    assert_null(c->argv[at + sizeof want / sizeof *want]);
    assert_string_equal(value(c, "HONE_UPLINK"), "unix:/run/h");
    assert_string_equal(value(c, "HONE_UPLINK_TOKEN"), "secret");
    assert_string_equal(value(c, "HONE_UPLINK_JOB"), "7");
    assert_string_equal(value(c, "HONE_UPLINK_ATTEMPT"), "2");
    assert_string_equal(value(c, "HONE_UPLINK_ORPHAN"), "stop");
    for (size_t i = 0; c->argv[i]; i++) /* never where ps shows it */
        assert_null(strstr(c->argv[i], "secret"));
}

static void test_local(void **state)
{
    struct launch_request with_gpus = request;
    struct launch_command c;
    struct arena a = {0};
    struct err e;

    (void)state;
    setenv("HONE_UPLINK", "unix:/an/older/one", 1);
    setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3", 1);
    assert_int_equal(launch_local.command(&request, &a, &c, &e), 0);
    check_worker(&c, 0);
    assert_string_equal(value(&c, "CUDA_VISIBLE_DEVICES"), "0,1,2,3");
    with_gpus.gpus = "1,3";
    assert_int_equal(launch_local.command(&with_gpus, &a, &c, &e), 0);
    assert_string_equal(value(&c, "CUDA_VISIBLE_DEVICES"), "1,3");
    assert_string_equal(value(&c, "CUDA_DEVICE_ORDER"), "PCI_BUS_ID");
    unsetenv("CUDA_VISIBLE_DEVICES");
    unsetenv("HONE_UPLINK");
    arena_fini(&a);
}

static void test_mpirun(void **state)
{
    char dir[] = "/tmp/hone-launch-XXXXXX", path[64], *old = strdup(getenv("PATH"));
    struct launch_request far = request;
    struct launch_command c;
    struct arena a = {0};
    struct err e;

    (void)state;
    assert_non_null(mkdtemp(dir));
    setenv("PATH", dir, 1);
    assert_int_equal(launch_mpirun.command(&request, &a, &c, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "3 workers are started by mpirun"));
    assert_non_null(strstr(e.mend, "openmpi-bin"));

    snprintf(path, sizeof path, "%s/mpirun", dir);
    assert_int_equal(file_write_atomic(path, "#!\n", 3, &e), 0);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(launch_mpirun.command(&request, &a, &c, &e), 0);
    assert_string_equal(c.argv[0], path);
    assert_string_equal(c.argv[1], "-n");
    assert_string_equal(c.argv[2], "3");
    assert_string_equal(value(&c, "OMPI_MCA_rmaps_base_oversubscribe"), "1");
    if (!geteuid())
        assert_string_equal(value(&c, "OMPI_ALLOW_RUN_AS_ROOT"), "1");
    check_worker(&c, 6);

    /* Ranks on other hosts: names of variables in argv, never a secret. */
    far.far = "gpu1:4663";
    far.status = "/runs/a-1/.hone/status";
    far.authority = "/runs/a-1/.hone/authority.crt";
    setenv("HONE_CONFINE", "/runs", 1);
    assert_int_equal(launch_mpirun.command(&far, &a, &c, &e), 0);
    unsetenv("HONE_CONFINE");
    assert_string_equal(value(&c, "HONE_UPLINK_FAR"), "gpu1:4663");
    assert_string_equal(value(&c, "HONE_UPLINK_AUTHORITY"), far.authority);
    for (size_t i = 6; i < 6 + 2 * 8; i += 2) {
        assert_string_equal(c.argv[i], "-x");
        assert_non_null(value(&c, c.argv[i + 1]));
    }
    for (size_t i = 0; c.argv[i]; i++)
        assert_null(strstr(c.argv[i], "secret"));
    check_worker(&c, 6 + 2 * 8);
    setenv("PATH", old, 1);
    free(old);
    arena_fini(&a);
    assert_int_equal(file_remove_tree(dir, &e), 0);
}

static void test_slurm(void **state)
{
    static const char *const options[] = {"--partition=gpu", "--nodes=2"};
    char dir[] = "/tmp/hone-launch-XXXXXX", path[64], *old = strdup(getenv("PATH"));
    struct launch_request r = request;
    struct launch_command c;
    struct arena a = {0};
    struct err e;

    (void)state;
    r.slurm = options;
    r.n_slurm = 2;
    assert_non_null(mkdtemp(dir));
    setenv("PATH", dir, 1);
    assert_int_equal(launch_slurm.command(&r, &a, &c, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "srun is not in PATH"));

    snprintf(path, sizeof path, "%s/srun", dir);
    assert_int_equal(file_write_atomic(path, "#!\n", 3, &e), 0);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(launch_slurm.command(&r, &a, &c, &e), 0);
    assert_string_equal(c.argv[0], path);
    assert_string_equal(c.argv[1], "--ntasks=3");
    assert_string_equal(c.argv[2], "--mpi=pmix");
    assert_string_equal(c.argv[6], "--dependency=singleton");
    assert_memory_equal(c.argv[7], "--job-name=hone-7-sft-", 22);
    assert_string_equal(c.argv[8], "--partition=gpu");
    assert_string_equal(c.argv[9], "--nodes=2");
    check_worker(&c, 10);

    r.workers = 1; /* no MPI for one */
    assert_int_equal(launch_slurm.command(&r, &a, &c, &e), 0);
    assert_string_equal(c.argv[2], "--mpi=none");
    setenv("PATH", old, 1);
    free(old);
    arena_fini(&a);
    assert_int_equal(file_remove_tree(dir, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_local),
        cmocka_unit_test(test_mpirun),
        cmocka_unit_test(test_slurm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
