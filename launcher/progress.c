/* Progress for people: see progress.h. */
#include "launcher/progress.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "launcher/screen.h"
#include "launcher/spark.h"

enum { STAGES_MAX = 1024, NAME_MAX_BYTES = 48, NAME_WIDTH = 6, REDRAW_MS = 100 };

/* Seconds between plain lines of a stage: at most, and at least. */
static const double plain_every = 10.0, plain_least = 1.0;

struct row {
    char name[NAME_MAX_BYTES], state[16], phase[24], metric[64];
    long step, total;             /* of training */
    long phase_step, phase_total; /* of another phase */
    double loss, rate;            /* NAN: not known */
    struct spark losses, rewards; /* of training */
    double first_time;            /* of the first step seen */
    long first_step;
    double took;      /* once ended */
    double plain_at;  /* last plain line */
    long plain_tenth; /* tenths of the way already told */
};

struct progress {
    struct row row[STAGES_MAX];
    size_t n;
    int width; /* of the longest name */
    int tty, utf8, colour;
    size_t drawn; /* lines of bars on the screen */
    int dirty;
    double drawn_at;
};

struct progress *progress_new(void)
{
    struct progress *p = mem_alloc(sizeof *p);

    if (!p)
        return NULL;
    p->tty = screen_is_live(STDERR_FILENO);
    p->utf8 = screen_speaks_utf8();
    p->colour = screen_has_colour(STDERR_FILENO);
    p->width = NAME_WIDTH;
    return p;
}

void progress_free(struct progress *p)
{
    mem_free(p);
}

static struct row *find(struct progress *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (!strncmp(p->row[i].name, name, NAME_MAX_BYTES - 1))
            return &p->row[i];
    return NULL;
}

/* Control characters (an escape sequence in a label, say) become blanks. */
static void clean(char *out, size_t n, const char *text)
{
    size_t i = 0;

    for (; text[i] && i + 1 < n; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? ' ' : text[i];
    out[i] = '\0';
}

/* ---- one stage as text ---- */

static double time_left(const struct row *r, double now)
{
    double pace = (now - r->first_time) / (double)(r->step - r->first_step);

    return r->step > r->first_step && r->total > r->step
               ? pace * (double)(r->total - r->step)
               : NAN;
}

static void add_bar(struct str *out, const struct progress *p, double share, int width)
{
    int full = (int)(share * width + 0.5);

    for (int i = 0; i < width; i++)
        str_add(out, p->utf8 ? (i < full ? "█" : "░") : (i < full ? "#" : "."));
}

static int is(const struct row *r, const char *state)
{
    return !strcmp(r->state, state);
}

/* A phase of worker/link/link.h in words. */
static const char *phase_name(const char *phase)
{
    static const char *const names[][2] = {{"load", "loading"},
                                           {"table", "scoring"},
                                           {"eval", "evaluating"},
                                           {"save", "saving"}};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i][0], phase))
            return names[i][1];
    return phase;
}

/* "2m left", or how it ended. */
static void add_time(struct str *out, const struct row *r, double now)
{
    char buf[32];
    double left = time_left(r, now);

    if (is(r, "waiting"))
        return;
    if (!is(r, "running"))
        str_addf(out, "  %s in %s", r->state, str_duration(buf, sizeof buf, r->took));
    else if (!isnan(left))
        str_addf(out, "  %s left", str_duration(buf, sizeof buf, left));
}

static void add_phase(struct str *out, const struct row *r)
{
    if (!is(r, "running"))
        return;
    if (r->phase[0] && strcmp(r->phase, "train") != 0)
        str_addf(out, "  %s", phase_name(r->phase));
    if ((!strcmp(r->phase, "eval") || !strcmp(r->phase, "table")) && r->phase_total > 0)
        str_addf(out, " %ld %%", 100 * r->phase_step / r->phase_total);
}

/* The parts of "step 120/375  1234 tokens/s  loss 0.532  accuracy 0.61  2m left  saving",
 * from the left to the right. Where a line is too short for all, the first to go is: */
