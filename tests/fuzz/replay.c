/* Replays a fuzzer's corpus without libFuzzer: every file of every folder (or file) named
 * on the command line, each also cut short at 64 places and with 256 bytes changed, so that
 * ctest tries a few thousand hostile inputs with any compiler. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CUTS = 64, CHANGES = 256, BYTES_MAX = 64 << 20 };

/* In its own block, so that a sanitizer sees a read beyond the end. */
static int one(const char *text, size_t n)
{
    char *copy = mem_alloc(n);

    if (!copy)
        return -1;
    memcpy(copy, text, n);
    LLVMFuzzerTestOneInput((const uint8_t *)copy, n);
    mem_free(copy);
    return 0;
}

static int replay(const char *path, long *count, struct err *e)
{
    static const char alphabet[] = "\0\xff\n\"{}[]:,-0\\ &*!";
    struct rng r;
    char *text;
    size_t n;
    int rc = file_read(path, BYTES_MAX, &text, &n, e), failed;

    if (rc)
        return rc;
    rng_init(&r, 1);
    failed = one(text, n);
    for (int i = 0; i < CUTS && n && !failed; i++)
        failed = one(text, rng_below(&r, (uint32_t)n));
    for (int i = 0; i < CHANGES && n && !failed; i++) {
        size_t at = rng_below(&r, (uint32_t)n);
        char old = text[at];

        text[at] = i % 2 ? alphabet[rng_below(&r, sizeof alphabet - 1)] : (char)rng_u32(&r);
        failed = one(text, n);
        text[at] = old;
    }
    mem_free(text);
    *count += 1 + (n ? CUTS + CHANGES : 0);
    return failed ? err_set(e, ERR_NOMEM, "%s: out of memory", path) : 0;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    long count = 0;
    int rc = 0;

    for (int i = 1; i < argc && !rc; i++) {
        char path[FILE_PATH_MAX], **names = NULL;
        size_t n = 0;

        if (!file_is_dir(argv[i])) {
            rc = replay(argv[i], &count, &e);
            continue;
        }
        rc = file_list(argv[i], &names, &n, &e);
        for (size_t k = 0; k < n; k++) {
            if (!rc)
                rc = file_join(path, sizeof path, argv[i], names[k], &e);
            if (!rc)
                rc = replay(path, &count, &e);
            mem_free(names[k]);
        }
        mem_free(names);
    }
    if (!rc && count == 0)
        rc = err_set(&e, ERR_USAGE, "no corpus: name a folder or files");
    if (rc) {
        err_print(&e, "replay");
        return err_exit_status(rc);
    }
    printf("%ld inputs\n", count);
    return 0;
}
