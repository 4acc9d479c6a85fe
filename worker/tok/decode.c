/* Decoders: from ids back to text, as the file's decoder does. */
#include <string.h>

#include "base/mem.h"
#include "worker/tok/bytelevel.h"
#include "worker/tok/internal.h"
#include "worker/tok/unicode.h"

int tok_decoder_read(struct tok *t, const struct tok_file *f, struct err *e)
{
    const char *type = tok_part_type(f->decoder), *prefix;

    if (!f->decoder) {
        t->decoder = DECODER_SPACES;
        return 0;
    }
    if (!strcmp(type, "ByteLevel")) {
        t->decoder = DECODER_BYTES;
        return 0;
    }
    if (strcmp(type, "WordPiece") != 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: decoder %.60s is not supported", f->path,
                       *type ? type : "without a type");
    prefix = json_string_value(json_object_get(f->decoder, "prefix"));
    t->decoder = DECODER_WORDPIECE;
    t->decoder_prefix = arena_strdup(&t->arena, prefix ? prefix : "##");
    t->decoder_cleanup = tok_part_flag(f->decoder, "cleanup", 1);
    return t->decoder_prefix ? 0 : err_set(e, ERR_NOMEM, "decoder: out of memory");
}

/* English spacing, in the library's order; it goes over one token at a time. */
static void add_clean(struct str *out, struct str *work, struct str *next,
                      const char *token)
{
    static const char *const from[] = {" .",  " ?",      " !",  " ,",   " ' ", " n't",
                                       " 'm", " do not", " 's", " 've", " 're"};
    static const char *const to[] = {".",  "?",      "!",  ",",   "'",  "n't",
                                     "'m", " don't", "'s", "'ve", "'re"};

    str_clear(work);
    str_add(work, token);
    for (size_t k = 0; k < sizeof from / sizeof *from; k++) {
        const char *s = str_get(work), *hit = strstr(s, from[k]);
        struct str swap;

        if (!hit)
            continue;
        str_clear(next);
        for (; hit; hit = strstr(s, from[k])) {
            str_add_bytes(next, s, (size_t)(hit - s));
            str_add(next, to[k]);
            s = hit + strlen(from[k]);
        }
        str_add(next, s);
        swap = *work;
        *work = *next;
        *next = swap;
    }
    str_add_bytes(out, str_get(work), work->len);
}

static void wordpiece(const struct tok *t, const char *token, int first, struct str *s,
                      struct str *out)
{
    size_t skip = strlen(t->decoder_prefix);
    struct str work = {0}, next = {0};

    str_clear(s);
    if (first) {
        str_add(s, token);
    } else if (!strncmp(token, t->decoder_prefix, skip)) {
        str_add(s, token + skip);
    } else {
        str_add_char(s, ' ');
        str_add(s, token);
    }
    if (t->decoder_cleanup)
        add_clean(out, &work, &next, str_get(s));
    else
        str_add_bytes(out, str_get(s), s->len);
    out->failed |= s->failed | work.failed | next.failed;
    str_fini(&work);
    str_fini(&next);
}

/* Characters of the alphabet are bytes; a token with any other is taken as it is. */
static void byte_level(const char *token, struct str *bytes)
{
    const unsigned char *p = (const unsigned char *)token;
    size_t before = bytes->len;

    while (*p) {
        int b = bytelevel_byte(unicode_next(&p));

        if (b < 0) {
            bytes->len = before;
            str_add(bytes, token);
            return;
        }
        str_add_char(bytes, (char)b);
    }
}

int tok_decode(const struct tok *t, const int *id, size_t n, int skip_special,
               struct str *out, struct err *e)
{
    struct str s = {0};
    int first = 1;

    for (size_t i = 0; i < n; i++) {
        const char *token = tok_token(t, id[i]);

        if (!token || (skip_special && t->special[id[i]]))
            continue;
        if (t->decoder == DECODER_WORDPIECE) {
            wordpiece(t, token, first, &s, out);
        } else if (t->decoder == DECODER_BYTES) {
            byte_level(token, &s);
        } else {
            if (!first)
                str_add_char(out, ' ');
            str_add(out, token);
        }
        first = 0;
    }
    if (t->decoder == DECODER_BYTES)
        bytelevel_add_lossy(str_get(&s), s.len, out);
    out->failed |= s.failed;
    str_fini(&s);
    return str_failed(out) ? err_set(e, ERR_NOMEM, "text of tokens: out of memory") : 0;
}
