/* hone data show: what the splits hold, as a table for people or one JSON document.
 *
 * Tokens are counted as the policy sees them, special tokens included and before anything
 * is cut; `truncated` are the rows longer than data.max_tokens, `truncated_reward` those
 * that lose text beside the longest candidate. `shared`: rows of one split whose text (but
 * for case) stands in another. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "worker/data/encode.h"
#include "worker/data/text.h"
#include "worker/train/job.h"
#include "worker/verb/data.h"

enum { BUCKETS = 24, BAR = 30 }; /* lengths up to 4, 8, 16, ... 2^25 tokens */

struct split_facts {
    size_t rows, tokens, longest, median, p95;
    size_t truncated, truncated_reward, duplicates, dropped, empty;
    size_t answer; /* tokens of responses */
    size_t bucket[BUCKETS];
    size_t *label;         /* (K) */
    uint64_t *key;         /* (rows) sorted */
    size_t shared[SPLITS]; /* rows of this split that stand in another one */
};

struct facts {
    const struct data_job *job;
    struct tok *tok;
    struct encode_spec encode;
    struct split_facts split[SPLITS];
};

static int by_size(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;

    return x < y ? -1 : x > y;
}

static int by_key(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "facts about the data: out of memory");
}

/* ---- counting ------------------------------------------------------------------------ */

/* Tokens of a text alone and behind its prefix. */
static int measure(const struct facts *f, const struct row *row, int k, struct str *work,
                   struct tok_ids *ids, size_t *plain, size_t *prefixed, struct err *e)
{
    const char *prefix = f->encode.prefix;
    int rc;

    ids->n = 0;
    rc = tok_encode(f->tok, row->text[k], row->len[k], ids, e);
    *plain += ids->n;
    if (rc || !prefix || !*prefix) {
        *prefixed += ids->n;
        return rc;
    }
    ids->n = 0;
    str_clear(work);
    str_addf(work, "%s: ", prefix);
    str_add_bytes(work, row->text[k], row->len[k]);
    if (str_failed(work))
        return no_memory(e);
    rc = tok_encode(f->tok, work->s, work->len, ids, e);
    *prefixed += ids->n;
    return rc;
}

static void add_length(const struct facts *f, struct split_facts *s, size_t n)
{
    int b = 0;

    s->tokens += n;
    s->truncated += n > (size_t)f->encode.max_tokens;
    while (b < BUCKETS - 1 && n > (size_t)4 << b)
        b++;
    s->bucket[b]++;
}

static void sort_lengths(struct split_facts *s, size_t *length, size_t n)
{
    qsort(length, n, sizeof *length, by_size);
    s->longest = length[n - 1];
    s->median = length[n / 2];
    s->p95 = length[(n - 1) * 95 / 100];
}

/* Prompts with their responses, before anything is cut. */
static int count_answers(const struct facts *f, const struct dataset *d,
                         struct split_facts *s, struct err *e)
{
    size_t *length = mem_array(d->n, sizeof *length);
    struct encode_spec whole = f->encode;
    struct sequences q = {0};
    int rc;

    whole.max_tokens = 1 << 30;
    rc = length ? encode_dataset(&q, d, NULL, 0, &whole, e) : no_memory(e);
    for (size_t i = 0; !rc && i < d->n; i++) {
        length[i] = q.offset[i + 1] - q.offset[i];
        s->answer += length[i] - (size_t)q.answer[i];
        add_length(f, s, length[i]);
    }
    if (!rc)
        sort_lengths(s, length, d->n);
    mem_free(length);
    sequences_fini(&q);
    return rc;
}

static int count_lengths(const struct facts *f, const struct dataset *d,
                         struct split_facts *s, size_t reward_room, struct err *e)
{
    size_t *length = mem_array(d->n, sizeof *length), special;
    struct tok_ids ids = {0};
    struct str work = {0};
    struct tok_frame frame;
    struct store_buf buf = {0};
    struct row row;
    int rc = length ? 0 : no_memory(e);

    tok_frame(f->tok, d->pairs, &frame);
    special = (size_t)(frame.n_prefix + frame.n_middle + frame.n_suffix);
    for (size_t i = 0; i < d->n && !rc; i++) {
        size_t n = special, reward = 0;

        rc = dataset_get(d, i, &buf, &row, e);
        for (int k = 0; k <= d->pairs && !rc; k++)
            rc = measure(f, &row, k, &work, &ids, &n, &reward, e);
        length[i] = n;
        s->truncated_reward += reward > reward_room;
        add_length(f, s, n);
    }
    if (!rc)
        sort_lengths(s, length, d->n);
    mem_free(length);
    tok_ids_fini(&ids);
    str_fini(&work);
    store_buf_fini(&buf);
    return rc;
}

