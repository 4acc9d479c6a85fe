/* Fuzzer: tokenizer.json, and text. Up to the first NUL the input is a tokenizer's file,
 * behind it (or all of it, where that file is refused) is text for it or for a small
 * WordPiece tokenizer. Ids must be tokens, and decoding must succeed. */
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "worker/tok/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char small[] =
    "{\"normalizer\": {\"type\": \"BertNormalizer\"}, \"pre_tokenizer\": {\"type\": "
    "\"BertPreTokenizer\"}, \"decoder\": {\"type\": \"WordPiece\"}, \"added_tokens\": "
    "[{\"id\": "
    "9, \"content\": \"<Q>\", \"normalized\": true, \"lstrip\": true}], \"model\": "
    "{\"type\": "
    "\"WordPiece\", \"vocab\": {\"[UNK]\": 0, \"a\": 1, \"##a\": 2, \"##\xcc\x81\": 3, "
    "\"!\": "
    "4}}}";

static struct tok *open_bytes(const char *s, size_t n)
{
    char *copy = mem_alloc(n + 1);
    struct tok_file f = {0};
    struct vocab v = {0};
    struct tok *t = NULL;
    struct err e = {0};

    if (!copy)
        return NULL;
    memcpy(copy, s, n);
    if (!tok_file_parse(&f, &v, "f", copy, n, &e))
        tok_make(&t, &f, &v, &e);
    vocab_fini(&v);
    tok_file_fini(&f);
    return t;
}

static void encode(const struct tok *t, const char *s, size_t n)
{
    struct tok_ids ids = {0};
    struct str text = {0};
    struct err e = {0};

    n = str_utf8_valid(s, n);
    if (!tok_encode(t, s, n, &ids, &e)) {
        for (size_t i = 0; i < ids.n; i++)
            invariant(tok_token(t, ids.id[i]));
        invariant(!tok_decode(t, ids.id, ids.n, 1, &text, &e));
    }
    tok_ids_fini(&ids);
    str_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data, *cut = size ? memchr(s, 0, size) : NULL;
    size_t head = cut ? (size_t)(cut - s) : size;
    struct tok *t = open_bytes(s, head), *tiny = open_bytes(small, sizeof small - 1);

    if (t)
        encode(t, s + head, size - head);
    invariant(tiny);
    encode(tiny, s, size);
    tok_close(t);
    tok_close(tiny);
    return 0;
}
