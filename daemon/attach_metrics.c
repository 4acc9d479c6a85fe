/* Metrics of an attached job, from its journal: see attach.h. */
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/attach.h"
#include "daemon/event.h"
#include "daemon/journal.h"
#include "proto/message.h"

enum { CHUNK = 1 << 16 };

struct line {
    const char *text;
    long step;
    uint32_t attempt;
};

struct lines {
    struct arena arena;
    struct line *line;
    size_t n, cap;
};

static long step_of(const char *text)
{
    json_t *o = NULL;
    long step = 0;
    struct err e;

    if (!json_parse("metric", text, strlen(text), &o, &e) &&
        json_get_long(o, "step", 0, &step, &e))
        step = 0;
    json_decref(o);
    return step;
}

/* A later attempt stands for the earlier ones from its first step on. */
static void take_back(struct lines *l, uint32_t attempt, long step)
{
    size_t kept = 0;

    if (!l->n || l->line[l->n - 1].attempt >= attempt)
        return;
    for (size_t i = 0; i < l->n; i++)
        if (l->line[i].step < step)
            l->line[kept++] = l->line[i];
    l->n = kept;
}

static int add(struct lines *l, const Hone__V1__Event *ev, struct err *e)
{
    struct line x = {arena_strdup(&l->arena, ev->metric), step_of(ev->metric), ev->attempt};

    take_back(l, x.attempt, x.step);
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        struct line *grown = mem_resize(l->line, cap, sizeof *grown);

        if (!grown)
            return err_set(e, ERR_NOMEM, "out of memory");
        l->line = grown;
        l->cap = cap;
    }
    l->line[l->n++] = x;
    return x.text ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

static int collect(struct daemon *d, struct job *j, const char *stage, struct lines *l,
                   struct err *e)
{
    struct journal *journal = event_journal(d, j, e);
    struct journal_place place = {0};
    const uint8_t *body;
    size_t n;
    int rc = journal ? 1 : e->code;

    while (rc > 0 && (rc = journal_read(journal, &place, &body, &n, e)) > 0) {
        const Hone__V1__Event *ev;
        ProtobufCMessage *m;

        rc = message_unpack(&hone__v1__event__descriptor, body, n, &m, e);
        if (rc)
            break;
        ev = (Hone__V1__Event *)m;
        if (ev->metric && ev->stage && !strcmp(ev->stage, stage))
            rc = add(l, ev, e);
        message_free(m);
        if (!rc)
            rc = 1;
    }
    return rc;
}

static int send_stage(struct rpc_call *call, struct job *j, const char *stage,
                      struct err *e)
{
    Hone__V1__MetricChunk m = HONE__V1__METRIC_CHUNK__INIT;
    struct lines l = {0};
    struct str text = {0};
    int rc = collect(call->d, j, stage, &l, e);

    m.stage = (char *)(uintptr_t)stage;
    for (size_t i = 0; !rc && i < l.n; i++) {
        str_addf(&text, "%s\n", l.line[i].text);
        if (text.len < CHUNK && i + 1 < l.n)
            continue;
        m.lines = (char *)(uintptr_t)str_get(&text);
        rpc_more(call, &m.base);
        str_clear(&text);
    }
    if (!rc && str_failed(&text))
        rc = err_set(e, ERR_NOMEM, "out of memory");
    str_fini(&text);
    mem_free(l.line);
    arena_fini(&l.arena);
    return rc;
}

void attach_metrics(struct rpc_call *call, struct job *j, const char *stage)
{
    Hone__V1__MetricChunk last = HONE__V1__METRIC_CHUNK__INIT;
    struct err e;
    int rc = 0, any = 0;

    for (size_t i = 0; !rc && i < j->n_stages; i++) {
        if (stage && strcmp(stage, j->stage[i].name) != 0)
            continue;
        any = 1;
        rc = send_stage(call, j, j->stage[i].name, &e);
    }
    if (!rc && !any)
        rc = job_no_stage(j, stage ? stage : "", &e);
    if (rc) {
        rpc_fail(call, &e);
        return;
    }
    last.stage = (char *)(uintptr_t)(stage ? stage : j->stage[j->n_stages - 1].name);
    last.lines = (char *)"";
    rpc_reply(&last.base, call);
}