static int count_rows(const struct dataset *d, size_t K, struct split_facts *s,
                      struct err *e)
{
    struct store_buf buf = {0};
    struct str work = {0};
    struct row row;
    int rc = 0;

    s->rows = d->n;
    s->dropped = d->dropped_duplicates;
    s->empty = d->dropped_empty;
    s->label = mem_array(K + 1, sizeof *s->label);
    s->key = mem_array(d->n, sizeof *s->key);
    if (!s->label || !s->key)
        return no_memory(e);
    for (size_t i = 0; i < d->n && !rc; i++) {
        unsigned char key[TEXT_KEY];

        rc = dataset_get(d, i, &buf, &row, e);
        if (!rc && text_key(row.text, row.len, &work, key))
            rc = no_memory(e);
        if (rc)
            break;
        if (row.label >= 0)
            s->label[row.label]++;
        memcpy(&s->key[i], key, sizeof s->key[i]);
    }
    store_buf_fini(&buf);
    str_fini(&work);
    if (rc)
        return rc;
    qsort(s->key, d->n, sizeof *s->key, by_key);
    for (size_t i = 1; i < d->n; i++)
        s->duplicates += s->key[i] == s->key[i - 1];
    return 0;
}

static size_t count_shared(const struct split_facts *a, const struct split_facts *b)
{
    size_t n = 0;

    for (size_t i = 0; i < a->rows && b->rows; i++)
        n += bsearch(&a->key[i], b->key, b->rows, sizeof *b->key, by_key) != NULL;
    return n;
}

static int collect(struct facts *f, struct err *e)
{
    const struct spec *s = &f->job->spec;
    int rc = tok_open(&f->tok, s->model, e);

    if (!rc)
        rc = job_encode_spec(s, f->tok, &f->encode, e);
    for (int k = 0; k < SPLITS && !rc; k++) {
        const struct dataset *d = &f->job->split[k];
        long taken = 0;

        if (!d->n)
            continue;
        if (!f->encode.answers)
            taken = encode_reward_special(&f->encode, d->pairs, e);
        rc = taken < 0 ? (int)taken : count_rows(d, s->task.labels.n, &f->split[k], e);
        if (!rc && f->encode.answers)
            rc = count_answers(f, d, &f->split[k], e);
        else if (!rc)
            rc = count_lengths(
                f, d, &f->split[k],
                taken < s->data.max_tokens ? (size_t)(s->data.max_tokens - taken) : 0, e);
    }
    for (int a = 0; a < SPLITS && !rc; a++)
        for (int b = 0; b < SPLITS; b++)
            if (a != b)
                f->split[a].shared[b] = count_shared(&f->split[a], &f->split[b]);
    return rc;
}

/* ---- table --------------------------------------------------------------------------- */

static void head(const struct facts *f, struct str *o, const char *name)
{
    str_addf(o, "%-24s", name);
    for (int k = 0; k < SPLITS; k++)
        if (f->split[k].rows)
            str_addf(o, "%12s", split_names[k]);
    str_add(o, "\n");
}

static void line(const struct facts *f, struct str *o, const char *name, size_t offset)
{
    str_addf(o, "%-24.60s", name);
    for (int k = 0; k < SPLITS; k++)
        if (f->split[k].rows)
            str_addf(o, "%12zu", *(const size_t *)((const char *)&f->split[k] + offset));
    str_add(o, "\n");
}

static void share_line(const struct facts *f, struct str *o, const char *name,
                       size_t offset)
{
    str_addf(o, "%-24s", name);
    for (int k = 0; k < SPLITS; k++) {
        const struct split_facts *s = &f->split[k];
        size_t n = *(const size_t *)((const char *)s + offset);

        if (s->rows)
            str_addf(o, "%10.2f %%", 100.0 * (double)n / (double)s->rows);
    }
    str_add(o, "\n");
}

static void histogram(const struct split_facts *s, const char *name, struct str *o)
{
    size_t most = 1;
    int first = 0, last = 0;

    while (first < BUCKETS - 1 && !s->bucket[first])
        first++;
    for (int b = first; b < BUCKETS; b++) {
        most = s->bucket[b] > most ? s->bucket[b] : most;
        last = s->bucket[b] ? b : last;
    }
    str_addf(o, "\ntokens a row, %s\n", name);
    for (int b = first; b <= last; b++) {
        int n = (int)((double)s->bucket[b] / (double)most * BAR + 0.5);

        str_addf(o, "  up to %-8ld %9zu  %.*s\n", 4L << b, s->bucket[b], n,
                 "##############################");
    }
}

#define FIELD(x) offsetof(struct split_facts, x)

