/* A tiny random BERT, rows for it, and a ClaHF job over them, in a temporary folder. */
#ifndef TESTS_STAGE_TINY_H
#define TESTS_STAGE_TINY_H

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "worker/ckpt/safetensors.h"

enum { TINY_D = 16, TINY_F = 32, TINY_L = 2, TINY_POSITIONS = 48 };

static const char *const tiny_words[] = {
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bad", "fine",   "good", "sentence",
    ":",     "|",     "label", "is",    "the",    "a",   "film",   "book", "plot",
    "actor", "story", "cake",  "rain",  "was",    "and", "but",    "very", "quite",
    "slow",  "fast",  "long",  "short", "old",    "new", "people", "time", "day"};
enum { TINY_V = sizeof tiny_words / sizeof *tiny_words };

static inline void tiny_write(const char *dir, const char *name, const char *text)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f))
        perror(path);
}

struct tiny_file {
    struct arena arena;
    struct rng rng;
    struct safetensors_item item[64];
    size_t n;
};

static inline void tiny_tensor(struct tiny_file *t, const char *name, long rows, long cols)
{
    long n = rows * (cols ? cols : 1);
    float *x = arena_array(&t->arena, (size_t)n, sizeof *x);
    int norm_weight = strstr(name, "LayerNorm.weight") != NULL;

    for (long i = 0; i < n; i++)
        x[i] = (float)(0.25 * rng_normal(&t->rng)) + (norm_weight ? 1 : 0);
    t->item[t->n++] = (struct safetensors_item){
        arena_strdup(&t->arena, name), DTYPE_F32, cols ? 2 : 1, {rows, cols}, x};
}

static inline void tiny_linear(struct tiny_file *t, const char *name, long out, long in)
{
    char full[128];

    snprintf(full, sizeof full, "%s.weight", name);
    tiny_tensor(t, full, out, in);
    snprintf(full, sizeof full, "%s.bias", name);
    tiny_tensor(t, full, out, 0);
}

/* dir/config.json, vocab.txt, model.safetensors as Hugging Face's BertModel. */
static inline int tiny_model(const char *dir, struct err *e)
{
    static const char config[] =
        "{\"architectures\": [\"BertModel\"], \"model_type\": \"bert\", \"hidden_size\": "
        "16, "
        "\"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"intermediate_size\": 32, "
        "\"hidden_act\": \"gelu\", \"hidden_dropout_prob\": 0.1, "
        "\"attention_probs_dropout_prob\": 0.1, \"max_position_embeddings\": 48, "
        "\"type_vocab_size\": 2, \"layer_norm_eps\": 1e-12, \"pad_token_id\": 0, "
        "\"vocab_size\": %d}\n";
    static const char *const square[] = {"attention.self.query", "attention.self.key",
                                         "attention.self.value", "attention.output.dense"};
    static struct tiny_file t;
    struct str vocab = {0};
    char text[1024], name[128], path[512];
    int r;

    memset(&t, 0, sizeof t);
    rng_init(&t.rng, 7);
    r = file_make_dirs(dir, e);
    snprintf(text, sizeof text, config, TINY_V);
    tiny_write(dir, "config.json", text);
    for (int i = 0; i < TINY_V; i++)
        str_addf(&vocab, "%s\n", tiny_words[i]);
    tiny_write(dir, "vocab.txt", str_get(&vocab));
    str_fini(&vocab);
    tiny_tensor(&t, "embeddings.word_embeddings.weight", TINY_V, TINY_D);
    tiny_tensor(&t, "embeddings.position_embeddings.weight", TINY_POSITIONS, TINY_D);
    tiny_tensor(&t, "embeddings.token_type_embeddings.weight", 2, TINY_D);
    tiny_tensor(&t, "embeddings.LayerNorm.weight", TINY_D, 0);
    tiny_tensor(&t, "embeddings.LayerNorm.bias", TINY_D, 0);
    for (int l = 0; l < TINY_L; l++) {
        for (int i = 0; i < 4; i++) {
            snprintf(name, sizeof name, "encoder.layer.%d.%s", l, square[i]);
            tiny_linear(&t, name, TINY_D, TINY_D);
        }
        snprintf(name, sizeof name, "encoder.layer.%d.attention.output.LayerNorm", l);
        tiny_linear(&t, name, TINY_D, 0);
        snprintf(name, sizeof name, "encoder.layer.%d.intermediate.dense", l);
        tiny_linear(&t, name, TINY_F, TINY_D);
        snprintf(name, sizeof name, "encoder.layer.%d.output.dense", l);
        tiny_linear(&t, name, TINY_D, TINY_F);
        snprintf(name, sizeof name, "encoder.layer.%d.output.LayerNorm", l);
        tiny_linear(&t, name, TINY_D, 0);
    }
    tiny_linear(&t, "pooler.dense", TINY_D, TINY_D);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (!r)
        r = safetensors_write(path, "{\"format\": \"pt\"}", t.item, t.n, e);
    arena_fini(&t.arena);
    return r;
}

/* n rows: random words, among them the label's own. */
static inline void tiny_rows(const char *dir, const char *name, int n, uint64_t key)
{
    struct str s = {0};
    struct rng r;

    rng_init(&r, key);
    for (int i = 0; i < n; i++) {
        int label = (int)rng_below(&r, 3), words = 3 + (int)rng_below(&r, 10);
        int place = (int)rng_below(&r, (uint32_t)words);

        str_add(&s, "{\"text\": \"");
        for (int w = 0; w < words; w++)
            str_addf(&s, "%s%s", w ? " " : "",
                     w == place ? tiny_words[5 + label]
                                : tiny_words[14 + rng_below(&r, TINY_V - 14)]);
        str_addf(&s, "\", \"label\": %d}\n", label);
    }
    tiny_write(dir, name, str_get(&s));
    str_fini(&s);
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
        "stages:\n"
        "  sft: {epochs: 4, batch: 8, lr: 1e-2, head_lr: 2e-2, dropout: 0.1, "
        "pooling: mean, log_every: 3, eval_every: 4, checkpoint_every: 3}\n"
        "  rm: {epochs: 4, batch: 8, lr: 5e-3, dropout: model, pooling: mean, init: base, "
        "log_every: 3, eval_every: 4, checkpoint_every: 3}\n"
        "  ppo: {epochs: 4, batch: 8, lr: 1e-3, log_every: 3, eval_every: 4, "
        "checkpoint_every: 3, needs: [sft, rm]}\n";
    char model[512];
    int r;

    snprintf(model, sizeof model, "%s/model", dir);
    r = tiny_model(model, e);
    tiny_rows(dir, "train.jsonl", 40, 1);
    tiny_rows(dir, "validation.jsonl", 12, 2);
    tiny_rows(dir, "test.jsonl", 12, 3);
    tiny_write(dir, "job.yaml", job);
    return r;
}

#endif
