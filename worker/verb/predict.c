/* hone predict: a label for each line of text, in order, as JSONL.
 *
 * Lines are answered in batches of what is there to read: it never waits for more input
 * while a line is unanswered, and batches grow from one line, so the first answer comes at
 * once. A line that is no text is reported by its number and left out; the rest is
 * answered, and the exit status is 2. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/data/dataset.h"
#include "worker/train/metrics.h"
#include "worker/verb/classifier.h"
#include "worker/verb/verb.h"

enum { BATCH_MAX = 512, BATCH_GROWTH = 8, READ_BYTES = 1 << 16, LINE_MAX_BYTES = 16 << 20 };

struct predict_args {
    const char *model, *input, *precision;
    int json; /* there is no other form */
};

struct input {
    const char *name;
    int fd, owned, eof, skipping; /* skipping: behind a line that was too long */
    char *s;
    size_t at, len, cap;
    size_t searched; /* no newline in s[at .. at + searched) */
    long line;       /* number of the newest line */
};

struct predict {
    struct classifier c;
    struct input in;
    struct arena arena;
    struct row row[BATCH_MAX];
    size_t n;
    long bad;
    struct str out;
};

static int input_open(struct input *in, const char *path, struct err *e)
{
    in->name = "standard input";
    in->fd = STDIN_FILENO;
    if (!path || !strcmp(path, "-"))
        return 0;
    in->name = path;
    in->fd = open(path, O_RDONLY | O_CLOEXEC);
    in->owned = in->fd >= 0;
    return in->owned ? 0 : err_errno(e, ERR_CONFIG, errno, "%s", path);
}

static void input_close(struct input *in)
{
    if (in->owned)
        close(in->fd);
    mem_free(in->s);
    memset(in, 0, sizeof *in);
}

/* Read what is there; `wait`: at least something. *more: there may be new lines. */
static int input_read(struct input *in, int wait, int *more, struct err *e)
{
    struct pollfd p = {.fd = in->fd, .events = POLLIN};
    ssize_t n;

    *more = 0;
    if (!wait && poll(&p, 1, 0) <= 0)
        return 0;
    if (in->at) {
        memmove(in->s, in->s + in->at, in->len - in->at);
        in->len -= in->at;
        in->at = 0;
    }
    if (in->cap - in->len < READ_BYTES) {
        size_t cap = in->cap * 2 + READ_BYTES;
        char *s = mem_resize(in->s, cap, 1);

        if (!s)
            return err_set(e, ERR_NOMEM, "%s: row %ld: out of memory", in->name,
                           in->line + 1);
        in->s = s;
        in->cap = cap;
    }
    do
        n = read(in->fd, in->s + in->len, in->cap - in->len);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(e, errno == EISDIR ? ERR_CONFIG : ERR_IO, errno, "%s", in->name);
    in->eof = n == 0;
    in->len += (size_t)n;
    *more = 1;
    return 0;
}

enum { LINE_NONE, LINE_OK, LINE_TOO_LONG };

/* The next whole line among what was read. */
static int input_line(struct input *in, const char **line, size_t *len)
{
    const char *begin = in->s + in->at;
    size_t have = in->len - in->at;
    const char *end = NULL;
    int was_skipping = in->skipping;

    if (have > in->searched)
        end = memchr(begin + in->searched, '\n', have - in->searched);
    if (!end && (!in->eof || !have)) {
        in->searched = have;
        if (have <= LINE_MAX_BYTES)
            return LINE_NONE;
        in->at = in->len; /* drop what came, and the rest of it */
        in->searched = 0;
        in->skipping = 1;
        in->line += !was_skipping;
        return was_skipping ? LINE_NONE : LINE_TOO_LONG;
    }
    *line = begin;
    *len = end ? (size_t)(end - begin) : have;
    in->at += end ? *len + 1 : have;
    in->searched = 0;
    in->skipping = 0;
    if (was_skipping)
        return input_line(in, line, len);
    in->line++;
    if (in->line == 1 && *len >= 3 && !memcmp(*line, "\xef\xbb\xbf", 3)) {
        *line += 3; /* a byte order mark */
        *len -= 3;
    }
    return *len > LINE_MAX_BYTES ? LINE_TOO_LONG : LINE_OK;
}

static int is_blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r", s[i]) || !s[i])
            return 0;
    return 1;
}

static void report(struct predict *p, const struct err *e)
{
    p->bad++;
    err_print(e, "hone");
}

/* One line into the batch, or a complaint about it. */
static int take_line(struct predict *p, const char *line, size_t len, int kind,
                     struct err *e)
{
    struct err bad = {0};
    int r = 0;

    if (kind == LINE_TOO_LONG)
        r = err_set(&bad, ERR_CORRUPT, "%s: row %ld: longer than %d bytes", p->in.name,
                    p->in.line, LINE_MAX_BYTES);
    else if (is_blank(line, len))
        r = err_set(&bad, ERR_CORRUPT, "%s: row %ld: empty", p->in.name, p->in.line);
    else
        r = dataset_parse_line(&p->arena, line, len, p->in.name, p->in.line, &p->row[p->n],
                               &bad);
    if (r == ERR_NOMEM) {
        *e = bad;
        return r;
    }
    if (r)
        report(p, &bad);
    else
        p->n++;
    return 0;
}