enum part { STEP, RATE, LOSS, METRIC, TIME, PHASE, PARTS };
static const enum part dispensable[] = {RATE, PHASE, METRIC, LOSS, TIME};

static void add_part(struct str *out, enum part part, const struct row *r, double now)
{
    if (part == STEP && is(r, "waiting") && r->total > 0)
        str_addf(out, "%ld steps to do", r->total);
    else if (part == STEP && r->total > 0)
        str_addf(out, "step %ld/%ld", r->step, r->total);
    else if (part == RATE && !isnan(r->rate))
        str_addf(out, "  %.0f tokens/s", r->rate);
    else if (part == LOSS && !isnan(r->loss))
        str_addf(out, "  loss %.4f", r->loss);
    else if (part == METRIC && r->metric[0])
        str_addf(out, "  %s", r->metric);
    else if (part == TIME)
        add_time(out, r, now);
    else if (part == PHASE)
        add_phase(out, r);
}

/* All parts that fit into `room` columns. */
static void add_parts(struct str *out, const struct row *r, double now, size_t room)
{
    size_t n_gone = 0;

    for (;;) {
        struct str line = {0};

        for (int part = 0; part < PARTS; part++) {
            int gone = 0;

            for (size_t i = 0; i < n_gone; i++)
                gone |= dispensable[i] == (enum part)part;
            if (!gone)
                add_part(&line, (enum part)part, r, now);
        }
        if (n_gone == sizeof dispensable / sizeof *dispensable ||
            screen_width(str_get(&line)) <= room) {
            str_add(out, str_get(&line) + strspn(str_get(&line), " "));
            str_fini(&line);
            return;
        }
        n_gone++;
        str_fini(&line);
    }
}

static void add_line(struct str *out, const struct progress *p, const struct row *r,
                     double now, size_t width)
{
    int bar = width < 60 ? 6 : width < 100 ? 16 : 24;
    size_t used = (size_t)p->width + 1 + (size_t)bar + 1;
    double share = is(r, "done")  ? 1
                   : r->total > 0 ? (double)r->step / (double)r->total
                                  : 0;
    const char *colour = !p->colour        ? ""
                         : is(r, "done")   ? "\033[32m"
                         : is(r, "failed") ? "\033[31m"
                                           : "\033[36m";

    str_addf(out, "%-*s %s", p->width, r->name, colour);
    add_bar(out, p, share < 1 ? share : 1, bar);
    str_addf(out, "%s ", *colour ? "\033[0m" : "");
    add_parts(out, r, now, width > used ? width - used : 0);
}

/* "loss ▇▅▃▂▁  reward ▁▂▃▅": below the stage's line; nothing where there is no curve. */
static void add_curves(struct str *out, const struct progress *p, const struct row *r)
{
    if (!p->utf8 || is(r, "waiting") || (r->losses.n < 2 && r->rewards.n < 2))
        return;
    str_addf(out, "%*s", p->width, "");
    if (r->losses.n > 1) {
        str_add(out, " loss ");
        spark_write(&r->losses, out);
    }
    if (r->rewards.n > 1) {
        str_add(out, "  reward ");
        spark_write(&r->rewards, out);
    }
}

/* ---- screen ---- */

static void erase(struct progress *p, struct str *out)
{
    if (p->drawn)
        str_addf(out, "\033[%zuA\r\033[J", p->drawn);
    p->drawn = 0;
}

static void put(const struct str *out)
{
    ssize_t n;

    if (str_failed(out) || !out->len)
        return;
    n = write(STDERR_FILENO, out->s, out->len);
    (void)n; /* a terminal that went away is noticed as SIGHUP */
}

/* Stages that have no line of their own: "12 waiting, 4 done". */
static void add_rest(struct str *out, const struct progress *p)
{
    static const char *const states[] = {"waiting", "running", "done",
                                         "failed",  "stopped", "skipped"};

    str_addf(out, "%zu stages:", p->n);
    for (size_t s = 0; s < sizeof states / sizeof *states; s++) {
        size_t n = 0;

        for (size_t i = 0; i < p->n; i++)
            n += (size_t)is(&p->row[i], states[s]);
        if (n)
            str_addf(out, "  %zu %s", n, states[s]);
    }
}

