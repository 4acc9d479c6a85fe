/* Jobs as text: see jobs.h. Text that came from outside loses its control characters. */
#include "launcher/jobs.h"

#include <string.h>

#include "base/clock.h"
#include "base/str.h"
#include "launcher/remote.h"

enum { NAME_WIDTH = 28, OWNER_WIDTH = 12, STAGES_SHOWN = 4 };

static const char *or_none(const char *s)
{
    return s ? s : "";
}

void jobs_print_line(const Hone__V1__Job *j)
{
    char name[128];

    printf("job %llu %s: %s\n", (unsigned long long)j->id,
           remote_clean(name, sizeof name, j->name), or_none(j->state));
}

/* "120/375" while it trains, another phase's name, or the state. */
static void add_stage(struct str *out, const Hone__V1__StageState *s)
{
    const Hone__V1__Progress *p = s->progress;
    char text[32];

    if (!p || strcmp(or_none(s->state), "running") != 0)
        str_add(out, or_none(s->state));
    else if (p->step > 0 && (!strcmp(p->phase, "train") || !strcmp(p->phase, "save")))
        str_addf(out, "%lld/%lld", (long long)p->step, (long long)p->total);
    else
        str_add(out, remote_clean(text, sizeof text, p->phase));
}

/* All stages; of many (several seeds, say) how many are how far, and those that run. */
static void add_stages(struct str *out, const Hone__V1__Job *j)
{
    static const char *const states[] = {"waiting", "done", "failed", "stopped", "skipped"};
    const char *comma = "";
    char name[NAME_WIDTH + 1];

    for (size_t s = 0; j->n_stages > STAGES_SHOWN && s < sizeof states / sizeof *states;
         s++) {
        size_t n = 0;

        for (size_t k = 0; k < j->n_stages; k++)
            n += !strcmp(or_none(j->stages[k]->state), states[s]);
        if (!n)
            continue;
        str_addf(out, "%s%zu %s", comma, n, states[s]);
        comma = ", ";
    }
    for (size_t k = 0; k < j->n_stages; k++) {
        if (j->n_stages > STAGES_SHOWN && strcmp(or_none(j->stages[k]->state), "running"))
            continue;
        str_addf(out, "%s%s ", comma, remote_clean(name, sizeof name, j->stages[k]->name));
        add_stage(out, j->stages[k]);
        comma = ", ";
    }
}

static double age(const Hone__V1__Job *j)
{
    double from = j->has_ended && j->ended > 0 ? j->ended : j->submitted;

    return clock_wall() - from > 0 ? clock_wall() - from : 0;
}

/* As wide as the longest of a column's texts, within limits. */
static int column_width(const Hone__V1__JobList *list, int of_owner, int least, int most)
{
    size_t width = (size_t)least;

    for (size_t i = 0; i < list->n_jobs; i++) {
        const char *s = of_owner ? list->jobs[i]->owner : list->jobs[i]->name;

        if (s && strlen(s) > width)
            width = strlen(s);
    }
    return width < (size_t)most ? (int)width : most;
}

void jobs_print_table(FILE *out, const Hone__V1__JobList *list)
{
    int names = column_width(list, 0, 4, NAME_WIDTH);
    int owners = column_width(list, 1, 5, OWNER_WIDTH);

    fprintf(out, "%6s  %-*s  %-8s  %4s  %-*s  %9s  %s\n", "JOB", names, "NAME", "STATE",
            "PRIO", owners, "OWNER", "SINCE", "STAGES");
    for (size_t i = 0; i < list->n_jobs; i++) {
        const Hone__V1__Job *j = list->jobs[i];
        char name[NAME_WIDTH + 1], owner[OWNER_WIDTH + 1], since[32];
        struct str stages = {0};

        add_stages(&stages, j);
        fprintf(out, "%6llu  %-*s  %-8s  %4d  %-*s  %9s  %s\n", (unsigned long long)j->id,
                names, remote_clean(name, sizeof name, j->name), or_none(j->state),
                j->priority, owners, remote_clean(owner, sizeof owner, j->owner),
                str_duration(since, sizeof since, age(j)), str_get(&stages));
        str_fini(&stages);
    }
    if (list->has_more && list->more)
        fprintf(out, "(older ones: --limit N)\n");
}

static void print_text(const char *label, const char *text)
{
    char clean[1024];

    if (text && *text)
        printf("%-10s %s\n", label, remote_clean(clean, sizeof clean, text));
}

static void print_time(const char *label, double wall)
{
    char text[32];

    if (wall > 0)
        printf("%-10s %s\n", label, clock_iso(text, sizeof text, wall));
}

static void print_ranks(const Hone__V1__StageState *s)
{
    char host[64], phase[32], collective[64];

    for (size_t i = 0; i < s->n_ranks; i++) {
        const Hone__V1__RankState *r = s->ranks[i];

        printf("  rank %u on %s, process %u: %s, step %lld", r->rank,
               remote_clean(host, sizeof host, or_none(r->host)), r->pid,
               remote_clean(phase, sizeof phase, r->phase ? r->phase : "start"),
               (long long)r->step);
        if (r->collective)
            printf(", %s %llu", remote_clean(collective, sizeof collective, r->collective),
                   (unsigned long long)r->collective_seq);
        printf(", heard %.1f s ago\n", r->heard);
    }
}

static void print_stage(const Hone__V1__StageState *s)
{
    char name[64], text[1024], took[32];
    double end = s->has_ended ? s->ended : clock_wall();
    struct str line = {0};

    add_stage(&line, s);
    printf("%-10s %s", remote_clean(name, sizeof name, s->name), str_get(&line));
    if (s->has_started)
        printf(", %s", str_duration(took, sizeof took, end - s->started));
    if (s->attempt > 1)
        printf(", attempt %u", s->attempt);
    for (size_t i = 0; i < s->n_cores; i++)
        printf("%s%u", i ? "," : ", cores ", s->cores[i]);
    if (s->memory)
        printf(", at most %s", str_bytes(took, sizeof took, (double)s->memory));
    printf("\n");
    if (s->message)
        printf("  %s\n", remote_clean(text, sizeof text, s->message));
    print_ranks(s);
    str_fini(&line);
}

void jobs_print_details(const Hone__V1__Job *j)
{
    char number[32];

    snprintf(number, sizeof number, "%llu", (unsigned long long)j->id);
    print_text("job", number);
    print_text("name", j->name);
    print_text("state", j->state);
    print_text("message", j->message);
    print_text("try", j->mend);
    print_text("owner", j->owner);
    if (j->priority)
        printf("%-10s %d\n", "priority", j->priority);
    print_text("file", j->file);
    print_text("run", j->run);
    print_time("submitted", j->submitted);
    print_time("ended", j->has_ended ? j->ended : 0);
    printf("\n");
    for (size_t i = 0; i < j->n_stages; i++)
        print_stage(j->stages[i]);
}
