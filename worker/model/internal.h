/* Inside a model: shared by the files of this folder alone.
 *
 * Slots (parameters) that forward.c looks up by name, where %d is the layer:
 *   embed.word (V,D) sparse, embed.position (P,D) sparse, embed.type (X,D) sparse,
 *   embed.norm.w/.b (D)
 *   layer.%d.attn.qkv.w ((H+2K)d, D), .b; layer.%d.attn.out.w (D, Hd), .b
 *   layer.%d.attn.norm.w/.b        post-norm: after attention; pre-norm: before it
 *   layer.%d.attn.qnorm.w (d), layer.%d.attn.knorm.w (d)
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
#include "worker/ckpt/safetensors.h"
#include "worker/family/family.h"
#include "worker/model/model.h"

/* A file that goes along as it is (tokenizer.json, ...). */
struct model_file {
    const char *name;
    char *bytes; /* mem_alloc'ed */
    size_t len;
};

/* One tensor as it will be saved: which part of which parameter it is, or a passenger. */
struct model_tensor {
    const char *name;  /* as in the file (prefix and alias as read) */
    const char *saved; /* its name when it is saved: `name`, with the prefix where needed */
    int param;         /* index, or -1: passenger */
    long row;          /* first row within the parameter */
    size_t first;      /* first element within the parameter */
    long shape[SAFETENSORS_RANK_MAX];
    int rank;
    int transposed; /* `shape` is the file's; ours is the other way round */
    enum dtype dtype;
    const void *bytes; /* passengers, and F64 (more bits than ours); else NULL */
    uint64_t begin;    /* place in the file, when it is saved unchanged */
};

struct layer_params { /* indices into param, -1: absent */
    int qkv_w, qkv_b, qnorm_w, knorm_w, out_w, out_b, attn_norm_w, attn_norm_b;
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

    struct model_tensor *tensor; /* what is saved: the file's order, then new heads */
    size_t n_tensors;
    int unchanged;        /* tensors and names are those of one file: its header serves */
    const char *metadata; /* __metadata__ of the safetensors header as JSON text, or NULL */
    const char *header;   /* raw header bytes */
    size_t header_len;
    struct weights *weights; /* open only while parameters or passengers lie in its map */
    struct model_file *file; /* read with a trainable model: its source may go away */
    size_t n_files;
    int grads_mapped; /* grad_block comes from mmap: pages appear when touched */
    size_t grad_bytes;
};

/* ---- config.c ------------------------------------------------------------------------ */

struct hone_json { /* what hone.json says; absent file: found = 0 */
    int found, has_pooling;
    enum pooling pooling;
};

/* Read and check config.json. The caller has *json decref'ed and config->rotary_freq
 * freed. */
int config_read(const char *dir, json_t **json, const struct family **family,
                struct model_config *config, struct err *e);
int config_read_hone(const char *dir, struct hone_json *out, struct err *e);
/* Labels that config.json speaks of; 0: none. */
long config_labels(const json_t *config);
/* What the rows say about the size of a model without heads. */
void config_info(const struct family *f, const struct model_config *c,
                 struct model_info *out);

/* ---- files.c ------------------------------------------------------------------------- */

/* Read the tokenizer's files of m->dir into m->file, once. */
int files_read(struct model *m, struct err *e);
void files_free(struct model *m);

/* ---- fix.c ----------------------------------------------------------------------------
 */

/* out (cols, rows) = the transpose of a (rows, cols). */
void fix_transpose(const float *a, long rows, long cols, float *out);
/* The elements of a tensor as its file has them (mem_alloc'ed), from `ours` on the device,
 * where the parameter or its gradient begins. */
float *fix_to_file(const struct model *m, const struct model_tensor *t, const float *ours,
                   struct err *e);

/* ---- weights.c ----------------------------------------------------------------------- */

#define MODEL_INDEX_NAME "model.safetensors.index.json"

/* The tensor files of a folder: model.safetensors, or the shards of its index. */
struct weights {
    struct safetensors *file;
    size_t n;
};
int weights_open(struct weights **out, const char *dir, struct err *e);
void weights_close(struct weights *w); /* total */

/* ---- match.c: file tensors <-> rows ----------------------------------------------------
 */

/* One row for one layer, wanted as part of a parameter. */
struct need {
    const struct weight_row *row;
    long layer;
    int param;
    size_t first; /* element within the parameter */
    long at_row;  /* row within the parameter */
    long shape[2];
    int rank;
    const struct safetensors_tensor *tensor; /* where it is read from; NULL: fresh */
    struct safetensors *file;
};

struct match {
    struct need *need;
    size_t n;
};

/* Plan the parameters of the model from its rows, find each in the files, list what is
 * missing, unknown or misshapen, and fill m->param (without memory), m->tensor and *out.
 * All memory is m->arena's. */
int match_weights(struct model *m, struct weights *w, struct match *out, struct err *e);

/* ---- range.c ---- */
/* Do the weights fit the precision of their products? */
int model_check_range(const struct model *m, struct err *e);

#endif
