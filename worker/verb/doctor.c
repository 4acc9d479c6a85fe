/* hone doctor: what this machine offers and how fast it is, with warnings and their mends.
 * A table for people, one JSON document for scripts. Warnings do not change the exit
 * status: 0. */
#include "worker/verb/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "worker/train/health.h"
#include "worker/verb/verb.h"

struct doctor_args {
    int json, quick;
};

static const struct arg_flag flags[] = {
    ARG_SWITCH("--json", "one JSON document on standard output", struct doctor_args, json),
    ARG_SWITCH("--quick", "measure nothing", struct doctor_args, quick),
    ARG_END,
};
static const struct arg_spec usage = {
    "hone doctor",
    "[--json] [--quick]",
    "Shows what this machine offers: cores, instructions, memory, GPUs, MPI; measures "
    "matrix\nproducts, memory and the sum over two processes (about two seconds), of GPUs "
    "their links to\nthe host and to each other, and the sum over all of them; warns, with "
    "the mend.",
    flags,
    0,
    0,
    0};

struct report {
    struct machine machine;
    struct speed speed;
    const struct speed *measured; /* NULL: not asked for */
    const char *cuda;             /* why there is none; "" */
    char kernels[160], gpu[160];
    int devices;
    struct gpu_speed gpu_speed; /* links.n 0 and why empty: not measured */
    struct health health;       /* of the GPUs; none where NVML is silent */
    struct advice advice[ADVICE_MAX];
    int warnings;
};

/* ---- for people ---------------------------------------------------------------------- */

static void print_cpu(const struct machine *m, const char *kernels)
{
    char quota[48] = "no limit";

    if (m->quota > 0)
        snprintf(quota, sizeof quota, "%g CPUs' time", m->quota);
    printf("machine        %s\n", m->host);
    printf("processor      %s\n", m->cpu[0] ? m->cpu : "unknown");
    printf("instructions  ");
    for (int i = 0; m->flag[i]; i++)
        printf(" %s", m->flag[i]);
    printf("%s\n", m->flag[0] ? "" : " none that Hone uses");
    printf(
        "cores          %d usable; %d CPUs online, %d cores, affinity %d, control group: "
        "%s\n",
        machine_usable(m), m->logical, m->cores, m->affinity, quota);
    printf("kernels        %s\n", kernels);
}

static void print_memory(const struct machine *m)
{
    char a[32], b[32];

    printf("memory         %s, %s available; control group: ",
           str_bytes(a, sizeof a, m->memory), str_bytes(b, sizeof b, m->available));
    if (m->memory_limit > 0)
        printf("%s of %s used\n", str_bytes(a, sizeof a, m->memory_used),
               str_bytes(b, sizeof b, m->memory_limit));
    else
        printf("no limit\n");
    printf("/dev/shm       %s, %s free\n", str_bytes(a, sizeof a, m->shm),
           str_bytes(b, sizeof b, m->shm_free));
    printf("disk           %s free in this folder\n", str_bytes(a, sizeof a, m->disk_free));
}

static void print_helpers(const struct report *r)
{
    const struct machine *m = &r->machine;

    if (m->gpus)
        printf("GPUs           %d: %s%s\n", m->gpus, m->gpu[0], m->gpus > 1 ? ", ..." : "");
    else
        printf("GPUs           none\n");
    for (int i = 0; i < r->health.n; i++) {
        struct str line = {0};

        health_line(&r->health.gpu[i], &line);
        printf("GPU %-2d         %s\n", i, str_get(&line));
        str_fini(&line);
    }
    printf("CUDA           %s\n", r->cuda[0] ? r->cuda : r->gpu);
    printf("NCCL           %s\n", m->nccl   ? "libnccl.so.2"
                                  : m->gpus ? "none"
                                            : "not needed");
    if (m->mpirun[0])
        printf("MPI            %s, %s\n", m->mpi[0] ? m->mpi : "unknown version",
               m->mpirun);
    else
        printf("MPI            none: mpirun is not in PATH\n");
    printf("Slurm          %s\n", m->slurm ? "sbatch is in PATH" : "none");
}

static void print_speed(const struct speed *s)
{
    char what[64];

    printf("\n%-42s %8s %8d\n", "measured with threads", "1", s->threads);
    printf("%-42s %8.1f %8.1f\n", "matrix products, f32 (GFLOP/s)", s->f32_one / 1e9,
           s->f32_all / 1e9);
    snprintf(what, sizeof what, "matrix products, bf16 by %s (GFLOP/s)",
             s->bf16 ? s->bf16 : "rounding");
    printf("%-42s %8.1f %8.1f\n", what, s->bf16_one / 1e9, s->bf16_all / 1e9);
    printf("%-42s %8s %8.1f\n", "memory, a = b + s c (GB/s)", "", s->triad / 1e9);
    if (s->all_reduce > 0)
        printf("%-42s %8s %8.1f\n", "all-reduce of 16 MiB, 2 processes (GB/s)", "",
               s->all_reduce / 1e9);
    else
        printf("%-42s %s\n", "all-reduce, 2 processes", s->why_no_sum);
}

