/* The `stages` section: each stage's options, who needs whom, and an order that respects
 * it.
 *
 * Stages are sorted topologically (Kahn 1962), the file's order deciding between those that
 * are ready, so that an order is already right stays as it is. What is left over lies on
 * or behind a cycle, which is named. */
#include <stdio.h>
#include <string.h>

#include "worker/spec/internal.h"
#include "worker/stage/stage.h"

enum { STAGES_MAX = 64 };

static void unknown_stage(struct reading *r, const struct node *n)
{
    enum task_kind kind = (enum task_kind)r->s->task.kind, other = kind == TASK_CLASSIFY;
    const char *names[STAGES_MAX + 1], *near;
    struct node at = *n;
    struct str mend = {0};
    int k = 0;

    for (const struct stage *const *s = stage_registry; *s && k < STAGES_MAX; s++)
        if ((*s)->kind == kind)
            names[k++] = (*s)->name;
    names[k] = NULL;
    near = str_nearest(n->key, names);
    if (stage_find(n->key, other))
        str_addf(&mend, "it is for task: {kind: %s}", task_kind_names[other]);
    else if (near)
        str_addf(&mend, "did you mean \"%s\"?", near);
    else
        for (int i = 0; i < k; i++)
            str_addf(&mend, "%s%s", i ? ", " : "known stages are ", names[i]);
    at.line = n->key_line;
    at.column = n->key_column;
    problems_add(r->p, &at, str_get(&mend), "unknown stage \"%s\"", n->key);
    str_fini(&mend);
}

static int metric_index(const char *name)
{
    for (int i = 0; name && spec_metric_names[i]; i++)
        if (!strcmp(spec_metric_names[i], name))
            return i;
    return -1;
}

/* Does an evaluation of this stage give the metric? */
static int has_metric(const struct reading *r, const struct stage *stage, const char *name)
{
    const struct task_spec *t = &r->s->task;

    if (!stage->metrics)
        return 1;
    if ((!strcmp(name, "mae") || !strcmp(name, "qwk")) &&
        (t->order != ORDER_ORDINAL || t->labels.n < 3))
        return 0;
    for (const char *const *m = stage->metrics; *m; m++)
        if (!strcmp(*m, name))
            return 1;
    return 0;
}

static void check_metric(struct reading *r, const struct stage_spec *st,
                         const struct node *at, const char *name)
{
    struct str mend = {0};

    if (!name || has_metric(r, st->stage, name))
        return;
    for (const char *const *m = st->stage->metrics; *m; m++)
        if (has_metric(r, st->stage, *m))
            str_addf(&mend, "%s%s", mend.len ? ", " : "one of ", *m);
    problems_add(r->p, at, str_get(&mend), "stage %s does not measure \"%s\"", st->name,
                 name);
    str_fini(&mend);
}

/* stop: {metric: nll, patience: 3} */
static void read_stop(struct reading *r, struct stage_spec *st)
{
    struct stop_keys {
        int metric;
        long patience;
    } keys;
    static const struct opt options[] = {
        OPT_ENUM(struct stop_keys, metric, -1, spec_metric_names, "what must get better"),
        OPT_INT(struct stop_keys, patience, 1, 1, 1e9, "evaluations to wait"), OPT_END};

    if (!st->common.stop)
        return;
    opt_defaults(options, &keys);
    keys.metric = metric_index(has_metric(r, st->stage, "nll") ? "nll" : "loss");
    opt_apply(options, &keys, st->common.stop, "", NULL, &r->s->arena, r->p);
    st->common.stop_metric = spec_metric_names[keys.metric];
    st->common.stop_patience = keys.patience;
    check_metric(r, st, st->common.stop, st->common.stop_metric);
}

