/* Events of jobs: see event.h. Journals: STATE/events/<job>. */
#include "daemon/event.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "daemon/journal.h"
#include "daemon/show.h"
#include "daemon/watch.h"
#include "proto/message.h"

enum { NOTE_MAX = 2048 };

static int journal_path(const struct daemon *d, const struct job *j, char *out,
                        struct err *e)
{
    int n =
        snprintf(out, FILE_PATH_MAX, "%s/events/%llu", d->state, (unsigned long long)j->id);

    return n < FILE_PATH_MAX ? 0 : err_set(e, ERR_CONFIG, "%s: path too long", d->state);
}

struct journal *event_journal(struct daemon *d, struct job *j, struct err *e)
{
    char path[FILE_PATH_MAX];

    if (!j->journal && !journal_path(d, j, path, e))
        journal_open(&j->journal, path, e);
    if (j->journal)
        journal_set_limit(j->journal, d->limits.event_bytes);
    return j->journal;
}

void event_remove_journal(struct daemon *d, struct job *j)
{
    char path[FILE_PATH_MAX];
    struct err e;

    journal_close(j->journal);
    j->journal = NULL;
    if (!journal_path(d, j, path, &e))
        unlink(path);
}

int event_add(struct daemon *d, struct job *j, const struct job_stage *s,
              Hone__V1__Event *ev, struct err *e)
{
    struct journal *journal = event_journal(d, j, e);
    struct str body = {0};
    int rc;

    if (!journal)
        return e->code;
    ev->job = j->id;
    ev->time = clock_wall();
    ev->stage = s ? (char *)(uintptr_t)s->name : NULL;
    ev->has_seq = 1;
    ev->seq = journal_next_seq(journal);
    rc = message_pack(&ev->base, &body, e);
    if (!rc)
        rc = journal_append(journal, body.s, body.len, e);
    str_fini(&body);
    return rc;
}

/* Once, before the oldest go. */
static void warn_of_size(struct daemon *d, struct job *j)
{
    uint64_t limit = d->limits.event_bytes;
    char most[32];

    if (!limit || j->told_events || journal_size(j->journal) < limit - limit / 4)
        return;
    j->told_events = 1;
    event_note(d, j, NULL, "warning",
               "three quarters of the %s that a job's events may take: the oldest are "
               "forgotten then; metrics.jsonl has all points",
               str_bytes(most, sizeof most, (double)limit));
}

int event_flush(struct daemon *d, struct job *j, struct err *e)
{
    int rc;

    if (!j->journal)
        return 0;
    rc = journal_flush(j->journal, e);
    if (rc)
        return rc;
    watch_pump(d, j);
    warn_of_size(d, j);
    return 0;
}

static void add_and_flush(struct daemon *d, struct job *j, const struct job_stage *s,
                          Hone__V1__Event *ev)
{
    struct err e;

    if (event_add(d, j, s, ev, &e) || event_flush(d, j, &e))
        log_error("job %llu: events: %s", (unsigned long long)j->id, e.msg);
}

void event_state(struct daemon *d, struct job *j)
{
    Hone__V1__Event ev = HONE__V1__EVENT__INIT;
    struct arena a = {0};

    ev.job_state = show_job(&a, j, d->io->ops->now(d->io));
    if (ev.job_state)
        add_and_flush(d, j, NULL, &ev);
    else
        log_error("job %llu: out of memory", (unsigned long long)j->id);
    arena_fini(&a);
    if (job_ended(j))
        watch_pump(d, j); /* also when the journal could not take the end */
}

void event_note(struct daemon *d, struct job *j, const struct job_stage *s,
                const char *level, const char *fmt, ...)
{
    Hone__V1__Event ev = HONE__V1__EVENT__INIT;
    Hone__V1__Note note = HONE__V1__NOTE__INIT;
    char text[NOTE_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    text[str_utf8_valid(text, strlen(text))] = '\0';
    log_info("job %llu: %s%s%s", (unsigned long long)j->id, s ? s->name : "", s ? ": " : "",
             text);
    note.level = (char *)(uintptr_t)level;
    note.text = text;
    ev.note = &note;
    add_and_flush(d, j, s, &ev);
}
