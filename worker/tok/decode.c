/* Decoders: from ids back to text, as the file's decoder does. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "worker/tok/bytelevel.h"
#include "worker/tok/internal.h"
#include "worker/tok/unicode.h"

static const char blank[] = "\xe2\x96\x81"; /* U+2581 */

/* Replace "\u2581" by a blank, ByteFallback, Fuse, and Strip of leading blanks. */
static int read_metaspace(struct tok *t, const json_t *list)
{
    static const char *const types[] = {"Replace", "ByteFallback", "Fuse", "Strip"};
    const json_t *replace = json_array_get(list, 0), *strip = json_array_get(list, 3);
    const json_t *from = json_object_get(json_object_get(replace, "pattern"), "String");
    const json_t *to = json_object_get(replace, "content");
    size_t n = json_array_size(list);

    for (size_t i = 0; i < n; i++)
        if (i > 3 || strcmp(tok_part_type(json_array_get(list, i)), types[i]) != 0)
            return 0;
    if (n < 3 || !json_is_string(from) || strcmp(json_string_value(from), blank) != 0 ||
        !json_is_string(to) || strcmp(json_string_value(to), " ") != 0)
        return 0;
    t->decoder = DECODER_METASPACE;
    t->decoder_strip = (int)json_integer_value(json_object_get(strip, "start"));
    return 1;
}

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
    if (!strcmp(type, "Sequence") &&
        read_metaspace(t, json_object_get(f->decoder, "decoders")))
        return 0;
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

/* Bytes that a run of "<0xE2>" stood for: as they are, or each one as U+FFFD. */
static void add_bytes(struct str *bytes, struct str *out)
{
    if (bytes->len && str_utf8_valid(str_get(bytes), bytes->len) == bytes->len)
        str_add_bytes(out, bytes->s, bytes->len);
    else
        for (size_t i = 0; i < bytes->len; i++)
            str_add(out, "\xef\xbf\xbd");
    str_clear(bytes);
}

static void metaspace(const char *token, struct str *bytes, struct str *out)
{
    const char *hit;
    unsigned byte;
    int used = 0;

    if (strlen(token) == 6 && sscanf(token, "<0x%2X>%n", &byte, &used) == 1 && used == 6) {
        str_add_char(bytes, (char)byte);
        return;
    }
    add_bytes(bytes, out);
    for (; (hit = strstr(token, blank)); token = hit + strlen(blank)) {
        str_add_bytes(out, token, (size_t)(hit - token));
        str_add_char(out, ' ');
    }
    str_add(out, token);
}

/* The fused text without the blanks that do not belong to it. */
static void strip(const struct tok *t, size_t from, struct str *out)
{
    size_t n = 0;

    while (out->s && n < (size_t)t->decoder_strip && from + n < out->len &&
           out->s[from + n] == ' ')
        n++;
    if (!n)
        return;
    memmove(out->s + from, out->s + from + n, out->len - from - n + 1);
    out->len -= n;
}

int tok_decode(const struct tok *t, const int *id, size_t n, int skip_special,
               struct str *out, struct err *e)
{
    struct str s = {0};
    size_t from = out->len;
    int first = 1;

    for (size_t i = 0; i < n; i++) {
        const char *token = tok_token(t, id[i]);

        if (!token || (skip_special && t->special[id[i]]))
            continue;
        if (t->decoder == DECODER_WORDPIECE) {
            wordpiece(t, token, first, &s, out);
        } else if (t->decoder == DECODER_BYTES) {
            byte_level(token, &s);
        } else if (t->decoder == DECODER_METASPACE) {
            metaspace(token, &s, out);
        } else {
            if (!first)
                str_add_char(out, ' ');
            str_add(out, token);
        }
        first = 0;
    }
    if (t->decoder == DECODER_BYTES)
        bytelevel_add_lossy(str_get(&s), s.len, out);
    if (t->decoder == DECODER_METASPACE) {
        add_bytes(&s, out);
        strip(t, from, out);
    }
    out->failed |= s.failed;
    str_fini(&s);
    return str_failed(out) ? err_set(e, ERR_NOMEM, "text of tokens: out of memory") : 0;
}
