/* Post-processors: which special tokens stand around one text and around a pair.
 *
 * TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel (nothing), Sequence of
 * them, or none. Anything else is ERR_UNSUPPORTED by name. */
#include <string.h>

#include "worker/tok/internal.h"

enum { PLACE_MAX = 4 };

static int put(int *list, int *n, json_int_t id, const char *path, struct err *e)
{
    if (*n == PLACE_MAX)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: post_processor: more than %d special tokens in one place", path,
                       PLACE_MAX);
    if (id < 0 || id > VOCAB_ID_MAX)
        return err_set(e, ERR_CORRUPT, "%s: post_processor: id %lld is out of range", path,
                       (long long)id);
    list[(*n)++] = (int)id;
    return 0;
}

/* The ids of one special token of a template. */
static int put_special(struct tok_frame *f, int texts, const json_t *specials,
                       const char *name, const char *path, struct err *e)
{
    const json_t *ids = json_object_get(json_object_get(specials, name), "ids");
    int *list = texts == 0 ? f->prefix : texts == 1 ? f->middle : f->suffix;
    int *n = texts == 0 ? &f->n_prefix : texts == 1 ? &f->n_middle : &f->n_suffix;
    size_t i;
    const json_t *id;
    int rc = 0;

    if (!json_array_size(ids))
        return err_set(e, ERR_CORRUPT, "%s: post_processor: \"%.60s\" has no ids", path,
                       name);
    json_array_foreach(ids, i, id)
    {
        if (!json_is_integer(id))
            return err_set(e, ERR_CORRUPT, "%s: post_processor: ids must be numbers", path);
        rc = rc ? rc : put(list, n, json_integer_value(id), path, e);
    }
    return rc;
}

/* A template: special tokens and sequences A, B in this order. */
static int read_template(struct tok_frame *f, const json_t *items, int pair,
                         const json_t *specials, const char *path, struct err *e)
{
    int texts = 0, rc = 0;
    size_t i;
    const json_t *item;

    json_array_foreach(items, i, item)
    {
        const json_t *text = json_object_get(item, "Sequence");
        const json_t *special = json_object_get(item, "SpecialToken");
        const char *name = json_string_value(json_object_get(text ? text : special, "id"));

        if (rc)
            return rc;
        if (!name || !(text || special))
            return err_set(e, ERR_CORRUPT, "%s: post_processor: template entry %zu", path,
                           i);
        if (!text) {
            if (texts == 1 && pair)
                f->middle_type =
                    json_integer_value(json_object_get(special, "type_id")) == 1;
            /* After the only text of a single template comes the suffix. */
            rc = put_special(f, texts && !pair ? 2 : texts, specials, name, path, e);
            continue;
        }
        if (strcmp(name, texts ? "B" : "A") != 0 || texts > pair)
            return err_set(e, ERR_UNSUPPORTED,
                           "%s: post_processor: templates other than A and A B", path);
        if (texts++)
            f->pair_type =
                json_integer_value(json_object_get(text, "type_id")) == 1 ? 1 : 0;
    }
    if (!rc && texts != 1 + pair)
        rc = err_set(e, ERR_CORRUPT, "%s: post_processor: a template without its texts",
                     path);
    return rc;
}

/* ["[SEP]", 102] */
static int pair_id(const json_t *o, const char *key, json_int_t *id, const char *path,
                   struct err *e)
{
    const json_t *v = json_array_get(json_object_get(o, key), 1);

    if (!json_is_integer(v))
        return err_set(e, ERR_CORRUPT, "%s: post_processor: \"%s\" must be [token, id]",
                       path, key);
    *id = json_integer_value(v);
    return 0;
}

/* BERT: cls A sep, cls A sep B sep with types 0 and 1; RoBERTa: two seps between, type 0.
 */
static int read_classic(struct tok *t, const json_t *o, int roberta, const char *path,
                        struct err *e)
{
    json_int_t cls = -1, sep = -1;
    int rc = pair_id(o, "cls", &cls, path, e);

    if (!rc)
        rc = pair_id(o, "sep", &sep, path, e);
    for (int pair = 0; !rc && pair < 2; pair++) {
        struct tok_frame *f = &t->frame[pair];

        rc = put(f->prefix, &f->n_prefix, cls, path, e);
        if (!rc)
            rc = put(f->suffix, &f->n_suffix, sep, path, e);
        for (int i = 0; !rc && pair && i < 1 + roberta; i++)
            rc = put(f->middle, &f->n_middle, sep, path, e);
        f->pair_type = pair && !roberta;
    }
    return rc;
}

static int read_one(struct tok *t, const json_t *o, const char *path, struct err *e)
{
    const char *type = tok_part_type(o);
    const json_t *specials = json_object_get(o, "special_tokens"), *inner;
    size_t i;
    int rc = 0;

    if (!strcmp(type, "Sequence")) {
        json_array_foreach(json_object_get(o, "processors"), i, inner)
        {
            if (!strcmp(tok_part_type(inner), "Sequence"))
                return err_set(e, ERR_UNSUPPORTED,
                               "%s: post_processor: a Sequence within a Sequence", path);
            rc = rc ? rc : read_one(t, inner, path, e);
        }
        return rc;
    }
    if (!strcmp(type, "BertProcessing"))
        return read_classic(t, o, 0, path, e);
    if (!strcmp(type, "RobertaProcessing"))
        return read_classic(t, o, 1, path, e);
    if (!strcmp(type, "ByteLevel"))
        return 0;
    if (strcmp(type, "TemplateProcessing") != 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: post_processor %.60s is not supported",
                       path, *type ? type : "without a type");
    rc = read_template(&t->frame[0], json_object_get(o, "single"), 0, specials, path, e);
    return rc ? rc
              : read_template(&t->frame[1], json_object_get(o, "pair"), 1, specials, path,
                              e);
}

/* Every id must be a token. */
static int check_ids(const struct tok *t, const int *id, int n, const char *path,
                     struct err *e)
{
    for (int i = 0; i < n; i++)
        if (!tok_token(t, id[i]))
            return err_set(e, ERR_CORRUPT, "%s: post_processor: id %d is no token", path,
                           id[i]);
    return 0;
}

int tok_post_read(struct tok *t, const struct tok_file *f, struct err *e)
{
    int rc;

    t->frame[1].pair_type = 1; /* unless a processor says otherwise */
    rc = f->post_processor ? read_one(t, f->post_processor, f->path, e) : 0;

    for (int pair = 0; !rc && pair < 2; pair++) {
        const struct tok_frame *x = &t->frame[pair];

        rc = check_ids(t, x->prefix, x->n_prefix, f->path, e);
        if (!rc)
            rc = check_ids(t, x->middle, x->n_middle, f->path, e);
        if (!rc)
            rc = check_ids(t, x->suffix, x->n_suffix, f->path, e);
    }
    return rc;
}
