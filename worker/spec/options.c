/* The option tables of a job file: its own keys, `task`, `resources`, and the keys that
 * every stage takes. `data` has its table beside its code (worker/data). */
#include <stddef.h>

#include "worker/model/model.h"
#include "worker/spec/internal.h"

const char *const task_kind_names[] = {"classify", "generate", NULL};
static const char *const ties_names[] = {"low", "high", NULL};
static const char *const device_names[] = {"auto", "cpu", "cuda", NULL};
static const char *const precision_names[] = {"auto", "f32",  "bf16", "f16",
                                              "tf32", "fp16", NULL};
static const char *const shard_names[] = {"auto", "false", "true", NULL};
static const char *const launcher_names[] = {"local", "slurm", NULL};
static const char *const gradient_names[] = {"f32", "bf16", NULL};
static const char *const recompute_names[] = {"auto", "off", "on", NULL};
static const char *const save_dtype_names[] = {"as-loaded", "f32", "bf16", "f16", NULL};
static const char *const schedule_names[] = {"linear", "cosine", "constant", NULL};
static const char *const select_names[] = {"best", "last", NULL};
static const char *const dropout_words[] = {"model", NULL};
static const double dropout_values[] = {-1};
static const char *const stall_words[] = {"auto", "off", NULL};
static const double stall_values[] = {0, -1};

const char *const spec_metric_names[] = {
    "accuracy",      "macro_f1",         "mcc",        "ece", "nll", "mae", "qwk", "loss",
    "top1_accuracy", "ordered_accuracy", "perplexity", NULL};

const struct opt job_options[] = {
    OPT_STRING(struct job_keys, name, NULL, "name of the job; default: the file's"),
    OPT_INT(struct job_keys, seed, 1, 0, 9e15, "seed of everything random"),
    OPT_INT(struct job_keys, seeds, 1, 1, 1000, "repeat the job with that many seeds"),
    OPT_PATH(struct job_keys, model, "Hugging Face checkpoint folder"),
    OPT_STRING(
        struct job_keys, notify, NULL,
        "program of the daemon's notify folder, run on done, failed, stopped, alarm"),
    OPT_NODE(struct job_keys, task, "labels and their wording"),
    OPT_NODE(struct job_keys, data, "files and how to read them"),
    OPT_NODE(struct job_keys, resources, "processes, threads, device"),
    OPT_NODE(struct job_keys, save, "how models are written"),
    OPT_NODE(struct job_keys, stages, "what to train: a map from stage to its options"),
    OPT_END,
};

const struct opt task_options[] = {
    OPT_ENUM(struct task_spec, kind, TASK_CLASSIFY, task_kind_names,
             "classify: choose among labels; generate: answer a prompt in words"),
    OPT_STRING(struct task_spec, template, NULL,
               "generate: the text around a prompt, with {prompt} in it"),
    OPT_STRINGS(struct task_spec, labels, "names of the classes, by id"),
    {"order", OPT_TYPE_STRING, offsetof(struct task_spec, order_text),
     .help = "preference order: ordinal, embedding, or the path of a K x K matrix",
     .text = "ordinal"},
    OPT_ENUM(struct task_spec, ties, 0, ties_names, "equally near labels: which id first"),
    OPT_STRING(struct task_spec, prefix, NULL, "word before the reward model's text"),
    OPT_STRING(struct task_spec, candidate, "Prediction: the label is {label}",
               "wording of a candidate label"),
    OPT_END,
};

