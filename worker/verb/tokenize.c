/* hone tokenize: one {"text", "ids", "tokens"} per line of input, in order. Bad lines are
 * named on standard error, the others are answered, and the exit status is 2. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/str.h"
#include "worker/data/dataset.h"
#include "worker/data/lines.h"
#include "worker/tok/tok.h"
#include "worker/verb/verb.h"

struct tokenize_args {
    const char *model, *input;
    int no_special, decode, json;
};

static const struct arg_flag flags[] = {
    ARG_VALUE("--model", "DIR", "folder with tokenizer.json or vocab.txt",
              struct tokenize_args, model),
    ARG_VALUE("--input", "FILE", "JSONL or plain lines; - or nothing: standard input",
              struct tokenize_args, input),
    ARG_SWITCH("--no-special", "without the special tokens around a text",
               struct tokenize_args, no_special),
    ARG_SWITCH("--decode", "add \"decoded\": the text the ids stand for",
               struct tokenize_args, decode),
    ARG_SWITCH("--json", "accepted; the output is JSONL anyway", struct tokenize_args,
               json),
    ARG_END,
};
static const struct arg_spec usage = {
    "hone tokenize",
    "--model DIR [--input FILE] [--no-special] [--decode]",
    "Token ids of texts, one {\"text\", \"ids\", \"tokens\"} a line.",
    flags,
    0,
    0,
    0};

struct work {
    const struct tokenize_args *args;
    struct tok *tok;
    struct arena arena;
    struct tok_ids all;
    struct str out, text;
    long bad;
};

static int add_ids(struct tok_ids *out, const int *id, size_t n, struct err *e)
{
    int rc = 0;

    for (size_t i = 0; i < n && !rc; i++)
        rc = tok_push(out, id[i], e);
    return rc;
}

/* Ids of a row, its special tokens around it. */
static int encode_row(struct work *w, const struct row *row, struct err *e)
{
    struct tok_frame f = {0};
    int rc, pair = row->text[1] != NULL;

    if (!w->args->no_special)
        tok_frame(w->tok, pair, &f);
    w->all.n = 0;
    rc = add_ids(&w->all, f.prefix, (size_t)f.n_prefix, e);
    if (!rc)
        rc = tok_encode(w->tok, row->text[0], row->len[0], &w->all, e);
    if (!rc && pair)
        rc = add_ids(&w->all, f.middle, (size_t)f.n_middle, e);
    if (!rc && pair)
        rc = tok_encode(w->tok, row->text[1], row->len[1], &w->all, e);
    return rc ? rc : add_ids(&w->all, f.suffix, (size_t)f.n_suffix, e);
}

static int write_row(struct work *w, const struct row *row, struct err *e)
{
    struct str *o = &w->out;
    int rc = 0;

    str_clear(o);
    if (row->text[1]) {
        str_add(o, "{\"text1\": ");
        str_add_json(o, row->text[0], row->len[0]);
        str_add(o, ", \"text2\": ");
        str_add_json(o, row->text[1], row->len[1]);
    } else {
        str_add(o, "{\"text\": ");
        str_add_json(o, row->text[0], row->len[0]);
    }
    str_add(o, ", \"ids\": [");
    for (size_t i = 0; i < w->all.n; i++)
        str_addf(o, "%s%d", i ? ", " : "", w->all.id[i]);
    str_add(o, "], \"tokens\": [");
    for (size_t i = 0; i < w->all.n; i++) {
        const char *token = tok_token(w->tok, w->all.id[i]);

        str_add(o, i ? ", " : "");
        str_add_json(o, token ? token : "", token ? strlen(token) : 0);
    }
    str_add(o, "]");
    if (w->args->decode) {
        str_clear(&w->text);
        rc = tok_decode(w->tok, w->all.id, w->all.n, 1, &w->text, e);
        str_add(o, ", \"decoded\": ");
        str_add_json(o, str_get(&w->text), w->text.len);
    }
    str_add(o, "}\n");
    if (rc)
        return rc;
    if (str_failed(o))
        return err_set(e, ERR_NOMEM, "output: out of memory");
    return fwrite(o->s, 1, o->len, stdout) == o->len
               ? 0
               : err_errno(e, ERR_IO, errno, "write standard output");
}

static int answer(struct work *w, struct lines *in, struct err *e)
{
    int state, rc = 0;

    while (!rc && (state = lines_next(in, e)) != LINES_END) {
        struct err bad = {0};
        struct row row;

        if (state < 0)
            return state;
        arena_reset(&w->arena);
        rc = state == LINES_TOO_LONG
                 ? err_set(&bad, ERR_CORRUPT, "%s: row %ld: longer than 16 MiB", in->name,
                           in->number)
                 : dataset_parse_line(&w->arena, in->s, in->n, in->name, in->number, &row,
                                      &bad);
        if (rc == ERR_CORRUPT) {
            err_print(&bad, "hone");
            w->bad++;
            rc = 0;
            continue;
        }
        if (rc)
            *e = bad;
        if (!rc)
            rc = encode_row(w, &row, e);
        if (!rc)
            rc = write_row(w, &row, e);
    }
    if (!rc && fflush(stdout))
        rc = err_errno(e, ERR_IO, errno, "write standard output");
    if (!rc && w->bad)
        rc = err_set(e, ERR_CORRUPT, "%s: %ld of %ld lines were bad", in->name, w->bad,
                     in->number);
    return rc;
}

int verb_tokenize(int argc, char **argv)
{
    struct tokenize_args args = {0};
    struct work w = {.args = &args};
    struct lines in = {0};
    struct err e = {0};
    int rc = args_parse(&usage, argc, argv, &args, &e);

    if (rc)
        return verb_result(rc, &e);
    if (!args.model) {
        err_set(&e, ERR_USAGE, "hone tokenize: --model is missing");
        rc = err_mend(&e, "hone tokenize --model DIR");
    }
    if (!rc)
        rc = tok_open(&w.tok, args.model, &e);
    if (!rc)
        rc = lines_open(&in, args.input, &e);
    if (!rc)
        rc = answer(&w, &in, &e);
    lines_close(&in);
    tok_close(w.tok);
    tok_ids_fini(&w.all);
    str_fini(&w.out);
    str_fini(&w.text);
    arena_fini(&w.arena);
    return verb_result(rc, &e);
}
