/* JSON over HTTP: see http.h. */
#include "daemon/http.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/admit.h"
#include "daemon/auth.h"
#include "daemon/http_metrics.h"
#include "daemon/rpc.h"
#include "daemon/tail.h"
#include "daemon/watch.h"
#include "daemon/web.h"
#include "proto/message.h"
#include "proto/pbjson.h"

enum { CHECK_EVERY = 5 }; /* seconds */

static const char service[] = "/hone.v1.Hone/";

struct http_call {
    uint64_t id;
    struct access who;
    int begun;    /* the head of a stream has gone out */
    int answered; /* all that there is to say has been said */
    struct http_call *next;
};

static struct http_call *find(const struct daemon *d, uint64_t id)
{
    struct http_call *c = d->http_calls;

    while (c && c->id != id)
        c = c->next;
    return c;
}

int http_is_stream(const char *method)
{
    return !strcmp(method, "Watch") || !strcmp(method, "Logs") ||
           !strcmp(method, "Metrics");
}

/* ---- answers ---- */

static int status_of(const struct err *e)
{
    switch (e->code) {
    case ERR_CORRUPT:
    case ERR_CONFIG:
    case ERR_USAGE:
        return 400;
    case ERR_UNSUPPORTED:
        return 404;
    case ERR_DENIED:
        return 403;
    case ERR_STOPPED:
        return 409;
    case ERR_UNREACHABLE:
        return 503;
    default:
        return 500;
    }
}

static void member(struct str *out, const char *key, const char *value)
{
    if (!*value)
        return;
    str_addf(out, ", \"%s\": ", key);
    str_add_json(out, value, str_utf8_valid(value, strlen(value)));
}

/* All but the end of it. */
static void begin_error(struct str *out, const struct err *e, const char *field)
{
    str_addf(out, "{\"error\": {\"status\": %d", err_exit_status(e->code));
    member(out, "code", err_name(e->code));
    member(out, "message", e->msg);
    member(out, "field", *field ? field : e->field);
    member(out, "mend", e->mend);
}

static void write_error(struct str *out, const struct err *e, const char *field)
{
    begin_error(out, e, field);
    str_add(out, "}}");
}

static void answer(struct daemon *d, uint64_t id, const struct io_response *r)
{
    struct http_call *c = find(d, id);

    if (c)
        c->answered = !r->stream;
    d->io->ops->respond(d->io, id, r);
}

static void answer_json(struct daemon *d, uint64_t id, struct str *body,
                        struct io_response r)
{
    str_add_char(body, '\n');
    r.content_type = "application/json";
    r.body = str_get(body);
    r.n = body->len;
    answer(d, id, &r);
}

/* r->status 0: what follows from the error. */
static void refuse(struct daemon *d, uint64_t id, const struct err *e, const char *field,
                   struct io_response r)
{
    struct str body = {0};

    write_error(&body, e, field);
    if (!r.status)
        r.status = status_of(e);
    answer_json(d, id, &body, r);
    str_fini(&body);
}

/* A job that was refused is an error as every other one, with all its problems besides. */
static void refuse_job(struct daemon *d, uint64_t id, const Hone__V1__SubmitReply *m)
{
    const Hone__V1__Problem *first = m->n_problems ? m->problems[0] : NULL;
    struct str body = {0};
    struct err e;

    for (size_t i = 0; i < m->n_problems; i++)
        if (!m->problems[i]->warning) {
            first = m->problems[i];
            break;
        }
    err_set(&e, ERR_CONFIG, "%s%s%s", first && first->where ? first->where : "",
            first && first->where && *first->where ? ": " : "",
            first ? first->message : "the job was refused");
    if (first && first->mend && *first->mend)
        err_mend(&e, "%s", first->mend);
    begin_error(&body, &e, "file");
    str_add(&body, ", \"problems\": [");
    for (size_t i = 0; i < m->n_problems; i++) {
        str_add(&body, i ? ", " : "");
        pbjson_write(&m->problems[i]->base, &body);
    }
    str_add(&body, "]}}");
    answer_json(d, id, &body, (struct io_response){.status = 422});
    str_fini(&body);
}

/* ---- replies of a call ---- */

static void send_text(struct rpc_call *call, const struct str *text)
{
    call->d->io->ops->send(call->d->io, call->conn, str_get(text), text->len);
}

/* At once, so that a client knows that it is heard. */
static void begin_stream(struct daemon *d, uint64_t id)
{
    static const struct io_response head = {
        .status = 200, .content_type = "text/event-stream", .stream = 1};
    struct http_call *c = find(d, id);

    if (!c || c->begun || c->answered)
        return;
    c->begun = 1;
    answer(d, id, &head);
    d->io->ops->wake_at(d->io, d->io->ops->now(d->io)); /* asks http_next() */
}

