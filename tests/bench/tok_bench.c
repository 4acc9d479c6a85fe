/* Speed of a tokenizer on one thread: `tok_bench MODEL_DIR TEXTS [PASSES]`; TEXTS holds one
 * text a line. Prints JSON: megabytes, tokens, and MB/s of the best pass by the wall clock
 * and by CPU time, which does not run while a neighbour has the core. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"
#include "worker/tok/tok.h"

static double seconds(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int encode_lines(const struct tok *t, const char *text, size_t n,
                        struct tok_ids *out, struct err *e)
{
    int r = 0;

    for (size_t at = 0, len; !r && at < n; at += len + 1) {
        const char *end = memchr(text + at, '\n', n - at);

        len = end ? (size_t)(end - text) - at : n - at;
        r = tok_encode(t, text + at, len, out, e);
    }
    return r;
}

int main(int argc, char **argv)
{
    struct tok *t = NULL;
    struct tok_ids ids = {0};
    char *text = NULL;
    size_t n = 0;
    struct err e = {0};
    double wall = 1e9, cpu = 1e9;
    int passes = argc > 3 ? atoi(argv[3]) : 5;
    int r = argc < 3 ? err_set(&e, ERR_USAGE, "tok_bench MODEL_DIR TEXTS [PASSES]") : 0;

    if (!r)
        r = tok_open(&t, argv[1], &e);
    if (!r)
        r = file_read(argv[2], (size_t)1 << 30, &text, &n, &e);
    for (int i = 0; !r && i < passes; i++) {
        double w = seconds(CLOCK_MONOTONIC), c = seconds(CLOCK_PROCESS_CPUTIME_ID);

        ids.n = 0;
        r = encode_lines(t, text, n, &ids, &e);
        w = seconds(CLOCK_MONOTONIC) - w;
        c = seconds(CLOCK_PROCESS_CPUTIME_ID) - c;
        wall = w < wall ? w : wall;
        cpu = c < cpu ? c : cpu;
    }
    if (r)
        err_print(&e, "tok_bench");
    else
        printf("{\"mb\": %.3f, \"tokens\": %zu, \"mb_s\": %.2f, \"mb_cpu_s\": %.2f}\n",
               (double)n / 1e6, ids.n, (double)n / 1e6 / wall, (double)n / 1e6 / cpu);
    tok_ids_fini(&ids);
    mem_free(text);
    tok_close(t);
    return r ? err_exit_status(r) : 0;
}
