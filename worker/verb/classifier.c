/* Classifiers for verbs; see classifier.h. Texts are cut at what the model was trained
 * with (hone.json), else at 512 tokens, and never beyond the model's positions. Products
 * are bf16 where the model was trained so and the processor has instructions for it: then
 * answers are those that the run's report measured. */
#include "worker/verb/classifier.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/train/choices.h"
#include "worker/train/infer.h"
#include "worker/train/metrics.h"

enum { MAX_TOKENS = 512, NAME_BYTES = 24, HONE_BYTES_MAX = 4 << 20 };

/* Index among model_precision_names, -1: none of them. */
static int find_precision(const char *name)
{
    for (int i = 0; model_precision_names[i]; i++)
        if (!strcmp(model_precision_names[i], name))
            return i;
    return -1;
}

/* What hone.json says that matters here; without one the defaults stay. */
static int read_hone(const char *dir, long *max_tokens, int *trained, struct err *e)
{
    char path[FILE_PATH_MAX];
    const char *head = "classify", *precision = "f32";
    json_t *o = NULL;
    int r = file_join(path, sizeof path, dir, "hone.json", e);

    if (r || !file_exists(path))
        return r;
    r = json_read(path, HONE_BYTES_MAX, &o, e);
    if (!r)
        r = json_get_string(o, "head", 0, &head, e);
    if (!r)
        r = json_get_long(o, "max_tokens", 0, max_tokens, e);
    if (!r)
        r = json_get_string(o, "precision", 0, &precision, e);
    *trained = find_precision(precision);
    if (!r && *trained < 0)
        r = err_set(e, ERR_CORRUPT, "%s: precision is \"%.20s\"", path, precision);
    if (!r && *max_tokens < 4)
        r = err_set(e, ERR_CORRUPT, "%s: max_tokens is %ld", path, *max_tokens);
    if (!r && strcmp(head, "classify")) {
        r = err_set(e, ERR_CONFIG, "%s is no classifier, its head is \"%.40s\"", dir, head);
        err_mend(e, "give the output of a stage sft or ppo");
    }
    json_decref(o);
    return r;
}

/* word: f32, bf16, or NULL or auto: as trained where that is fast. */
static int choose_precision(const char *word, int trained, const struct backend *b,
                            enum op_precision *out, struct err *e)
{
    int asked = word ? find_precision(word) : -1;

    if (asked < 0 && word && strcmp(word, "auto")) {
        err_set(e, ERR_USAGE, "--precision \"%.20s\" is none", word);
        return err_mend(e, "auto, f32, bf16, f16 or tf32");
    }
    if (asked >= 0)
        *out = (enum op_precision)asked;
    else
        *out = trained == PRECISION_F16 ? (b->f16() ? PRECISION_F16 : PRECISION_F32)
               : trained == PRECISION_TF32 || b->bf16() ? (enum op_precision)trained
                                                        : PRECISION_F32;
    return 0;
}

static int open_model(struct classifier *c, const char *dir, const struct backend *b,
                      enum op_precision precision, struct err *e)
{
    struct model_options o = {
        .backend = b, .head = HEAD_CLASSIFY, .keep_head = 1, .precision = precision};
    int r = model_default_pooling(dir, HEAD_CLASSIFY, &o.pooling, e);
    struct param *p;
    size_t n;

    if (!r)
        r = model_open(&c->model, dir, &o, e);
    if (r)
        return r;
    c->K = (int)model_outputs(c->model);
    p = model_params(c->model, &n);
    for (size_t i = 0; i < n; i++)
        if (p[i].new_head) {
            err_set(e, ERR_CONFIG, "%s has no classification head", dir);
            return err_mend(e, "train one: hone run JOB.yaml with a stage sft");
        }
    if (c->K < 2 || c->K > METRIC_CLASSES_MAX)
        return err_set(e, ERR_CONFIG, "%s has %d outputs, a classifier has 2 to %d", dir,
                       c->K, METRIC_CLASSES_MAX);
    return 0;
}

static int name_labels(struct classifier *c, struct err *e)
{
    c->label = mem_array((size_t)c->K, sizeof *c->label);
    c->names = mem_array((size_t)c->K, NAME_BYTES);
    if (!c->label || !c->names)
        return err_set(e, ERR_NOMEM, "labels: out of memory");
    for (int i = 0; i < c->K; i++) {
        char *name = c->names + i * NAME_BYTES;

        snprintf(name, NAME_BYTES, "LABEL_%d", i);
        c->label[i] = model_get_label(c->model, i);
        if (!c->label[i])
            c->label[i] = name;
    }
    return 0;
}

int classifier_open(struct classifier *c, const char *dir, const char *precision,
                    struct err *e)
{
    const struct backend *b = backend_find("auto");
    long max_tokens = MAX_TOKENS, positions;
    enum op_precision chosen = PRECISION_F32;
    int trained = PRECISION_F32, r;

    memset(c, 0, sizeof *c);
    choices_load(b);
    r = read_hone(dir, &max_tokens, &trained, e);
    if (!r)
        r = choose_precision(precision, trained, b, &chosen, e);
    if (!r)
        r = open_model(c, dir, b, chosen, e);
    if (!r)
        r = tok_open(&c->tok, dir, e);
    if (!r)
        r = name_labels(c, e);
    if (r) {
        classifier_close(c);
        return err_wrap(e, "open %s", dir);
    }
    positions = model_get_info(c->model)->positions;
    if (positions && max_tokens > positions)
        max_tokens = positions;
    c->encode = (struct encode_spec){.tok = c->tok, .max_tokens = max_tokens};
    return 0;
}

void classifier_close(struct classifier *c)
{
    if (c->model)
        choices_store(model_get_backend(c->model));
    model_close(c->model);
    tok_close(c->tok);
    mem_free(c->label);
    mem_free(c->names);
    mem_free(c->logits);
    memset(c, 0, sizeof *c);
}

/* Takes the sequences. */
static int run(struct classifier *c, struct sequences *s, const float **logits,
               struct err *e)
{
    size_t n = s->n;
    int r = 0;

    if (n > c->cap_logits) {
        mem_free(c->logits);
        c->logits = mem_array(n * (size_t)c->K, sizeof *c->logits);
        c->cap_logits = c->logits ? n : 0;
        if (!c->logits)
            r = err_set(e, ERR_NOMEM, "%zu texts: out of memory", n);
    }
    if (!r)
        r = infer_outputs(c->model, s, NULL, c->logits, NULL, e);
    sequences_fini(s);
    *logits = c->logits;
    return r;
}

int classifier_run(struct classifier *c, const struct row *row, size_t n,
                   const float **logits, struct err *e)
{
    struct sequences s;
    int r = encode_policy(&s, row, n, &c->encode, e);

    return r ? r : run(c, &s, logits, e);
}

int classifier_run_set(struct classifier *c, const struct dataset *d, const float **logits,
                       struct err *e)
{
    struct sequences s;
    int r = encode_dataset(&s, d, NULL, 0, &c->encode, e);

    return r ? r : run(c, &s, logits, e);
}