static void end_stream(struct rpc_call *call, const char *last)
{
    call->d->io->ops->send(call->d->io, call->conn, last, strlen(last));
    call->d->io->ops->close(call->d->io, call->conn);
}

/* Where a client that comes back goes on. */
static void write_event_id(struct str *out, const ProtobufCMessage *m)
{
    if (m->descriptor == &hone__v1__event__descriptor) {
        const Hone__V1__Event *ev = (const Hone__V1__Event *)m;

        if (ev->has_seq)
            str_addf(out, "id: %llu\n", (unsigned long long)ev->seq);
    } else if (m->descriptor == &hone__v1__log_chunk__descriptor) {
        str_addf(out, "id: %llu\n",
                 (unsigned long long)((const Hone__V1__LogChunk *)m)->next);
    }
}

static int is_refused_job(const ProtobufCMessage *m)
{
    return m->descriptor == &hone__v1__submit_reply__descriptor &&
           !((const Hone__V1__SubmitReply *)m)->job;
}

static void json_fail(struct rpc_call *call, const struct err *e)
{
    struct http_call *c = find(call->d, call->conn);
    struct str out = {0};

    if (!c || !c->begun) {
        refuse(call->d, call->conn, e, "", (struct io_response){0});
        return;
    }
    str_add(&out, "event: error\ndata: ");
    write_error(&out, e, "");
    str_add(&out, "\n\n");
    end_stream(call, str_get(&out));
    str_fini(&out);
}

static void json_message(struct rpc_call *call, const void *p, size_t n, int more)
{
    int stream = http_is_stream(call->method->name);
    struct str out = {0};
    ProtobufCMessage *m;
    struct err e;

    if (message_unpack(call->method->output, p, n, &m, &e)) {
        json_fail(call, &e);
        return;
    }
    if (is_refused_job(m)) {
        refuse_job(call->d, call->conn, (Hone__V1__SubmitReply *)m);
        message_free(m);
        return;
    }
    if (stream) {
        write_event_id(&out, m);
        str_add(&out, "data: ");
    }
    pbjson_write(m, &out);
    if (stream)
        str_add(&out, "\n\n");
    if (str_failed(&out)) {
        err_set(&e, ERR_NOMEM, "out of memory for a reply");
        json_fail(call, &e);
    } else if (stream) {
        begin_stream(call->d, call->conn);
        send_text(call, &out);
        if (!more)
            end_stream(call, "event: end\ndata: {}\n\n");
    } else {
        answer_json(call->d, call->conn, &out, (struct io_response){.status = 200});
    }
    message_free(m);
    str_fini(&out);
}

static void metrics_message(struct rpc_call *call, const void *p, size_t n, int more)
{
    struct io_response r = {.status = 200,
                            .content_type = "text/plain; version=0.0.4; charset=utf-8"};
    struct str out = {0};
    ProtobufCMessage *m;
    struct err e;

    (void)more;
    if (message_unpack(call->method->output, p, n, &m, &e)) {
        json_fail(call, &e);
        return;
    }
    http_metrics_write((const Hone__V1__StatusReply *)m, &out);
    r.body = str_get(&out);
    r.n = out.len;
    answer(call->d, call->conn, &r);
    message_free(m);
    str_fini(&out);
}

static const struct rpc_sink json_sink = {json_message, json_fail};
static const struct rpc_sink metrics_sink = {metrics_message, json_fail};

/* ---- who asks, and from where ---- */

/* Is it a name of this machine's loopback? "host", "host:port", "[::1]:port". */
static int is_loopback_host(const char *host)
{
    static const char *const names[] = {"localhost", "[::1]"};
    const char *colon = strrchr(host, ':');
    size_t n = colon && !strchr(colon, ']') ? (size_t)(colon - host) : strlen(host);

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == n && !strncasecmp(host, names[i], n))
            return 1;
    return str_starts(host, "127.") && strspn(host, "0123456789.") == n;
}

static int check_origin(const struct io_request *r, struct err *e)
{
    const char *scheme = r->tls ? "https://" : "http://";

    if (!r->host)
        return err_set(e, ERR_DENIED, "no Host");
    if (!r->tls && !is_loopback_host(r->host)) {
        err_set(e, ERR_DENIED, "Host %.100s is not this machine", r->host);
        return err_mend(e, "http://127.0.0.1:PORT, or https");
    }
    if (r->origin && (!str_starts(r->origin, scheme) ||
                      strcasecmp(r->origin + strlen(scheme), r->host) != 0))
        return err_set(e, ERR_DENIED, "pages of %.100s may not call", r->origin);
    if (r->fetch_site && strcmp(r->fetch_site, "same-origin") != 0 &&
        strcmp(r->fetch_site, "none") != 0)
        return err_set(e, ERR_DENIED, "pages of other sites may not call");
    return 0;
}

