/* Calls: from a Call frame to the handler and back to Reply frames. */
#include "daemon/rpc.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "daemon/auth.h"
#include "daemon/conn.h"
#include "daemon/daemon.h"
#include "daemon/show.h"
#include "proto/message.h"

Hone__V1__Hone_Service rpc_service = HONE__V1__HONE__INIT(rpc_);

static void send_error(struct daemon *d, uint64_t conn, uint32_t id, const struct err *e)
{
    Hone__V1__Reply reply = HONE__V1__REPLY__INIT;
    Hone__V1__Error error = HONE__V1__ERROR__INIT;

    message_error(e, &error);
    reply.id = id;
    reply.error = &error;
    conn_send(d, conn, &reply.base);
}

static void send_bytes(struct rpc_call *call, const void *body, size_t n, int more)
{
    Hone__V1__Reply reply = HONE__V1__REPLY__INIT;

    if (call->sink) {
        call->sink->message(call, body, n, more);
        return;
    }
    reply.id = call->id;
    reply.has_body = 1;
    reply.body.data = (uint8_t *)(uintptr_t)body;
    reply.body.len = n;
    reply.has_more = more;
    reply.more = more;
    conn_send(call->d, call->conn, &reply.base);
}

static void fail(struct rpc_call *call, const struct err *e)
{
    if (call->sink)
        call->sink->fail(call, e);
    else
        send_error(call->d, call->conn, call->id, e);
}

static void send_message(struct rpc_call *call, const ProtobufCMessage *m, int more)
{
    struct str body = {0};
    struct err e;

    if (message_pack(m, &body, &e))
        fail(call, &e);
    else
        send_bytes(call, body.s, body.len, more);
    str_fini(&body);
}

void rpc_reply_bytes(struct rpc_call *call, const void *body, size_t n, int more)
{
    send_bytes(call, body, n, more);
    if (!more)
        mem_free(call);
}

void rpc_reply(const ProtobufCMessage *m, void *ctx)
{
    struct rpc_call *call = ctx;

    send_message(call, m, 0);
    mem_free(call);
}

void rpc_more(struct rpc_call *call, const ProtobufCMessage *m)
{
    send_message(call, m, 1);
}

void rpc_fail(struct rpc_call *call, const struct err *e)
{
    fail(call, e);
    mem_free(call);
}

void rpc_drop(struct rpc_call *call)
{
    mem_free(call);
}

/* What makes sense for a job that was started elsewhere, and whose files are there. */
static int check_attached(const char *method, const struct job *j, struct err *e)
{
    static const char *const possible[] = {"GetJob",     "Watch", "Metrics", "Cancel",
                                           "Checkpoint", "Pause", "Resume",  "SetPriority",
                                           "Remove",     NULL};
    const char *const *p = possible;

    while (*p && strcmp(*p, method) != 0)
        p++;
    if (!j->attached || *p)
        return 0;
    err_set(e, ERR_CONFIG, "%s: job %llu was started elsewhere (%.200s) and only reports",
            method, (unsigned long long)j->id, j->run);
    return err_mend(e,
                    "watch, metrics, checkpoint, pause, resume, cancel and rm are "
                    "possible; its log is %.150s/log",
                    j->run);
}

struct job *rpc_find_job(struct rpc_call *call, uint64_t id, enum access_need need)
{
    struct job *j = daemon_find_job(call->d, id);
    struct err e;
    int rc = j ? access_check(&call->who, need, j, &e)
               : err_set(&e, ERR_CONFIG, "no job %llu", (unsigned long long)id);

    if (!j) {
        err_field(&e, "id");
        err_mend(&e, "hone ps lists them");
    }
    if (!rc)
        rc = check_attached(call->method->name, j, &e);
    if (!rc)
        return j;
    rpc_fail(call, &e);
    return NULL;
}

void rpc_reply_result(struct rpc_call *call, const struct job *j, int rc,
                      const struct err *e)
{
    if (rc)
        rpc_fail(call, e);
    else
        rpc_reply_job(call, j);
}

void rpc_reply_job(struct rpc_call *call, const struct job *j)
{
    struct arena a = {0};
    Hone__V1__Job *m = show_job(&a, j, call->d->io->ops->now(call->d->io));
    struct err e;

    if (m) {
        rpc_reply(&m->base, call);
    } else {
        err_set(&e, ERR_NOMEM, "out of memory");
        rpc_fail(call, &e);
    }
    arena_fini(&a);
}

/* Whoever is not known learns nothing, not even which methods there are. */
int rpc_find_method(struct daemon *d, const struct access *who, const char *name,
                    const ProtobufCMethodDescriptor **method, struct err *e)
{
    enum access_need need = ACCESS_STEER;
    int rc = access_check(who, ACCESS_VIEW, NULL, e);

    *method = NULL;
    if (!rc && d->auth)
        rc = auth_still(d->auth, who, e);
    if (rc)
        return rc;
    *method =
        protobuf_c_service_descriptor_get_method_by_name(rpc_service.base.descriptor, name);
    if (!*method)
        return err_set(e, ERR_UNSUPPORTED, "unknown method %.100s", name);
    if (access_of_method(name, &need))
        return err_set(e, ERR_DENIED, "%.100s: nobody may call it", name);
    return access_check(who, need, NULL, e);
}

void rpc_begin(const struct rpc_call *call, const ProtobufCMessage *request)
{
    ProtobufCService *service = &rpc_service.base;
    struct rpc_call *ctx = mem_alloc(sizeof *ctx), copy = *call;
    struct err e;

    if (ctx) {
        *ctx = copy;
        service->invoke(service, (unsigned)(call->method - service->descriptor->methods),
                        request, rpc_reply, ctx);
    } else {
        err_set(&e, ERR_NOMEM, "out of memory for a call");
        fail(&copy, &e);
    }
}

void rpc_dispatch(struct daemon *d, uint64_t conn, const struct access *who,
                  const Hone__V1__Call *in)
{
    struct rpc_call call = {.d = d, .conn = conn, .id = in->id, .who = *who};
    ProtobufCMessage *request;
    struct err e;

    if (rpc_find_method(d, who, in->method, &call.method, &e) ||
        message_unpack(call.method->input, in->request.data, in->request.len, &request,
                       &e)) {
        send_error(d, conn, in->id, &e);
        return;
    }
    rpc_begin(&call, request);
    message_free(request);
}
