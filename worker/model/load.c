/* Opening a model: config.json, tensor files, memory, weights.
 *
 * All parameters lie in one block of device memory, gradients in another, each tensor at a
 * multiple of 64 bytes. Two things save time and memory on the host: large f32 tensors of
 * a model that is only read stay in the mapped file, and gradients come from the system as
 * pages of zeros that appear when touched. Files are read by several threads.
 *
 * New heads: weights normal(0, 0.02), biases 0, each keyed by seed and slot name. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "worker/model/internal.h"

enum {
    ALIGN_FLOATS = 16,
    MAP_BYTES_MIN = 64 * 1024,
    READ_FLOATS = 1 << 20,
    READ_THREADS = 16,
    THREADS_FLOATS_MIN = 1 << 20, /* below, waking threads costs more than it saves */
    RNG_HEAD = 0x68656164         /* second argument of rng_key(): "head" */
};

static int is_host(const struct backend *b)
{
    return !strcmp(b->name, "cpu") || !strcmp(b->name, "ref");
}

static size_t elements(const struct param *p)
{
    return (size_t)p->rows * (size_t)p->cols;
}

static int no_memory(const struct model *m, const char *what, size_t bytes, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%s: no memory for %s (%.1f MB)", m->dir, what,
                   (double)bytes / 1e6);
}

/* ---- memory -------------------------------------------------------------------------- */

/* Parameters that are one large f32 tensor of the file, in a model that is only read. */
static void map_params(struct model *m, struct match *match)
{
    if (m->options.trainable || !is_host(m->options.backend))
        return;
    for (size_t i = 0; i < match->n; i++) {
        struct need *n = &match->need[i];
        struct param *p = &m->param[n->param];

        if (n->tensor && n->tensor->dtype == DTYPE_F32 &&
            !(n->row->flags & ROW_TRANSPOSED) && n->tensor->elements == elements(p) &&
            n->tensor->elements * sizeof(float) >= MAP_BYTES_MIN &&
            (8 + n->file->header_len + n->tensor->begin) % sizeof(float) == 0)
            p->data = safetensors_map(n->file, n->tensor);
    }
}

