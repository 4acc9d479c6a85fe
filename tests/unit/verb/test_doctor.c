/* hone doctor on machines that are made of files: limits of both versions of control
 * groups, nested ones, nonsense; then what is advised for which machine, and the speeds of
 * this one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "worker/verb/doctor.h"

static char root[] = "/tmp/hone_machine_XXXXXX";

static int make_root(void **state)
{
    (void)state;
    strcpy(root + strlen(root) - 6, "XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(root, &e);
}

static void put(const char *path, const char *text)
{
    char full[512], dir[512];
    struct err e;

    snprintf(full, sizeof full, "%s%s", root, path);
    file_dirname(dir, sizeof dir, full);
    assert_int_equal(file_make_dirs(dir, &e), 0);
    assert_int_equal(file_write_atomic(full, text, strlen(text), &e), 0);
}

static const char two_sockets[] =
    "processor\t: 0\nmodel name\t: Big CPU @ 2 GHz\nphysical id\t: 0\ncore id\t\t: 0\n"
    "flags\t\t: fpu avx avx2 fma avx512f avx512_bf16 amx_bf16 f16c\n\n"
    "processor\t: 1\nmodel name\t: Big CPU @ 2 GHz\nphysical id\t: 0\ncore id\t\t: 0\n"
    "flags\t\t: fpu\n\n"
    "processor\t: 2\nphysical id\t: 1\ncore id\t\t: 0\nflags\t\t: fpu\n";

static void test_processor(void **state)
{
    struct machine m;

    (void)state;
    put("/proc/cpuinfo", two_sockets);
    put("/proc/loadavg", "1.50 0 0 1/1 1\n");
    machine_read(&m, root);
    assert_string_equal(m.cpu, "Big CPU @ 2 GHz");
    assert_int_equal(m.logical, 3);
    assert_int_equal(m.cores, 2);
    assert_true(m.fast && m.load == 1.5);
    assert_string_equal(m.flag[0], "AVX2");
    assert_string_equal(m.flag[3], "AVX-512");
    assert_string_equal(m.flag[4], "AVX512_BF16");
    assert_string_equal(m.flag[5], "AMX-BF16");
    assert_null(m.flag[6]);
    put("/proc/cpuinfo", "flags : avx avx2x xfma avx5\nprocessor");
    machine_read(&m, root);
    assert_false(m.fast);
    assert_null(m.flag[0]);
    assert_true(m.logical >= 1);
}

static void test_group_version_2(void **state)
{
    struct machine m;

    (void)state;
    put("/proc/meminfo", "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n");
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "150000 100000\n");
    put("/sys/fs/cgroup/a/b/memory.max", "4000000000\n");
    put("/sys/fs/cgroup/a/b/memory.current", "1000000\n");
    put("/sys/fs/cgroup/a/memory.max", "3000000000\n");
    put("/sys/fs/cgroup/memory.max", "max\n");
    machine_read(&m, root);
    assert_true(m.memory == 16000000.0 * 1024 && m.available == 8000000.0 * 1024);
    assert_true(m.quota == 1.5 && m.memory_limit == 3e9 && m.memory_used == 1e6);
    m.affinity = 8;
    assert_int_equal(machine_usable(&m), 1);
    m.quota = 0.2;
    assert_int_equal(machine_usable(&m), 1);
    m.quota = 0;
    assert_int_equal(machine_usable(&m), 8);
}

static void test_group_version_1(void **state)
{
    struct machine m;

    (void)state;
    put("/proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/\n9:name=systemd:/\n");
    put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2000000000\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    machine_read(&m, root);
    assert_true(m.quota == 3 && m.memory_limit == 2e9);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    machine_read(&m, root);
    assert_true(m.quota == 0);
}

/* Nothing there, and nonsense everywhere: facts stay unknown. */
static void test_nonsense(void **state)
{
    static const char *const files[] = {
        "/proc/cpuinfo",           "/proc/meminfo",          "/proc/loadavg",
        "/proc/self/cgroup",       "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/a/cpu.max"};
    static const char *const texts[] = {"",
                                        "\n\n",
                                        ":::\n::\n0::",
                                        "0::/../../etc\n",
                                        "-5 -5\nMemTotal: -5 kB",
                                        "nan inf",
                                        "1e999 0\nMemTotal:\nflags:\nmodel name"};
    struct machine m;

    (void)state;
    machine_read(&m, root);
    assert_true(m.memory == 0 && m.quota == 0 && m.memory_limit == 0 && m.shm == 0);
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        for (size_t f = 0; f < sizeof files / sizeof *files; f++)
            put(files[f], texts[t]);
        machine_read(&m, root);
        assert_true(m.memory == 0 && m.quota == 0 && m.memory_limit == 0);
        assert_true(m.load >= 0 && machine_usable(&m) >= 1);
    }
}