static void table(const struct facts *f, struct str *o)
{
    const struct spec *spec = &f->job->spec;
    const struct opt_list *labels = &spec->task.labels;
    int shared = 0;

    head(f, o, "");
    line(f, o, "rows", FIELD(rows));
    line(f, o, "duplicates left out", FIELD(dropped));
    line(f, o, "duplicates kept", FIELD(duplicates));
    line(f, o, "without text, left out", FIELD(empty));
    line(f, o, "tokens", FIELD(tokens));
    line(f, o, "  median a row", FIELD(median));
    line(f, o, "  95 % of rows up to", FIELD(p95));
    line(f, o, "  longest row", FIELD(longest));
    if (f->encode.answers)
        line(f, o, "  of responses", FIELD(answer));
    share_line(f, o, f->encode.answers ? "cut" : "cut, classifier", FIELD(truncated));
    if (!f->encode.answers)
        share_line(f, o, "cut, reward model", FIELD(truncated_reward));
    for (int k = 0; k < SPLITS; k++) {
        char name[40];

        snprintf(name, sizeof name, "texts also in %s", split_names[k]);
        if (f->split[k].rows)
            line(f, o, name, FIELD(shared) + (size_t)k * sizeof(size_t));
        for (int other = 0; other < SPLITS; other++)
            shared |= f->split[k].shared[other] > 0;
    }
    if (labels->n)
        head(f, o, "\nlabels");
    for (size_t c = 0; c < labels->n; c++) {
        str_addf(o, "%2zu %-21.60s", c, labels->text[c]);
        for (int k = 0; k < SPLITS; k++)
            if (f->split[k].rows)
                str_addf(o, "%12zu", f->split[k].label[c]);
        str_add(o, "\n");
    }
    for (int k = 0; k < SPLITS; k++)
        if (f->split[k].rows)
            histogram(&f->split[k], split_names[k], o);
    if (shared)
        str_add(o, "\nsplits share texts: what is measured on them is too good\n");
}

/* ---- JSON ---------------------------------------------------------------------------- */

static void split_json(const struct facts *f, int k, struct str *o)
{
    const struct split_facts *s = &f->split[k];
    const struct opt_list *labels = &f->job->spec.task.labels;

    str_addf(o,
             "\"%s\": {\"rows\": %zu, \"duplicates_dropped\": %zu, \"duplicates_kept\": "
             "%zu, \"empty_dropped\": %zu, \"tokens\": %zu, \"median\": %zu, \"p95\": %zu, "
             "\"longest\": %zu, \"truncated\": ",
             split_names[k], s->rows, s->dropped, s->duplicates, s->empty, s->tokens,
             s->median, s->p95, s->longest);
    json_number(o, (double)s->truncated / (double)s->rows);
    str_add(o, ", \"truncated_reward\": ");
    json_number(o, (double)s->truncated_reward / (double)s->rows);
    str_addf(o, ", \"answer_tokens\": %zu, \"labels\": [", s->answer);
    for (size_t c = 0; c < labels->n; c++) {
        str_addf(o, "%s{\"label\": ", c ? ", " : "");
        str_add_json(o, labels->text[c], strlen(labels->text[c]));
        str_addf(o, ", \"rows\": %zu}", s->label[c]);
    }
    str_add(o, "], \"histogram\": [");
    for (int b = 0, first = 1; b < BUCKETS; b++)
        if (s->bucket[b]) {
            str_addf(o, "%s{\"up_to\": %ld, \"rows\": %zu}", first ? "" : ", ", 4L << b,
                     s->bucket[b]);
            first = 0;
        }
    str_add(o, "], \"shared\": {");
    for (int other = 0, first = 1; other < SPLITS; other++)
        if (other != k && f->split[other].rows) {
            str_addf(o, "%s\"%s\": %zu", first ? "" : ", ", split_names[other],
                     s->shared[other]);
            first = 0;
        }
    str_add(o, "}}");
}

static void document(const struct facts *f, struct str *o)
{
    int first = 1;

    str_addf(o, "{\"max_tokens\": %ld, \"splits\": {", f->job->spec.data.max_tokens);
    for (int k = 0; k < SPLITS; k++)
        if (f->split[k].rows) {
            str_add(o, first ? "" : ", ");
            split_json(f, k, o);
            first = 0;
        }
    str_add(o, "}}\n");
}

int data_show(const struct data_job *j, int json, struct err *e)
{
    struct facts f = {.job = j};
    struct str out = {0};
    int rc = collect(&f, e);

    if (!rc) {
        if (json)
            document(&f, &out);
        else
            table(&f, &out);
        rc = data_flush(&out, e);
    }
    for (int k = 0; k < SPLITS; k++) {
        mem_free(f.split[k].label);
        mem_free(f.split[k].key);
    }
    tok_close(f.tok);
    str_fini(&out);
    return rc;
}
