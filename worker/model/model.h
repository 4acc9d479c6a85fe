/* A model: a family's weights, one transformer forward switched on traits, and a head.
 *
 * Loaded from a Hugging Face folder (config.json, *.safetensors), saved to one that
 * `transformers` loads. Every parameter has one name in the file; the rows of the family
 * (worker/family/) say how file tensors map to ours, both ways.
 *
 * Fails with ERR_CORRUPT (file broken or contradicting config.json, naming file, tensor,
 * want and got), ERR_UNSUPPORTED (model_type unknown: lists those supported; pickle .bin:
 * says how to convert), ERR_NOMEM, ERR_IO. */
#ifndef WORKER_MODEL_MODEL_H
#define WORKER_MODEL_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/tape/tape.h"

enum head_kind {
    HEAD_NONE,     /* hidden states alone */
    HEAD_CLASSIFY, /* (B, outputs) logits */
    HEAD_REWARD,   /* (B, 1) score */
    HEAD_CAUSAL,   /* (T, V) logits */
    HEAD_MASKED,   /* (T, V) logits */
    /* A causal language model that is asked for log-probabilities alone: (B, LOGPROB_OUT),
     * op.h's sums over each sequence's answer tokens (struct packed). */
    HEAD_LOGPROB,
};

static inline int head_is_causal(enum head_kind head)
{
    return head == HEAD_CAUSAL || head == HEAD_LOGPROB;
}

/* How a sequence becomes one row. MODEL: the architecture's own head (BERT: pooler + tanh;
 * RoBERTa: dense + tanh on <s>; DistilBERT: pre_classifier + ReLU; decoders: last token).
 */
enum pooling { POOLING_MODEL, POOLING_CLS, POOLING_MEAN, POOLING_LAST_TOKEN, POOLING_EOS };
extern const char *const pooling_names[]; /* "model", "cls", "mean", "last_token", "eos" */

extern const char *const model_precision_names[]; /* "f32", "bf16", ..., NULL */

/* How model_save() writes: numbers as in the file they came from, or in a given type;
 * tensor files of at most so many bytes each (0: MODEL_SHARD_BYTES), one tensor at least.
 */
enum model_save_dtype {
    MODEL_SAVE_AS_LOADED,
    MODEL_SAVE_F32,
    MODEL_SAVE_BF16,
    MODEL_SAVE_F16
};
#define MODEL_SHARD_BYTES 5000000000ll /* "5GB", as transformers long had it */
struct model_save_options {
    int dtype; /* enum model_save_dtype */
    long shard_bytes;
};

struct model_options {
    const struct backend *backend;
    enum head_kind head;
    long outputs;         /* labels; 0: as in the file (id2label or the head's shape) */
    enum pooling pooling; /* resolve with model_default_pooling() first, if not given */
    int value_head;       /* add value_head.{weight,bias}: (B, 1), when not in the file */
    int trainable;        /* make gradients */
    int plan;             /* shapes alone, for model_plan(): no memory, nothing is read */
    int keep_head;        /* 1: take the file's head where it fits; 0: always a new one */
    double dropout;       /* -1: as in config.json; else used at every site */
    /* Of the matrix products; the last linear of a classifier, reward or value head is
     * always f32: it costs nothing, and its output is what a loss reads. */
    enum op_precision precision;
    uint64_t seed;             /* heads that are new: normal(0, 0.02), biases 0 */
    const char *const *labels; /* id2label to write, `outputs` of them, or NULL */
    struct model_save_options save;
};

struct model_info { /* from config.json, for people, plans and checks */
    const char *family;
    long layers, width, heads, kv_heads, ff, vocab, positions, types;
    long parameters;    /* elements, heads included */
    int causal;         /* decoder */
    int pad_id, eos_id; /* -1: none */
};

struct model;

int model_open(struct model **out, const char *dir, const struct model_options *o,
               struct err *e);
void model_close(struct model *m); /* total */

/* Read config.json alone: for checks before anything is loaded. */
int model_read_info(const char *dir, struct model_info *out, struct err *e);

/* What pooling a checkpoint has when the job does not say: hone.json beside it, else MODEL
 * for a BERT with pooler / RoBERTa / DistilBERT classification head, ... see model.c. */
int model_default_pooling(const char *dir, enum head_kind head, enum pooling *out,
                          struct err *e);

const struct model_info *model_get_info(const struct model *m);
const struct backend *model_get_backend(const struct model *m);
enum op_precision model_get_precision(const struct model *m);
struct param *model_params(struct model *m,
                           size_t *n); /* fixed order: file order of slots */
long model_outputs(const struct model *m);
enum pooling model_get_pooling(const struct model *m);
int model_has_value_head(const struct model *m);
/* The name of output i of a classifier: of the options, else of config.json; or NULL. */
const char *model_get_label(const struct model *m, long i);

/* After parameters changed (optimizer, restore): packed copies are stale. */
void model_touch(struct model *m);

struct model_out {
    struct tensor *logits; /* by head, above; HEAD_NONE: NULL */
    struct tensor *value;  /* (B, 1), or NULL */
    struct tensor *pooled; /* (B, D), or NULL for LM heads */
    struct tensor *hidden; /* (T, D): last hidden states, after the final norm if any; NULL
                              when single rows are pooled and keep_layers is off */
    /* verify only (when `keep_layers` was set): input of the first layer, output of each,
     * and the final norm's output (or NULL). */
    struct tensor **layer; /* L + 1 */
    struct tensor *norm;
};

struct forward_options {
    int keep_layers;
    int pooled_only; /* stop before the head: embeddings of candidate texts */
    int recompute;   /* keep a layer's input alone; backward runs the layer again */
};

/* Runs (or plans) the forward of a micro-batch on the tape; check tape_result(). Results
 * are valid until tape_reset(). Token ids, types and lengths are checked against the
 * model's tables: ERR_CONFIG names the sequence and the limit. */
int model_forward(struct model *m, struct tape *t, const struct packed *in,
                  const struct forward_options *o, struct model_out *out, struct err *e);

/* Bytes of step memory that a micro-batch of B sequences of these lengths will hold, by a
 * dry run of forward and, when it is trained on, backward; nothing is computed. */
enum model_plan_for { PLAN_INFER, PLAN_TRAIN, PLAN_RECOMPUTE };
int model_plan(struct model *m, const size_t *length, long B, enum model_plan_for use,
               size_t *bytes, struct err *e);

/* Have the back end choose, by timing, how it computes each kind of product of a training
 * step of this model; nothing where it makes no choices. */
int model_prepare(struct model *m, struct err *e);

/* Do the tensor files of a folder hold every float as f32, as it is in memory? */
int model_is_stored_exactly(const char *dir, int *yes, struct err *e);

/* Save as a Hugging Face folder: model.safetensors (or its shards), config.json (that of
 * the source, with architectures, id2label and num_labels set for the head) and tokenizer
 * files copied from the source folder, and hone.json {"format", "pooling", "head",
 * "labels", "candidates", "provenance"} (`extra`: a JSON object merged into it, or NULL).
 * Written with base/file (fsynced); the caller makes it atomic by renaming the folder.
 * Where pooling is not the architecture's own, the head's tensors are
 * "hone_classifier.weight/bias". Load -> save of an unchanged checkpoint is byte-identical
 * in model.safetensors. */
int model_save(struct model *m, const char *dir, const char *extra, struct err *e);

/* Copy of all trainable parameters by slot name, file order: used by checkpoints and by
 * `init: sft` (encoder tensors of another model with the same shapes). */
int model_copy_encoder(struct model *to, struct model *from, struct err *e);

#endif
