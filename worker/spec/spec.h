/* The job: a YAML (or JSON) file, checked against the option tables, every default filled.
 *
 * spec_read() collects every problem with line, column and "did you mean"; after success
 * all fields are within bounds, paths exist, `needs` has no cycle. The resolved job
 * (job.resolved.yaml) read again gives the same spec. interface.md section 2 binds. */
#ifndef WORKER_SPEC_SPEC_H
#define WORKER_SPEC_SPEC_H

#include "base/arena.h"
#include "base/file.h"
#include "base/opt.h"
#include "base/problems.h"
#include "worker/data/dataset.h"
#include "worker/model/model.h"

struct stage;

/* What a job's models do: choose among labels, or answer in words. */
enum task_kind { TASK_CLASSIFY, TASK_GENERATE };
extern const char *const task_kind_names[]; /* "classify", "generate", NULL */
enum task_order { ORDER_ORDINAL, ORDER_EMBEDDING, ORDER_MATRIX };

struct task_spec {
    int kind;             /* enum task_kind */
    const char *template; /* of a prompt, with {prompt}; NULL: the prompt alone */
    struct opt_list labels;
    const char *order_text; /* ordinal | embedding | path of a matrix */
    int order;              /* enum task_order, resolved */
    int ties;               /* enum prefer_ties */
    const char *prefix;
    const char *candidate;       /* template with {label} */
    const char **candidate_text; /* resolved, one a label */
};

/* AUTO, or what enum op_precision has, one further. */
enum asked_precision { ASK_AUTO, ASK_F32, ASK_BF16, ASK_F16, ASK_TF32, ASK_FP16 };
enum { SHARD_AUTO, SHARD_FALSE, SHARD_TRUE };
enum { LAUNCHER_LOCAL, LAUNCHER_SLURM };
enum { GRADIENTS_F32, GRADIENTS_BF16 };
enum { RECOMPUTE_AUTO, RECOMPUTE_OFF, RECOMPUTE_ON };
enum { RESOURCES_BUCKET_MOST = 1024 };

struct resources {
    long workers, threads; /* 0: all cores this process may use */
    int device;            /* enum: auto, cpu, cuda */
    int precision;         /* enum asked_precision */
    int shard_optimizer;   /* enum: auto, false, true */
    int launcher;          /* enum: local, slurm */
    struct opt_list slurm; /* options of srun, checked */
    int gradients;         /* enum: f32, bf16 */
    int recompute;         /* enum: auto, off, on */
    long bucket_mb;        /* MiB; 0: measured */
};

enum { SELECT_BEST, SELECT_LAST };

/* Keys every stage takes. */
struct common_options {
    double epochs; /* given or default; 0 when steps rule */
    long steps;    /* 0: by epochs */
    long batch;
    double lr, head_lr; /* head_lr 0: lr; heads that are new */
    double warmup;      /* share of steps (< 1) */
    int schedule;       /* linear, cosine, constant */
    double weight_decay, clip;
    double beta1, beta2, eps;
    double dropout; /* -1: the checkpoint's ("model") */
    int pooling;    /* enum pooling, or -1: not given */
    long micro_tokens, log_every, eval_every, checkpoint_every, keep; /* 0: by length */
    int select;                                                       /* best, last */
    int select_metric;                                                /* enum */
    const struct node *stop; /* {metric: nll, patience: 3}: early stop, or NULL */
    const char *stop_metric; /* resolved from `stop`; NULL: none */
    long stop_patience;      /* evaluations without a better value */
    long stall; /* steps of a window of worker/train/stall.h; 0: by length, -1: off */
    struct opt_list needs;
};
extern const struct opt common_options[];
extern const struct opt job_options[], task_options[], resource_options[], save_options[];
extern const char *const spec_metric_names[]; /* select_metric and stop.metric */

struct stage_spec {
    const struct stage *stage; /* the algorithm */
    const char *name;          /* key in `stages` */
    struct common_options common;
    void *config; /* of stage->config_size */
    const struct node *node;
    int *needs, n_needs; /* indices into stages */
};

struct spec {
    struct arena arena;
    const char *file, *folder; /* job file; its folder */
    const struct node *root;
    const char *name;
    long seed, seeds;
    const char *model;  /* folder */
    const char *notify; /* program of the daemon's notify folder, or NULL */
    struct task_spec task;
    struct data_spec data;
    struct resources resources;
    struct model_save_options save;
    struct stage_spec *stage;
    size_t n_stages; /* in an order that respects `needs` */
};

/* set: "key.path=value" assignments in order (NULL-terminated, or NULL). 0 when there are
 * no errors; otherwise problems hold everything and *e the first. */
int spec_read(struct spec *s, const char *path, const char *const *set, struct problems *p,
              struct err *e);
void spec_fini(struct spec *s);
const char *spec_device(const struct spec *s); /* "auto", "cpu", "cuda": for backend_find */
void spec_write_resolved(const struct spec *s, struct str *out); /* YAML, absolute paths */
/* The metric `select: best` goes by: select_metric by name, else the stage's default. */
const char *spec_select_metric(const struct stage_spec *s);
struct stage_spec *spec_find_stage(struct spec *s, const char *name);
/* "job.yaml:12:5" of a node (NULL, or from --set: the file), for problems told later. */
void spec_place(const struct spec *s, const struct node *at, char out[FILE_PATH_MAX]);
/* Index into st->needs of the stage that runs `algorithm`, or -1. */
int spec_find_need(const struct spec *s, const struct stage_spec *st,
                   const char *algorithm);

/* What the stages ask of the loaded splits: rows to train on, and rows to select the best
 * checkpoint by. */
void spec_check_rows(const struct spec *s, const size_t rows[SPLITS], struct problems *p);

#endif
