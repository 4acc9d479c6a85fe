/* A stream of replies: see stream.h. */
#include "launcher/stream.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/clock.h"
#include "launcher/remote.h"
#include "proto/message.h"

/* Seconds. */
static const double patience = 60.0, pause_first = 0.1, pause_most = 2.0;

static int take_replies(const struct stream *s, struct client *c, uint32_t id, int *over,
                        struct err *e)
{
    Hone__V1__Reply *reply;
    int rc;

    while (!*over && (rc = client_next(c, &reply, e)) != 0) {
        if (rc < 0)
            return rc;
        rc = reply->id == id ? s->take(s->ctx, reply, over, e) : 0;
        message_free(&reply->base);
        if (rc)
            return rc;
    }
    return 0;
}

static int follow(const struct stream *s, struct client *c, int *over, struct err *e)
{
    uint32_t id;
    int rc = s->ask(s->ctx, c, &id, e);

    if (!rc)
        rc = take_replies(s, c, id, over, e);
    while (!rc && !*over) {
        struct pollfd p = {client_fd(c), POLLIN, 0};
        int n = poll(&p, 1, s->idle ? s->idle(s->ctx) : -1);

        if (n < 0 && errno != EINTR)
            return err_errno(e, ERR_FAILED, errno, "wait for honed");
        if (n <= 0)
            continue;
        rc = client_fill(c, e);
        if (!rc)
            rc = take_replies(s, c, id, over, e);
    }
    return rc;
}

int stream_run(const struct stream *s, struct err *e)
{
    double gone = 0, wait = pause_first;
    int over = 0, rc;

    for (;;) {
        struct client *c;

        rc = remote_open(&c, s->to, e);
        if (!rc) {
            gone = 0;
            wait = pause_first;
            rc = follow(s, c, &over, e);
            client_close(c);
            if (rc == ERR_UNREACHABLE && s->lost)
                s->lost(s->ctx, e->msg);
            if (rc == ERR_UNREACHABLE)
                gone = clock_now();
        }
        if (rc != ERR_UNREACHABLE || gone == 0 || clock_now() - gone > patience)
            return rc;
        usleep((unsigned)(wait * 1e6));
        wait = wait * 2 < pause_most ? wait * 2 : pause_most;
    }
}