static int authenticate(struct daemon *d, const struct io_request *r, struct access *who,
                        struct err *e)
{
    static const char scheme[] = "Bearer ";
    const char *token = r->authorization;

    if (!d->auth)
        return err_set(e, ERR_DENIED, "nobody may come over the network");
    if (token && strncasecmp(token, scheme, strlen(scheme)) != 0) {
        err_set(e, ERR_DENIED, "unknown kind of authorization");
        return err_mend(e, "Authorization: Bearer TOKEN");
    }
    return auth_who(d->auth, token ? token + strlen(scheme) : NULL, r->peer.certificate,
                    who, e);
}

/* ---- requests ---- */

/* The arguments of a GET as a JSON object. Numbers may be strings there; booleans not. */
static void arguments_to_json(const struct io_request *r, struct str *out)
{
    str_add_char(out, '{');
    for (int i = 0; i < r->n_arguments; i++) {
        const char *value = r->value[i];

        if (i)
            str_add(out, ", ");
        str_add_json(out, r->name[i], strlen(r->name[i]));
        str_add(out, ": ");
        if (!strcmp(value, "true") || !strcmp(value, "false"))
            str_add(out, value);
        else
            str_add_json(out, value, strlen(value));
    }
    str_add_char(out, '}');
}

/* Go on after the event that the client has seen last. */
static int go_on(const char *last, ProtobufCMessage *m, struct err *e)
{
    long at;

    if (!last || !*last)
        return 0;
    if (strspn(last, "0123456789") != strlen(last) || str_to_long(last, &at))
        return err_set(e, ERR_CONFIG, "Last-Event-ID: \"%.50s\" is no id of ours", last);
    if (m->descriptor == &hone__v1__watch_request__descriptor) {
        ((Hone__V1__WatchRequest *)m)->has_after = 1;
        ((Hone__V1__WatchRequest *)m)->after = (uint64_t)at;
    } else if (m->descriptor == &hone__v1__logs_request__descriptor) {
        ((Hone__V1__LogsRequest *)m)->has_offset = 1;
        ((Hone__V1__LogsRequest *)m)->offset = at;
    }
    return 0;
}

static int read_request(const struct rpc_call *call, const struct io_request *r, int get,
                        ProtobufCMessage **m, char field[PBJSON_FIELD_MAX], struct err *e)
{
    struct str text = {0};
    int rc;

    *m = NULL;
    *field = '\0';
    if (get) {
        arguments_to_json(r, &text);
        rc = str_failed(&text)
                 ? err_set(e, ERR_NOMEM, "out of memory for a request")
                 : pbjson_parse(call->method->input, text.s, text.len, m, field, e);
        str_fini(&text);
    } else {
        rc = pbjson_parse(call->method->input, r->body, r->n, m, field, e);
    }
    if (!rc && (rc = go_on(r->last_event_id, *m, e))) {
        message_free(*m);
        *m = NULL;
    }
    return rc;
}

static int is_json(const char *content_type)
{
    static const char json[] = "application/json";
    size_t n = strlen(json);

    return content_type && !strncasecmp(content_type, json, n) &&
           strchr("; \t", content_type[n]) != NULL;
}

/* GET and POST where they belong; *r is what to answer otherwise. */
static int check_method(const char *name, const struct io_request *in, int *get,
                        struct io_response *r, struct err *e)
{
    int stream = http_is_stream(name);

    *get = !strcmp(in->method, "GET");
    if (strcmp(in->method, "POST") != 0 && !(*get && stream)) {
        r->status = 405;
        r->allow = stream ? "GET, POST" : "POST";
        err_set(e, ERR_USAGE, "%.20s is not for %.100s", in->method, name);
        return err_mend(e, "POST %s%.100s", service, name);
    }
    if (!*get && !is_json(in->content_type)) {
        r->status = 415;
        err_set(e, ERR_USAGE, "the body must be JSON");
        return err_mend(e, "Content-Type: application/json");
    }
    return 0;
}

