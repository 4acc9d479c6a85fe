/* The plan: see plan.h. */
#include "daemon/plan.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"

enum { LIST_MAX = 200, OWN_MAX = 8 }; /* problems: the worker's, the daemon's own */

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "plan of the job: out of memory");
}

static int text_of(const json_t *o, const char *key, int required, struct arena *a,
                   const char **out, struct err *e)
{
    const char *s = NULL;
    int rc = json_get_string(o, key, required, &s, e);

    *out = s ? arena_strdup(a, s) : NULL;
    return rc ? rc : s && !*out ? no_memory(e) : 0;
}

static Hone__V1__Problem *add_problem(struct plan *p, struct arena *a, int warning,
                                      const char *where, const char *message,
                                      const char *mend)
{
    Hone__V1__Problem *m = arena_alloc(a, sizeof *m);

    if (!m)
        return NULL;
    hone__v1__problem__init(m);
    m->where = (char *)(uintptr_t)where;
    m->message = (char *)(uintptr_t)message;
    m->mend = (char *)(uintptr_t)mend;
    m->has_warning = m->warning = warning;
    p->problem[p->n_problems++] = m;
    p->errors += !warning;
    return m;
}

int plan_add_problem(struct plan *p, struct arena *a, int warning, const char *where,
                     const char *message, const char *mend, struct err *e)
{
    const char *copy = arena_strdup(a, message);
    const char *mend_copy = mend && *mend ? arena_strdup(a, mend) : NULL;

    invariant(p->n_own++ < OWN_MAX);
    if (!copy || (mend && *mend && !mend_copy) ||
        !add_problem(p, a, warning, where, copy, mend_copy))
        return no_memory(e);
    return 0;
}

static int read_problems(struct plan *p, const json_t *list, struct arena *a, struct err *e)
{
    size_t n = json_array_size(list);
    int rc = 0;

    n = n < LIST_MAX ? n : LIST_MAX;
    p->problem = arena_array(a, n + OWN_MAX, sizeof *p->problem);
    if (!p->problem)
        return no_memory(e);
    for (size_t i = 0; !rc && i < n; i++) {
        const json_t *o = json_array_get(list, i);
        const char *where, *message, *mend;
        int warning = 0;

        rc = text_of(o, "where", 0, a, &where, e);
        if (!rc)
            rc = text_of(o, "message", 1, a, &message, e);
        if (!rc)
            rc = text_of(o, "mend", 0, a, &mend, e);
        if (!rc)
            rc = json_get_bool(o, "warning", 0, &warning, e);
        if (rc)
            return err_wrap(e, "problem %zu", i + 1);
        if (!add_problem(p, a, warning, where, message, mend))
            return no_memory(e);
    }
    return rc;
}

static int find_stage(const struct plan *p, const char *name, size_t *index)
{
    for (size_t i = 0; i < p->n_stages; i++)
        if (!strcmp(p->stage[i].name, name)) {
            *index = i;
            return 1;
        }
    return 0;
}

static int read_needs(const struct plan *p, struct job_stage *s, const json_t *list,
                      struct arena *a, struct err *e)
{
    size_t n = json_array_size(list);

    s->needs = arena_array(a, n + 1, sizeof *s->needs);
    if (!s->needs)
        return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        size_t k;

        if (!name || !find_stage(p, name, &k))
            return err_set(e, ERR_CORRUPT, "stage %s needs %.100s, which is no stage",
                           s->name, name ? name : "something without a name");
        s->needs[s->n_needs++] = k;
    }
    return 0;
}

