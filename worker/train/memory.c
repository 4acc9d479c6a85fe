/* The memory plan; see memory.h.
 *
 * Activations come from a dry run of the heaviest micro-batch that the run will meet: its
 * order of rows is known. Of an embedding table's gradient and moments only the pages of
 * rows with tokens in the run ever exist (worker/train/optim.c). What the program and the
 * data take is measured in this process, which has loaded the same. */
#include "worker/train/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "worker/data/pack.h"
#include "worker/dist/shard.h"
#include "worker/train/bucket.h"
#include "worker/train/trainer.h"

enum { TILE = 16, HUGE_PAGE = 2 << 20 };
static const size_t least_scratch = 3 << 19, fixed_scratch = 5 << 19;
static const size_t thread_scratch = 3 << 20;
/* On a device: of libraries and copies, beside what is reserved; of a parameter, for lists;
 * what steps differ by that have as many tokens; what blocks are rounded up to. */
static const size_t device_fixed = 40 << 20, device_item = 4096, device_slack = 16,
                    device_block = 256,
                    device_exchange = 16 << 20; /* between ranks: rows of tables */

/* ---- this process -------------------------------------------------------------------- */

static size_t status_bytes(const char *key)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    double kib = 0;

    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            kib = strtod(line + strlen(key), NULL);
    if (f)
        fclose(f);
    return (size_t)(kib * 1024);
}

size_t memory_anonymous(void)
{
    return status_bytes("RssAnon:");
}

size_t memory_of_files(void)
{
    return status_bytes("RssFile:");
}

/* What a touched byte of a large fresh block costs. */
static size_t page_bytes(void)
{
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    char line[128] = "";
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    if (f && fgets(line, sizeof line, f) && strstr(line, "[always]"))
        page = HUGE_PAGE;
    if (f)
        fclose(f);
    return page;
}

/* ---- the heaviest micro-batch -------------------------------------------------------- */

struct part {
    uint32_t *seq;
    size_t n, tokens;
    size_t most; /* parts of one batch (training), of all (evaluation) */
};

static size_t length_of(const struct sequences *s, size_t i)
{
    return s->offset[i + 1] - s->offset[i];
}

static void keep_heavier(struct part *best, const uint32_t *seq, size_t n, size_t tokens)
{
    if (tokens < best->tokens || (tokens == best->tokens && n <= best->n))
        return;
    memcpy(best->seq, seq, n * sizeof *seq);
    best->n = n;
    best->tokens = tokens;
}

/* Cut m sequences as the trainer and inference do, in units of `unit`. */
static void cut(const struct sequences *s, const uint32_t *seq, size_t m, size_t unit,
                size_t micro, struct part *best)
{
    size_t first = 0, have = 0, parts = 0;

    for (size_t i = 0; i < m; i += unit) {
        size_t tokens = 0;

        for (size_t k = i; k < i + unit; k++)
            tokens += length_of(s, seq[k]);
        if (!parts || have + tokens > micro) {
            keep_heavier(best, seq + first, i - first, have);
            first = i;
            have = 0;
            parts++;
        }
        have += tokens;
    }
    keep_heavier(best, seq + first, m - first, have);
    if (parts > best->most)
        best->most = parts;
}

static size_t micro_tokens(const struct memory_request *r)
{
    long micro = r->micro_tokens ? r->micro_tokens : r->stage->common.micro_tokens;

    return micro ? (size_t)micro : TRAINER_MICRO_TOKENS;
}

/* Whole examples where the stage allows and each fits (worker/train/trainer.c). */
static size_t unit_of(const struct memory_request *r, const uint32_t *seq, size_t m)
{
    size_t S = r->train->per_example;

    if (!r->stage->stage->separable)
        return 1;
    for (size_t i = 0; S > 1 && i < m; i += S) {
        size_t tokens = 0;

        for (size_t k = i; k < i + S; k++)
            tokens += length_of(r->train, seq[k]);
        if (tokens > micro_tokens(r))
            return 1;
    }
    return S;
}

/* Of the n examples of a batch, those of the rank that gets the heaviest micro-batch. */
static int heaviest_share(const struct memory_request *r, const uint32_t *seq, size_t n,
                          struct part *best, struct err *e)
{
    size_t S = r->train->per_example, m, micro = micro_tokens(r);
    uint32_t *own;
    size_t *tokens;
    int *owner, rc;

