/* The RPC surface. proto/hone.proto is the list of methods: protobuf-c turns it into a
 * struct of function pointers that rpc.c fills by name, so that a method without its
 * daemon/rpc/<method>.c is a link error and there is no table to keep in step.
 *
 * A handler gets the call as `ctx` and ends it once: by reply(&message, ctx), at once or
 * later, or by rpc_fail(). A stream sends rpc_more() first. */
#ifndef DAEMON_RPC_H
#define DAEMON_RPC_H

#include <stdint.h>

#include "base/err.h"
#include "daemon/access.h"
#include "hone.pb-c.h"
#include "wire.pb-c.h"

struct daemon;
struct job;

struct rpc_call {
    struct daemon *d;
    uint64_t conn; /* over HTTP: the request */
    uint32_t id;
    struct access who; /* the caller */
    const ProtobufCMethodDescriptor *method;
    const struct rpc_sink *sink;
};

/* How replies travel: as frames (NULL), or as JSON (daemon/http.c). p, n: a packed message
 * of the method's reply; more 0: the last one. */
struct rpc_sink {
    void (*message)(struct rpc_call *call, const void *p, size_t n, int more);
    void (*fail)(struct rpc_call *call, const struct err *e);
};

extern Hone__V1__Hone_Service rpc_service;

void rpc_dispatch(struct daemon *d, uint64_t conn, const struct access *who,
                  const Hone__V1__Call *call);

/* The method of that name, if there is one and this caller may call it. */
int rpc_find_method(struct daemon *d, const struct access *who, const char *name,
                    const ProtobufCMethodDescriptor **method, struct err *e);
/* Let the method's handler begin; the call is copied, the request borrowed. */
void rpc_begin(const struct rpc_call *call, const ProtobufCMessage *request);

void rpc_reply(const ProtobufCMessage *m, void *ctx); /* the last message; frees the call */
void rpc_more(struct rpc_call *call, const ProtobufCMessage *m);
/* A message that is packed already; more 0: the last one, which frees the call. */
void rpc_reply_bytes(struct rpc_call *call, const void *body, size_t n, int more);
void rpc_fail(struct rpc_call *call, const struct err *e); /* frees the call */
void rpc_drop(struct rpc_call *call);                      /* nobody listens any more */

/* What most handlers begin and end with. rpc_find_job(): the job, or NULL when there is
 * none or the caller may not: the call has failed then. */
struct job *rpc_find_job(struct rpc_call *call, uint64_t id, enum access_need need);
void rpc_reply_job(struct rpc_call *call, const struct job *j);
/* The job, or (rc not 0) the error. */
void rpc_reply_result(struct rpc_call *call, const struct job *j, int rc,
                      const struct err *e);

#define RPC_HANDLER(method, Request, Reply)                                                \
    void rpc_##method(Hone__V1__Hone_Service *service, const Hone__V1__##Request *in,      \
                      Hone__V1__##Reply##_Closure reply, void *ctx)
RPC_HANDLER(submit, SubmitRequest, SubmitReply);
RPC_HANDLER(get_job, GetJobRequest, Job);
RPC_HANDLER(list, ListRequest, JobList);
RPC_HANDLER(pause, JobRequest, Job);
RPC_HANDLER(resume, JobRequest, Job);
RPC_HANDLER(cancel, CancelRequest, Job);
RPC_HANDLER(checkpoint, JobRequest, Job);
RPC_HANDLER(skip, StageRequest, Job);
RPC_HANDLER(retry, StageRequest, Job);
RPC_HANDLER(set_priority, PriorityRequest, Job);
RPC_HANDLER(remove, RemoveRequest, RemoveReply);
RPC_HANDLER(logs, LogsRequest, LogChunk);
RPC_HANDLER(metrics, MetricsRequest, MetricChunk);
RPC_HANDLER(status, StatusRequest, StatusReply);
RPC_HANDLER(nodes, NodesRequest, NodeList);
RPC_HANDLER(watch, WatchRequest, Event);
RPC_HANDLER(attach, AttachRequest, AttachReply);

#endif
