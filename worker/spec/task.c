/* The `task` section: labels, the wording of candidates, the preference order. */
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "worker/data/prefer.h"
#include "worker/spec/internal.h"

enum { LABELS_MAX = 1000, LABEL_BYTES_MAX = 500 };

static void check_labels(struct reading *r)
{
    const struct opt_list *l = &r->s->task.labels;
    const struct node *list = node_get(r->keys.task, "labels");
    const struct node *at = list && list->kind == NODE_LIST ? list->child : list;

    if (!l->n) {
        problems_add(r->p,
                     list           ? list
                     : r->keys.task ? r->keys.task
                                    : r->s->root,
                     "task: {labels: [negative, positive]}", "\"task.labels\" is missing");
        return;
    }
    if (l->n < 2 || l->n > LABELS_MAX) {
        problems_add(r->p, list, NULL, "\"labels\" holds %zu names, needed are 2 to %d",
                     l->n, LABELS_MAX);
        return;
    }
    for (size_t i = 0; i < l->n; i++, at = at ? at->next : NULL) {
        if (!*l->text[i] && at && at->kind == NODE_SCALAR && !node_is_null(at))
            problems_add(r->p, at, NULL, "label %zu is empty", i);
        if (strlen(l->text[i]) > LABEL_BYTES_MAX)
            problems_add(r->p, at, NULL, "label %zu is longer than %d bytes", i,
                         LABEL_BYTES_MAX);
        for (size_t j = 0; j < i; j++)
            if (*l->text[i] && !strcmp(l->text[i], l->text[j]))
                problems_add(r->p, at, NULL, "label \"%s\" is given twice, as %zu and %zu",
                             l->text[i], j, i);
    }
}

static const char *fill_in(struct reading *r, const char *template, const char *label)
{
    struct str s = {0};
    const char *hole, *text;

    while ((hole = strstr(template, "{label}"))) {
        str_add_bytes(&s, template, (size_t)(hole - template));
        str_add(&s, label);
        template = hole + strlen("{label}");
    }
    str_add(&s, template);
    text = str_failed(&s) ? NULL : arena_strdup(&r->s->arena, str_get(&s));
    str_fini(&s);
    return text;
}

static void make_candidates(struct reading *r)
{
    struct task_spec *t = &r->s->task;

    if (!strstr(t->candidate, "{label}")) {
        problems_add(r->p, node_get(r->keys.task, "candidate"),
                     "candidate: \"Prediction: the sentence is {label}\"",
                     "\"candidate\" has no {label} in it: all candidates would be equal");
        return;
    }
    t->candidate_text =
        arena_array(&r->s->arena, t->labels.n + 1, sizeof *t->candidate_text);
    for (size_t i = 0; t->candidate_text && i < t->labels.n; i++) {
        t->candidate_text[i] = fill_in(r, t->candidate, t->labels.text[i]);
        if (!t->candidate_text[i])
            t->candidate_text = NULL;
    }
    if (!t->candidate_text)
        problems_add(r->p, NULL, NULL, "out of memory");
}

static void check_matrix(struct reading *r, const struct node *at, const char *path)
{
    size_t K = r->s->task.labels.n;
    struct err e = {0};
    double *distance;

    if (K < 2 || K > LABELS_MAX)
        return;
    distance = mem_array(K * K, sizeof *distance);
    if (!distance)
        problems_add(r->p, NULL, NULL, "out of memory");
    else if (prefer_read_matrix(path, (int)K, distance, &e))
        problems_add(r->p, at, e.mend, "%s", e.msg);
    mem_free(distance);
}

static void read_order(struct reading *r)
{
    static const char *const words[] = {"ordinal", "embedding", NULL};
    struct task_spec *t = &r->s->task;
    const struct node *at = node_get(r->keys.task, "order");
    const char *near = str_nearest(t->order_text, words);
    char path[FILE_PATH_MAX];
    struct err e = {0};

    if (!strcmp(t->order_text, "ordinal")) {
        t->order = ORDER_ORDINAL;
        return;
    }
    if (!strcmp(t->order_text, "embedding")) {
        t->order = ORDER_EMBEDDING;
        return;
    }
    t->order = ORDER_MATRIX;
    if (file_join(path, sizeof path, r->s->folder, t->order_text, &e)) {
        problems_add(r->p, at, NULL, "%s", e.msg);
        return;
    }
    if (!file_exists(path)) {
        struct str mend = {0};

        if (near)
            str_addf(&mend, "did you mean \"%s\"?", near);
        problems_add(r->p, at, str_get(&mend),
                     "\"order\" must be ordinal, embedding, or the path of a K x K matrix, "
                     "found \"%.200s\"",
                     t->order_text);
        str_fini(&mend);
        return;
    }
    if (spec_check_file(r->p, at, path))
        return;
    check_matrix(r, at, path);
    t->order_text = arena_strdup(&r->s->arena, path);
    if (!t->order_text)
        problems_add(r->p, NULL, NULL, "out of memory");
}

/* What only the other kind of task has. */
static void refuse_key(struct reading *r, const char *key)
{
    enum task_kind kind = (enum task_kind)r->s->task.kind;

    problems_add(r->p, node_get(r->keys.task, key),
                 kind == TASK_CLASSIFY ? "task: {kind: generate}" : "leave it out",
                 "\"%s\" means nothing in a task of kind %s", key, task_kind_names[kind]);
}

static void read_generate(struct reading *r)
{
    const struct task_spec *t = &r->s->task;
    const char *hole = t->template ? strstr(t->template, "{prompt}") : NULL;

    if (t->labels.n)
        refuse_key(r, "labels");
    if (t->prefix)
        refuse_key(r, "prefix");
    if (t->template && (!hole || strstr(hole + 1, "{prompt}")))
        problems_add(r->p, node_get(r->keys.task, "template"),
                     "template: \"Question: {prompt} Answer: \"",
                     "\"template\" must have one {prompt} in it");
}

void spec_read_task(struct reading *r)
{
    struct task_spec *t = &r->s->task;

    opt_defaults(task_options, t);
    opt_apply(task_options, t, r->keys.task, r->s->folder, NULL, &r->s->arena, r->p);
    if (t->kind == TASK_GENERATE) {
        read_generate(r);
        return;
    }
    if (t->template)
        refuse_key(r, "template");
    check_labels(r);
    make_candidates(r);
    read_order(r);
}
