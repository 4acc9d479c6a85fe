/* Replays recorded vectors {"text", "pair", "ids", "ids_no_special", "type_ids", "decoded"}
 * of Hugging Face tokenizers. Folders come from HONE_SHARED; absent ones are skipped. */
#ifndef TESTS_UNIT_TOK_VECTORS_H
#define TESTS_UNIT_TOK_VECTORS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/tok/tok.h"

static inline const char *shared_path(char *out, size_t n, const char *path)
{
    const char *root = getenv("HONE_SHARED");

    snprintf(out, n, "%s/%s", root && *root ? root : "../shared", path);
    return out;
}

static inline int same_ids(const json_t *want, const int *id, size_t n, const char *what,
                           const char *text)
{
    int same = json_array_size(want) == n;

    for (size_t i = 0; same && i < n; i++)
        same = json_integer_value(json_array_get(want, i)) == id[i];
    if (same)
        return 1;
    fprintf(stderr, "%s of \"%s\":\n  got ", what, text);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, " %d", id[i]);
    fprintf(stderr, "\n  want");
    for (size_t i = 0; i < json_array_size(want); i++)
        fprintf(stderr, " %lld", (long long)json_integer_value(json_array_get(want, i)));
    fprintf(stderr, "\n");
    return 0;
}

static inline void put_specials(struct tok_ids *out, const int *id, int n)
{
    struct err e;

    for (int i = 0; i < n; i++) {
        if (out->n == out->cap) {
            out->cap = out->cap * 2 + 64;
            out->id = mem_resize(out->id, out->cap, sizeof *out->id);
            invariant(out->id || !err_set(&e, ERR_NOMEM, "ids"));
        }
        out->id[out->n++] = id[i];
    }
}

/* Number of differences in one vector. */
static inline int check_vector(const struct tok *t, const json_t *v)
{
    const char *text = json_string_value(json_object_get(v, "text"));
    const char *second = json_string_value(json_object_get(v, "pair"));
    const char *decoded = json_string_value(json_object_get(v, "decoded"));
    const json_t *plain = json_object_get(v, "ids_no_special");
    const json_t *types = json_object_get(v, "type_ids");
    struct tok_ids a = {0}, all = {0};
    struct tok_frame f;
    struct str s = {0};
    size_t at_middle = 0, at_second = 0;
    int bad = 0;
    struct err e;

    bad += tok_encode(t, text, strlen(text), &a, &e) != 0;
    if (plain)
        bad += !same_ids(plain, a.id, a.n, "ids_no_special", text);
    tok_frame(t, second != NULL, &f);
    put_specials(&all, f.prefix, f.n_prefix);
    bad += tok_encode(t, text, strlen(text), &all, &e) != 0;
    if (second) {
        at_middle = all.n;
        put_specials(&all, f.middle, f.n_middle);
        at_second = all.n;
        bad += tok_encode(t, second, strlen(second), &all, &e) != 0;
    }
    put_specials(&all, f.suffix, f.n_suffix);
    bad += !same_ids(json_object_get(v, "ids"), all.id, all.n, "ids", text);
    for (size_t i = 0; types && i < json_array_size(types); i++)
        bad += json_integer_value(json_array_get(types, i)) != (i >= at_second ? f.pair_type
                                                                : i >= at_middle
                                                                    ? f.middle_type
                                                                    : 0);
    if (decoded) {
        bad += tok_decode(t, a.id, a.n, 0, &s, &e) != 0;
        if (strcmp(str_get(&s), decoded) != 0) {
            fprintf(stderr, "decoded:\n  got  \"%s\"\n  want \"%s\"\n", str_get(&s),
                    decoded);
            bad++;
        }
    }
    tok_ids_fini(&a);
    tok_ids_fini(&all);
    str_fini(&s);
    return bad;
}

/* Number of differences over a file of vectors, -1: no file; *n counts the vectors. */
static inline int check_vectors(const struct tok *t, const char *path, int *n)
{
    char *text = NULL, *line, *end;
    size_t len;
    int bad = 0;
    struct err e;

    *n = 0;
    if (file_read(path, 64 << 20, &text, &len, &e))
        return -1;
    for (line = text; line < text + len; line = end + 1) {
        json_t *v;

        end = memchr(line, '\n', (size_t)(text + len - line));
        if (!end)
            end = text + len;
        if (end == line)
            continue;
        if (json_parse("vectors", line, (size_t)(end - line), &v, &e)) {
            bad++;
            continue;
        }
        bad += check_vector(t, v);
        json_decref(v);
        ++*n;
    }
    mem_free(text);
    return bad;
}

#endif
