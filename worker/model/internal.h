/* Inside a model: shared by load.c, save.c, forward.c and head.c of this folder alone.
 *
 * Slots (parameters) that forward.c looks up by name, where %d is the layer:
 *   embed.word (V,D) sparse, embed.position (P,D) sparse, embed.type (X,D) sparse,
 *   embed.norm.w/.b (D)
 *   layer.%d.attn.qkv.w ((H+2K)d, D), .b; layer.%d.attn.out.w (D, Hd), .b
 *   layer.%d.attn.norm.w/.b        post-norm: after attention; pre-norm: before it
 *   layer.%d.ff.in.w (F,D) or gated: rows gate then up (2F,D); .b; layer.%d.ff.out.w (D,F)
 *   layer.%d.ff.norm.w/.b          post-norm: after the block; pre-norm: before it
 *   norm.w/.b                      final norm
 *   pooler.w/.b                    native dense of the classification head
 *   head.w (C,D)/.b                classifier / score (ROW_HEAD), also the new linear head
 *   value.w (1,D)/.b               value_head.weight / value_head.bias
 *   lm.w (V,D)/.b                  lm_head (absent or tied: embed.word), MLM decoder bias
 *   mlm.dense.w/.b, mlm.norm.w/.b  BERT's masked-LM transform */
#ifndef WORKER_MODEL_INTERNAL_H
#define WORKER_MODEL_INTERNAL_H

#include "base/arena.h"
#include "worker/family/family.h"
#include "worker/model/model.h"

/* One tensor of the file: which part of which parameter it is, or a passenger. */
struct model_tensor {
    const char *name; /* as in the file (prefix and alias as read) */
    int param;        /* index, or -1: passenger */
    long row;         /* first row within the parameter */
    long shape[4];
    int rank;
    const void *bytes; /* passengers: their bytes (owned by the arena); else NULL */
    const char *dtype; /* as read, "F32", "I64", ... */
};

struct layer_params { /* indices into param, -1: absent */
    int qkv_w, qkv_b, out_w, out_b, attn_norm_w, attn_norm_b;
    int in_w, in_b, ffout_w, ffout_b, ff_norm_w, ff_norm_b;
};

struct model {
    struct arena arena;
    struct model_options options;
    struct model_info info;
    const struct family *family;
    struct model_config config;
    const char *dir; /* source folder: config.json and tokenizer files are copied from */
    json_t *json_config;
    enum pooling pooling;
    long outputs;

    struct param *param;
    size_t n_params;
    float *data_block, *grad_block; /* device memory behind all params */

    struct layer_params *layer; /* L */
    int word, position, type, embed_norm_w, embed_norm_b, norm_w, norm_b;
    int pooler_w, pooler_b, head_w, head_b, value_w, value_b;
    int lm_w, lm_b, mlm_dense_w, mlm_dense_b, mlm_norm_w, mlm_norm_b;

    struct model_tensor *tensor; /* the file, in its order, then new heads */
    size_t n_tensors;
    char *metadata; /* __metadata__ of the safetensors header as JSON text, or NULL */
    char *header;   /* raw header bytes, to save byte-identically when nothing was added */
    size_t header_len;
};

#endif
