/* Hashes: one file for libxxhash and libmd. */
#include "base/hash.h"

#include <sha2.h>
#include <stdio.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/mem.h"

struct hash_stream {
    XXH3_state_t *state;
};

uint64_t hash_bytes(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

struct hash_stream *hash_new(void)
{
    struct hash_stream *h = mem_alloc(sizeof *h);

    if (!h)
        return NULL;
    h->state = XXH3_createState();
    if (!h->state || XXH3_128bits_reset(h->state) != XXH_OK) {
        hash_free(h);
        return NULL;
    }
    return h;
}

void hash_add(struct hash_stream *h, const void *p, size_t n)
{
    if (n)
        XXH3_128bits_update(h->state, p, n);
}

void hash_hex(struct hash_stream *h, char out[33])
{
    XXH128_hash_t x = XXH3_128bits_digest(h->state);

    snprintf(out, 33, "%016llx%016llx", (unsigned long long)x.high64,
             (unsigned long long)x.low64);
}

void hash_free(struct hash_stream *h)
{
    if (!h)
        return;
    XXH3_freeState(h->state);
    mem_free(h);
}

enum { WINDOW = 4 << 20 };

int hash_file(const char *path, char out[33], struct err *e)
{
    struct hash_stream *h = NULL;
    struct file_map m = {0};
    int rc = file_map_open(&m, path, e);

    if (rc)
        goto done;
    h = hash_new();
    if (!h) {
        rc = err_set(e, ERR_NOMEM, "hash %s: out of memory", path);
        goto done;
    }
    for (size_t at = 0, n; at < m.size; at += n) {
        n = m.size - at < WINDOW ? m.size - at : WINDOW;
        hash_add(h, m.bytes + at, n);
        /* Its pages are not ours to keep: a checkpoint is as large as the model. */
        madvise((void *)(m.bytes + at), n, MADV_DONTNEED);
    }
    hash_hex(h, out);
done:
    hash_free(h);
    file_map_close(&m);
    return rc;
}

void hash_sha256(const void *p, size_t n, unsigned char out[32])
{
    SHA2_CTX c;

    SHA256Init(&c);
    SHA256Update(&c, p, n);
    SHA256Final(out, &c);
}