    if (r->ranks <= 1) {
        cut(r->train, seq, n * S, unit_of(r, seq, n * S), micro, best);
        return 0;
    }
    own = mem_array(n * S, sizeof *own);
    tokens = mem_array(n, sizeof *tokens);
    owner = mem_array(n, sizeof *owner);
    rc = own && tokens && owner ? 0 : err_set(e, ERR_NOMEM, "memory plan: out of memory");
    for (size_t i = 0; !rc && i < n * S; i++)
        tokens[i / S] += length_of(r->train, seq[i]);
    if (!rc)
        rc = shard_by_tokens(tokens, n, r->ranks, owner, e);
    for (int rank = 0; !rc && rank < r->ranks; rank++) {
        m = 0;
        for (size_t i = 0; i < n * S; i++)
            if (owner[i / S] == rank)
                own[m++] = seq[i];
        cut(r->train, own, m, unit_of(r, own, m), micro, best);
    }
    mem_free(own);
    mem_free(tokens);
    mem_free(owner);
    return rc;
}

/* Over all steps, in the run's own order; marks the rows that are met. */
static int heaviest_step(const struct memory_request *r, struct part *best,
                         unsigned char *met, struct err *e)
{
    size_t S = r->train->per_example, rows = r->train->n / S;
    size_t batch = (size_t)r->stage->common.batch;
    long per_epoch = (long)((rows + batch - 1) / batch);
    uint32_t *order = mem_array(rows, sizeof *order), *seq;
    int rc = 0;

    seq = mem_array((batch < rows ? batch : rows) * S, sizeof *seq);
    if (!order || !seq)
        rc = err_set(e, ERR_NOMEM, "memory plan: out of memory");
    for (long step = 0; !rc && step < r->steps; step++) {
        size_t first = (size_t)(step % per_epoch) * batch;
        size_t n = rows - first < batch ? rows - first : batch;

        if (first == 0 && order_epoch(order, rows, (uint64_t)r->spec->seed, r->stage->name,
                                      step / per_epoch))
            rc = err_set(e, ERR_CONFIG, "memory plan: too many rows");
        for (size_t i = 0; !rc && i < n; i++) {
            met[order[first + i]] = 1;
            for (size_t k = 0; k < S; k++)
                seq[i * S + k] = (uint32_t)(order[first + i] * S + k);
        }
        if (!rc)
            rc = heaviest_share(r, seq, n, best, e);
    }
    mem_free(order);
    mem_free(seq);
    return rc;
}

struct length {
    size_t tokens;
    uint32_t number;
};

static int longer(const void *a, const void *b)
{
    const struct length *x = a, *y = b;

    if (x->tokens != y->tokens)
        return x->tokens < y->tokens ? 1 : -1;
    return x->number < y->number ? -1 : 1;
}

/* As worker/train/infer.c goes through a split: each rank its share, longest first. */
static int heaviest_inference(const struct memory_request *r, const struct sequences *s,
                              struct part *best, struct err *e)
{
    struct length *l = mem_array(s->n + 1, sizeof *l);
    uint32_t *seq = mem_array(s->n + 1, sizeof *seq);
    size_t *tokens = mem_array(s->n + 1, sizeof *tokens);
    int *owner = mem_array(s->n + 1, sizeof *owner), rc = 0;

    if (!l || !seq || !tokens || !owner)
        rc = err_set(e, ERR_NOMEM, "memory plan: out of memory");
    for (size_t i = 0; !rc && i < s->n; i++)
        tokens[i] = length_of(s, i);
    if (!rc && r->ranks > 1 && s->n)
        rc = shard_by_tokens(tokens, s->n, r->ranks, owner, e);
    for (int rank = 0; !rc && rank < (r->ranks > 1 ? r->ranks : 1); rank++) {
        size_t n = 0;

        for (size_t i = 0; i < s->n; i++)
            if (owner[i] == rank)
                l[n++] = (struct length){tokens[i], (uint32_t)i};
        qsort(l, n, sizeof *l, longer);
        for (size_t i = 0; i < n; i++)
            seq[i] = l[i].number;
        cut(s, seq, n, 1, micro_tokens(r), best);
    }
    mem_free(l);
    mem_free(seq);
    mem_free(tokens);
    mem_free(owner);
    return rc;
}

/* A dry run of the part, filled up where it will be; no sequences: 0. */
static int dry_run(struct model *m, const struct sequences *s, struct part *p,
                   enum model_plan_for use, int round, size_t *bytes, struct err *e)
{
    struct pack_size have = {p->tokens, p->n, pack_answers(s, p->seq, p->n)}, all = have;
    size_t *length;
    int rc;

