/* Verbs that ask a daemon one question and print the answer: all but the question and the
 * table is the same. */
#ifndef LAUNCHER_QUERY_H
#define LAUNCHER_QUERY_H

#include <protobuf-c/protobuf-c.h>

#include "base/args.h"
#include "base/err.h"
#include "hone.pb-c.h"
#include "launcher/remote.h"

struct query_options {
    struct arg_list words, state;
    const char *to, *limit;
    int json;
};

union query_request {
    ProtobufCMessage base;
    Hone__V1__GetJobRequest job;
    Hone__V1__ListRequest list;
    Hone__V1__NodesRequest nodes;
};

struct query {
    struct arg_spec spec; /* its options: struct query_options */
    const char *method;
    const ProtobufCMessageDescriptor *reply;
    int (*fill)(const struct query_options *o, union query_request *m, struct err *e);
    void (*print)(struct client *c, const ProtobufCMessage *reply); /* for people */
};

/* Exit status. */
int query_run(const struct query *q, int argc, char **argv);

#endif