/* ---- advice -------------------------------------------------------------------------- */

static struct machine good(void)
{
    return (struct machine){.logical = 16,
                            .affinity = 16,
                            .fast = 1,
                            .memory = 64e9,
                            .available = 32e9,
                            .disk_free = 100e9,
                            .shm = 32e9,
                            .shm_free = 32e9,
                            .mpirun = "/usr/bin/mpirun",
                            .open_mpi = 1};
}

static void advised(const struct machine *m, const struct speed *s, const char *cuda,
                    const char *what, const char *mend)
{
    struct advice a[ADVICE_MAX];
    int n = advise(m, s, cuda, a), met = 0;

    for (int i = 0; i < n; i++) {
        assert_true(a[i].what[0] && a[i].mend[0]);
        met |= strstr(a[i].what, what) && strstr(a[i].mend, mend);
    }
    if (!met)
        fail_msg("no advice with \"%s\" and \"%s\" among %d", what, mend, n);
}

static void test_advice(void **state)
{
    struct speed s = {.threads = 16, .f32_one = 100e9, .f32_all = 1500e9};
    struct advice none[ADVICE_MAX];
    struct machine m = good();

    (void)state;
    assert_int_equal(advise(&m, &s, "no driver", none), 0);
    assert_int_equal(advise(&m, NULL, "", none), 0);
#define CASE(change, cuda, what, mend)                                                     \
    m = good();                                                                            \
    change;                                                                                \
    advised(&m, &s, cuda, what, mend)
    CASE(m.fast = 0, "", "no AVX2", "AVX2");
    CASE(m.quota = 1.5, "", "allows 1.5 CPUs' time of 16", "cpu.max");
    CASE(m.affinity = 8, "", "8 of 16 CPUs", "taskset");
    CASE(m.affinity = m.logical = 2, "", "few cores: 2", "GPU");
    CASE(m.load = 20, "", "load 20.0", "wait");
    CASE(m.available = 1e9, "", "1.0 GB can be had", "micro_tokens");
    CASE(m.memory_limit = 19e8, "", "of a limit of 1.9 GB", "memory.max");
    CASE((m.memory_limit = 9e9, m.memory_used = 8e9), "", "1.0 GB can be had", "memory");
    CASE(m.disk_free = 1e9, "", "1.0 GB free here", "--out");
    CASE(m.shm_free = 64e6, "", "/dev/shm has 64 MB", "--shm-size");
    CASE(m.shm = 0, "", "no /dev/shm", "mount");
    CASE(m.mpirun[0] = 0, "", "mpirun is not in PATH", "openmpi-bin");
    CASE(m.root = 1, "", "refuses to start ranks for root", "OMPI_ALLOW_RUN_AS_ROOT=1");
    CASE(m.gpus = 1, "no plug-in", "no plug-in", "CPUs do the work");
    CASE(s.f32_all = 110e9, "", "hardly faster", "neighbours");
#undef CASE
    m = good();
    m.root = m.mpi_root_allowed = 1;
    s.f32_all = 1500e9;
    assert_int_equal(advise(&m, &s, "", none), 0);
}

/* ---- GPUs ---------------------------------------------------------------------------- */

static void test_gpu_links(void **state)
{
    struct machine m;

    (void)state;
    put("/proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t NVIDIA X\n");
    put("/sys/bus/pci/devices/0000:01:00.0/current_link_width", "4\n");
    put("/sys/bus/pci/devices/0000:01:00.0/max_link_width", "16\n");
    put("/sys/bus/pci/devices/0000:01:00.0/max_link_speed", "16.0 GT/s PCIe\n");
    put("/proc/driver/nvidia/gpus/0000:02:00.0/information", "Model: \t NVIDIA X\n");
    put("/sys/bus/pci/devices/0000:02:00.0/max_link_width", "nonsense\n");
    machine_read(&m, root);
    assert_int_equal(m.gpus, 2);
    assert_true(m.lanes[0] == 4 && m.lanes_most[0] == 16 && m.transfers[0] == 16e9);
    assert_true(m.lanes[1] == 0 && m.lanes_most[1] == 0 && m.transfers[1] == 0);
    assert_false(m.iommu);
    put("/sys/class/iommu/dmar0/x", "");
    machine_read(&m, root);
    assert_true(m.iommu);
}

