/* One question to a daemon: see query.h. */
#include "launcher/query.h"

#include "proto/message.h"

static int ask(const struct query *q, const struct query_options *o, struct err *e)
{
    ProtobufCMessage *reply = NULL;
    struct client *c = NULL;
    union query_request m;
    int rc = q->fill(o, &m, e);

    if (!rc)
        rc = remote_open(&c, o->to, e);
    if (!rc)
        rc = remote_call(c, q->method, &m.base, q->reply, &reply, e);
    if (!rc && o->json)
        rc = remote_print_json(reply, e);
    else if (!rc)
        q->print(c, reply);
    if (reply)
        message_free(reply);
    client_close(c);
    return rc;
}

int query_run(const struct query *q, int argc, char **argv)
{
    struct query_options o = {0};
    struct err e;
    int rc = args_parse(&q->spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = ask(q, &o, &e);
    if (rc)
        err_print(&e, "hone");
    return err_exit_status(rc);
}
