/* Llama (Touvron et al. 2023; Llama 3: Dubey et al. 2024): pre-norm decoder, RMS norm,
 * rotary positions on halves of the head, grouped queries, gated SiLU.
 *
 *     freq_i = theta^(-2i/d)                                   (Su et al. 2021, eq. 15)
 *     rope "linear": freq / factor
 *     rope "llama3": with wavelength w = 2 pi / freq and context C before extension,
 *         w < C/high: freq;  w > C/low: freq / factor;  between: both, blended linearly
 *
 * in f32, as transformers computes them. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "worker/family/llama.h"

static const struct weight_row rows[] = {
#include "worker/family/llama_body.inc"

    {"layer.%d.attn.qkv.b", 0, "layers.%d.self_attn.q_proj.bias", NULL, "H*d",
     ROW_OPTIONAL | ROW_NO_DECAY},
    {"layer.%d.attn.qkv.b", 1, "layers.%d.self_attn.k_proj.bias", NULL, "K*d",
     ROW_OPTIONAL | ROW_NO_DECAY},
    {"layer.%d.attn.qkv.b", 2, "layers.%d.self_attn.v_proj.bias", NULL, "K*d",
     ROW_OPTIONAL | ROW_NO_DECAY},
    {"layer.%d.attn.out.b", 0, "layers.%d.self_attn.o_proj.bias", NULL, "D",
     ROW_OPTIONAL | ROW_NO_DECAY},
    {"layer.%d.ff.in.b", 0, "layers.%d.mlp.gate_proj.bias", NULL, "F",
     ROW_OPTIONAL | ROW_NO_DECAY},
    {"layer.%d.ff.in.b", 1, "layers.%d.mlp.up_proj.bias", NULL, "F",
     ROW_OPTIONAL | ROW_NO_DECAY},
    {"layer.%d.ff.out.b", 0, "layers.%d.mlp.down_proj.bias", NULL, "D",
     ROW_OPTIONAL | ROW_NO_DECAY},

#include "worker/family/llama_tail.inc"
    {NULL},
};

struct rope {
    const char *type;
    double theta, factor, low, high;
    long context; /* positions before the extension */
};

/* transformers 4: rope_theta, rope_scaling {type or rope_type}; 5: rope_parameters. */
static int read_rope(const json_t *c, struct rope *r, struct err *e)
{
    const json_t *scaling = json_object_get(c, "rope_parameters");
    int rc;

    *r = (struct rope){.type = "default"};
    if (!json_is_object(scaling))
        scaling = json_object_get(c, "rope_scaling");
    rc = family_get_positive(c, "rope_theta", 10000, &r->theta, e);
    if (rc || !scaling || json_is_null(scaling))
        return rc;
    rc = family_get_positive(scaling, "rope_theta", r->theta, &r->theta, e);
    if (!rc)
        rc = json_get_string(scaling, "type", 0, &r->type, e);
    if (!rc)
        rc = json_get_string(scaling, "rope_type", 0, &r->type, e);
    if (!rc && strcmp(r->type, "default") && strcmp(r->type, "linear") &&
        strcmp(r->type, "llama3"))
        return err_set(e, ERR_UNSUPPORTED,
                       "\"rope_type\" is \"%.40s\"; Hone has default, linear, llama3",
                       r->type);
    if (!rc && strcmp(r->type, "default"))
        rc = family_get_positive(scaling, "factor", 0, &r->factor, e);
    if (rc || strcmp(r->type, "llama3"))
        return rc;
    rc = family_get_positive(scaling, "low_freq_factor", 0, &r->low, e);
    if (!rc)
        rc = family_get_positive(scaling, "high_freq_factor", 0, &r->high, e);
    if (!rc)
        rc =
            family_get_size(scaling, "original_max_position_embeddings", 0, &r->context, e);
    if (!rc && r->low >= r->high)
        rc = err_set(e, ERR_CORRUPT,
                     "\"low_freq_factor\" must be below \"high_freq_factor\"");
    return rc;
}

static float scaled(const struct rope *r, float freq)
{
    float context = (float)r->context, low = (float)r->low, high = (float)r->high;
    float factor = (float)r->factor, wave = 6.283185307179586f / freq, smooth;

    if (!strcmp(r->type, "linear"))
        return freq / factor;
    if (strcmp(r->type, "llama3") || wave < context / high)
        return freq;
    if (wave > context / low)
        return freq / factor;
    smooth = (context / wave - low) / (high - low);
    return (1 - smooth) * freq / factor + smooth * freq;
}

static int make_frequencies(const json_t *c, struct model_config *m, struct err *e)
{
    struct rope r;
    double partial = 1;
    long d = m->dims.d;
    int rc = read_rope(c, &r, e);

    if (!rc)
        rc = family_get_positive(c, "partial_rotary_factor", 1, &partial, e);
    if (rc)
        return rc;
    if (partial != 1)
        return err_set(e, ERR_UNSUPPORTED,
                       "\"partial_rotary_factor\" is %g, which Hone does not have",
                       partial);
    if (d % 2)
        return err_set(e, ERR_CORRUPT, "rotary positions need an even head size, not %ld",
                       d);
    m->rotary_dims = (int)d;
    m->rotary_freq = mem_array((size_t)d / 2, sizeof *m->rotary_freq);
    if (!m->rotary_freq)
        return err_set(e, ERR_NOMEM, "rotary frequencies: out of memory");
    for (long i = 0; i < d / 2; i++) {
        float power = (float)(2 * i) / (float)d;

        m->rotary_freq[i] = scaled(&r, 1.0f / (float)pow(r.theta, power));
    }
    return 0;
}