static int read_stages(struct plan *p, const json_t *list, struct arena *a, struct err *e)
{
    size_t n = json_array_size(list);
    int rc = 0;

    if (n == 0 || n > PLAN_STAGES_MAX)
        return err_set(e, ERR_CORRUPT, "\"stages\" has %zu entries, 1 to %d are possible",
                       n, PLAN_STAGES_MAX);
    p->stage = arena_array(a, n, sizeof *p->stage);
    if (!p->stage)
        return no_memory(e);
    for (size_t i = 0; !rc && i < n; i++) {
        struct job_stage *s = &p->stage[i];
        const json_t *o = json_array_get(list, i);
        long steps = 0, bytes = 0;

        rc = text_of(o, "name", 1, a, &s->name, e);
        if (!rc)
            rc = json_get_long(o, "steps", 0, &steps, e);
        if (!rc)
            rc = json_get_long(o, "peak_bytes", 0, &bytes, e);
        s->steps = steps > 0 ? (uint64_t)steps : 0;
        s->workers = p->workers;
        s->memory = bytes > 0 ? (uint64_t)bytes * (uint64_t)p->workers : 0;
        p->n_stages++;
    }
    for (size_t i = 0; !rc && i < n; i++)
        rc = read_needs(p, &p->stage[i], json_object_get(json_array_get(list, i), "needs"),
                        a, e);
    return rc;
}

static int read_notify(struct plan *p, const json_t *o, struct arena *a, struct err *e)
{
    int rc = o ? text_of(o, "program", 1, a, &p->notify, e) : 0;

    return rc || !o ? rc : text_of(o, "where", 0, a, &p->notify_where, e);
}

static int read_resources(struct plan *p, const json_t *o, struct err *e)
{
    long workers = 1, threads = 0, gpus = 0, seeds = 1;
    int rc;

    rc = json_get_long(o, "workers", 0, &workers, e);
    if (!rc)
        rc = json_get_long(o, "threads", 0, &threads, e);
    if (!rc)
        rc = json_get_long(o, "gpus", 0, &gpus, e);
    if (!rc)
        rc = json_get_long(o, "seeds", 0, &seeds, e);
    if (rc)
        return rc;
    p->seeds = seeds > 1 && seeds <= 1000 ? (int)seeds : 1;
    p->gpus = gpus > 0 && gpus < 4096 ? (int)gpus : 0;
    p->workers = workers > 0 && workers < 4096 ? (int)workers : 1;
    if (threads > 0 && threads < 4096 && workers > 0 && workers < 4096)
        p->cores = (int)(threads * workers);
    return 0;
}

static int read_slurm(struct plan *p, const json_t *list, struct arena *a, struct err *e)
{
    size_t n = json_array_size(list);

    if (!list)
        return 0;
    p->slurm = arena_array(a, n + 1, sizeof *p->slurm);
    if (!p->slurm)
        return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(list, i));

        if (!text)
            return err_set(e, ERR_CORRUPT, "\"slurm\" holds what is no text");
        p->slurm[p->n_slurm] = arena_strdup(a, text);
        if (!p->slurm[p->n_slurm++])
            return no_memory(e);
    }
    return 0;
}

/* Each seed's stages are stages of their own, which need each other within the seed. */
static int fan_out(struct plan *p, struct arena *a, struct err *e)
{
    size_t n = p->n_stages, seeds = (size_t)p->seeds;
    struct job_stage *stage;
    char text[128];

    if (n * seeds > JOB_STAGES_MAX) {
        snprintf(text, sizeof text,
                 "seeds: %zu of %zu stages each are more than the %d stages of a job",
                 seeds, n, JOB_STAGES_MAX);
        return plan_add_problem(p, a, 0, NULL, text,
                                "submit it in parts: --set seeds=N --set seed=FIRST", e);
    }
    stage = arena_array(a, n * seeds, sizeof *stage);
    if (!stage)
        return no_memory(e);
    for (size_t i = 0; i < n * seeds; i++) {
        const struct job_stage *from = &p->stage[i % n];
        struct job_stage *s = &stage[i];

        *s = *from;
        s->seed = (unsigned)(i / n) + 1;
        s->name = arena_printf(a, "seed-%u/%s", s->seed, from->name);
        s->needs = arena_array(a, from->n_needs + 1, sizeof *s->needs);
        if (!s->name || !s->needs)
            return no_memory(e);
        for (size_t k = 0; k < from->n_needs; k++)
            s->needs[k] = i / n * n + from->needs[k];
    }
    p->stage = stage;
    p->n_stages = n * seeds;
    return 0;
}

