/* Events as JSON lines: see events.h. */
#include "launcher/events.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/str.h"

static void add_text(struct str *out, const char *key, const char *text)
{
    str_addf(out, ", \"%s\": ", key);
    if (text)
        str_add_json(out, text, strlen(text));
    else
        str_add(out, "null");
}

static void begin(struct str *out, const char *event, double time, const char *stage)
{
    str_addf(out, "{\"event\": \"%s\", \"time\": %.3f", event, time);
    if (stage)
        add_text(out, "stage", stage);
}

/* A worker's JSON, on one line; null when it is none. */
static void add_json(struct str *out, const char *key, const char *text)
{
    struct err e;
    json_t *v = NULL;

    str_addf(out, ", \"%s\": ", key);
    if (text && !json_parse(key, text, strlen(text), &v, &e))
        str_add(out, text[strcspn(text, "\r\n")] ? "null" : text);
    else
        str_add(out, "null");
    json_decref(v);
}

static void add_job(struct str *out, const Hone__V1__Job *job)
{
    add_text(out, "name", job->name);
    add_text(out, "state", job->state);
    add_text(out, "run", job->run);
    str_add(out, ", \"stages\": {");
    for (size_t i = 0; i < job->n_stages; i++) {
        const Hone__V1__StageState *s = job->stages[i];

        str_add(out, i ? ", " : "");
        str_add_json(out, s->name, strlen(s->name));
        str_addf(out, ": \"%s\"", s->state ? s->state : "");
    }
    str_add_char(out, '}');
    if (job->message)
        add_text(out, "message", job->message);
}

static void add_place(struct str *out, const Hone__V1__Event *ev)
{
    if (ev->has_seq)
        str_addf(out, ", \"seq\": %llu", (unsigned long long)ev->seq);
    if (ev->has_attempt)
        str_addf(out, ", \"attempt\": %u", ev->attempt);
}

static void print(struct str *out)
{
    str_add(out, "}\n");
    if (!str_failed(out)) {
        fputs(out->s, stdout);
        fflush(stdout);
    }
    str_fini(out);
}

void events_start(const Hone__V1__Job *job)
{
    struct str out = {0};

    begin(&out, "job", clock_wall(), NULL);
    add_job(&out, job);
    print(&out);
}

void events_print(const Hone__V1__Event *ev)
{
    struct str out = {0};

    if (ev->job_state) {
        begin(&out, "job", ev->time, NULL);
        add_job(&out, ev->job_state);
    } else if (ev->progress) {
        begin(&out, "progress", ev->time, ev->stage);
        add_text(&out, "phase", ev->progress->phase);
        str_addf(&out, ", \"step\": %lld, \"total\": %lld", (long long)ev->progress->step,
                 (long long)ev->progress->total);
        add_json(&out, "figures", ev->progress->figures);
    } else if (ev->metric) {
        begin(&out, "metric", ev->time, ev->stage);
        add_json(&out, "data", ev->metric);
    } else if (ev->note) {
        begin(&out, "note", ev->time, ev->stage);
        add_text(&out, "level", ev->note->level);
        add_text(&out, "text", ev->note->text);
    } else if (ev->has_gap) {
        begin(&out, "gap", ev->time, ev->stage);
        str_addf(&out, ", \"dropped\": %llu", (unsigned long long)ev->gap);
    } else {
        return;
    }
    add_place(&out, ev);
    print(&out);
}

void events_end(const char *state, int exit_status, const char *run, const char *report)
{
    struct str out = {0};

    begin(&out, "end", clock_wall(), NULL);
    add_text(&out, "state", state);
    str_addf(&out, ", \"exit_status\": %d", exit_status);
    add_text(&out, "run", run);
    add_text(&out, "report", report);
    print(&out);
}