static void call_method(struct daemon *d, uint64_t id, const struct io_request *in,
                        const struct access *who, const char *name)
{
    struct rpc_call call = {.d = d, .conn = id, .who = *who, .sink = &json_sink};
    struct io_response r = {0};
    char field[PBJSON_FIELD_MAX] = "";
    ProtobufCMessage *m;
    struct err e;
    int get;

    if (rpc_find_method(d, who, name, &call.method, &e) ||
        check_method(name, in, &get, &r, &e) ||
        read_request(&call, in, get, &m, field, &e)) {
        refuse(d, id, &e, field, r);
        return;
    }
    rpc_begin(&call, m);
    if (http_is_stream(name))
        begin_stream(d, id);
    message_free(m);
}

static void show_metrics(struct daemon *d, uint64_t id, const struct access *who)
{
    struct rpc_call call = {.d = d, .conn = id, .who = *who, .sink = &metrics_sink};
    Hone__V1__StatusRequest m = HONE__V1__STATUS_REQUEST__INIT;
    struct err e;

    if (rpc_find_method(d, who, "Status", &call.method, &e))
        refuse(d, id, &e, "", (struct io_response){0});
    else
        rpc_begin(&call, &m.base);
}

static int remember(struct daemon *d, uint64_t id, const struct access *who, struct err *e)
{
    struct http_call *c = mem_alloc(sizeof *c);

    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory for a request");
    c->id = id;
    c->who = *who;
    c->next = d->http_calls;
    d->http_calls = c;
    return 0;
}

static int is_get(const struct io_request *in)
{
    return !strcmp(in->method, "GET") || !strcmp(in->method, "HEAD");
}

static int check_path(const struct io_request *in, struct io_response *r, struct err *e)
{
    if (in->n_arguments > IO_ARGUMENTS_MAX)
        return err_set(e, ERR_USAGE, "more than %d arguments", IO_ARGUMENTS_MAX);
    if (str_starts(in->path, service))
        return 0;
    if (strcmp(in->path, "/metrics") != 0 && !web_find(in->path)) {
        r->status = 404;
        err_set(e, ERR_USAGE, "there is nothing at %.100s", in->path);
        return err_mend(e, "POST %sMETHOD, GET /metrics, or / in a browser", service);
    }
    if (!is_get(in)) {
        r->status = 405;
        r->allow = "GET";
        return err_set(e, ERR_USAGE, "%.100s is for GET", in->path);
    }
    return 0;
}

/* Nothing that anybody might not know. */
static void show_page(struct daemon *d, uint64_t id, const struct web_file *f)
{
    const struct io_response r = {.status = 200,
                                  .content_type = f->content_type,
                                  .body = f->start,
                                  .n = (size_t)(f->end - f->start)};

    answer(d, id, &r);
}

void http_requested(struct daemon *d, uint64_t id, const struct io_request *in)
{
    struct io_response r = {0};
    struct access who = {0};
    struct err e;

    if (check_origin(in, &e) || check_path(in, &r, &e)) {
        refuse(d, id, &e, "", r);
        return;
    }
    if (web_find(in->path)) {
        show_page(d, id, web_find(in->path));
        return;
    }
    if (authenticate(d, in, &who, &e)) {
        r.status = e.code == ERR_DENIED ? 401 : 0;
        r.ask_token = 1;
        refuse(d, id, &e, "", r);
        return;
    }
    if (remember(d, id, &who, &e))
        refuse(d, id, &e, "", r);
    else if (!strcmp(in->path, "/metrics"))
        show_metrics(d, id, &who);
    else
        call_method(d, id, in, &who, in->path + strlen(service));
}

/* ---- the end ---- */

int http_closed(struct daemon *d, uint64_t id)
{
    struct http_call **p = &d->http_calls, *c;

    while (*p && (*p)->id != id)
        p = &(*p)->next;
    c = *p;
    if (!c)
        return 0;
    *p = c->next;
    watch_closed(d, id);
    tail_closed(d, id);
    admit_closed(d, id);
    mem_free(c);
    return 1;
}

void http_free_all(struct daemon *d)
{
    while (d->http_calls)
        http_closed(d, d->http_calls->id);
}

double http_next(const struct daemon *d)
{
    for (const struct http_call *c = d->http_calls; c; c = c->next)
        if (c->begun)
            return d->http_checked + CHECK_EVERY;
    return INFINITY;
}

void http_tick(struct daemon *d)
{
    double now = d->io->ops->now(d->io);
    struct http_call *next;
    struct err e;

    if (!d->auth || now < d->http_checked + CHECK_EVERY)
        return;
    d->http_checked = now;
    for (struct http_call *c = d->http_calls; c; c = next) {
        next = c->next;
        if (!c->begun || !auth_still(d->auth, &c->who, &e))
            continue;
        log_info("stream ended: %s", e.msg);
        d->io->ops->close(d->io, c->id);
        http_closed(d, c->id);
    }
}