    *bytes = 0;
    if (round && p->n)
        all = pack_round(have, s->longest);
    length = mem_array(all.sequences + 1, sizeof *length);
    if (!length)
        return err_set(e, ERR_NOMEM, "memory plan: out of memory");
    for (size_t i = 0; i < all.sequences; i++)
        length[i] = i < p->n ? length_of(s, p->seq[i])
                             : pack_filling(all.tokens - have.tokens, all.sequences - p->n,
                                            i - p->n);
    p->tokens = all.tokens;
    rc = p->n ? model_plan(m, length, (long)all.sequences, use, bytes, e) : 0;
    mem_free(length);
    return rc;
}

/* ---- parameters ---------------------------------------------------------------------- */

/* Bytes of the pages in which marked rows of `width` bytes lie. */
static size_t marked_pages(const unsigned char *row, size_t rows, size_t width, size_t page)
{
    size_t pages = 0, next = 0; /* the first page that is not counted yet */

    for (size_t i = 0; i < rows; i++) {
        size_t from = i * width / page, to = ((i + 1) * width - 1) / page;

        if (!row[i])
            continue;
        from = from < next ? next : from;
        pages += to + 1 > from ? to + 1 - from : 0;
        next = to + 1 > next ? to + 1 : next;
    }
    return pages * page;
}

/* Which ids stand in the marked rows; all where that cannot be found out. */
static void mark_ids(const struct sequences *s, const unsigned char *met,
                     unsigned char *seen, size_t vocab)
{
    int *ids = mem_array(s->longest + 1, sizeof *ids);
    struct store_buf buf = {0};
    struct err e;
    int ok = ids != NULL;

    for (size_t i = 0; ok && i < s->n; i++) {
        if (!met[i / s->per_example])
            continue;
        ok = !sequences_read(s, i, &buf, ids, NULL, &e);
        for (size_t k = 0; ok && k < length_of(s, i); k++)
            if (ids[k] >= 0 && (size_t)ids[k] < vocab)
                seen[ids[k]] = 1;
    }
    if (!ok)
        memset(seen, 1, vocab);
    store_buf_fini(&buf);
    mem_free(ids);
}

/* Bytes that a gradient or a moment of an embedding table takes. */
static int table_bytes(const struct memory_request *r, const struct param *p,
                       const unsigned char *met, size_t *bytes, struct err *e)
{
    size_t rows = (size_t)p->rows;
    unsigned char *seen;

    *bytes = rows * (size_t)p->cols * sizeof(float);
    if (r->device)
        return 0;
    seen = mem_alloc(rows);
    if (!seen)
        return err_set(e, ERR_NOMEM, "memory plan: out of memory");
    if (!strcmp(p->name, "embed.word"))
        mark_ids(r->train, met, seen, rows);
    else /* positions, from whatever offset; token types */
        memset(seen, 1, r->train->longest + 2 < rows ? r->train->longest + 2 : rows);
    *bytes = marked_pages(seen, rows, (size_t)p->cols * sizeof(float), page_bytes());
    mem_free(seen);
    return 0;
}

/* Is it multiplied in fragments of its rows (worker/tape/rule/logprob.c)? Tied to the
 * embedding or not. */
static int in_fragments(const struct memory_request *r, const struct param *p)
{
    return r->shape->head == HEAD_LOGPROB &&
           (!strcmp(p->name, "lm.w") || !strcmp(p->name, "embed.word"));
}

/* What a block of so many bytes takes. */
static size_t block_bytes(const struct memory_request *r, size_t bytes)
{
    return r->device ? (bytes + device_block - 1) / device_block * device_block : bytes;
}

/* A product keeps its matrix packed: in bf16 always, in f32 when the same weights come
 * again (`kept`); for backward as well where there is one. */
static size_t packed_bytes(const struct memory_request *r, const struct param *p,
                           size_t kept)
{
    size_t rows = (size_t)(p->rows + TILE - 1) / TILE * TILE;
    size_t n = rows * (size_t)p->cols;
    int two_bytes = r->precision == PRECISION_BF16 || r->precision == PRECISION_F16;
    int native = r->precision == PRECISION_BF16 && r->backend->bf16();

    if (p->touched || p->rows < 2 || p->cols < 2 || in_fragments(r, p))
        return 0;
    if (r->device && two_bytes) /* two copies, rows of a multiple of 16 bytes */
        return (p->trainable ? 2 : 1) *
               block_bytes(r, (size_t)p->rows * (((size_t)p->cols + 7) / 8 * 8) *
                                  sizeof(uint16_t));
    if (r->device)
        return 0;
    if (two_bytes)
        return (p->trainable ? 2 : 1) * n * (native ? sizeof(uint16_t) : sizeof(float));
    return kept * n * sizeof(float);
}

