/* Added tokens: texts such as "[SEP]" that stand for one id wherever they occur.
 *
 * As in the library: at every place the longest of the tokens that match there; tokens
 * marked `normalized` are looked for in normalized text, after the others. lstrip and
 * rstrip swallow white space beside the token; single_word wants no word characters
 * beside it. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "worker/tok/internal.h"
#include "worker/tok/unicode.h"

enum { ADDED_MAX = 100000 };

static int read_one(struct tok *t, const struct tok_file *f, const json_t *o, size_t i,
                    struct tok_added *out, struct err *e)
{
    const char *text = json_string_value(json_object_get(o, "content"));
    const json_t *number = json_object_get(o, "id");
    json_int_t id = json_integer_value(number);
    int rc;

    if (!text || !json_is_integer(number) || id < 0 || id > VOCAB_ID_MAX)
        return err_set(e, ERR_CORRUPT,
                       "%s: added_tokens: entry %zu needs \"content\" and an \"id\"",
                       f->path, i);
    if (!*text)
        return err_set(e, ERR_CORRUPT, "%s: added_tokens: entry %zu is empty", f->path, i);
    out->text = arena_strdup(&t->arena, text);
    if (!out->text)
        return err_set(e, ERR_NOMEM, "added tokens: out of memory");
    out->len = strlen(text);
    out->special = tok_part_flag(o, "special", 0);
    out->single_word = tok_part_flag(o, "single_word", 0);
    out->lstrip = tok_part_flag(o, "lstrip", 0);
    out->rstrip = tok_part_flag(o, "rstrip", 0);
    out->normalized = tok_part_flag(o, "normalized", !out->special);
    out->id = vocab_find(&t->vocab, &t->whole, text, out->len);
    if (out->id >= 0)
        return 0;
    out->id = (int)id;
    rc = vocab_add(&t->vocab, text, out->len, id, e);
    return rc ? err_wrap(e, "%s: added_tokens", f->path) : 0;
}

/* Tokens that are looked for in normalized text are normalized themselves. */
static int normalize_content(const struct tok *t, struct tok_added *x, struct arena *a,
                             struct err *e)
{
    struct str s = {0};

    if (!x->normalized || !t->kind->normalize)
        return 0;
    t->kind->normalize(t, x->text, x->len, &s);
    x->text = str_failed(&s) ? NULL : arena_strndup(a, str_get(&s), s.len);
    x->len = s.len;
    str_fini(&s);
    return x->text ? 0 : err_set(e, ERR_NOMEM, "added tokens: out of memory");
}

static int longest_first(const void *a, const void *b)
{
    const struct tok_added *x = a, *y = b;

    return x->len != y->len ? (x->len < y->len ? 1 : -1) : memcmp(x->text, y->text, x->len);
}

static int build_set(struct tok *t, struct tok_added_set *set, const struct tok_added *all,
                     size_t n, int normalized, struct err *e)
{
    set->token = arena_array(&t->arena, n ? n : 1, sizeof *set->token);
    if (!set->token)
        return err_set(e, ERR_NOMEM, "added tokens: out of memory");
    for (size_t i = 0; i < n; i++)
        if (all[i].normalized == normalized && all[i].len) {
            set->token[set->n++] = all[i];
            set->first[(unsigned char)all[i].text[0]] = 1;
        }
    if (set->n)
        qsort(set->token, set->n, sizeof *set->token, longest_first);
    return 0;
}

int tok_added_read(struct tok *t, const struct tok_file *f, struct err *e)
{
    size_t n = json_array_size(f->added_tokens), old = t->vocab.n;
    struct tok_added *all;
    int rc = 0;

    if (f->added_tokens && !json_is_array(f->added_tokens))
        return err_set(e, ERR_CORRUPT, "%s: added_tokens must be a list", f->path);
    if (n > ADDED_MAX)
        return err_set(e, ERR_CORRUPT, "%s: added_tokens: %zu are more than %d", f->path, n,
                       ADDED_MAX);
    all = arena_array(&t->arena, n ? n : 1, sizeof *all);
    if (!all)
        return err_set(e, ERR_NOMEM, "added tokens: out of memory");
    for (size_t i = 0; i < n && !rc; i++)
        rc = read_one(t, f, json_array_get(f->added_tokens, i), i, &all[i], e);
    if (!rc && t->vocab.n > old) { /* some were new to the vocabulary */
        vocab_index_fini(&t->whole);
        rc = vocab_seal(&t->vocab, e);
        if (!rc)
            rc = vocab_index(&t->vocab, "", &t->whole, e);
    }
    if (rc)
        return rc;
    t->special = mem_alloc(t->vocab.n_ids ? t->vocab.n_ids : 1);
    if (!t->special)
        return err_set(e, ERR_NOMEM, "added tokens: out of memory");
    for (size_t i = 0; i < n && !rc; i++) {
        t->special[all[i].id] |= all[i].special != 0;
        rc = normalize_content(t, &all[i], &t->arena, e);
    }
    if (!rc)
        rc = build_set(t, &t->added[0], all, n, 0, e);
    return rc ? rc : build_set(t, &t->added[1], all, n, 1, e);
}

static int word_at(const char *text, size_t n, size_t at)
{
    const unsigned char *p = (const unsigned char *)text + at;

    return at < n && unicode_is_word(unicode_next(&p));
}

static size_t previous(const char *text, size_t at)
{
    do
        at--;
    while (at && ((unsigned char)text[at] & 0xc0) == 0x80);
    return at;
}

static void swallow(const struct tok_added *x, const char *text, size_t n, size_t from,
                    struct tok_match *m)
{
    while (x->lstrip && m->begin > from) {
        size_t at = previous(text, m->begin);
        const unsigned char *p = (const unsigned char *)text + at;

        if (!unicode_is_space(unicode_next(&p)))
            break;
        m->begin = at;
    }
    while (x->rstrip && m->end < n) {
        const unsigned char *p = (const unsigned char *)text + m->end;

        if (!unicode_is_space(unicode_next(&p)))
            break;
        m->end = (size_t)((const char *)p - text);
    }
}

int tok_added_find(const struct tok_added_set *set, const char *text, size_t n, size_t from,
                   struct tok_match *m)
{
    for (size_t i = from; set->n && i < n; i++) {
        if (!set->first[(unsigned char)text[i]])
            continue;
        for (size_t k = 0; k < set->n; k++) {
            const struct tok_added *x = &set->token[k];

            if (x->len > n - i || memcmp(text + i, x->text, x->len) != 0)
                continue;
            if (x->single_word && ((i > 0 && word_at(text, n, previous(text, i))) ||
                                   word_at(text, n, i + x->len))) {
                i += x->len - 1; /* the library goes on behind what it discards */
                break;
            }
            *m = (struct tok_match){x, i, i + x->len};
            swallow(x, text, n, from, m);
            return 1;
        }
    }
    return 0;
}
