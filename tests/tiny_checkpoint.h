/* A tiny random BERT checkpoint in Hugging Face layout, made on the spot: config.json,
 * model.safetensors, vocab.txt, tokenizer_config.json, tokenizer.json. Width 8, 2 heads,
 * 1 or 2 layers, 64 positions; words "w0" ... "w19" and a few real ones. */
#ifndef TESTS_TINY_CHECKPOINT_H
#define TESTS_TINY_CHECKPOINT_H

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "worker/ckpt/safetensors.h"

enum {
    TINY_WIDTH = 8,
    TINY_FF = 16,
    TINY_POSITIONS = 64,
    TINY_WORDS = 20,
    TINY_LAYERS_MAX = 4
};

static const char *const tiny_words[] = {
    "[PAD]", "[UNK]", "[CLS]",    "[SEP]",    "[MASK]", "the", "is",   "sentence",
    "a",     "b",     "negative", "positive", "it",     ":",   "|",    "prediction",
    "good",  "bad",   "very",     "neutral",  ".",      ",",   "film", "label"};

enum {
    TINY_KNOWN = sizeof tiny_words / sizeof *tiny_words,
    TINY_VOCAB = TINY_KNOWN + TINY_WORDS
};

struct tiny_tensor {
    const char *name; /* with %d: once a layer */
    int rank;
    long rows, cols;
    int norm; /* weights of a norm: ones */
};

static const struct tiny_tensor tiny_tensors[] = {
    {"embeddings.word_embeddings.weight", 2, TINY_VOCAB, TINY_WIDTH, 0},
    {"embeddings.position_embeddings.weight", 2, TINY_POSITIONS, TINY_WIDTH, 0},
    {"embeddings.token_type_embeddings.weight", 2, 2, TINY_WIDTH, 0},
    {"embeddings.LayerNorm.weight", 1, TINY_WIDTH, 1, 1},
    {"embeddings.LayerNorm.bias", 1, TINY_WIDTH, 1, 0},
    {"encoder.layer.%d.attention.self.query.weight", 2, TINY_WIDTH, TINY_WIDTH, 0},
    {"encoder.layer.%d.attention.self.query.bias", 1, TINY_WIDTH, 1, 0},
    {"encoder.layer.%d.attention.self.key.weight", 2, TINY_WIDTH, TINY_WIDTH, 0},
    {"encoder.layer.%d.attention.self.key.bias", 1, TINY_WIDTH, 1, 0},
    {"encoder.layer.%d.attention.self.value.weight", 2, TINY_WIDTH, TINY_WIDTH, 0},
    {"encoder.layer.%d.attention.self.value.bias", 1, TINY_WIDTH, 1, 0},
    {"encoder.layer.%d.attention.output.dense.weight", 2, TINY_WIDTH, TINY_WIDTH, 0},
    {"encoder.layer.%d.attention.output.dense.bias", 1, TINY_WIDTH, 1, 0},
    {"encoder.layer.%d.attention.output.LayerNorm.weight", 1, TINY_WIDTH, 1, 1},
    {"encoder.layer.%d.attention.output.LayerNorm.bias", 1, TINY_WIDTH, 1, 0},
    {"encoder.layer.%d.intermediate.dense.weight", 2, TINY_FF, TINY_WIDTH, 0},
    {"encoder.layer.%d.intermediate.dense.bias", 1, TINY_FF, 1, 0},
    {"encoder.layer.%d.output.dense.weight", 2, TINY_WIDTH, TINY_FF, 0},
    {"encoder.layer.%d.output.dense.bias", 1, TINY_WIDTH, 1, 0},
    {"encoder.layer.%d.output.LayerNorm.weight", 1, TINY_WIDTH, 1, 1},
    {"encoder.layer.%d.output.LayerNorm.bias", 1, TINY_WIDTH, 1, 0},
    {"pooler.dense.weight", 2, TINY_WIDTH, TINY_WIDTH, 0},
    {"pooler.dense.bias", 1, TINY_WIDTH, 1, 0},
};

enum { TINY_TENSORS = sizeof tiny_tensors / sizeof *tiny_tensors };

static inline int tiny_write(const char *dir, const char *name, const char *text,
                             struct err *e)
{
    char path[FILE_PATH_MAX];
    int rc = file_join(path, sizeof path, dir, name, e);

    return rc ? rc : file_write_atomic(path, text, strlen(text), e);
}

