/* A submit from a command line: hone run and hone submit. */
#ifndef LAUNCHER_REQUEST_H
#define LAUNCHER_REQUEST_H

#include "base/args.h"
#include "base/err.h"
#include "base/file.h"
#include "hone.pb-c.h"

struct request {
    char file[FILE_PATH_MAX], out[FILE_PATH_MAX]; /* absolute; out "": chosen */
    char *stage[ARGS_LIST_MAX];
    size_t n_stages;
    char *stage_text;
    const struct arg_list *set;
    int resume;
};

/* out, stages: NULL when not given. ERR_USAGE. Free with request_fini(), also then. */
int request_make(struct request *r, const char *file, const char *out, const char *stages,
                 const struct arg_list *set, int resume, struct err *e);
void request_fini(struct request *r);

/* Borrows from the request. */
void request_message(struct request *r, Hone__V1__SubmitRequest *m);

/* A problem of a reply, on standard error. */
void request_print_problem(const Hone__V1__Problem *p);

#endif