/* Gradients and moments of a parameter whose rows in use take `state` bytes. */
static void add_state(const struct memory_request *r, const struct param *p, size_t state,
                      struct memory_plan *out)
{
    size_t size = (size_t)p->rows * (size_t)p->cols * sizeof(float);
    size_t ranks = r->ranks > 1 ? (size_t)r->ranks : 1;
    int sparse = p->touched && !(r->stage->common.weight_decay > 0 && p->decay);

    out->gradients += state;
    if (sparse) {
        out->moments += 2 * block_bytes(r, state);
        out->buffers += 3 * (size_t)p->rows; /* flags of rows */
    } else if (ranks > 1 && r->shard) {
        out->moments += 2 * block_bytes(r, size / ranks);
        out->exchange += size + (ranks - 1) * size / ranks;
    } else { /* with decay every row of a table moves at every step */
        out->moments += 2 * block_bytes(r, size);
        out->exchange += (ranks - 1) * size;
    }
}

/* On a device operators want room for the operands of a weight's gradient, or for partial
 * sums of about that size; the optimizer, for flags of rows and its list. */
static void plan_scratch(const struct memory_request *r, const struct param *p,
                         struct memory_plan *out)
{
    int cut = in_fragments(r, p);
    long rows = cut && p->rows > TAPE_FRAGMENT_COLUMNS ? TAPE_FRAGMENT_COLUMNS : p->rows;
    size_t operands = out->tokens * (size_t)(rows + p->cols) * sizeof(float);

    if (p->touched)
        out->buffers += (size_t)p->rows;
    if (p->touched && !cut)
        return;
    if (operands > out->scratch)
        out->scratch = operands;
    out->buffers += device_item;
}

/* Attention in two bytes: rounded copies of q, k, v and their output's gradient, with heads
 * padded to a power of two from 32 on, and a number for each head. */
static void plan_attention(const struct model_info *info, const struct param *p,
                           struct memory_plan *out)
{
    size_t q = (size_t)info->heads, kv = (size_t)info->kv_heads, d = 32, bytes;

    if (!strstr(p->name, "attn.qkv.w") || !q)
        return;
    while (d < (size_t)p->rows / (q + 2 * kv))
        d *= 2;
    bytes = out->tokens * (2 * (2 * q + 2 * kv) * d + q * sizeof(float)) + device_item;
    if (bytes > out->scratch)
        out->scratch = bytes;
}

static int plan_parameters(const struct memory_request *r, struct model *m,
                           const unsigned char *met, size_t kept, struct memory_plan *out,
                           struct err *e)
{
    size_t n;
    const struct param *p = model_params(m, &n);

    for (size_t i = 0; i < n; i++) {
        size_t size = (size_t)p[i].rows * (size_t)p[i].cols * sizeof(float);
        size_t state = size;
        int rc;

        if (r->device)
            plan_scratch(r, &p[i], out);
        if (r->device && r->precision != PRECISION_F32)
            plan_attention(model_get_info(m), &p[i], out);
        out->parameters += p[i].rows * p[i].cols;
        out->weights += size;
        out->packed += packed_bytes(r, &p[i], kept);
        if (!p[i].trainable)
            continue;
        rc = p[i].touched ? table_bytes(r, &p[i], met, &state, e) : 0;
        if (rc)
            return rc;
        add_state(r, &p[i], state, out);
    }
    return 0;
}

/* Two-byte gradients of a bucket, which may be twice as large, on their way and back. */
static size_t wire_bytes(const struct memory_request *r)
{
    long mb = r->bucket_mb ? r->bucket_mb : BUCKET_MB_MOST;

    return r->spec->resources.gradients == GRADIENTS_BF16 ? (size_t)mb << 21 : 0;
}

/* ---- the whole ----------------------------------------------------------------------- */

/* Of operators, by thread, and of files that are read and written; small models fill none
 * of it. */
static size_t scratch_bytes(const struct memory_request *r, size_t weights)
{
    size_t threads = (size_t)r->backend->threads();
    size_t thread = weights < thread_scratch ? weights : thread_scratch;

    return least_scratch + (weights < fixed_scratch ? weights : fixed_scratch) +
           threads * thread;
}