int plan_read(struct plan *p, const char *text, struct arena *a, struct err *e)
{
    json_t *root, *plan;
    int rc = json_parse("hone-worker check", text, strlen(text), &root, e);

    memset(p, 0, sizeof *p);
    if (rc)
        return rc;
    rc = read_problems(p, json_object_get(root, "problems"), a, e);
    if (!rc && !p->errors) {
        plan = json_object_get(root, "plan");
        rc = text_of(plan, "name", 1, a, &p->name, e);
        if (!rc)
            rc = read_notify(p, json_object_get(plan, "notify"), a, e);
        if (!rc)
            rc = read_resources(p, plan, e);
        if (!rc)
            rc = read_slurm(p, json_object_get(plan, "slurm"), a, e);
        if (!rc)
            rc = read_stages(p, json_object_get(plan, "stages"), a, e);
        if (!rc && p->seeds > 1)
            rc = fan_out(p, a, e);
    }
    json_decref(root);
    return rc ? err_wrap(e, "hone-worker check") : 0;
}

static int unknown_stage(const struct plan *p, const char *name, struct err *e)
{
    const char *known[PLAN_STAGES_MAX + 1], *near;
    struct str all = {0};

    for (size_t i = 0; i < p->n_stages; i++) {
        known[i] = p->stage[i].name;
        str_addf(&all, "%s%s", i ? ", " : "", known[i]);
    }
    known[p->n_stages] = NULL;
    near = str_nearest(name, known);
    err_set(e, ERR_CONFIG, "--stages: the job has no stage \"%.100s\"", name);
    if (near)
        err_mend(e, "did you mean %s?", near);
    else
        err_mend(e, "one of %s", str_get(&all));
    str_fini(&all);
    return e->code;
}

/* Each stage once that is needed and not wanted. */
static void find_unmet(struct plan *p, const int *wanted)
{
    int found[PLAN_STAGES_MAX] = {0};

    for (size_t i = 0; i < p->n_stages; i++)
        for (size_t q = 0; wanted[i] && q < p->stage[i].n_needs; q++) {
            size_t k = p->stage[i].needs[q];

            if (!wanted[k] && !found[k])
                p->unmet[p->n_unmet++] = p->stage[k].name;
            found[k] = 1;
        }
}

int plan_select(struct plan *p, char *const *names, size_t n, struct arena *a,
                struct err *e)
{
    size_t place[PLAN_STAGES_MAX], kept = 0, k;
    int wanted[PLAN_STAGES_MAX] = {0};
    struct job_stage *stage;

    if (n == 0)
        return 0;
    if (p->seeds > 1) {
        err_set(e, ERR_CONFIG, "--stages and seeds do not go together");
        return err_mend(e, "--set seeds=1 --set seed=N");
    }
    for (size_t i = 0; i < n; i++) {
        if (!find_stage(p, names[i], &k))
            return unknown_stage(p, names[i], e);
        wanted[k] = 1;
    }
    stage = arena_array(a, p->n_stages, sizeof *stage);
    p->unmet = arena_array(a, p->n_stages, sizeof *p->unmet);
    if (!stage || !p->unmet)
        return no_memory(e);
    find_unmet(p, wanted);
    for (size_t i = 0; i < p->n_stages; i++)
        if (wanted[i]) {
            place[i] = kept;
            stage[kept++] = p->stage[i];
        }
    for (size_t i = 0; i < kept; i++) {
        size_t met = 0;

        for (size_t q = 0; q < stage[i].n_needs; q++)
            if (wanted[stage[i].needs[q]])
                stage[i].needs[met++] = place[stage[i].needs[q]];
        stage[i].n_needs = met;
    }
    p->stage = stage;
    p->n_stages = kept;
    return 0;
}
