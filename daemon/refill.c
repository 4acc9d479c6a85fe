/* Points from files: see refill.h. The same line is the same point: its time is in it. */
#include "daemon/refill.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/event.h"
#include "daemon/journal.h"
#include "proto/message.h"

enum { FILE_MAX = 64 << 20, LINE_MAX_BYTES = 60000 };

/* Hashes of lines, sorted. */
struct known {
    uint64_t *hash;
    size_t n, cap;
};

static int add(struct known *k, uint64_t hash, struct err *e)
{
    if (k->n == k->cap) {
        size_t cap = k->cap ? 2 * k->cap : 1024;
        uint64_t *grown = mem_resize(k->hash, cap, sizeof *grown);

        if (!grown)
            return err_set(e, ERR_NOMEM, "out of memory");
        k->hash = grown;
        k->cap = cap;
    }
    k->hash[k->n++] = hash;
    return 0;
}

static int compare(const void *x, const void *y)
{
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;

    return a < b ? -1 : a > b;
}

static int read_journal(struct journal *journal, const char *stage, struct known *k,
                        struct err *e)
{
    struct journal_place place = {0};
    const uint8_t *body;
    size_t n;
    int rc;

    while ((rc = journal_read(journal, &place, &body, &n, e)) > 0) {
        ProtobufCMessage *m;
        const Hone__V1__Event *ev;

        rc = message_unpack(&hone__v1__event__descriptor, body, n, &m, e);
        if (rc)
            return rc;
        ev = (Hone__V1__Event *)m;
        if (ev->metric && ev->stage && !strcmp(ev->stage, stage))
            rc = add(k, hash_bytes(ev->metric, strlen(ev->metric)), e);
        message_free(m);
        if (rc)
            return rc;
    }
    if (!rc && k->n)
        qsort(k->hash, k->n, sizeof *k->hash, compare);
    return rc;
}

/* A whole object, as the worker writes it; the last line may be cut. */
static int is_point(const char *line, size_t n)
{
    struct err e;
    json_t *v = NULL;
    int ok = n > 1 && n <= LINE_MAX_BYTES && *line == '{' &&
             !json_parse("metrics.jsonl", line, n, &v, &e);

    json_decref(v);
    return ok;
}

static int add_lines(struct daemon *d, struct job *j, const struct job_stage *s, char *text,
                     const struct known *k, int shortened, size_t *added, struct err *e)
{
    char *next;
    int rc = 0;

    for (char *line = text; !rc && (next = strchr(line, '\n')); line = next + 1) {
        Hone__V1__Event ev = HONE__V1__EVENT__INIT;
        uint64_t hash = hash_bytes(line, (size_t)(next - line));

        if (k->n && bsearch(&hash, k->hash, k->n, sizeof hash, compare)) {
            shortened = 0;
            continue;
        }
        /* Before the first that is known: forgotten, not missing. */
        if (shortened || !is_point(line, (size_t)(next - line)))
            continue;
        *next = '\0';
        ev.metric = line;
        ev.has_attempt = 1;
        ev.attempt = s->attempt;
        rc = event_add(d, j, s, &ev, e);
        ++*added;
    }
    return rc;
}

static int refill(struct daemon *d, struct job *j, const struct job_stage *s,
                  const char *path, size_t *added, struct err *e)
{
    struct journal *journal = event_journal(d, j, e);
    struct known k = {0};
    char *text = NULL;
    size_t n;
    int rc = journal ? read_journal(journal, s->name, &k, e) : e->code;

    if (!rc)
        rc = file_read(path, FILE_MAX, &text, &n, e);
    if (!rc)
        rc = add_lines(d, j, s, text, &k, journal_first(journal) > 1, added, e);
    if (!rc)
        rc = event_flush(d, j, e);
    mem_free(text);
    mem_free(k.hash);
    return rc;
}

void refill_metrics(struct daemon *d, struct job *j, const struct job_stage *s)
{
    char dir[FILE_PATH_MAX], path[FILE_PATH_MAX];
    size_t added = 0;
    struct err e;
    int rc = file_join(dir, sizeof dir, j->run, s->name, &e);

    if (!rc)
        rc = file_join(path, sizeof path, dir, "metrics.jsonl", &e);
    if (!rc && file_exists(path))
        rc = refill(d, j, s, path, &added, &e);
    if (rc)
        log_error("job %llu: stage %s: points are missing: %s", (unsigned long long)j->id,
                  s->name, e.msg);
    else if (added)
        log_info("job %llu: stage %s: %zu points taken from metrics.jsonl",
                 (unsigned long long)j->id, s->name, added);
}