/* What a stage pools by: its own word, that of the stage whose model it starts from, or the
 * checkpoint's. */
static int find_pooling(const struct spec *s, const struct stage_spec *st,
                        enum pooling *out, struct err *e)
{
    struct stage_shape shape = {0};
    int need;

    while (st->common.pooling < 0) {
        need = st->stage->init_from ? st->stage->init_from(st->config, s, st) : -1;
        if (need < 0) {
            st->stage->shape(st->config, s, &shape);
            return model_default_pooling(s->model, shape.head, out, e);
        }
        st = &s->stage[st->needs[need]];
    }
    *out = (enum pooling)st->common.pooling;
    return 0;
}

static int open_model(const struct memory_request *r, struct model **out, struct err *e)
{
    const struct common_options *o = &r->stage->common;
    struct model_options m = {
        .backend = r->backend,
        .head = r->shape->head,
        .outputs = r->shape->head == HEAD_CLASSIFY ? (long)r->spec->task.labels.n : 1,
        .value_head = r->shape->value_head,
        .trainable = r->stage->stage->loss != NULL,
        .keep_head = 0,
        .dropout = o->dropout,
        .plan = 1,
        .precision = r->precision,
        .seed = (uint64_t)r->spec->seed};
    int rc = find_pooling(r->spec, r->stage, &m.pooling, e);

    return rc ? rc : model_open(out, r->spec->model, &m, e);
}

static void add_up(const struct memory_request *r, struct memory_plan *p)
{
    p->peak = p->host = 0;
#define X(part) p->peak += p->part;
    MEMORY_PARTS(X)
#undef X
    if (r->device)
        p->host = p->program + p->data + p->exchange;
    p->peak -= p->host;
    p->when = !r->stage->stage->loss ? "measuring"
              : p->evaluation        ? "evaluation"
                                     : "training";
}

static int plan_steps(const struct memory_request *r, struct model *m,
                      struct memory_plan *p, struct part *step, struct part *infer,
                      unsigned char *met, struct err *e)
{
    const struct sequences *split = r->validation;
    int rc = r->stage->stage->loss ? heaviest_step(r, step, met, e) : 0;

    if (!r->stage->stage->loss && r->test->n)
        split = r->test;
    if (!rc)
        rc = dry_run(m, r->train, step, r->recompute ? PLAN_RECOMPUTE : PLAN_TRAIN,
                     r->device, &p->step, e);
    if (!rc)
        rc = heaviest_inference(r, split, infer, e);
    if (!rc)
        rc = dry_run(m, split, infer, PLAN_INFER, 0, &p->evaluation, e);
    p->tokens = step->tokens > infer->tokens ? step->tokens : infer->tokens;
    return rc ? rc
              : plan_parameters(
                    r, m, met,
                    (size_t)(step->most > 1 || infer->most > 1) + (step->most > 1), p, e);
}

int memory_plan(const struct memory_request *r, struct memory_plan *out, struct err *e)
{
    size_t rows = r->train->n / r->train->per_example, most = r->train->n;
    unsigned char *met = mem_alloc(rows + 1);
    struct part step = {0}, infer = {0};
    struct model *m = NULL;
    int rc = 0;

    memset(out, 0, sizeof *out);
    most = r->validation->n > most ? r->validation->n : most;
    most = r->test->n > most ? r->test->n : most;
    step.seq = mem_array(most + 1, sizeof *step.seq);
    infer.seq = mem_array(most + 1, sizeof *infer.seq);
    if (!met || !step.seq || !infer.seq)
        rc = err_set(e, ERR_NOMEM, "memory plan: out of memory");
    if (!rc)
        rc = open_model(r, &m, e);
    if (!rc)
        rc = plan_steps(r, m, out, &step, &infer, met, e);
    out->program = memory_of_files();
    out->data = r->data + sequences_bytes(r->train) + sequences_bytes(r->validation);
    if (r->device) {
        out->scratch += out->buffers;
        out->buffers = out->scratch + device_fixed;
        if (r->ranks > 1)
            out->between = device_exchange + wire_bytes(r);
        out->buffers += out->between;
        out->step += out->step / device_slack;
        out->evaluation += out->evaluation / device_slack;
    } else {
        out->buffers += scratch_bytes(r, out->weights);
    }
    out->micro_tokens = (long)micro_tokens(r);
    out->recompute = r->recompute;
    add_up(r, out);
    model_close(m);
    mem_free(met);
    mem_free(step.seq);
    mem_free(infer.seq);
    return rc;
}