/* Give every parameter without memory its place in `block` (NULL: only count). */
static int place(struct model *m, float *block, size_t *floats, int gradients)
{
    size_t at = 0;

    for (size_t i = 0; i < m->n_params; i++) {
        struct param *p = &m->param[i];
        size_t n = (elements(p) + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;

        if (!gradients && p->data)
            continue;
        if (block && gradients)
            p->grad = block + at;
        else if (block)
            p->data = block + at;
        if (__builtin_add_overflow(at, n, &at))
            return -1;
    }
    *floats = at;
    return at > SIZE_MAX / sizeof(float) ? -1 : 0;
}

static int make_gradients(struct model *m, struct err *e)
{
    const struct backend *b = m->options.backend;
    size_t n = 0;

    if (place(m, NULL, &n, 1))
        return no_memory(m, "gradients", SIZE_MAX, e);
    m->grad_bytes = n * sizeof(float);
    if (is_host(b)) {
        void *p = mmap(NULL, m->grad_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        m->grad_block = p == MAP_FAILED ? NULL : p;
        m->grads_mapped = m->grad_block != NULL;
        if (m->grad_block)
            mem_advise(m->grad_block, m->grad_bytes, MEM_DENSE);
    } else {
        m->grad_block = b->alloc(m->grad_bytes);
        if (m->grad_block && b->fill_zero(m->grad_block, m->grad_bytes))
            return err_set(e, ERR_DEVICE, "%s: gradients: %s", m->dir, b->error());
    }
    if (!m->grad_block)
        return no_memory(m, "gradients", m->grad_bytes, e);
    place(m, m->grad_block, &n, 1);
    return 0;
}

static int make_flags(struct model *m, const struct match *match, struct err *e)
{
    for (size_t i = 0; i < match->n; i++) {
        struct param *p = &m->param[match->need[i].param];

        if (!(match->need[i].row->flags & ROW_SPARSE))
            continue;
        p->touched = arena_alloc(&m->arena, (size_t)p->rows);
        p->live = arena_alloc(&m->arena, (size_t)p->rows);
        if (!p->touched || !p->live)
            return no_memory(m, p->name, (size_t)p->rows, e);
        if (m->grads_mapped)
            mem_advise(p->grad, elements(p) * sizeof *p->grad, MEM_SPARSE);
    }
    return 0;
}

static int make_parameters(struct model *m, struct match *match, struct err *e)
{
    const struct backend *b = m->options.backend;
    size_t n = 0;

    map_params(m, match);
    if (place(m, NULL, &n, 0))
        return no_memory(m, "parameters", SIZE_MAX, e);
    m->data_block = b->alloc(n ? n * sizeof(float) : sizeof(float));
    if (!m->data_block)
        return no_memory(m, "parameters", n * sizeof(float), e);
    return place(m, m->data_block, &n, 0);
}

static int make_memory(struct model *m, struct match *match, struct err *e)
{
    static float nothing; /* where a plan's gradients are said to lie; never touched */
    int rc = m->options.plan ? 0 : make_parameters(m, match, e);

    for (size_t i = 0; i < m->n_params; i++) {
        struct param *p = &m->param[i];

        p->trainable = m->options.trainable;
        p->grad = m->options.plan && m->options.trainable ? &nothing : NULL;
        p->pack[0].version = p->pack[1].version = 1;
        m->info.parameters += (long)elements(p);
    }
    if (rc || !m->options.trainable)
        return rc;
    rc = m->options.plan ? 0 : make_gradients(m, e);
    return rc ? rc : make_flags(m, match, e);
}

/* ---- weights ------------------------------------------------------------------------- */

struct piece { /* of one tensor, to one place */
    const struct safetensors *file;
    const struct safetensors_tensor *tensor;
    size_t from, n;
    float *to;
    int transposed; /* then the piece is the whole tensor */
};

static int read_piece(const struct model *m, const struct piece *x, struct err *e)
{
    const struct backend *b = m->options.backend;
    float *buf, *as_read;
    int rc;

    if (is_host(b) && !x->transposed)
        return safetensors_read_f32(x->file, x->tensor, x->from, x->n, x->to, e);
    buf = mem_array(x->transposed ? 2 * x->n : x->n, sizeof *buf);
    if (!buf)
        return no_memory(m, x->tensor->name, x->n * sizeof *buf, e);
    as_read = x->transposed ? buf + x->n : buf;
    rc = safetensors_read_f32(x->file, x->tensor, x->from, x->n, as_read, e);
    if (!rc && x->transposed)
        fix_transpose(as_read, x->tensor->shape[0], x->tensor->shape[1], buf);
    if (!rc && b->copy_in(x->to, buf, x->n * sizeof *buf))
        rc = err_set(e, ERR_DEVICE, "%s: %s", x->tensor->name, b->error());
    mem_free(buf);
    return rc;
}

static int lies_in_map(const struct need *x, const float *to)
{
    const char *map = x->file->map, *p = (const char *)to;

    return map && p >= map && p < map + x->file->map_len;
}

/* What is to be read, in pieces that threads can share; *floats: elements in all. */
static struct piece *cut_pieces(struct model *m, const struct match *match, size_t *count,
                                size_t *floats)
{
    struct piece *piece;
    size_t most = 1;

    for (size_t i = 0; i < match->n; i++)
        if (match->need[i].tensor)
            most += 1 + match->need[i].tensor->elements / READ_FLOATS;
    piece = arena_array(&m->arena, most, sizeof *piece);
    if (!piece)
        return NULL;
    for (size_t i = 0; i < match->n; i++) {
        const struct need *x = &match->need[i];
        float *to = m->param[x->param].data + x->first;
        int whole = (x->row->flags & ROW_TRANSPOSED) != 0;

        if (!x->tensor || lies_in_map(x, to))
            continue;
        for (size_t at = 0, n; at < x->tensor->elements; at += n) {
            n = x->tensor->elements - at;
            n = n < READ_FLOATS || whole ? n : READ_FLOATS;
            piece[(*count)++] = (struct piece){x->file, x->tensor, at, n, to + at, whole};
            *floats += n;
        }
    }
    return piece;
}

/* Pieces taken in turn by several threads; the first that failed, in file order, counts. */
struct reading {
    const struct model *m;
    const struct piece *piece;
    size_t n, failed;
    atomic_size_t next;
    pthread_mutex_t lock;
    int rc;
    struct err err;
};

static void *read_pieces(void *arg)
{
    struct reading *r = arg;
    struct err e;
    size_t i;

    while ((i = atomic_fetch_add(&r->next, 1)) < r->n) {
        int rc = read_piece(r->m, &r->piece[i], &e);

        if (!rc)
            continue;
        pthread_mutex_lock(&r->lock);
        if (i < r->failed) {
            r->failed = i;
            r->rc = rc;
            r->err = e;
        }
        pthread_mutex_unlock(&r->lock);
    }
    return NULL;
}

static int read_weights(struct model *m, const struct match *match, struct err *e)
{
    struct reading r = {.m = m, .failed = SIZE_MAX, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread[READ_THREADS];
    size_t floats = 0;
    int wanted, started = 0;

    r.piece = cut_pieces(m, match, &r.n, &floats);
    if (!r.piece)
        return no_memory(m, "the list of tensors", 0, e);
    wanted = floats > THREADS_FLOATS_MIN ? m->options.backend->threads() - 1 : 0;
    wanted = wanted < READ_THREADS ? wanted : READ_THREADS;
    /* A thread that cannot be had leaves its share to the others. */
    while (started < wanted && !pthread_create(&thread[started], NULL, read_pieces, &r))
        started++;
    read_pieces(&r);
    for (int i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_mutex_destroy(&r.lock);
    if (r.rc)
        *e = r.err;
    return r.rc;
}

static int make_new_heads(struct model *m, struct err *e)
{
    const struct backend *b = m->options.backend;

    for (size_t i = 0; i < m->n_params; i++) {
        struct param *p = &m->param[i];
        size_t n = elements(p);
        struct rng rng;
        float *x;
        int rc;

        if (!p->new_head)
            continue;
        x = mem_array(n, sizeof *x);
        if (!x)
            return no_memory(m, p->name, n * sizeof *x, e);
        rng_init(&rng, rng_key(m->options.seed, RNG_HEAD,
                               hash_bytes(p->name, strlen(p->name)), 0));
        for (size_t j = 0; j < n && p->decay; j++) /* biases have no decay, and stay 0 */
            x[j] = (float)(0.02 * rng_normal(&rng));
        rc = b->copy_in(p->data, x, n * sizeof *x);
        mem_free(x);
        if (rc)
            return err_set(e, ERR_DEVICE, "%s: %s", p->name, b->error());
    }
    return 0;
}

/* Bytes that are saved as they came: passengers, and F64 beside its rounded copy. */
static int keep_bytes(struct model *m, struct weights *w, struct err *e)
{
    for (size_t i = 0; i < m->n_tensors; i++) {
        struct model_tensor *t = &m->tensor[i];
        const struct safetensors_tensor *found = NULL;
        struct safetensors *s = w->file;
        void *bytes;

        if (t->param >= 0 && t->dtype != DTYPE_F64)
            continue;
        for (; s < w->file + w->n && !found; s++)
            found = safetensors_find(s, t->name);
        invariant(found);
        s--;
        bytes = s->map ? safetensors_map(s, found)
                       : arena_alloc(&m->arena, (size_t)(found->end - found->begin) + 1);
        if (!bytes)
            return no_memory(m, t->name, (size_t)(found->end - found->begin), e);
        if (!s->map && safetensors_read(s, found, 0, found->elements, bytes, e))
            return e->code;
        t->bytes = bytes;
    }
    return 0;
}

/* ---- slots --------------------------------------------------------------------------- */

struct slot_name {
    const char *name;
    size_t offset; /* of the int that holds the index */
};

static int index_of(const struct model *m, const char *name)
{
    for (size_t i = 0; i < m->n_params; i++)
        if (!strcmp(m->param[i].name, name))
            return (int)i;
    return -1;
}

static void index_model(struct model *m)
{
#define SLOT(field, name)                                                                  \
    {                                                                                      \
        name, offsetof(struct model, field)                                                \
    }
    static const struct slot_name slots[] = {
        SLOT(word, "embed.word"),
        SLOT(position, "embed.position"),
        SLOT(type, "embed.type"),
        SLOT(embed_norm_w, "embed.norm.w"),
        SLOT(embed_norm_b, "embed.norm.b"),
        SLOT(norm_w, "norm.w"),
        SLOT(norm_b, "norm.b"),
        SLOT(pooler_w, "pooler.w"),
        SLOT(pooler_b, "pooler.b"),
        SLOT(head_w, "head.w"),
        SLOT(head_b, "head.b"),
        SLOT(value_w, "value.w"),
        SLOT(value_b, "value.b"),
        SLOT(lm_w, "lm.w"),
        SLOT(lm_b, "lm.b"),
        SLOT(mlm_dense_w, "mlm.dense.w"),
        SLOT(mlm_dense_b, "mlm.dense.b"),
        SLOT(mlm_norm_w, "mlm.norm.w"),
        SLOT(mlm_norm_b, "mlm.norm.b"),
    };
#undef SLOT

    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        *(int *)((char *)m + slots[i].offset) = index_of(m, slots[i].name);
    for (size_t i = 0; i < m->n_params; i++)
        if ((int)i != m->head_w && (int)i != m->value_w)
            m->param[i].precision = m->options.precision;
}

static int index_layers(struct model *m, const struct match *match, struct err *e)
{
#define SLOT(field, name)                                                                  \
    {                                                                                      \
        "layer.%d." name, offsetof(struct layer_params, field)                             \
    }
    static const struct slot_name slots[] = {
        SLOT(qkv_w, "attn.qkv.w"),
        SLOT(qkv_b, "attn.qkv.b"),
        SLOT(qnorm_w, "attn.qnorm.w"),
        SLOT(knorm_w, "attn.knorm.w"),
        SLOT(out_w, "attn.out.w"),
        SLOT(out_b, "attn.out.b"),
        SLOT(attn_norm_w, "attn.norm.w"),
        SLOT(attn_norm_b, "attn.norm.b"),
        SLOT(in_w, "ff.in.w"),
        SLOT(in_b, "ff.in.b"),
        SLOT(ffout_w, "ff.out.w"),
        SLOT(ffout_b, "ff.out.b"),
        SLOT(ff_norm_w, "ff.norm.w"),
        SLOT(ff_norm_b, "ff.norm.b"),
    };
#undef SLOT
    long L = m->config.dims.L;

    m->layer = arena_array(&m->arena, (size_t)L, sizeof *m->layer);
    if (!m->layer)
        return no_memory(m, "layers", 0, e);
    memset(m->layer, 0xff, (size_t)L * sizeof *m->layer); /* -1 everywhere */
    for (size_t i = 0; i < match->n; i++)
        for (size_t s = 0; s < sizeof slots / sizeof *slots; s++)
            if (!strcmp(match->need[i].row->slot, slots[s].name))
                *(int *)((char *)&m->layer[match->need[i].layer] + slots[s].offset) =
                    match->need[i].param;
    return 0;
}

/* ---- the whole ----------------------------------------------------------------------- */

static int check_head(const struct model *m, struct err *e)
{
    const struct family *f = m->family;
    enum head_kind head = m->options.head;

    if ((head_is_causal(head) && !f->arch_causal) ||
        (head == HEAD_MASKED && !f->arch_masked))
        return err_set(e, ERR_UNSUPPORTED, "%s: %s models have no %s language-model head",
                       m->dir, f->model_type, head_is_causal(head) ? "causal" : "masked");
    if (m->pooling == POOLING_EOS && m->config.eos_id < 0)
        return err_set(e, ERR_CONFIG, "%s: pooling eos needs eos_token_id in config.json",
                       m->dir);
    return 0;
}

static int keep_header(struct model *m, const struct weights *w, struct err *e)
{
    const struct safetensors *s = &w->file[0];
    char *header = arena_alloc(&m->arena, s->header_len + 1);

    if (header)
        memcpy(header, s->header, s->header_len);
    m->header = header;
    m->header_len = s->header_len;
    m->metadata = s->metadata ? arena_strdup(&m->arena, s->metadata) : NULL;
    return header && (m->metadata || !s->metadata) ? 0 : no_memory(m, "the header", 0, e);
}

/* What a plan does without. */
static int load_contents(struct model *m, const struct match *match, struct err *e)
{
    int rc = read_weights(m, match, e);

    if (!rc)
        rc = make_new_heads(m, e);
    if (!rc)
        rc = keep_bytes(m, m->weights, e);
    if (!rc)
        rc = keep_header(m, m->weights, e);
    return !rc && m->options.trainable ? files_read(m, e) : rc;
}

static int load(struct model *m, struct err *e)
{
    struct match match;
    int rc = config_read(m->dir, &m->json_config, &m->family, &m->config, e);

    if (rc)
        return rc;
    config_info(m->family, &m->config, &m->info);
    m->info.parameters = 0;
    rc = check_head(m, e);
    if (!rc)
        rc = weights_open(&m->weights, m->dir, e);
    if (!rc)
        rc = match_weights(m, m->weights, &match, e);
    if (!rc)
        rc = make_memory(m, &match, e);
    if (!rc && !m->options.plan)
        rc = load_contents(m, &match, e);
    if (!rc)
        rc = index_layers(m, &match, e);
    if (rc)
        return rc;
    index_model(m);
    if (m->options.trainable || m->options.plan || !is_host(m->options.backend)) {
        weights_close(m->weights); /* nothing lies in its map */
        m->weights = NULL;
    }
    return m->options.plan ? 0 : model_check_range(m, e);
}

int model_open(struct model **out, const char *dir, const struct model_options *o,
               struct err *e)
{
    struct model *m = mem_alloc(sizeof *m);
    int rc;

    *out = NULL;
    if (!m)
        return err_set(e, ERR_NOMEM, "load model %s: out of memory", dir);
    m->options = *o;
    m->pooling = o->pooling;
    m->dir = arena_strdup(&m->arena, dir);
    rc = m->dir ? load(m, e) : err_set(e, ERR_NOMEM, "out of memory");
    if (rc) {
        model_close(m);
        return err_wrap(e, "load model");
    }
    *out = m;
    return 0;
}

void model_close(struct model *m)
{
    const struct backend *b;

    if (!m)
        return;
    b = m->options.backend;
    for (size_t i = 0; i < m->n_params; i++)
        for (int j = 0; j < 2; j++)
            if (m->param[i].pack[j].data)
                b->pack_free(&m->param[i].pack[j]);
    if (m->data_block)
        b->release(m->data_block);
    if (m->grad_block && m->grads_mapped)
        munmap(m->grad_block, m->grad_bytes);
    else if (m->grad_block)
        b->release(m->grad_block);
    files_free(m);
    weights_close(m->weights);
    mem_free(m->config.rotary_freq);
    json_decref(m->json_config);
    arena_fini(&m->arena);
    mem_free(m);
}