static void put_line(struct progress *p, struct str *out, const struct str *line,
                     size_t width)
{
    const char *s = str_get(line);

    if (!*s)
        return;
    str_add_bytes(out, s, screen_cut(s, width));
    str_addf(out, "%s\n", p->colour ? "\033[0m" : "");
    p->drawn++;
}

/* Every stage has a line, and its curves below it where there is room; of more stages than
 * the screen holds, those that run or failed. */
static void draw(struct progress *p, struct str *out)
{
    size_t width, lines;
    double now = clock_now();
    struct str line = {0};
    int all, curves;

    screen_size(STDERR_FILENO, &width, &lines);
    width = width > 1 ? width - 1 : 1; /* a full line would wrap on some terminals */
    all = p->n + 1 < lines;
    curves = 2 * p->n + 1 < lines;
    erase(p, out);
    for (size_t i = 0; i < p->n && p->drawn + 2 < lines; i++) {
        const struct row *r = &p->row[i];

        if (!all && !is(r, "running") && !is(r, "failed"))
            continue;
        str_clear(&line);
        add_line(&line, p, r, now, width);
        put_line(p, out, &line, width);
        str_clear(&line);
        if (curves)
            add_curves(&line, p, r);
        put_line(p, out, &line, width);
    }
    str_clear(&line);
    if (!all)
        add_rest(&line, p);
    put_line(p, out, &line, width);
    str_fini(&line);
    p->dirty = 0;
    p->drawn_at = now;
}

int progress_draw(struct progress *p)
{
    struct str out = {0};
    double wait;

    if (!p || !p->tty || !p->dirty)
        return -1;
    wait = p->drawn_at + REDRAW_MS / 1000.0 - clock_now();
    if (wait > 0)
        return (int)(wait * 1000) + 1;
    draw(p, &out);
    put(&out);
    str_fini(&out);
    return -1;
}

void progress_say(struct progress *p, const char *text)
{
    struct str out = {0};
    char safe[2048];

    clean(safe, sizeof safe, text);
    if (!p) {
        fprintf(stderr, "%s\n", safe);
        return;
    }
    if (p->tty)
        erase(p, &out);
    str_addf(&out, "%s\n", safe);
    if (p->tty)
        draw(p, &out);
    put(&out);
    str_fini(&out);
}

void progress_end(struct progress *p)
{
    struct str out = {0};

    if (p && p->tty && p->n) {
        draw(p, &out);
        put(&out);
    }
    if (p)
        p->drawn = 0;
    str_fini(&out);
}

/* ---- plain lines ---- */

static void plain(struct progress *p, const struct row *r, double now)
{
    struct str line = {0};

    str_addf(&line, "%s: ", r->name);
    add_parts(&line, r, now, SIZE_MAX);
    progress_say(p, str_get(&line));
    str_fini(&line);
}

static void plain_step(struct progress *p, struct row *r)
{
    double now = clock_now();
    long tenth = r->total > 0 ? 10 * r->step / r->total : 0;

    if (p->tty || now - r->plain_at < plain_least ||
        (tenth <= r->plain_tenth && now - r->plain_at < plain_every))
        return;
    r->plain_tenth = tenth;
    r->plain_at = now;
    plain(p, r, now);
}

/* ---- events ---- */

static void begin(struct row *r)
{
    r->plain_at = clock_now();
    r->step = r->phase_step = r->phase_total = 0;
    r->first_time = 0;
    r->plain_tenth = 0;
}

