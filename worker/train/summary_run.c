/* RUN/summary.json, made from the stages' files; see summary.h. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "worker/train/clahf_loss.h"
#include "worker/train/summary_internal.h"

enum { PREDICTION_BYTES_MAX = 1 << 30, ROWS_MAX = 32 };

struct predictions { /* of one stage on the test split */
    float *logits;   /* (n, K) */
    int *label;
    size_t n;
};

struct summary {
    const char *run;
    const struct spec *spec;
    json_t *root, *stages;
    double *first; /* probabilities of the comparison's first row */
    int *label;    /* ... and its labels */
    size_t n;
};

int summary_lock(const char *run, int *fd, struct err *e)
{
    char path[FILE_PATH_MAX];
    int r = file_join(path, sizeof path, run, ".summary.lock", e);

    *fd = -1;
    if (r)
        return r;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        return err_errno(e, ERR_IO, errno, "%s", path);
    while (flock(*fd, LOCK_EX))
        if (errno != EINTR)
            return err_errno(e, ERR_IO, errno, "lock %s", path);
    return 0;
}

/* ---- stages -------------------------------------------------------------------------- */

static int read_stage(const struct summary *s, const char *name, json_t **out,
                      struct err *e)
{
    char path[FILE_PATH_MAX];

    *out = NULL;
    if (snprintf(path, sizeof path, "%s/%s/stage.json", s->run, name) >= (int)sizeof path)
        return err_set(e, ERR_CONFIG, "path is too long: %s", s->run);
    return file_exists(path) ? json_read(path, SUMMARY_BYTES_MAX, out, e) : 0;
}

/* All stages; *unfinished: how many are not done. The first of those has the run's state.
 */
static int add_stages(struct summary *s, const char *state, int *unfinished, struct err *e)
{
    *unfinished = 0;
    for (size_t i = 0; i < s->spec->n_stages; i++) {
        const char *name = s->spec->stage[i].name;
        json_t *o;
        int r = read_stage(s, name, &o, e);

        if (r)
            return r;
        if (!o) {
            o = json_object();
            summary_set_string(o, "state",
                               *unfinished || !state || !strcmp(state, "done") ? "pending"
                                                                               : state);
            ++*unfinished;
        }
        if (json_object_set_new(s->stages, name, o))
            return err_set(e, ERR_NOMEM, "out of memory");
    }
    return 0;
}

/* ---- comparison ---------------------------------------------------------------------- */

static int read_line(const char *path, long number, const char *line, size_t len, int K,
                     float *logits, int *label, struct err *e)
{
    json_t *o, *z;
    long y = -1;
    int r = json_parse(path, line, len, &o, e);

    if (r)
        return r;
    r = json_get_long(o, "label", 1, &y, e);
    z = json_object_get(o, "logits");
    if (!r && (y < 0 || y >= K || json_array_size(z) != (size_t)K))
        r = err_set(e, ERR_CORRUPT, "%s: line %ld does not belong to this job", path,
                    number);
    *label = (int)y;
    for (int k = 0; !r && k < K; k++)
        logits[k] = (float)json_number_value(json_array_get(z, (size_t)k));
    json_decref(o);
    return r;
}

static int read_predictions(const char *path, int K, struct predictions *p, struct err *e)
{
    size_t len, n = 0;
    char *text, *end;
    int r = file_read(path, PREDICTION_BYTES_MAX, &text, &len, e);

    if (r)
        return r;
    for (size_t i = 0; i < len; i++)
        n += text[i] == '\n';
    p->logits = mem_array(n * (size_t)K + 1, sizeof *p->logits);
    p->label = mem_array(n + 1, sizeof *p->label);
    if (!p->logits || !p->label)
        r = err_set(e, ERR_NOMEM, "%s: out of memory", path);
    for (char *at = text; !r && (end = memchr(at, '\n', len - (size_t)(at - text)));
         at = end + 1) {
        r = read_line(path, (long)p->n + 1, at, (size_t)(end - at), K,
                      p->logits + p->n * (size_t)K, p->label + p->n, e);
        p->n++;
    }
    mem_free(text);
    return r;
}

/* Difference to the first row, which is made the first one when there is none yet. Takes
 * the probabilities and labels. */
static int compare(struct summary *s, json_t *row, const struct class_metrics *m, double *p,
                   struct predictions *x, struct err *e)
{
    int K = (int)s->spec->task.labels.n, ordinal = clahf_is_ordinal(s->spec), r;
    struct class_metrics base, se, d;

