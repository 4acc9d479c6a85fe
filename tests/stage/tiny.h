/* Rows for the tiny checkpoint and a ClaHF job over them, in a temporary folder. */
#ifndef TESTS_STAGE_TINY_H
#define TESTS_STAGE_TINY_H

#include "tests/tiny_checkpoint.h"

/* n rows of random words w0..w19, among them the word of the label. */
static inline int tiny_rows(const char *dir, const char *name, int n, uint64_t key,
                            struct err *e)
{
    static const char *const sign[] = {"bad", "film", "good"};
    struct str s = {0};
    struct rng r;
    int rc;

    rng_init(&r, key);
    for (int i = 0; i < n; i++) {
        uint32_t label = rng_below(&r, 3), words = 3 + rng_below(&r, 10);
        uint32_t place = rng_below(&r, words);

        str_add(&s, "{\"text\": \"");
        for (uint32_t w = 0; w < words; w++) {
            str_add(&s, w ? " " : "");
            if (w == place)
                str_add(&s, sign[label]);
            else
                str_addf(&s, "w%u", rng_below(&r, TINY_WORDS - 4));
        }
        str_addf(&s, "\", \"label\": %u}\n", label);
    }
    rc = str_failed(&s) ? err_set(e, ERR_NOMEM, "rows: out of memory")
                        : tiny_write(dir, name, s.s, e);
    str_fini(&s);
    return rc;
}

/* dir/model, dir/{train,validation,test}.jsonl and dir/job.yaml: 40 rows in batches of 8
 * for 4 epochs are 20 steps a stage. */
static inline int tiny_job(const char *dir, struct err *e)
{
    static const char job[] =
        "name: tiny\n"
        "model: model\n"
        "task:\n"
        "  labels: [bad, fine, good]\n"
        "  prefix: sentence\n"
        "  candidate: \"the label is {label}\"\n"
        "data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl, "
        "max_tokens: 40}\n"
        "resources: {precision: f32}\n"
        "stages:\n"
        "  sft: {epochs: 4, batch: 8, lr: 1e-2, head_lr: 2e-2, dropout: 0.1, "
        "pooling: mean, log_every: 3, eval_every: 4, checkpoint_every: 3}\n"
        "  rm: {epochs: 4, batch: 8, lr: 5e-3, dropout: model, pooling: mean, "
        "log_every: 3, eval_every: 4, checkpoint_every: 3}\n"
        "  ppo: {epochs: 4, batch: 8, lr: 1e-3, log_every: 3, eval_every: 4, "
        "checkpoint_every: 3, needs: [sft, rm]}\n";
    char model[FILE_PATH_MAX];
    int r = file_join(model, sizeof model, dir, "model", e);

    if (!r)
        r = tiny_checkpoint(model, 2, 7, e);
    if (!r)
        r = tiny_rows(dir, "train.jsonl", 40, 1, e);
    if (!r)
        r = tiny_rows(dir, "validation.jsonl", 12, 2, e);
    if (!r)
        r = tiny_rows(dir, "test.jsonl", 12, 3, e);
    return r ? r : tiny_write(dir, "job.yaml", job, e);
}

#endif
