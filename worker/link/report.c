/* Runs that report to a daemon that did not start them: see report.h. */
#include "worker/link/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "hone.pb-c.h"
#include "proto/message.h"
#include "wire.pb-c.h"

enum { FILE_MAX_BYTES = 128, KEY_BYTES = 16 };

static int draw_key(struct report *r, struct err *e)
{
    unsigned char random[KEY_BYTES];

    if (getrandom(random, sizeof random, 0) != sizeof random)
        return err_errno(e, ERR_IO, errno, "random numbers");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(r->key + 2 * i, 3, "%02x", random[i]);
    return 0;
}

/* An earlier start's; a file that is none of ours is one that is not there. */
static void read_file(struct report *r, const char *path)
{
    char *text, key[33];
    unsigned starts;
    size_t n;
    struct err e;

    if (!file_exists(path) || file_read(path, FILE_MAX_BYTES, &text, &n, &e))
        return;
    if (sscanf(text, "%32[0-9a-f] %9u", key, &starts) == 2 && strlen(key) == 32) {
        memcpy(r->key, key, sizeof key);
        r->attempt = starts;
    }
    mem_free(text);
}

int report_open(struct report *r, const char *run, const char *stage, struct err *e)
{
    char dir[FILE_PATH_MAX], path[FILE_PATH_MAX], name[128], text[64];
    int rc = file_join(dir, sizeof dir, run, ".hone", e);

    if (snprintf(name, sizeof name, stage ? "report-%s" : "report", stage) >=
        (int)sizeof name)
        return err_set(e, ERR_CONFIG, "stage %s: name too long", stage);
    if (!rc)
        rc = file_make_dirs(dir, e);
    if (!rc)
        rc = file_join(path, sizeof path, dir, name, e);
    if (rc)
        return rc;
    r->key[0] = '\0';
    r->attempt = 0;
    read_file(r, path);
    if (!r->key[0])
        rc = draw_key(r, e);
    if (rc)
        return rc;
    r->attempt++;
    if (!realpath(run, r->run))
        snprintf(r->run, sizeof r->run, "%s", run);
    if (gethostname(r->host, sizeof r->host - 1))
        snprintf(r->host, sizeof r->host, "unknown-host");
    snprintf(text, sizeof text, "%s %u\n", r->key, r->attempt);
    return file_write_atomic(path, text, strlen(text), e);
}

static int refused(const Hone__V1__Error *error, struct err *e)
{
    channel_error(error, e);
    return err_wrap(e, "the daemon refused");
}

static int ask(struct channel *c, const struct report *r, struct err *e)
{
    Hone__V1__AttachRequest a = HONE__V1__ATTACH_REQUEST__INIT;
    Hone__V1__Call call = HONE__V1__CALL__INIT;
    struct str body = {0};
    int rc;

    a.key = (char *)(uintptr_t)r->key;
    a.attempt = r->attempt;
    a.name = (char *)(uintptr_t)r->name;
    a.host = (char *)(uintptr_t)r->host;
    a.file = (char *)(uintptr_t)r->file;
    a.run = (char *)(uintptr_t)r->run;
    a.stages = (char **)(uintptr_t)r->stage;
    a.n_stages = r->n_stages;
    a.has_workers = 1;
    a.workers = r->workers;
    rc = message_pack(&a.base, &body, e);
    call.id = 1;
    call.method = (char *)"Attach";
    call.has_request = 1;
    call.request.data = (uint8_t *)body.s;
    call.request.len = body.len;
    if (!rc)
        rc = channel_put_message(c, &call.base, e);
    str_fini(&body);
    return rc;
}

static int take_place(const struct report *r, const Hone__V1__AttachReply *a,
                      const char *stage, struct report_place *out, struct err *e)
{
    if (a->n_tokens != r->n_stages)
        return err_set(e, ERR_CORRUPT, "the daemon gave %zu places, not %zu", a->n_tokens,
                       r->n_stages);
    snprintf(out->job, sizeof out->job, "%llu", (unsigned long long)a->job);
    for (size_t i = 0; i < r->n_stages; i++)
        if (!strcmp(r->stage[i], stage)) {
            snprintf(out->token, sizeof out->token, "%s", a->tokens[i]);
            return 0;
        }
    return err_set(e, ERR_CONFIG, "stage %s is not one that reports", stage);
}

static int take_answer(struct channel *c, const struct report *r, const char *stage,
                       double within, struct report_place *out, struct err *e)
{
    const Hone__V1__Reply *reply;
    ProtobufCMessage *m, *a;
    const uint8_t *body;
    size_t n;
    int rc = channel_await(c, within, &body, &n, e);

    if (!rc)
        rc = message_unpack(&hone__v1__reply__descriptor, body, n, &m, e);
    if (rc)
        return rc;
    reply = (Hone__V1__Reply *)m;
    if (reply->error) {
        rc = refused(reply->error, e);
    } else {
        rc = message_unpack(&hone__v1__attach_reply__descriptor, reply->body.data,
                            reply->body.len, &a, e);
        if (!rc) {
            rc = take_place(r, (Hone__V1__AttachReply *)a, stage, out, e);
            message_free(a);
        }
    }
    message_free(m);
    return rc;
}

int report_attach(struct channel *c, const struct report *r, const char *credential,
                  const char *stage, double within, struct report_place *out, struct err *e)
{
    int rc = channel_greet(c, "hone-worker " HONE_VERSION, credential, within, e);

    if (!rc)
        rc = ask(c, r, e);
    return rc ? rc : take_answer(c, r, stage, within, out, e);
}