    if (!s->first) {
        s->first = p;
        s->label = x->label;
        s->n = x->n;
        x->label = NULL;
        return 0;
    }
    if (x->n != s->n || memcmp(x->label, s->label, s->n * sizeof *s->label)) {
        mem_free(p);
        return err_set(e, ERR_CORRUPT, "%s: the stages were tested on different rows",
                       s->run);
    }
    r = metrics_classify(s->first, s->label, s->n, K, &base, e);
    if (!r)
        r = metrics_bootstrap(p, s->first, s->label, s->n, K, (uint64_t)s->spec->seed, &se,
                              e);
    mem_free(p);
    if (r)
        return r;
    d = (struct class_metrics){.accuracy = m->accuracy - base.accuracy,
                               .macro_f1 = m->macro_f1 - base.macro_f1,
                               .mcc = m->mcc - base.mcc,
                               .ece = m->ece - base.ece,
                               .nll = m->nll - base.nll,
                               .mae = m->mae - base.mae,
                               .qwk = m->qwk - base.qwk,
                               .confidence = m->confidence - base.confidence};
    json_object_set_new(row, "difference", summary_metrics(&d, ordinal));
    json_object_set_new(row, "difference_se", summary_metrics(&se, ordinal));
    return 0;
}

static int add_row(struct summary *s, json_t *rows, const char *name, const char *stage,
                   double temperature, struct err *e)
{
    int K = (int)s->spec->task.labels.n, ordinal = clahf_is_ordinal(s->spec), r;
    char path[FILE_PATH_MAX];
    struct predictions x = {0};
    struct class_metrics m, se;
    json_t *row = json_object();
    double *p = NULL;

    if (snprintf(path, sizeof path, "%s/%s/predictions-test.jsonl", s->run, stage) >=
        (int)sizeof path)
        r = err_set(e, ERR_CONFIG, "path is too long: %s", s->run);
    else
        r = file_exists(path) ? read_predictions(path, K, &x, e) : 0;
    if (r || !x.n)
        goto out;
    p = mem_array(x.n * (size_t)K, sizeof *p);
    if (!p)
        r = err_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (r)
        goto out;
    metrics_softmax(x.logits, x.n, K, temperature, p);
    r = metrics_classify(p, x.label, x.n, K, &m, e);
    if (!r)
        r = metrics_bootstrap(p, NULL, x.label, x.n, K, (uint64_t)s->spec->seed, &se, e);
    if (r)
        goto out;
    summary_set_string(row, "name", name);
    summary_set_string(row, "stage", stage);
    if (temperature != 1)
        summary_set_number(row, "temperature", temperature);
    json_object_set_new(row, "metrics", summary_metrics(&m, ordinal));
    json_object_set_new(row, "se", summary_metrics(&se, ordinal));
    r = summary_set_drawings(row, p, x.label, x.n, K, e);
    if (!r) {
        r = compare(s, row, &m, p, &x, e);
        p = NULL;
    }
    if (!r)
        json_array_append(rows, row);
out:
    json_decref(row);
    mem_free(x.logits);
    mem_free(x.label);
    mem_free(p);
    return r;
}

static int add_comparison(struct summary *s, struct err *e)
{
    json_t *rows = json_array();
    int r = rows ? json_object_set_new(s->root, "comparison", rows) : -1;

    if (r)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (size_t i = 0; !r && i < s->spec->n_stages && i < ROWS_MAX; i++) {
        const char *name = s->spec->stage[i].name;
        const char *algorithm = s->spec->stage[i].stage->name;
        json_t *t = json_object_get(json_object_get(s->stages, name), "temperature");
        double value = json_number_value(json_object_get(t, "value"));
        int is_sft = !strcmp(algorithm, "sft");

        if (!t) /* not done, or no classifier */
            continue;
        r = add_row(s, rows,
                    is_sft                     ? "SFT"
                    : strcmp(algorithm, "ppo") ? name
                                               : "ClaHF",
                    name, 1, e);
        if (!r && is_sft && value > 0)
            r = add_row(s, rows, "SFT + temperature", name, value, e);
    }
    return r;
}

/* ---- how to use the result ----------------------------------------------------------- */

static const char native_snippet[] =
    "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
    "folder = \"%s\"\n"
    "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
    "model = AutoModelForSequenceClassification.from_pretrained(folder).eval()\n"
    "batch = tokenizer([\"a text\"], return_tensors=\"pt\", padding=True)\n"
    "print(model(**batch).logits.softmax(-1))\n";
static const char pooled_snippet[] =
    "from glob import glob\n\n"
    "import torch\n"
    "from safetensors.torch import load_file\n"
    "from transformers import AutoModel, AutoTokenizer\n\n"
    "folder = \"%s\"\n"
    "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
    "encoder = AutoModel.from_pretrained(folder).float().eval()\n"
    "head = {name: x.float() for file in glob(folder + \"/model*.safetensors\")\n"
    "        for name, x in load_file(file).items()}\n"
    "batch = tokenizer([\"a text\"], return_tensors=\"pt\", padding=True)\n"
    "with torch.no_grad():\n"
    "    hidden = encoder(**batch).last_hidden_state\n"
    "mask = batch[\"attention_mask\"].unsqueeze(-1)\n"
    "pooled = %s\n"
    "logits = pooled @ head[\"hone_classifier.weight\"].T + "
    "head[\"hone_classifier.bias\"]\n"
    "print(logits.softmax(-1))\n";