const struct opt resource_options[] = {
    OPT_INT(struct resources, workers, 1, 1, 4096, "processes"),
    OPT_INT(struct resources, threads, 0, 0, 4096, "threads a process; 0: all it may use"),
    OPT_ENUM(struct resources, device, 0, device_names, "where to compute"),
    OPT_ENUM(struct resources, precision, 0, precision_names,
             "of matrix products; auto: bf16, or f16 where that is all there is, if it is "
             "measured to be faster"),
    OPT_ENUM(struct resources, shard_optimizer, 0, shard_names,
             "ZeRO-1: each process keeps and updates its part of the optimizer's state; "
             "auto: with several processes"),
    OPT_ENUM(struct resources, launcher, LAUNCHER_LOCAL, launcher_names,
             "who starts the processes: the machine of honed, or Slurm (srun)"),
    OPT_STRINGS(struct resources, slurm, "options of srun: [--partition=gpu, --nodes=2]"),
    OPT_ENUM(struct resources, gradients, 0, gradient_names,
             "how gradients travel between devices; bf16: half the bytes, summed in f32"),
    OPT_ENUM(struct resources, recompute, RECOMPUTE_AUTO, recompute_names,
             "activation checkpointing: keep each layer's input alone, backward runs the "
             "layer again, with the same bits; auto: on a device whose memory is too small "
             "without"),
    OPT_INT(struct resources, bucket_mb, 0, 0, RESOURCES_BUCKET_MOST,
            "MiB of gradients that travel together between devices; 0: the smallest of 8, "
            "16, 25 that is measured to be nearly as fast as the fastest"),
    OPT_END,
};

const struct opt save_options[] = {
    OPT_ENUM(struct model_save_options, dtype, MODEL_SAVE_AS_LOADED, save_dtype_names,
             "type of the numbers; as-loaded: that of the model it began with"),
    OPT_INT(struct model_save_options, shard_bytes, MODEL_SHARD_BYTES, 1000, 9e15,
            "a larger model is written in several files"),
    OPT_END,
};

const struct opt common_options[] = {
    OPT_FLOAT(struct common_options, epochs, 0, 0, 1e6, "passes over the training rows"),
    OPT_INT(struct common_options, steps, 0, 0, 1e12,
            "optimizer steps, in place of epochs"),
    OPT_INT(struct common_options, batch, 16, 1, 1e6, "examples a step, over all ranks"),
    OPT_FLOAT(struct common_options, lr, 0, 0, 10, "learning rate"),
    OPT_FLOAT(struct common_options, head_lr, 0, 0, 10, "that of new heads; 0: lr"),
    OPT_FLOAT(struct common_options, warmup, 0.1, 0, 0.999999, "share of the steps"),
    OPT_ENUM(struct common_options, schedule, 0, schedule_names, "after the warm-up"),
    OPT_FLOAT(struct common_options, weight_decay, 0, 0, 10, "not on biases and norms"),
    OPT_FLOAT(struct common_options, clip, 1, 0, 1e9, "largest gradient norm; 0: off"),
    OPT_FLOAT(struct common_options, beta1, 0.9, 0, 0.999999999, "AdamW"),
    OPT_FLOAT(struct common_options, beta2, 0.999, 0, 0.999999999, "AdamW"),
    OPT_FLOAT(struct common_options, eps, 1e-8, 1e-20, 1, "AdamW"),
    {"dropout", OPT_TYPE_FLOAT, offsetof(struct common_options, dropout), -1, 0, 0.95,
     .help = "at every site, or as in the checkpoint's config.json (model)",
     .words = dropout_words, .word_values = dropout_values},
    OPT_ENUM(struct common_options, pooling, -1, pooling_names,
             "how a sequence becomes one row; default: the checkpoint's"),
    OPT_INT(struct common_options, micro_tokens, 0, 0, 1e9,
            "tokens of a micro-batch; 0: by the model"),
    OPT_INT(struct common_options, log_every, 0, 0, 1e12, "steps; 0: by length"),
    OPT_INT(struct common_options, eval_every, 0, 0, 1e12, "steps; 0: every epoch"),
    OPT_INT(struct common_options, checkpoint_every, 0, 0, 1e12, "steps; 0: by length"),
    OPT_INT(struct common_options, keep, 0, 0, 1e6, "checkpoints to keep; 0: the usual"),
    OPT_ENUM(struct common_options, select, SELECT_BEST, select_names,
             "what final/ holds and later stages start from"),
    OPT_ENUM(struct common_options, select_metric, -1, spec_metric_names,
             "what best means; default: the stage's"),
    OPT_NODE(struct common_options, stop, "early stop: {metric: nll, patience: 3}"),
    {"stall", OPT_TYPE_INT, offsetof(struct common_options, stall), 0, 2, 1e12,
     .help =
         "warn when the training loss has not fallen for so many steps; auto: a fifth of "
         "the stage",
     .words = stall_words, .word_values = stall_values},
    OPT_STRINGS(struct common_options, needs, "stages that must be done before"),
    OPT_END,
};
