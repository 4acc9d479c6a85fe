/* What the files of worker/spec share. */
#ifndef WORKER_SPEC_INTERNAL_H
#define WORKER_SPEC_INTERNAL_H

#include "worker/spec/spec.h"

/* The job file's own keys. */
struct job_keys {
    const char *name, *model, *notify;
    long seed, seeds;
    const struct node *task, *data, *resources, *save, *stages;
};

/* One spec being read. */
struct reading {
    struct spec *s;
    struct job_keys keys;
    struct problems *p;
};

void spec_read_task(struct reading *r);
void spec_read_stages(struct reading *r);
void spec_check_slurm(struct reading *r);

/* Complain about what is no readable, non-empty file; `at` says where it was named. */
int spec_check_file(struct problems *p, const struct node *at, const char *path);

#endif
