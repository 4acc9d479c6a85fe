/* File tensors <-> rows of the family: which tensor fills which part of which parameter.
 *
 *     1. every tensor of the files meets its row, by name, alias, prefix and layer;
 *     2. the rows that this head and pooling need are planned as parameters, in the order
 *        of the table, layer by layer: the order does not depend on the file;
 *     3. every need finds its tensor, or is a new head, or is missing;
 *     4. the list of what a save writes: the file's tensors in their order, then new heads.
 *
 * Invariant: after success every element of every parameter comes from exactly one tensor
 * or from none (a new head). ERR_CORRUPT lists what is missing, unknown, misshapen. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "worker/model/internal.h"

enum { LISTED_MAX = 10 };

/* Heads that no architecture of transformers has. */
static const struct weight_row common_rows[] = {
    {"head.w", 0, "hone_classifier.weight", NULL, "C D", ROW_HEAD | ROW_BARE},
    {"head.b", 0, "hone_classifier.bias", NULL, "C", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {"value.w", 0, "value_head.weight", NULL, "1 D", ROW_HEAD | ROW_BARE},
    {"value.b", 0, "value_head.bias", NULL, "1", ROW_HEAD | ROW_BARE | ROW_NO_DECAY},
    {NULL},
};

enum role {
    ROLE_ABSENT,    /* the row does not exist for this config (tied or untied) */
    ROLE_NEED,      /* a part of a parameter */
    ROLE_OTHER,     /* the head under its other name: may be read, is saved as NEED */
    ROLE_TIED,      /* a copy of a parameter */
    ROLE_PASSENGER, /* kept for saving */
    ROLE_REFUSED,   /* must not be there, says config.json */
};

struct slot_row {
    const struct weight_row *row;
    enum role role;
    size_t first; /* of its entries in `found` */
};

/* Where a tensor of the files belongs. */
struct met {
    struct slot_row *row; /* NULL: unknown */
    long layer;
    const struct safetensors_tensor *tensor;
    struct safetensors *file;
    const char *unprefixed;
};

struct matcher {
    struct model *m;
    struct weights *w;
    struct slot_row *row;
    size_t n_rows;
    struct met *met; /* every tensor, in file order */
    size_t n_met;
    struct met **found;    /* by row and layer */
    struct need **need_at; /* the same */
    size_t layer_first;    /* first parameter of the layer being planned */
    int prefixed;          /* a name had the family's prefix */
    struct match *out;
    struct err *e;
};

static int no_memory(struct matcher *k)
{
    return err_set(k->e, ERR_NOMEM, "%s: out of memory", k->m->dir);
}

static int per_layer(const struct weight_row *r)
{
    return strstr(r->name, "%d") != NULL;
}

static long copies(const struct matcher *k, const struct weight_row *r)
{
    return per_layer(r) ? k->m->config.dims.L : 1;
}

/* prefix + pattern with its %d filled in. */
static const char *expand(struct matcher *k, const char *prefix, const char *pattern,
                          long layer)
{
    const char *d = strstr(pattern, "%d");

    if (!d)
        return arena_printf(&k->m->arena, "%s%s", prefix, pattern);
    return arena_printf(&k->m->arena, "%s%.*s%ld%s", prefix, (int)(d - pattern), pattern,
                        layer, d + 2);
}

/* ---- roles --------------------------------------------------------------------------- */

static int pools(const struct model *m)
{
    return m->options.head == HEAD_CLASSIFY || m->options.head == HEAD_REWARD;
}

static enum role role_of(const struct model *m, const struct weight_row *r)
{
    const struct model_config *c = &m->config;
    enum head_kind head = m->options.head;
    int lm = head_is_causal(head) || head == HEAD_MASKED, want = 1;

    if (r->flags & ROW_PASSENGER)
        return ROLE_PASSENGER;
    if (r->flags & ROW_TIED) {
        if (!strcmp(r->slot, "embed.word"))
            return c->tied ? ROLE_TIED : ROLE_ABSENT;
        return lm ? ROLE_TIED : ROLE_PASSENGER;
    }
    if (!strcmp(r->slot, "lm.w") && c->tied)
        return ROLE_ABSENT;
    if (str_starts(r->slot, "head.")) {
        int own = !str_starts(r->name, "hone_classifier");

        if (!pools(m))
            return ROLE_PASSENGER;
        return own == (m->pooling == POOLING_MODEL) ? ROLE_NEED : ROLE_OTHER;
    }
    if (str_starts(r->slot, "pooler."))
        want = m->pooling == POOLING_MODEL && !lm;
    else if (str_starts(r->slot, "value."))
        want = m->options.value_head;
    else if (str_starts(r->slot, "lm."))
        want = lm;
    else if (str_starts(r->slot, "mlm."))
        want = head == HEAD_MASKED;
    else if (r->flags & ROW_OPTIONAL)
        return (str_starts(r->slot, "layer.%d.attn.") ? c->attention_bias : c->ff_bias)
                   ? ROLE_NEED
                   : ROLE_REFUSED;
    return want ? ROLE_NEED : ROLE_PASSENGER;
}

static int list_rows(struct matcher *k)
{
    const struct weight_row *tables[2] = {k->m->family->rows, common_rows};
    size_t n = 0, cells = 0;

    for (int t = 0; t < 2; t++)
        for (const struct weight_row *r = tables[t]; r->slot; r++)
            n++;
    k->row = arena_array(&k->m->arena, n, sizeof *k->row);
    if (!k->row)
        return no_memory(k);
    for (int t = 0; t < 2; t++)
        for (const struct weight_row *r = tables[t]; r->slot; r++) {
            k->row[k->n_rows++] =
                (struct slot_row){.row = r, .role = role_of(k->m, r), .first = cells};
            cells += (size_t)copies(k, r);
        }
    k->found = arena_array(&k->m->arena, cells, sizeof(struct met *));
    k->need_at = arena_array(&k->m->arena, cells, sizeof(struct need *));
    return k->found && k->need_at ? 0 : no_memory(k);
}

/* ---- 1. tensors meet rows ------------------------------------------------------------ */

/* Does `name` follow the pattern? *layer: the number at %d, or 0. */
static int follows(const char *pattern, const char *name, long *layer)
{
    const char *d = strstr(pattern, "%d");
    size_t n = d ? (size_t)(d - pattern) : 0;
    long x = 0;
    int digits = 0;

    *layer = 0;
    if (!d)
        return !strcmp(pattern, name);
    if (strncmp(pattern, name, n))
        return 0;
    for (name += n; isdigit((unsigned char)*name) && digits < 7; name++, digits++)
        x = x * 10 + (*name - '0');
    if (!digits || (name[-digits] == '0' && digits > 1))
        return 0;
    *layer = x;
    return !strcmp(d + 2, name);
}

/* The row of a name without prefix; *layer may lie beyond the model's. */
static struct slot_row *row_of(struct matcher *k, const char *name, int prefixed,
                               long *layer)
{
    for (size_t i = 0; i < k->n_rows; i++) {
        const struct weight_row *r = k->row[i].row;

        if (k->row[i].role == ROLE_ABSENT || (prefixed && r->flags & ROW_BARE))
            continue;
        if (follows(r->name, name, layer) || (r->alias && follows(r->alias, name, layer)))
            return &k->row[i];
    }
    return NULL;
}

static int meet(struct matcher *k, struct met *x)
{
    const char *name = x->tensor->name, *prefix = k->m->family->prefix;
    struct met **cell;

    x->unprefixed = name;
    if (str_starts(name, prefix)) {
        x->unprefixed = name + strlen(prefix);
        x->row = row_of(k, x->unprefixed, 1, &x->layer);
        k->prefixed |= x->row != NULL;
    }
    if (!x->row) {
        x->row = row_of(k, name, 0, &x->layer);
        if (x->row)
            x->unprefixed = name;
    }
    if (!x->row || x->layer >= copies(k, x->row->row))
        return 0;
    cell = &k->found[x->row->first + (size_t)x->layer];
    if (*cell)
        return err_set(k->e, ERR_CORRUPT, "%s: %s and %s are the same tensor twice",
                       x->file->path, (*cell)->tensor->name, name);
    *cell = x;
    return 0;
}

static int meet_all(struct matcher *k)
{
    size_t total = 0;

    for (size_t i = 0; i < k->w->n; i++)
        total += k->w->file[i].n;
    k->met = arena_array(&k->m->arena, total + 1, sizeof *k->met);
    if (!k->met)
        return no_memory(k);
    for (size_t i = 0; i < k->w->n; i++)
        for (size_t j = 0; j < k->w->file[i].n; j++) {
            struct met *x = &k->met[k->n_met++];

            x->file = &k->w->file[i];
            x->tensor = &x->file->tensor[j];
            if (meet(k, x))
                return k->e->code;
        }
    return 0;
}

static int is_unknown(const struct matcher *k, const struct met *x)
{
    return !x->row || x->layer >= copies(k, x->row->row);
}

static struct met *found_at(const struct matcher *k, const struct slot_row *r, long layer)
{
    return k->found[r->first + (size_t)layer];
}

/* ---- shapes -------------------------------------------------------------------------- */

static void print_shape(char *out, size_t n, const long *shape, int rank)
{
    size_t at = (size_t)snprintf(out, n, "[");

    for (int i = 0; i < rank && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%ld", i ? ", " : "", shape[i]);
    if (at < n)
        snprintf(out + at, n - at, "]");
}

/* What the letters of shape strings stand for, for messages. */
static void explain(const struct matcher *k, const char *shape, struct str *out)
{
    const struct dims *d = &k->m->config.dims;
    const struct {
        char letter;
        const char *name;
        long value;
    } all[] = {{'V', "vocabulary", d->V}, {'D', "width", d->D},
               {'H', "heads", d->H},      {'K', "kv heads", d->K},
               {'d', "head size", d->d},  {'F', "feed-forward", d->F},
               {'P', "positions", d->P},  {'X', "token types", d->X}};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strchr(shape, all[i].letter))
            str_addf(out, "%s%s %ld", out->len ? ", " : "", all[i].name, all[i].value);
}

/* Outputs of the head whose rows have that role, in the files; 0: it is not there. */
static long head_outputs(const struct matcher *k, enum role role)
{
    for (size_t i = 0; i < k->n_rows; i++) {
        const struct met *w = found_at(k, &k->row[i], 0);

        if (!strcmp(k->row[i].row->slot, "head.w") && k->row[i].role == role && w)
            return w->tensor->rank ? w->tensor->shape[0] : 0;
    }
    return 0;
}

static int check_shape(struct matcher *k, const struct met *x)
{
    const struct safetensors_tensor *t = x->tensor;
    struct dims dims = k->m->config.dims;
    struct str why = {0};
    char got[160], want[64];
    long shape[2];
    int rank;

    if (x->row->row->flags & ROW_PASSENGER)
        return 0;
    if (!dtype_is_float(t->dtype)) {
        err_set(k->e, ERR_UNSUPPORTED, "%s: tensor %s is %s", x->file->path, t->name,
                dtype_name(t->dtype));
        return err_mend(k->e, "Hone reads F32, F16, BF16 and F64 weights, not quantised "
                              "ones");
    }
    if (str_starts(x->row->row->slot, "head."))
        dims.C = head_outputs(k, x->row->role);
    rank = family_shape(x->row->row->shape, &dims, shape, k->e);
    invariant(rank > 0);
    if (rank == t->rank && shape[0] == t->shape[0] && (rank < 2 || shape[1] == t->shape[1]))
        return 0;
    print_shape(got, sizeof got, t->shape, t->rank);
    print_shape(want, sizeof want, shape, rank);
    explain(k, x->row->row->shape, &why);
    err_set(k->e, ERR_CORRUPT, "%s: tensor %s is %s, but config.json asks for %s (%s)",
            x->file->path, t->name, got, want, str_get(&why));
    err_mend(k->e, "config.json and the tensors come from different models; take both from "
                   "one");
    str_fini(&why);
    return k->e->code;
}

static int check_known(struct matcher *k)
{
    for (size_t i = 0; i < k->n_met; i++) {
        const struct met *x = &k->met[i];

        if (is_unknown(k, x))
            continue;
        if (x->row->role == ROLE_REFUSED)
            return err_set(k->e, ERR_CORRUPT,
                           "%s: tensor %s is there, but config.json says %s is false",
                           x->file->path, x->tensor->name,
                           str_starts(x->row->row->slot, "layer.%d.attn.")
                               ? "attention_bias"
                               : "mlp_bias");
        if (check_shape(k, x))
            return k->e->code;
    }
    return 0;
}

/* ---- outputs of the head ------------------------------------------------------------- */

/* The weight of the head in the files: under the name it will be saved with, else under
 * the other; or NULL. */
static const struct met *file_head(const struct matcher *k)
{
    const struct met *best = NULL;

    for (size_t i = 0; i < k->n_rows; i++) {
        const struct met *x;

        if (strcmp(k->row[i].row->slot, "head.w"))
            continue;
        x = found_at(k, &k->row[i], 0);
        if (x && (!best || k->row[i].role == ROLE_NEED))
            best = x;
    }
    return best;
}

static int settle_outputs(struct matcher *k)
{
    struct model *m = k->m;
    const struct met *head = file_head(k);
    long labels = config_labels(m->json_config),
         in_file = head ? head->tensor->shape[0] : 0;

    m->outputs = m->options.head == HEAD_LOGPROB ? LOGPROB_OUT
                 : m->options.head == HEAD_CAUSAL || m->options.head == HEAD_MASKED
                     ? m->config.dims.V
                     : 0;
    if (!pools(m))
        return 0;
    if (in_file && labels && in_file != labels)
        return err_set(k->e, ERR_CORRUPT,
                       "%s: tensor %s has %ld outputs, but config.json names %ld labels",
                       head->file->path, head->tensor->name, in_file, labels);
    m->outputs = m->options.head == HEAD_REWARD ? 1 : m->options.outputs;
    if (!m->outputs)
        m->outputs = in_file ? in_file : labels;
    if (m->outputs < 1 || m->outputs > 1 << 20) {
        err_set(k->e, ERR_CONFIG, "%s: neither a classification head nor labels", m->dir);
        return err_mend(k->e, "use a checkpoint that was trained to classify");
    }
    m->config.dims.C = m->outputs;
    return 0;
}

/* ---- 2. parameters ------------------------------------------------------------------- */

/* The pooler of a model without head is taken where it is, and not asked for. */
static int is_wanted(const struct matcher *k, const struct slot_row *r)
{
    if (r->role != ROLE_NEED)
        return 0;
    return pools(k->m) || !str_starts(r->row->slot, "pooler.") || found_at(k, r, 0);
}

static void swap(long shape[2])
{
    long first = shape[0];

    shape[0] = shape[1];
    shape[1] = first;
}

static int find_param(const struct matcher *k, const char *name)
{
    for (size_t i = k->m->n_params; i > k->layer_first; i--)
        if (!strcmp(k->m->param[i - 1].name, name))
            return (int)(i - 1);
    return -1;
}

static int add_need(struct matcher *k, const struct slot_row *r, long layer)
{
    struct model *m = k->m;
    struct need *n = &k->out->need[k->out->n++];
    const char *slot = expand(k, "", r->row->slot, layer);
    struct param *p;

    if (!slot)
        return no_memory(k);
    *n = (struct need){.row = r->row, .layer = layer, .param = find_param(k, slot)};
    k->need_at[r->first + (size_t)layer] = n;
    n->rank = family_shape(r->row->shape, &m->config.dims, n->shape, k->e);
    if (n->rank < 0)
        return n->rank;
    if (n->rank == 1) {
        n->shape[1] = n->shape[0];
        n->shape[0] = 1;
    } else if (r->row->flags & ROW_TRANSPOSED) {
        swap(n->shape);
    }
    if (n->param < 0) {
        n->param = (int)m->n_params++;
        p = &m->param[n->param];
        *p = (struct param){.name = slot,
                            .rows = n->shape[0],
                            .cols = n->shape[1],
                            .decay = !(r->row->flags & ROW_NO_DECAY)};
        return 0;
    }
    p = &m->param[n->param];
    n->first = (size_t)p->rows * (size_t)p->cols;
    n->at_row = n->rank == 1 ? p->cols : p->rows;
    if (n->rank == 1)
        p->cols += n->shape[1];
    else
        p->rows += n->shape[0];
    return 0;
}

/* Rows with %d stand together: they are repeated layer by layer. */
static int plan_params(struct matcher *k)
{
    size_t most = 0, i = 0;

    for (size_t r = 0; r < k->n_rows; r++)
        most += (size_t)copies(k, k->row[r].row);
    k->out->need = arena_array(&k->m->arena, most, sizeof *k->out->need);
    k->m->param = arena_array(&k->m->arena, most, sizeof *k->m->param);
    if (!k->out->need || !k->m->param)
        return no_memory(k);
    while (i < k->n_rows) {
        size_t end = i + 1;

        while (end < k->n_rows && per_layer(k->row[i].row) && per_layer(k->row[end].row))
            end++;
        for (long layer = 0; layer < copies(k, k->row[i].row); layer++) {
            k->layer_first = per_layer(k->row[i].row) ? k->m->n_params : 0;
            for (size_t r = i; r < end; r++)
                if (is_wanted(k, &k->row[r]) && add_need(k, &k->row[r], layer))
                    return k->e->code;
        }
        i = end;
    }
    return 0;
}

/* ---- 3. every need finds its tensor -------------------------------------------------- */

/* Is any part of the slot's group ("head.", "pooler.", ...) in the files under its name? */
static int group_found(const struct matcher *k, const char *slot)
{
    size_t n = (size_t)(strchr(slot, '.') - slot) + 1;

    for (size_t i = 0; i < k->n_rows; i++)
        if (k->row[i].role == ROLE_NEED && !strncmp(k->row[i].row->slot, slot, n) &&
            found_at(k, &k->row[i], 0))
            return 1;
    return 0;
}

/* May the slot start new where no tensor was found for it? Heads may: when all of it is
 * absent, when a new one is asked for, or one with another number of outputs. */
static int is_renewed(const struct matcher *k, const char *slot)
{
    const struct model *m = k->m;

    if (str_starts(slot, "head."))
        return !m->options.keep_head || head_outputs(k, ROLE_NEED) != m->outputs;
    if (str_starts(slot, "value."))
        return !m->options.keep_head || !group_found(k, slot);
    return str_starts(slot, "pooler.") && !group_found(k, slot);
}

/* The tensor for a need under its own name, its other name, or that of a copy. */
static struct met *source(const struct matcher *k, const struct need *n)
{
    static const enum role order[] = {ROLE_NEED, ROLE_OTHER, ROLE_TIED};
    int is_head = str_starts(n->row->slot, "head.");

    if ((is_head || str_starts(n->row->slot, "value.")) && !k->m->options.keep_head)
        return NULL;
    for (size_t o = 0; o < 3; o++)
        for (size_t i = 0; i < k->n_rows; i++) {
            const struct slot_row *r = &k->row[i];
            struct met *x;

            if (r->role != order[o] || strcmp(r->row->slot, n->row->slot) ||
                r->row->part != n->row->part)
                continue;
            x = found_at(k, r, n->layer);
            if (x && is_head && x->tensor->shape[0] != k->m->outputs)
                x = NULL; /* another number of labels: a new head */
            if (x)
                return x;
        }
    return NULL;
}

static void list_name(struct str *out, size_t i, const char *name, const char *note)
{
    if (i < LISTED_MAX)
        str_addf(out, "%s%.100s%s", i ? ", " : "", name, note);
    else if (i == LISTED_MAX)
        str_add(out, ", ...");
}

static void find_sources(struct matcher *k, struct str *missing, size_t *n_missing)
{
    for (size_t i = 0; i < k->out->n; i++) {
        struct need *n = &k->out->need[i];
        struct met *x = source(k, n);

        if (x) {
            n->tensor = x->tensor;
            n->file = x->file;
            continue;
        }
        if (is_renewed(k, n->row->slot)) {
            k->m->param[n->param].new_head = 1;
            continue;
        }
        list_name(
            missing, (*n_missing)++,
            expand(k,
                   k->prefixed && !(n->row->flags & ROW_BARE) ? k->m->family->prefix : "",
                   n->row->name, n->layer),
            "");
    }
}

static void find_unknown(struct matcher *k, struct str *out, size_t *n)
{
    char note[48];

    snprintf(note, sizeof note, " (config.json has %ld layers)", k->m->config.dims.L);
    for (size_t i = 0; i < k->n_met; i++)
        if (is_unknown(k, &k->met[i]))
            list_name(out, (*n)++, k->met[i].tensor->name, k->met[i].row ? note : "");
}

static int resolve(struct matcher *k)
{
    struct str missing = {0}, unknown = {0};
    size_t n_missing = 0, n_unknown = 0;
    const char *where = k->w->n == 1 ? k->w->file[0].path : k->m->dir;

    find_sources(k, &missing, &n_missing);
    find_unknown(k, &unknown, &n_unknown);
    if (n_missing && n_unknown)
        err_set(k->e, ERR_CORRUPT, "%s: missing (%zu): %s; not known to Hone (%zu): %s",
                where, n_missing, str_get(&missing), n_unknown, str_get(&unknown));
    else if (n_missing)
        err_set(k->e, ERR_CORRUPT, "%s: tensors missing (%zu): %s", where, n_missing,
                str_get(&missing));
    else if (n_unknown)
        err_set(k->e, ERR_CORRUPT, "%s: tensors Hone does not know (%zu): %s", where,
                n_unknown, str_get(&unknown));
    if (n_missing || n_unknown)
        err_mend(k->e,
                 n_missing ? "config.json and the tensors must come from one %s model; "
                             "download both again"
                           : "check that config.json is that of this %s model; tensors "
                             "that are no part of it must be removed from the file",
                 k->m->family->model_type);
    str_fini(&missing);
    str_fini(&unknown);
    return n_missing || n_unknown ? k->e->code : 0;
}

/* ---- 4. what a save writes ----------------------------------------------------------- */

/* The need that a tensor serves: its own row's, or that of the row it stands for. */
static struct need *need_of(const struct matcher *k, const struct met *x)
{
    const struct weight_row *row = x->row->row;

    if (x->row->role == ROLE_NEED)
        return k->need_at[x->row->first + (size_t)x->layer];
    if (x->row->role != ROLE_OTHER && x->row->role != ROLE_TIED)
        return NULL;
    for (size_t i = 0; i < k->n_rows; i++)
        if (k->row[i].role == ROLE_NEED && k->row[i].row->part == row->part &&
            !strcmp(k->row[i].row->slot, row->slot))
            return k->need_at[k->row[i].first];
    return NULL;
}

static void set_part(struct model_tensor *t, const struct need *n)
{
    t->param = n->param;
    t->row = n->at_row;
    t->first = n->first;
    t->rank = n->rank;
    t->shape[0] = n->rank == 1 ? n->shape[1] : n->shape[0];
    t->shape[1] = n->rank == 1 ? 0 : n->shape[1];
    t->transposed = (n->row->flags & ROW_TRANSPOSED) != 0;
    if (t->transposed)
        swap(t->shape);
}

/* The entry of a tensor of the files; dropped: it is replaced by one of another name. */
static int list_tensor(struct matcher *k, const struct met *x, int add_prefix, int *dropped)
{
    struct model *m = k->m;
    struct model_tensor *t = &m->tensor[m->n_tensors];
    const struct weight_row *row = x->row->row;
    struct need *n = need_of(k, x);

    *dropped = 0;
    *t = (struct model_tensor){.param = -1,
                               .rank = x->tensor->rank,
                               .dtype = x->tensor->dtype,
                               .begin = x->tensor->begin};
    memcpy(t->shape, x->tensor->shape, sizeof t->shape);
    t->name = t->saved = arena_strdup(&m->arena, x->tensor->name);
    if (x->row->role == ROLE_OTHER && (!n || n->tensor != x->tensor)) {
        *dropped = 1;
        return t->name ? 0 : no_memory(k);
    }
    if (n) {
        set_part(t, n);
        if (x->row->role == ROLE_OTHER)
            t->saved = arena_strdup(&m->arena, n->row->name);
        else if (x->row->role == ROLE_NEED && !n->tensor)
            t->dtype = DTYPE_F32; /* renewed in its place */
    }
    if (add_prefix && !(row->flags & ROW_BARE) && x->unprefixed == x->tensor->name)
        t->saved = arena_printf(&m->arena, "%s%s", m->family->prefix, t->name);
    m->n_tensors++;
    return t->name && t->saved ? 0 : no_memory(k);
}

static int is_listed(const struct model *m, const struct need *n)
{
    for (size_t i = 0; i < m->n_tensors; i++)
        if (m->tensor[i].param == n->param && m->tensor[i].first == n->first)
            return 1;
    return 0;
}

static int list_new(struct matcher *k, const struct need *n, int add_prefix)
{
    struct model *m = k->m;
    struct model_tensor *t = &m->tensor[m->n_tensors++];
    int with = (add_prefix || k->prefixed) && !(n->row->flags & ROW_BARE);

    *t = (struct model_tensor){.dtype = DTYPE_F32};
    set_part(t, n);
    t->name = t->saved = expand(k, with ? m->family->prefix : "", n->row->name, n->layer);
    return t->name ? 0 : no_memory(k);
}

static int list_tensors(struct matcher *k)
{
    struct model *m = k->m;
    int dropped, any_dropped = 0, native_new = 0;

    for (size_t i = 0; i < k->out->n; i++)
        native_new |= !k->out->need[i].tensor && m->pooling == POOLING_MODEL &&
                      str_starts(k->out->need[i].row->slot, "head.");
    native_new &= !k->prefixed;
    m->tensor = arena_array(&m->arena, k->n_met + k->out->n, sizeof *m->tensor);
    if (!m->tensor)
        return no_memory(k);
    m->unchanged = k->w->n == 1;
    for (size_t i = 0; i < k->n_met; i++) {
        if (list_tensor(k, &k->met[i], native_new, &dropped))
            return k->e->code;
        any_dropped |= dropped;
    }
    for (size_t i = 0; i < k->out->n; i++) {
        const struct need *n = &k->out->need[i];

        if (n->tensor)
            continue;
        m->unchanged = 0;
        if (!is_listed(m, n) && list_new(k, n, native_new))
            return k->e->code;
    }
    m->unchanged &= !any_dropped;
    for (size_t i = 0; i < m->n_tensors; i++)
        m->unchanged &= !strcmp(m->tensor[i].name, m->tensor[i].saved);
    return 0;
}

int match_weights(struct model *m, struct weights *w, struct match *out, struct err *e)
{
    struct matcher k = {.m = m, .w = w, .out = out, .e = e};
    int rc;

    memset(out, 0, sizeof *out);
    rc = list_rows(&k);
    if (!rc)
        rc = meet_all(&k);
    if (!rc)
        rc = check_known(&k);
    if (!rc)
        rc = settle_outputs(&k);
    if (!rc)
        rc = plan_params(&k);
    if (!rc)
        rc = resolve(&k);
    return rc ? rc : list_tensors(&k);
}
