/* Verbs that change a job and print what it is then: all but their request is the same. */
#ifndef LAUNCHER_STEER_H
#define LAUNCHER_STEER_H

#include <protobuf-c/protobuf-c.h>

#include "base/args.h"
#include "base/err.h"
#include "hone.pb-c.h"

struct steer_options {
    struct arg_list words; /* JOB... or JOB and what belongs to it */
    const char *to;
    int json, now;
};

union steer_request {
    ProtobufCMessage base;
    Hone__V1__JobRequest job;
    Hone__V1__CancelRequest cancel;
    Hone__V1__StageRequest stage;
    Hone__V1__PriorityRequest priority;
};

struct steer {
    struct arg_spec spec; /* words_max above 1 and `each`: every word is a job */
    const char *method;
    int each;
    /* The request for one job; the words after it are in o->words. */
    int (*fill)(const struct steer_options *o, uint64_t job, union steer_request *m,
                struct err *e);
};

/* Exit status. */
int steer_run(const struct steer *s, int argc, char **argv);
/* A request that is a job's number and nothing else. */
int steer_fill_job(const struct steer_options *o, uint64_t job, union steer_request *m,
                   struct err *e);
/* JOB [STAGE] */
int steer_fill_stage(const struct steer_options *o, uint64_t job, union steer_request *m,
                     struct err *e);

extern const struct arg_flag steer_flags[]; /* --to, --json */

#endif