/* The newest classifier, and the Python lines that load it. */
static int add_output(struct summary *s, struct err *e)
{
    static const char *const pooled[] = {
        [POOLING_CLS] = "hidden[:, 0]",
        [POOLING_MEAN] = "(hidden * mask).sum(1) / mask.sum(1)",
        [POOLING_LAST_TOKEN] = "hidden[torch.arange(len(hidden)), mask.sum(1)[:, 0] - 1]"};
    const char *output = NULL;
    char path[FILE_PATH_MAX];
    enum pooling pooling;
    struct str text = {0};
    int r;

    for (size_t i = 0; i < s->spec->n_stages; i++) {
        json_t *o = json_object_get(s->stages, s->spec->stage[i].name);
        const char *folder = json_string_value(json_object_get(o, "output"));

        if (folder && json_object_get(o, "temperature"))
            output = folder;
    }
    if (!output)
        return 0;
    summary_set_string(s->root, "output", output);
    r = file_join(path, sizeof path, s->run, output, e);
    if (!r)
        r = model_default_pooling(path, HEAD_CLASSIFY, &pooling, e);
    if (r)
        return r;
    if (pooling == POOLING_MODEL)
        str_addf(&text, native_snippet, output);
    else if (pooling != POOLING_EOS)
        str_addf(&text, pooled_snippet, output, pooled[pooling]);
    if (text.len)
        summary_set_string(s->root, "snippet", str_get(&text));
    str_fini(&text);
    return 0;
}

/* ---- the whole ----------------------------------------------------------------------- */

double summary_started(const char *run, double otherwise)
{
    char path[FILE_PATH_MAX];
    json_t *o = NULL;
    double started = 0;
    struct err e;

    if (!file_join(path, sizeof path, run, "summary.json", &e) && file_exists(path) &&
        !json_read(path, SUMMARY_BYTES_MAX, &o, &e))
        started = json_number_value(json_object_get(o, "started_unix"));
    json_decref(o);
    return started > 0 ? started : otherwise;
}

static void add_header(struct summary *s, const char *state, double started, double seconds)
{
    json_t *labels = json_array();
    char iso[32];

    summary_set_string(s->root, "name", s->spec->name);
    summary_set_string(s->root, "state", state);
    summary_set_string(s->root, "started", clock_iso(iso, sizeof iso, started));
    summary_set_number(s->root, "started_unix", started);
    summary_set_number(s->root, "seconds", seconds > 0 ? seconds : clock_wall() - started);
    summary_set_string(s->root, "model", s->spec->model);
    summary_set_number(s->root, "seed", (double)s->spec->seed);
    for (size_t i = 0; i < s->spec->task.labels.n; i++)
        json_array_append_new(labels, json_string(s->spec->task.labels.text[i]));
    json_object_set_new(s->root, "labels", labels);
    json_object_set_new(s->root, "ordinal", json_boolean(clahf_is_ordinal(s->spec)));
}

static int fill(struct summary *s, const char *state, double started, double seconds,
                struct err *e)
{
    json_t *name;
    int unfinished, r = add_stages(s, state, &unfinished, e);

    if (r)
        return r;
    if (!state)
        state = unfinished ? "running" : "done";
    add_header(s, state, seconds > 0 ? started : summary_started(s->run, started), seconds);
    name = json_object_get(s->root, "name");
    if (!name || json_object_set(s->root, "stages", s->stages))
        return err_set(e, ERR_NOMEM, "out of memory");
    r = add_comparison(s, e);
    return r ? r : add_output(s, e);
}

int summary_write_run(const char *run, const struct spec *spec, const char *state,
                      double started, double seconds, struct err *e)
{
    struct summary s = {
        .run = run, .spec = spec, .root = json_object(), .stages = json_object()};
    int fd, r = summary_lock(run, &fd, e);

    if (!r)
        r = fill(&s, state, started, seconds, e);
    if (!r)
        r = summary_write(run, "summary.json", json_incref(s.root), e);
    json_decref(s.root);
    json_decref(s.stages);
    mem_free(s.first);
    mem_free(s.label);
    if (fd >= 0)
        close(fd); /* gives the lock back */
    return r ? err_wrap(e, "summary of %s", run) : 0;
}

int summary_set_state(const char *run, const struct spec *spec, const char *state,
                      struct err *e)
{
    char path[FILE_PATH_MAX];
    json_t *o = NULL;
    int fd, r = summary_lock(run, &fd, e);

    if (!r)
        r = file_join(path, sizeof path, run, "summary.json", e);
    if (!r && file_exists(path))
        r = json_read(path, SUMMARY_BYTES_MAX, &o, e);
    if (!r && !o) {
        o = json_object();
        summary_set_string(o, "name", spec->name);
        json_object_set_new(o, "stages", json_object());
    }
    summary_set_string(o, "state", state);
    if (!r)
        r = summary_write(run, "summary.json", o, e);
    else
        json_decref(o);
    if (fd >= 0)
        close(fd);
    return r ? err_wrap(e, "summary of %s", run) : 0;
}
