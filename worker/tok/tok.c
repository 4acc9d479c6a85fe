/* The door to all tokenizers: opens a folder, splits text at added tokens, asks the kind.
 */
#include "worker/tok/tok.h"

#include <string.h>

#include "base/mem.h"
#include "worker/tok/internal.h"

static const struct tok_kind *const kinds[] = {&tok_kind_bpe, &tok_kind_wordpiece};

const char *tok_part_type(const json_t *part)
{
    const char *s = part ? json_string_value(json_object_get(part, "type")) : NULL;

    return s ? s : "";
}

int tok_part_flag(const json_t *part, const char *key, int otherwise)
{
    const json_t *v = part ? json_object_get(part, key) : NULL;

    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

/* Files without a type are older than the tag: the library goes by the members. */
static const char *model_type(const struct tok_file *f)
{
    const char *type = tok_part_type(f->model);

    if (*type)
        return type;
    if (f->merges.n)
        return "BPE";
    if (f->list_vocab)
        return "Unigram";
    return json_object_get(f->model, "max_input_chars_per_word") ? "WordPiece"
                                                                 : "WordLevel";
}

static int find_kind(struct tok *t, const struct tok_file *f, struct err *e)
{
    const char *type = model_type(f);
    struct str known = {0};

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i]->name, type)) {
            t->kind = kinds[i];
            return 0;
        }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        str_addf(&known, "%s%s", i ? ", " : "", kinds[i]->name);
    err_set(e, ERR_UNSUPPORTED, "%s: tokenizers of kind %.60s are not supported", f->path,
            type);
    err_mend(e, "use a model whose tokenizer is one of %s", str_get(&known));
    str_fini(&known);
    return e->code;
}

int tok_make(struct tok **out, struct tok_file *f, struct vocab *v, struct err *e)
{
    struct tok *t = mem_alloc(sizeof *t);
    int rc;

    *out = NULL;
    if (!t) {
        vocab_fini(v);
        return err_set(e, ERR_NOMEM, "tokenizer: out of memory");
    }
    t->vocab = *v;
    memset(v, 0, sizeof *v);
    rc = find_kind(t, f, e);
    if (!rc)
        rc = vocab_seal(&t->vocab, e);
    if (!rc)
        rc = vocab_index(&t->vocab, "", &t->whole, e);
    if (!rc)
        rc = t->kind->open(t, f, e);
    if (!rc)
        rc = tok_added_read(t, f, e);
    if (!rc)
        rc = tok_post_read(t, f, e);
    if (!rc)
        rc = tok_decoder_read(t, f, e);
    if (rc)
        tok_close(t);
    else
        *out = t;
    return rc;
}

int tok_open(struct tok **out, const char *dir, struct err *e)
{
    struct tok_file f = {0};
    struct vocab v = {0};
    int rc = tok_file_read(&f, &v, dir, e);

    *out = NULL;
    if (!rc)
        rc = tok_make(out, &f, &v, e);
    vocab_fini(&v);
    tok_file_fini(&f);
    return rc ? err_wrap(e, "tokenizer of %s", dir) : 0;
}

void tok_close(struct tok *t)
{
    if (!t)
        return;
    if (t->kind)
        t->kind->close(t);
    vocab_fini(&t->vocab);
    vocab_index_fini(&t->whole);
    mem_free(t->special);
    arena_fini(&t->arena);
    mem_free(t);
}

long tok_vocab_size(const struct tok *t)
{
    return (long)t->vocab.n_ids;
}

int tok_id(const struct tok *t, const char *token)
{
    return vocab_find(&t->vocab, &t->whole, token, strlen(token));
}

const char *tok_token(const struct tok *t, int id)
{
    return vocab_text(&t->vocab, id);
}

static int either(const struct tok *t, const char *one, const char *two)
{
    int id = tok_id(t, one);

    return id >= 0 ? id : tok_id(t, two);
}

int tok_cls(const struct tok *t)
{
    return either(t, "[CLS]", "<s>");
}

int tok_sep(const struct tok *t)
{
    return either(t, "[SEP]", "</s>");
}

int tok_pad(const struct tok *t)
{
    return either(t, "[PAD]", "<pad>");
}

void tok_frame(const struct tok *t, int pair, struct tok_frame *out)
{
    *out = t->frame[pair != 0];
}

int tok_push(struct tok_ids *out, int id, struct err *e)
{
    if (out->n == out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 256;
        int *p = mem_resize(out->id, cap, sizeof *p);

        if (!p)
            return err_set(e, ERR_NOMEM, "tokens of a text: out of memory");
        out->id = p;
        out->cap = cap;
    }
    out->id[out->n++] = id;
    return 0;
}

/* Text in which the tokens of added[stage - 1] are already taken out. */
static int encode_stage(const struct tok *t, int stage, const char *text, size_t n,
                        int first, struct tok_ids *out, struct err *e)
{
    const struct tok_added_set *set = &t->added[stage < 2 ? stage : 0];
    struct tok_match m;
    size_t from = 0;
    int rc = 0;

    if (!n)
        return 0;
    if (stage == 2)
        return t->kind->encode(t, text, n, first, out, e);
    while (!rc && set->n && tok_added_find(set, text, n, from, &m)) {
        rc =
            encode_stage(t, stage + 1, text + from, m.begin - from, first && !from, out, e);
        if (!rc)
            rc = tok_push(out, m.token->id, e);
        from = m.end;
    }
    return rc ? rc
              : encode_stage(t, stage + 1, text + from, n - from, first && !from, out, e);
}

/* The normalized text goes through the kind's normalizer once more, which leaves it as it
 * is; only files with added tokens marked `normalized` come here. */
static int encode_normalized(const struct tok *t, const char *text, size_t n,
                             struct tok_ids *out, struct err *e)
{
    struct tok_match m;
    struct str piece = {0};
    size_t from = 0;
    int rc = 0, more = 1;

    while (!rc && more) {
        size_t end = n;

        more = tok_added_find(&t->added[0], text, n, from, &m);
        if (more)
            end = m.begin;
        str_clear(&piece);
        t->kind->normalize(t, text + from, end - from, &piece);
        if (str_failed(&piece))
            rc = err_set(e, ERR_NOMEM, "tokens of a text: out of memory");
        else
            rc = encode_stage(t, 1, str_get(&piece), piece.len, !from, out, e);
        if (!rc && more) {
            rc = tok_push(out, m.token->id, e);
            from = m.end;
        }
    }
    str_fini(&piece);
    return rc;
}

int tok_encode(const struct tok *t, const char *text, size_t n, struct tok_ids *out,
               struct err *e)
{
    if (t->added[1].n && t->kind->normalize)
        return encode_normalized(t, text, n, out, e);
    return encode_stage(t, 0, text, n, 1, out, e);
}

void tok_ids_fini(struct tok_ids *ids)
{
    mem_free(ids->id);
    memset(ids, 0, sizeof *ids);
}