/* A key that is absent has a default; null means as many as heads. */
static int read_kv_heads(const json_t *c, long fallback, struct dims *d, struct err *e)
{
    if (!fallback || json_object_get(c, "num_key_value_heads"))
        fallback = d->H;
    return family_get_size(c, "num_key_value_heads", fallback, &d->K, e);
}

static int read_sizes(const json_t *c, const struct llama_defaults *o, struct dims *d,
                      struct err *e)
{
    int rc = family_get_size(c, "vocab_size", 0, &d->V, e);

    if (!rc)
        rc = family_get_size(c, "hidden_size", 0, &d->D, e);
    if (!rc)
        rc = family_get_size(c, "num_hidden_layers", 0, &d->L, e);
    if (!rc)
        rc = family_get_size(c, "num_attention_heads", 0, &d->H, e);
    if (!rc)
        rc = read_kv_heads(c, o->kv_heads, d, e);
    if (!rc)
        rc = family_get_size(c, "intermediate_size", 0, &d->F, e);
    if (!rc)
        rc = family_get_size(c, "max_position_embeddings", o->positions, &d->P, e);
    if (!rc && !json_is_null(json_object_get(c, "head_dim")) &&
        (o->head_size || json_object_get(c, "head_dim")))
        rc = family_get_size(c, "head_dim", o->head_size, &d->d, e);
    d->X = 1;
    return rc ? rc : family_check_heads(d, e);
}

int llama_configure(const json_t *c, const struct llama_defaults *o, struct model_config *m,
                    struct err *e)
{
    double eps;
    int rc = read_sizes(c, o, &m->dims, e);

    if (!rc)
        rc = family_get_rate(c, "attention_dropout", 0, &m->attention_dropout, e);
    if (!rc)
        rc = family_get_act(c, "hidden_act", "silu", &m->act, e);
    if (!rc)
        rc = family_get_positive(c, "rms_norm_eps", 1e-6, &eps, e);
    if (!rc)
        rc = json_get_bool(c, "tie_word_embeddings", 0, &m->tied, e);
    if (!rc)
        rc = family_get_id(c, "pad_token_id", -1, &m->pad_id, e);
    if (!rc)
        rc = family_get_id(c, "eos_token_id", o->eos_id, &m->eos_id, e);
    if (rc)
        return rc;
    m->norm = NORM_RMS;
    m->norm_eps = (float)eps;
    m->norm_place = NORM_PRE;
    m->position = POSITION_ROTARY;
    m->ff = FF_GATED;
    m->native = NATIVE_LAST_LINEAR;
    m->causal = m->final_norm = 1;
    return make_frequencies(c, m, e);
}

/* transformers 4.5x and 5 also list the kind of every layer: it must say the same. */
static int check_layer_types(const json_t *c, const struct model_config *m, struct err *e)
{
    const json_t *list = json_object_get(c, "layer_types"), *v;
    size_t i;

    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list) || json_array_size(list) != (size_t)m->dims.L)
        return err_set(e, ERR_CORRUPT,
                       "\"layer_types\" must be a list with one entry for each of the "
                       "%ld layers",
                       m->dims.L);
    json_array_foreach(list, i, v)
    {
        int windowed = m->window && (long)i >= m->window_from;
        const char *want = windowed ? "sliding_attention" : "full_attention";

        if (!json_is_string(v) || strcmp(json_string_value(v), want))
            return err_set(e, ERR_UNSUPPORTED,
                           "\"layer_types\": layer %zu is \"%.40s\"; with these window "
                           "keys Hone has \"%s\" there",
                           i, json_is_string(v) ? json_string_value(v) : "no string", want);
    }
    return 0;
}

int llama_window(const json_t *c, struct model_config *m, struct err *e)
{
    int used = 0, rc = json_get_bool(c, "use_sliding_window", 0, &used, e);
    long window = 4096, from = 28;

    if (!rc && used)
        rc = family_get_size(c, "sliding_window", window, &window, e);
    if (!rc && used)
        rc = json_get_long(c, "max_window_layers", 0, &from, e);
    if (!rc && from < 0)
        rc = err_set(e, ERR_CORRUPT, "\"max_window_layers\" is %ld, want 0 or more", from);
    if (rc)
        return rc;
    m->window =
        used && !json_is_null(json_object_get(c, "sliding_window")) ? (int)window : 0;
    m->window_from = from;
    return check_layer_types(c, m, e);
}

static int configure(const json_t *c, struct model_config *m, struct err *e)
{
    static const struct llama_defaults defaults = {.positions = 2048, .eos_id = -1};
    int rc = json_get_bool(c, "attention_bias", 0, &m->attention_bias, e);

    if (!rc)
        rc = json_get_bool(c, "mlp_bias", 0, &m->ff_bias, e);
    return rc ? rc : llama_configure(c, &defaults, m, e);
}

const struct family family_llama = {
    .model_type = "llama",
    .prefix = "model.",
    .arch_base = "LlamaModel",
    .arch_classify = "LlamaForSequenceClassification",
    .arch_causal = "LlamaForCausalLM",
    .rows = rows,
    .configure = configure,
};