static void print_report(const struct report *r)
{
    print_cpu(&r->machine, r->kernels);
    print_memory(&r->machine);
    print_helpers(r);
    if (r->measured)
        print_speed(r->measured);
    if (r->measured)
        gpu_print(&r->gpu_speed);
    printf("\n");
    for (int i = 0; i < r->warnings; i++)
        printf("warning: %s\n  try: %s\n", r->advice[i].what, r->advice[i].mend);
    if (!r->warnings)
        printf("nothing to mend\n");
}

/* ---- for scripts --------------------------------------------------------------------- */

static void text(struct str *s, const char *key, const char *value)
{
    str_addf(s, "\"%s\": ", key);
    str_add_json(s, value, strlen(value));
}

static void number(struct str *s, const char *key, double x)
{
    str_addf(s, ", \"%s\": ", key);
    json_number(s, x);
}

static void limit(struct str *s, const char *key, double x)
{
    if (x > 0)
        number(s, key, x);
    else
        str_addf(s, ", \"%s\": null", key);
}

static const char *truth(int x)
{
    return x ? "true" : "false";
}

static void write_machine(const struct report *r, struct str *s)
{
    const struct machine *m = &r->machine;

    text(s, "host", m->host);
    str_add(s, ", \"cpu\": {");
    text(s, "model", m->cpu);
    number(s, "online", m->logical);
    number(s, "cores", m->cores);
    number(s, "affinity", m->affinity);
    limit(s, "quota", m->quota);
    number(s, "usable", machine_usable(m));
    number(s, "load", m->load);
    str_add(s, ", \"instructions\": [");
    for (int i = 0; m->flag[i]; i++)
        str_addf(s, "%s\"%s\"", i ? ", " : "", m->flag[i]);
    str_add(s, "], ");
    text(s, "kernels", r->kernels);
    str_add(s, "}, \"memory\": {\"bytes\": ");
    json_number(s, m->memory);
    number(s, "available", m->available);
    limit(s, "limit", m->memory_limit);
    limit(s, "used_of_limit", m->memory_limit > 0 ? m->memory_used : 0);
    str_add(s, "}, \"shm\": {\"bytes\": ");
    json_number(s, m->shm);
    number(s, "free", m->shm_free);
    str_add(s, "}, \"disk\": {\"free\": ");
    json_number(s, m->disk_free);
    str_add(s, "}, \"gpus\": [");
    for (int i = 0; i < m->gpus; i++) {
        str_add(s, i ? ", " : "");
        str_add_json(s, m->gpu[i], strlen(m->gpu[i]));
    }
    str_add(s, "], \"gpu_health\": [");
    for (int i = 0; i < r->health.n; i++) {
        struct str line = {0};

        health_line(&r->health.gpu[i], &line);
        str_add(s, i ? ", " : "");
        str_add_json(s, str_get(&line), strlen(str_get(&line)));
        str_fini(&line);
    }
    str_addf(s, "], \"cuda\": {\"usable\": %s, ", truth(!r->cuda[0]));
    text(s, "reason", r->cuda);
    number(s, "devices", r->devices);
    str_addf(s, "}, \"nccl\": %s, \"slurm\": %s, \"mpi\": ", truth(m->nccl),
             truth(m->slurm));
    if (!m->mpirun[0]) {
        str_add(s, "null");
        return;
    }
    str_add_char(s, '{');
    text(s, "mpirun", m->mpirun);
    str_add(s, ", ");
    text(s, "version", m->mpi);
    str_addf(s, ", \"root_flags_needed\": %s}",
             truth(m->open_mpi && m->root && !m->mpi_root_allowed));
}

static void write_speed(const struct speed *m, struct str *s)
{
    str_addf(s, ", \"speed\": {\"threads\": %d", m->threads);
    number(s, "matmul_f32_flops_1", m->f32_one);
    number(s, "matmul_f32_flops", m->f32_all);
    number(s, "matmul_bf16_flops_1", m->bf16_one);
    number(s, "matmul_bf16_flops", m->bf16_all);
    str_add(s, ", ");
    text(s, "bf16", m->bf16 ? m->bf16 : "rounding");
    number(s, "triad_bytes", m->triad);
    limit(s, "all_reduce_bytes", m->all_reduce);
    str_add(s, ", ");
    text(s, "no_all_reduce", m->why_no_sum);
    str_add_char(s, '}');
}