static void read_stage(struct reading *r, struct stage_spec *st, const struct stage *stage,
                       const struct node *n)
{
    struct common_options *c = &st->common;
    struct opt_set sets[2] = {{stage->options, NULL}, {common_options, c}};
    int before = r->p->errors;

    st->stage = stage;
    st->name = n->key;
    st->node = n;
    st->config = arena_alloc(&r->s->arena, stage->config_size + 1);
    if (!st->config) {
        problems_add(r->p, NULL, NULL, "out of memory");
        return;
    }
    sets[0].config = st->config;
    opt_defaults(stage->options, st->config);
    opt_defaults(common_options, c);
    c->lr = stage->default_lr;
    c->dropout = stage->default_dropout;
    opt_apply_all(sets, 2, n, r->s->folder, &r->s->arena, r->p);
    if (c->epochs > 0 && c->steps > 0)
        problems_add(r->p, node_get(n, "steps"), "keep one of them",
                     "stage %s: both \"epochs\" and \"steps\" are given", st->name);
    else if (stage->loss && c->epochs == 0 && c->steps == 0 && r->p->errors == before &&
             (opt_given(n, "epochs") || opt_given(n, "steps")))
        problems_add(r->p, n, "epochs: 1", "stage %s: nothing to do, it has no steps",
                     st->name);
    else if (c->steps == 0 && c->epochs == 0)
        c->epochs = stage->default_epochs;
    read_stop(r, st);
    if (c->select_metric >= 0)
        check_metric(r, st, node_get(n, "select_metric"),
                     spec_metric_names[c->select_metric]);
}

/* Default of `needs`: what the stage uses and what its `init` names, if the job has it. */
static void default_needs(struct reading *r, struct stage_spec *st)
{
    const struct node *init = node_get(st->node, "init");
    const char *found[STAGES_MAX + 1];
    struct opt_list l = {0};

    for (const char *const *u = st->stage->uses; u && *u && l.n < STAGES_MAX; u++)
        if (spec_find_stage(r->s, *u) && strcmp(*u, st->name))
            found[l.n++] = *u;
    if (init && init->kind == NODE_SCALAR && spec_find_stage(r->s, init->text) &&
        strcmp(init->text, st->name)) {
        size_t i = 0;

        while (i < l.n && strcmp(found[i], init->text))
            i++;
        if (i == l.n)
            found[l.n++] = init->text;
    }
    l.text = arena_array(&r->s->arena, l.n + 1, sizeof *l.text);
    if (!l.text) {
        problems_add(r->p, NULL, NULL, "out of memory");
        return;
    }
    memcpy(l.text, found, l.n * sizeof *found);
    st->common.needs = l;
}

static void unknown_need(struct reading *r, const struct stage_spec *st,
                         const struct node *at, const char *name)
{
    const char *names[STAGES_MAX + 1], *near;
    struct str mend = {0};
    size_t k = 0;

    for (; k < r->s->n_stages && k < STAGES_MAX; k++)
        names[k] = r->s->stage[k].name;
    names[k] = NULL;
    near = str_nearest(name, names);
    if (near && strcmp(near, st->name))
        str_addf(&mend, "did you mean \"%s\"?", near);
    problems_add(r->p, at, str_get(&mend),
                 "stage %s needs \"%.100s\", which is no stage of "
                 "this job",
                 st->name, name);
    str_fini(&mend);
}

/* Names to indices (file order). */
static void resolve_needs(struct reading *r, struct stage_spec *st)
{
    const struct node *list = node_get(st->node, "needs");
    const struct node *at = list && list->kind == NODE_LIST ? list->child : list;

    if (!opt_given(st->node, "needs"))
        default_needs(r, st);
    st->needs = arena_array(&r->s->arena, st->common.needs.n + 1, sizeof *st->needs);
    if (!st->needs) {
        problems_add(r->p, NULL, NULL, "out of memory");
        return;
    }
    for (size_t i = 0; i < st->common.needs.n; i++, at = at ? at->next : NULL) {
        const char *name = st->common.needs.text[i];
        struct stage_spec *other = spec_find_stage(r->s, name);
        int index = other ? (int)(other - r->s->stage) : -1, twice = 0;

        for (int k = 0; k < st->n_needs; k++)
            twice |= st->needs[k] == index;
        if (!other)
            unknown_need(r, st, at ? at : list, name);
        else if (other == st)
            problems_add(r->p, at ? at : list, NULL, "stage %s needs itself", st->name);
        else if (twice)
            problems_add(r->p, at ? at : list, NULL, "stage %s needs \"%s\" twice",
                         st->name, name);
        else
            st->needs[st->n_needs++] = index;
    }
}