/* Up to `limit` lines; blocks only while there is none. */
static int collect(struct predict *p, size_t limit, struct err *e)
{
    p->n = 0;
    arena_reset(&p->arena);
    while (p->n < limit) {
        const char *line = NULL;
        size_t len = 0;
        int kind = input_line(&p->in, &line, &len), more, r;

        if (kind != LINE_NONE) {
            r = take_line(p, line, len, kind, e);
            if (r)
                return r;
            continue;
        }
        if (p->in.eof)
            return 0;
        r = input_read(&p->in, !p->n, &more, e);
        if (r)
            return r;
        if (!more)
            return 0;
    }
    return 0;
}

static void add_answer(struct predict *p, const struct row *row, const float *z)
{
    double x[METRIC_CLASSES_MAX];
    struct str *s = &p->out;
    int best = 0, K = p->c.K;

    metrics_softmax(z, 1, K, 1, x);
    for (int k = 1; k < K; k++)
        best = z[k] > z[best] ? k : best;
    str_add(s, row->text[1] ? "{\"text1\": " : "{\"text\": ");
    str_add_json(s, row->text[0], row->len[0]);
    if (row->text[1]) {
        str_add(s, ", \"text2\": ");
        str_add_json(s, row->text[1], row->len[1]);
    }
    str_add(s, ", \"label\": ");
    str_add_json(s, p->c.label[best], strlen(p->c.label[best]));
    str_addf(s, ", \"label_id\": %d, \"probabilities\": [", best);
    for (int k = 0; k < K; k++) {
        str_add(s, k ? ", " : "");
        json_number(s, x[k]);
    }
    str_add(s, "]}\n");
}

static int answer(struct predict *p, struct err *e)
{
    const float *z;
    int r;

    if (!p->n)
        return 0;
    r = classifier_run(&p->c, p->row, p->n, &z, e);
    if (r)
        return r;
    str_clear(&p->out);
    for (size_t i = 0; i < p->n; i++)
        add_answer(p, &p->row[i], z + i * (size_t)p->c.K);
    if (str_failed(&p->out))
        return err_set(e, ERR_NOMEM, "%zu answers: out of memory", p->n);
    if (fwrite(p->out.s, 1, p->out.len, stdout) != p->out.len || fflush(stdout))
        return err_errno(e, ERR_IO, errno, "standard output");
    return 0;
}

static int predict(const struct predict_args *a, struct err *e)
{
    struct predict *p = mem_alloc(sizeof *p);
    size_t limit = 1;
    int r;

    if (!p)
        return err_set(e, ERR_NOMEM, "out of memory");
    r = input_open(&p->in, a->input, e);
    if (!r)
        r = classifier_open(&p->c, a->model, a->precision, e);
    while (!r && !(p->in.eof && p->in.at == p->in.len)) {
        r = collect(p, limit, e);
        if (!r)
            r = answer(p, e);
        limit = limit * BATCH_GROWTH < BATCH_MAX ? limit * BATCH_GROWTH : BATCH_MAX;
    }
    if (!r && p->bad)
        r = err_set(e, ERR_CORRUPT, "%s: %ld bad line%s left out", p->in.name, p->bad,
                    p->bad == 1 ? " was" : "s were");
    classifier_close(&p->c);
    input_close(&p->in);
    arena_fini(&p->arena);
    str_fini(&p->out);
    mem_free(p);
    return r;
}

int verb_predict(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_VALUE("--model", "DIR", "folder of a classifier, e.g. RUN/ppo/final",
                  struct predict_args, model),
        ARG_VALUE("--input", "FILE", "texts; default or -: standard input",
                  struct predict_args, input),
        ARG_VALUE("--precision", "f32|bf16|auto",
                  "auto: as it was trained, where the processor can", struct predict_args,
                  precision),
        ARG_SWITCH("--json", "JSON lines, as without it", struct predict_args, json),
        ARG_END};
    static const struct arg_spec spec = {
        "hone predict",
        "--model DIR [--input FILE] [--precision P]",
        "Labels for texts. A line of input is a JSON object with \"text\" (or \"text1\" "
        "and "
        "\"text2\"), or plain\ntext. A line of output is {\"text\", \"label\", "
        "\"label_id\", \"probabilities\"}, in the order of the input.\nBad lines are "
        "reported by number and left out; the exit status is then 2.",
        flags,
        0,
        0,
        0};
    struct predict_args a = {0};
    struct err e = {0};
    int r = args_parse(&spec, argc, argv, &a, &e);

    if (!r && !a.model) {
        r = err_set(&e, ERR_USAGE, "predict: --model is missing");
        err_mend(&e, "hone predict --model DIR < texts.txt");
    }
    if (!r)
        r = predict(&a, &e);
    return verb_result(r, &e);
}