static void set_state(struct progress *p, struct row *r, const char *state)
{
    char line[128];

    if (is(r, state))
        return;
    if (!strcmp(state, "running"))
        begin(r);
    clean(r->state, sizeof r->state, state);
    if (is(r, "done"))
        r->step = r->total;
    p->dirty = 1;
    if (p->tty || is(r, "waiting"))
        return;
    if (is(r, "running")) {
        snprintf(line, sizeof line, "%s: started", r->name);
        progress_say(p, line);
    } else {
        plain(p, r, clock_now());
    }
}

void progress_job(struct progress *p, const Hone__V1__Job *job)
{
    if (!p)
        return;
    for (size_t i = 0; i < job->n_stages; i++) {
        const Hone__V1__StageState *s = job->stages[i];
        struct row *r = find(p, s->name);

        if (!r && p->n < STAGES_MAX) {
            r = &p->row[p->n++];
            clean(r->name, sizeof r->name, s->name);
            if ((int)strlen(r->name) > p->width)
                p->width = (int)strlen(r->name);
            snprintf(r->state, sizeof r->state, "waiting");
            r->loss = r->rate = NAN;
            r->total = (long)s->steps;
            p->dirty = 1;
        }
        if (r && s->has_started && s->has_ended)
            r->took = s->ended - s->started;
        if (r && s->state)
            set_state(p, r, s->state);
    }
}

static void take_figures(struct row *r, const char *text)
{
    struct err e;
    json_t *o;

    if (json_parse("figures", text, strlen(text), &o, &e))
        return;
    json_get_double(o, "loss", 0, &r->loss, &e);
    json_get_double(o, "tokens_per_second", 0, &r->rate, &e);
    json_decref(o);
}

static void take_progress(struct progress *p, struct row *r, const Hone__V1__Progress *g)
{
    clean(r->phase, sizeof r->phase, g->phase);
    if (g->figures)
        take_figures(r, g->figures);
    if (strcmp(g->phase, "train") != 0) {
        r->phase_step = (long)g->step;
        r->phase_total = (long)g->total;
        return;
    }
    r->step = (long)g->step;
    r->total = (long)g->total;
    if (r->first_time <= 0) {
        r->first_time = clock_now();
        r->first_step = r->step;
    }
    plain_step(p, r);
}

static void take_training(struct row *r, const json_t *o)
{
    double loss = NAN, reward = NAN;
    long step = 0;
    struct err e;

    json_get_double(o, "loss", 0, &loss, &e);
    json_get_double(o, "reward", 0, &reward, &e);
    if (!json_get_long(o, "step", 0, &step, &e) && step > r->step && is(r, "running"))
        r->step = step;
    spark_add(&r->losses, loss);
    spark_add(&r->rewards, reward);
}

/* A line of metrics.jsonl: training's curves, and the newest about validation. */
static void take_metric(struct row *r, const char *text)
{
    static const char *const wanted[] = {"accuracy", "top1_accuracy", "nll"};
    const char *split = "";
    struct err e;
    json_t *o;

    if (json_parse("metric", text, strlen(text), &o, &e))
        return;
    json_get_string(o, "split", 0, &split, &e);
    if (!strcmp(split, "train"))
        take_training(r, o);
    if (!strcmp(split, "validation"))
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
            double x = NAN;

            json_get_double(o, wanted[i], 0, &x, &e);
            if (isnan(x))
                continue;
            snprintf(r->metric, sizeof r->metric, "%s %.4f", wanted[i], x);
            break;
        }
    json_decref(o);
}

void progress_event(struct progress *p, const Hone__V1__Event *ev)
{
    struct row *r;

    if (!p)
        return;
    if (ev->job_state)
        progress_job(p, ev->job_state);
    r = ev->stage ? find(p, ev->stage) : NULL;
    if (r && ev->progress)
        take_progress(p, r, ev->progress);
    if (r && ev->metric)
        take_metric(r, ev->metric);
    if (ev->note && strcmp(ev->note->level, "info") != 0) {
        char line[2048];

        snprintf(line, sizeof line, "hone: %s%s%s", ev->stage ? ev->stage : "",
                 ev->stage ? ": " : "", ev->note->text);
        progress_say(p, line);
    }
    p->dirty = 1;
}
