/* What Llama and its descendants share beside llama_body.inc and llama_tail.inc: the keys
 * of config.json. Fails as `configure` of a family does. */
#ifndef WORKER_FAMILY_LLAMA_H
#define WORKER_FAMILY_LLAMA_H

#include "worker/family/family.h"

/* What transformers takes for keys that config.json lacks. */
struct llama_defaults {
    long kv_heads;  /* 0: as many as heads */
    long head_size; /* 0: width / heads */
    long positions;
    int eos_id; /* -1: none */
};

/* The keys of all: sizes, rotary positions, RMS norm, gated feed-forward, tied head. */
int llama_configure(const json_t *c, const struct llama_defaults *o, struct model_config *m,
                    struct err *e);

/* Qwen's sliding window: use_sliding_window, sliding_window, max_window_layers (the first
 * layer that has it) and layer_types. After llama_configure(). */
int llama_window(const json_t *c, struct model_config *m, struct err *e);

#endif