/* Two GPUs as they should be: PCIe 4.0 x16, peers, a sum that is not far below a copy. */
static void good_gpus(struct machine *m, struct gpu_speed *s)
{
    *m = (struct machine){.gpus = 2, .gpu = {"X", "X"}};
    *s = (struct gpu_speed){.links.n = 2, .latency = 3e-5, .sum = {1e10, 1.1e10, 1.2e10}};
    for (int i = 0; i < 2; i++) {
        m->lanes[i] = m->lanes_most[i] = 16;
        m->transfers[i] = 16e9;
        s->links.to_device[i] = s->links.from_device[i] = 25e9;
        s->links.peer[i][1 - i] = 1;
    }
}

static void test_gpu_advice(void **state)
{
    struct advice a[ADVICE_MAX];
    struct machine m;
    struct gpu_speed s;

    (void)state;
    good_gpus(&m, &s);
    assert_int_equal(gpu_advise(&m, &s, a, 3), 3);
#define CASE(change, words, help)                                                          \
    good_gpus(&m, &s);                                                                     \
    change;                                                                                \
    assert_int_equal(gpu_advise(&m, &s, a, 0), 1);                                         \
    if (!strstr(a[0].what, words) || !strstr(a[0].mend, help))                             \
    fail_msg("%s: %s", a[0].what, a[0].mend)
    CASE((m.lanes[1] = 4, s.links.to_device[1] = 6.5e9), "GPU 1 (X) has 4 of its 16",
         "slot");
    CASE(s.links.from_device[0] = 9e9, "the host and GPU 0 reach 9.0 GB/s, its link 31.5",
         "BIOS");
    CASE((s.links.peer[0][1] = s.links.peer[1][0] = 0),
         "1 of 1 pairs of GPUs do not reach each other's", "gradients: bf16");
    CASE((s.sum[GPU_SIZES - 1] = 2e9, m.iommu = 1),
         "the sum over 2 GPUs reaches 2.0 GB/s, where copies reach 25.0; the IOMMU is on",
         "ACS");
#undef CASE
    good_gpus(&m, &s); /* nothing is known: nothing is said */
    memset(&s, 0, sizeof s);
    memset(m.lanes, 0, sizeof m.lanes);
    assert_int_equal(gpu_advise(&m, &s, a, 0), 0);
    good_gpus(&m, &s);
    m.lanes[0] = 4;
    assert_int_equal(gpu_advise(&m, &s, a, ADVICE_MAX), ADVICE_MAX);
}

static void test_speeds(void **state)
{
    struct speed s;
    struct err e;

    (void)state;
    if (speed_measure(&s, backend_find("cpu"), &e))
        fail_msg("%s", e.msg);
    assert_int_equal(s.threads, backend_find("cpu")->threads());
    assert_true(s.f32_one > 1e8 && s.f32_one < 1e13);
    assert_true(s.bf16_one > 1e7 && s.bf16_one < 1e14 && s.bf16_all > 1e7);
    assert_true(s.f32_all > 1e8 && s.triad > 1e8 && s.triad < 1e13);
    assert_true(s.bf16_one > 1e7 && s.bf16_all > 1e7);
    ranks_measure(&s, "");
    assert_true(s.all_reduce == 0 && strstr(s.why_no_sum, "not in PATH"));
    ranks_measure(&s, "/bin/true");
    assert_true(s.all_reduce == 0 && strstr(s.why_no_sum, "says nothing"));
    ranks_measure(&s, "/nowhere/mpirun");
    assert_true(s.all_reduce == 0 && s.why_no_sum[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_processor, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_group_version_2, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_group_version_1, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_nonsense, make_root, remove_root),
        cmocka_unit_test(test_advice),
        cmocka_unit_test_setup_teardown(test_gpu_links, make_root, remove_root),
        cmocka_unit_test(test_gpu_advice),
        cmocka_unit_test(test_speeds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
