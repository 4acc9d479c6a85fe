/* A model family: how one Hugging Face `model_type` maps onto the one transformer.
 *
 * Data, not code: traits that switch the forward, the keys of config.json, and rows that
 * say which tensor of the file fills which part of which of our parameters. Shape strings
 * are evaluated against config.json and compared with the safetensors header; fixes have
 * inverses, so the same rows load and save: load -> save is byte-identical.
 * A family is one file worker/family/<model_type>.c with `const struct family family_<x>`.
 */
#ifndef WORKER_FAMILY_FAMILY_H
#define WORKER_FAMILY_FAMILY_H

#include "base/err.h"
#include "base/json.h"
#include "kernels/op.h"

/* Dimensions by the letters of shape strings. C: outputs of the head, X: token types. */
struct dims {
    long V, D, L, H, K, d, F, P, X, C;
};

enum position_kind { POSITION_LEARNED, POSITION_ROTARY };
enum norm_place { NORM_PRE, NORM_POST };
enum ff_kind { FF_PLAIN, FF_GATED };

/* The architecture's own classification head, POOLING_MODEL. */
enum native_head {
    NATIVE_NONE,
    NATIVE_POOLER_TANH, /* bert: tanh(dense(first)), dropout, classifier */
    NATIVE_DENSE_TANH,  /* roberta: dropout, tanh(dense(first)), dropout, out_proj */
    NATIVE_DENSE_RELU,  /* distilbert: relu(dense(first)), dropout, classifier */
    NATIVE_LAST_LINEAR, /* llama: score(last real token), no bias */
};

enum row_flag {
    ROW_OPTIONAL = 1,  /* may be absent: then the whole slot is */
    ROW_PASSENGER = 2, /* buffer or unused copy: accepted, kept for saving, never trained */
    ROW_HEAD = 4,      /* belongs to a task head: loaded when the head wants it */
    ROW_NO_DECAY = 8,  /* biases and norms: no weight decay */
    ROW_SPARSE = 16,   /* embedding table: rows untouched by a batch are skipped */
    ROW_TIED = 32,     /* copy of another slot's tensor (decoder = embedding) */
    ROW_BARE = 64,     /* the name never takes the family's prefix */
    ROW_TRANSPOSED = 128, /* a matrix stored (in, out), as GPT-2's Conv1D has it */
};

struct weight_row {
    const char *slot;  /* our parameter, e.g. "layer.%d.attn.qkv.w"; %d is the layer */
    int part;          /* rows of one slot are stacked in order of `part` (q, k, v) */
    const char *name;  /* theirs, without the optional prefix, e.g. "layer.%d.x.weight" */
    const char *alias; /* older name (LayerNorm.gamma), or NULL; saved as it was read */
    const char *shape; /* as stored, e.g. "H*d D" */
    unsigned flags;
};

/* What config.json says, after defaults and checks. */
struct model_config {
    struct dims dims;
    enum op_act act;
    enum op_act mlm_act; /* of the masked-LM transform */
    enum op_norm norm;
    enum norm_place norm_place;
    enum position_kind position;
    enum ff_kind ff;
    enum native_head native;
    int causal, tied;
    int position_offset; /* roberta: padding_idx + 1 */
    int pad_id, eos_id;  /* -1: none */
    int embedding_norm;  /* norm after the embeddings (bert) */
    int head_norm;       /* RMS norm of each head of q and k (qwen3) */
    int final_norm;      /* norm after the last layer (llama) */
    int attention_bias, ff_bias;
    float norm_eps;
    /* As in config.json; embedding_dropout: of the sum of the embeddings. */
    double dropout, embedding_dropout, attention_dropout, head_dropout;
    int no_attention_out_dropout; /* distilbert: none after the attention's output */
    int rotary_dims, rotary_interleaved;
    float *rotary_freq; /* (rotary_dims / 2), scaling applied; mem_alloc'ed */
    int window;         /* sliding window, 0: none */
    long window_from;   /* the first layer that has it */
};

struct family {
    const char *model_type;
    const char *prefix; /* optional in the file: "bert.", "model." */
    const char *arch_base, *arch_classify, *arch_causal,
        *arch_masked;              /* for `architectures`; or NULL */
    const struct weight_row *rows; /* ends with slot NULL */
    /* Read config.json into *out (zeroed before); every missing or wrong key is an error
     * that names it. */
    int (*configure)(const json_t *config, struct model_config *out, struct err *e);
};

extern const struct family *const family_registry[];

/* ERR_UNSUPPORTED lists the supported ones. */
const struct family *family_find(const char *model_type, struct err *e);

/* Evaluate "H*d D" into out[2] (rank 1: out[0] only); returns the rank or an error. */
int family_shape(const char *shape, const struct dims *dims, long out[2], struct err *e);

/* ---- for configure(): members of config.json, checked -------------------------------- */

/* A size, at least 1 and at most 2^24. `fallback` 0: the key is required. */
int family_get_size(const json_t *config, const char *key, long fallback, long *out,
                    struct err *e);
/* A dropout probability in [0, 1). */
int family_get_rate(const json_t *config, const char *key, double fallback, double *out,
                    struct err *e);
/* An epsilon or a rotary base: greater than 0. `fallback` 0: the key is required. */
int family_get_positive(const json_t *config, const char *key, double fallback, double *out,
                        struct err *e);
/* A token id: -1 when absent; a list gives its first. */
int family_get_id(const json_t *config, const char *key, int fallback, int *out,
                  struct err *e);
/* An activation by its name in transformers; unknown: ERR_UNSUPPORTED. */
int family_get_act(const json_t *config, const char *key, const char *fallback,
                   enum op_act *out, struct err *e);
/* A trait that Hone has in one form only: any other value is ERR_UNSUPPORTED. */
int family_want_string(const json_t *config, const char *key, const char *want,
                       struct err *e);
int family_want_bool(const json_t *config, const char *key, int want, struct err *e);
/* Head size, and that heads divide the width and kv heads the heads. */
int family_check_heads(struct dims *dims, struct err *e);

#endif