static inline int tiny_weights(const char *dir, int layers, uint64_t seed, struct err *e)
{
    struct safetensors_item item[TINY_TENSORS * TINY_LAYERS_MAX];
    struct arena a = {0};
    char path[FILE_PATH_MAX];
    struct rng r;
    size_t n = 0;
    int rc = file_join(path, sizeof path, dir, "model.safetensors", e);

    memset(item, 0, sizeof item);
    rng_init(&r, seed);
    for (int i = 0; !rc && i < TINY_TENSORS; i++) {
        const struct tiny_tensor *t = &tiny_tensors[i];

        for (int layer = 0; layer < (strstr(t->name, "%d") ? layers : 1); layer++) {
            const char *hole = strstr(t->name, "%d");
            size_t count = (size_t)t->rows * (size_t)t->cols;
            float *x = arena_array(&a, count, sizeof *x);

            if (!x) {
                rc = err_set(e, ERR_NOMEM, "tiny checkpoint: out of memory");
                break;
            }
            for (size_t k = 0; k < count; k++)
                x[k] = t->norm ? 1.0f : (float)(0.3 * rng_normal(&r));
            item[n].name = hole ? arena_printf(&a, "%.*s%d%s", (int)(hole - t->name),
                                               t->name, layer, hole + 2)
                                : t->name;
            item[n].dtype = DTYPE_F32;
            item[n].rank = t->rank;
            item[n].shape[0] = t->rows;
            item[n].shape[1] = t->cols;
            item[n++].data = x;
        }
    }
    if (!rc)
        rc = safetensors_write(path, "{\"format\": \"pt\"}", item, n, e);
    arena_fini(&a);
    return rc;
}

static inline int tiny_tokenizer(const char *dir, struct err *e)
{
    struct str vocab = {0}, json = {0};
    int rc;

    str_add(&json, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, "
                   "\"added_tokens\": [");
    for (int i = 0; i < 5; i++)
        str_addf(&json,
                 "%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": "
                 "false, \"rstrip\": false, \"normalized\": false, \"special\": true}",
                 i ? ", " : "", i, tiny_words[i]);
    str_add(
        &json,
        "], \"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": true, "
        "\"handle_chinese_chars\": true, \"strip_accents\": null, \"lowercase\": true}, "
        "\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}, \"post_processor\": "
        "{\"type\": \"BertProcessing\", \"sep\": [\"[SEP]\", 3], \"cls\": [\"[CLS]\", "
        "2]}, \"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": "
        "true}, \"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", "
        "\"continuing_subword_prefix\": \"##\", \"max_input_chars_per_word\": 100, "
        "\"vocab\": {");
    for (int i = 0; i < TINY_VOCAB; i++) {
        char word[32];

        if (i < TINY_KNOWN)
            snprintf(word, sizeof word, "%s", tiny_words[i]);
        else
            snprintf(word, sizeof word, "w%d", i - TINY_KNOWN);
        str_addf(&vocab, "%s\n", word);
        str_addf(&json, "%s\"%s\": %d", i ? ", " : "", word, i);
    }
    str_add(&json, "}}}\n");
    rc = tiny_write(dir, "vocab.txt", str_get(&vocab), e);
    if (!rc)
        rc = tiny_write(dir, "tokenizer.json", str_get(&json), e);
    if (!rc)
        rc = tiny_write(
            dir, "tokenizer_config.json",
            "{\"do_lower_case\": true, \"tokenizer_class\": \"BertTokenizer\"}\n", e);
    str_fini(&vocab);
    str_fini(&json);
    return rc;
}

/* Make `dir` (mkdir -p) and everything in it. */
static inline int tiny_checkpoint(const char *dir, int layers, uint64_t seed, struct err *e)
{
    char config[1024];
    int rc = file_make_dirs(dir, e);

    snprintf(
        config, sizeof config,
        "{\"architectures\": [\"BertModel\"], \"model_type\": \"bert\", \"vocab_size\": "
        "%d, \"hidden_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": 2, "
        "\"intermediate_size\": %d, \"max_position_embeddings\": %d, "
        "\"type_vocab_size\": 2, \"hidden_act\": \"gelu\", \"layer_norm_eps\": 1e-12, "
        "\"pad_token_id\": 0, \"hidden_dropout_prob\": 0.1, "
        "\"attention_probs_dropout_prob\": 0.1}\n",
        TINY_VOCAB, TINY_WIDTH, layers, TINY_FF, TINY_POSITIONS);
    if (!rc)
        rc = tiny_write(dir, "config.json", config, e);
    if (!rc)
        rc = tiny_tokenizer(dir, e);
    return rc ? rc : tiny_weights(dir, layers, seed, e);
}

#endif