static void write_gpu_speed(const struct gpu_speed *g, struct str *s)
{
    str_add(s, ", \"gpu_speed\": {\"devices\": [");
    for (int i = 0; i < g->links.n; i++) {
        str_addf(s, "%s{\"peers\": [", i ? ", " : "");
        for (int k = 0, n = 0; k < g->links.n; k++)
            if (g->links.peer[i][k])
                str_addf(s, "%s%d", n++ ? ", " : "", k);
        str_add(s, "]");
        limit(s, "to_device_bytes", g->links.to_device[i]);
        limit(s, "from_device_bytes", g->links.from_device[i]);
        str_add_char(s, '}');
    }
    str_add(s, "], \"all_reduce_bytes\": {");
    for (int i = 0; i < GPU_SIZES; i++) {
        str_addf(s, "%s\"%d MB\": ", i ? ", " : "", gpu_megabytes[i]);
        json_number(s, g->sum[i]);
    }
    str_add_char(s, '}');
    limit(s, "all_reduce_seconds", g->latency);
    str_add(s, ", ");
    text(s, "no_all_reduce", g->why_no_sum);
    str_add_char(s, '}');
}

static int print_json(const struct report *r, struct err *e)
{
    struct str s = {0};
    int rc = 0;

    str_addf(&s, "{\"version\": \"%s\", ", HONE_VERSION);
    write_machine(r, &s);
    if (r->gpu_speed.links.n)
        write_gpu_speed(&r->gpu_speed, &s);
    if (r->measured)
        write_speed(r->measured, &s);
    str_add(&s, ", \"warnings\": [");
    for (int i = 0; i < r->warnings; i++) {
        str_add(&s, i ? ", {" : "{");
        text(&s, "what", r->advice[i].what);
        str_add(&s, ", ");
        text(&s, "mend", r->advice[i].mend);
        str_add_char(&s, '}');
    }
    str_add(&s, "]}");
    if (str_failed(&s))
        rc = err_set(e, ERR_NOMEM, "doctor: out of memory");
    else
        puts(str_get(&s));
    str_fini(&s);
    return rc;
}

/* ---- the whole ----------------------------------------------------------------------- */

static void add_advice(struct report *r, const char *what, const char *mend)
{
    struct advice *a = &r->advice[r->warnings];

    if (r->warnings == ADVICE_MAX)
        return;
    snprintf(a->what, sizeof a->what, "%.*s", (int)sizeof a->what - 1, what);
    snprintf(a->mend, sizeof a->mend, "%.*s", (int)sizeof a->mend - 1, mend);
    r->warnings++;
}

/* What NVML says of the GPUs, and what is wrong with them. */
static void examine_gpus(struct report *r)
{
    struct err e = {0};

    if (!r->machine.gpus && !getenv("HONE_NVML"))
        return;
    if (health_read(&r->health, &e)) {
        add_advice(r, e.msg, e.mend[0] ? e.mend : "install the driver's libnvidia-ml.so.1");
        return;
    }
    for (int i = 0; i < r->health.n; i++) {
        struct str alarm = {0};

        if (health_alarm(&r->health.gpu[i], &alarm))
            add_advice(r, str_get(&alarm),
                       "see nvidia-smi -q; leave it out with CUDA_VISIBLE_DEVICES");
        str_fini(&alarm);
    }
}

static int examine(struct report *r, int quick, struct err *e)
{
    const struct backend *cpu = backend_find("cpu"), *cuda = backend_find("cuda");
    int rc = 0;

    machine_read(&r->machine, "");
    r->cuda = backend_reason("cuda");
    if (cuda && !r->cuda[0]) {
        r->devices = cuda->devices();
        cuda->describe(r->gpu, sizeof r->gpu);
    }
    cpu->describe(r->kernels, sizeof r->kernels);
    if (!quick) {
        rc = speed_measure(&r->speed, cpu, e);
        ranks_measure(&r->speed, r->machine.mpirun);
        if (r->devices)
            gpu_measure(&r->gpu_speed, cuda, r->machine.mpirun);
        r->measured = &r->speed;
    }
    if (!rc)
        r->warnings = advise(&r->machine, r->measured, r->cuda, r->advice);
    if (!rc)
        r->warnings = gpu_advise(&r->machine, &r->gpu_speed, r->advice, r->warnings);
    if (!rc)
        examine_gpus(r);
    return rc;
}

int verb_doctor(int argc, char **argv)
{
    struct doctor_args a = {0};
    struct err e = {0};
    struct report *r;
    int rc;

    if (argc == 2 && (!strcmp(argv[1], RANKS_FLAG) || !strcmp(argv[1], RANKS_GPU_FLAG)))
        return ranks_answer(!strcmp(argv[1], RANKS_GPU_FLAG));
    rc = args_parse(&usage, argc, argv, &a, &e);
    if (rc)
        return verb_result(rc, &e);
    r = mem_alloc(sizeof *r);
    if (!r)
        return verb_result(err_set(&e, ERR_NOMEM, "doctor: out of memory"), &e);
    rc = examine(r, a.quick, &e);
    if (!rc && a.json)
        rc = print_json(r, &e);
    else if (!rc)
        print_report(r);
    mem_free(r);
    return verb_result(rc, &e);
}