/* Follow unfinished needs until a stage comes again; print the loop. */
static void report_cycle(struct reading *r, const int *done, size_t from)
{
    int seen[STAGES_MAX] = {0}, path[STAGES_MAX + 1], k = 0, at = (int)from, start = 0;
    struct str s = {0};

    while (!seen[at]) {
        const struct stage_spec *st = &r->s->stage[at];
        int next = -1;

        seen[at] = 1;
        path[k++] = at;
        for (int i = 0; i < st->n_needs && next < 0; i++)
            if (!done[st->needs[i]])
                next = st->needs[i];
        at = next;
    }
    while (path[start] != at)
        start++;
    for (int i = start; i < k; i++)
        str_addf(&s, "%s -> ", r->s->stage[path[i]].name);
    str_add(&s, r->s->stage[at].name);
    problems_add(r->p, r->s->stage[at].node, "remove one of these from its \"needs\"",
                 "\"needs\" runs in a circle: %s", str_get(&s));
    str_fini(&s);
}

static void sort_stages(struct reading *r)
{
    struct spec *s = r->s;
    size_t n = s->n_stages, k = 0;
    int done[STAGES_MAX] = {0}, place[STAGES_MAX];
    struct stage_spec *sorted = arena_array(&s->arena, n + 1, sizeof *sorted);

    if (!sorted) {
        problems_add(r->p, NULL, NULL, "out of memory");
        return;
    }
    while (k < n) {
        size_t i = 0;

        for (; i < n; i++) {
            int ready = !done[i];

            for (int j = 0; j < s->stage[i].n_needs; j++)
                ready &= done[s->stage[i].needs[j]];
            if (ready)
                break;
        }
        if (i == n)
            break;
        done[i] = 1;
        place[i] = (int)k;
        sorted[k++] = s->stage[i];
    }
    if (k < n) {
        size_t i = 0;

        while (done[i])
            i++;
        report_cycle(r, done, i);
        return;
    }
    for (size_t i = 0; i < n; i++)
        for (int j = 0; j < sorted[i].n_needs; j++)
            sorted[i].needs[j] = place[sorted[i].needs[j]];
    s->stage = sorted;
}

void spec_read_stages(struct reading *r)
{
    struct spec *s = r->s;
    const struct node *map = r->keys.stages;
    int before, unknown = 0;

    if (!map || (map->kind == NODE_MAP && !map->n)) {
        problems_add(r->p, map ? map : s->root, "stages: {sft: {epochs: 3}}",
                     "\"stages\" is missing");
        return;
    }
    if (map->kind != NODE_MAP) {
        problems_add(r->p, map, "stages: {sft: {epochs: 3}}",
                     "\"stages\" must be a map from stage to its options");
        return;
    }
    if (map->n > STAGES_MAX) {
        problems_add(r->p, map, NULL, "more than %d stages", STAGES_MAX);
        return;
    }
    s->stage = arena_array(&s->arena, map->n + 1, sizeof *s->stage);
    if (!s->stage) {
        problems_add(r->p, NULL, NULL, "out of memory");
        return;
    }
    for (const struct node *n = map->child; n; n = n->next) {
        const struct stage *stage = stage_find(n->key, (enum task_kind)s->task.kind);

        if (stage) {
            read_stage(r, &s->stage[s->n_stages++], stage, n);
        } else {
            unknown_stage(r, n);
            unknown++;
        }
    }
    before = r->p->errors - unknown;
    for (size_t i = 0; i < s->n_stages; i++)
        resolve_needs(r, &s->stage[i]);
    sort_stages(r);
    /* Rules across stages would only repeat what is wrong with their names. */
    if (r->p->errors > before)
        return;
    for (size_t i = 0; i < s->n_stages; i++)
        if (s->stage[i].stage->check)
            s->stage[i].stage->check(s->stage[i].config, s, &s->stage[i], r->p);
}
