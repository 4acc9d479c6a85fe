/* Reading a job: file -> tree -> option tables -> checks across sections.
 *
 * Every section is read even when another is wrong, so that one run of `hone check` shows
 * every problem. Paths are joined to the job file's folder and thereby absolute. */
#include "worker/spec/spec.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "worker/model/model.h"
#include "worker/spec/internal.h"
#include "worker/stage/stage.h"

int spec_check_file(struct problems *p, const struct node *at, const char *path)
{
    long long size = file_size(path);

    if (size < 0)
        problems_add(p, at,
                     errno == ENOENT ? "check the path; it is relative to the job file"
                                     : NULL,
                     "%s: %s", path, strerror(errno));
    else if (file_is_dir(path))
        problems_add(p, at, "name a file in it", "%s: is a directory, a file is needed",
                     path);
    else if (size == 0)
        problems_add(p, at, NULL, "%s: the file is empty", path);
    else if (access(path, R_OK))
        problems_add(p, at, "check the owner and the permissions", "%s: %s", path,
                     strerror(errno));
    else
        return 0;
    return -1;
}

static void read_name(struct reading *r)
{
    const struct node *at = node_get(r->s->root, "name");
    char base[128];
    char *dot;
    size_t n;

    if (r->keys.name) {
        n = strlen(r->keys.name);
        r->s->name = r->keys.name;
        for (size_t i = 0; i < n; i++)
            if (!isalnum((unsigned char)r->keys.name[i]) &&
                !strchr("._-", r->keys.name[i])) {
                problems_add(r->p, at, "use letters, digits, '.', '_' and '-'",
                             "\"name\" becomes part of a folder's name: \"%.100s\"",
                             r->keys.name);
                return;
            }
        if (n == 0 || n > 64 || strchr(".-", r->keys.name[0]))
            problems_add(r->p, at, "use 1 to 64 characters, a letter or digit first",
                         "\"name\" becomes part of a folder's name: \"%.100s\"",
                         r->keys.name);
        return;
    }
    snprintf(base, sizeof base, "%.64s", file_basename(r->s->file));
    dot = strrchr(base, '.');
    if (dot && dot > base)
        *dot = '\0';
    for (char *c = base; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
            *c = '-';
    if (strchr(".-", base[0]))
        base[0] = 'j';
    r->s->name = arena_strdup(&r->s->arena, base);
    if (!r->s->name)
        problems_add(r->p, NULL, NULL, "out of memory");
}

/* Which programs there are, the daemon that takes the job knows. */
static void read_notify(struct reading *r)
{
    const char *name = r->keys.notify;

    r->s->notify = name;
    if (name && (!*name || *name == '.' || strchr(name, '/') || strlen(name) > 100))
        problems_add(r->p, node_get(r->s->root, "notify"),
                     "give its name alone: it lies in the notify folder of honed",
                     "\"notify\" is no name of a program: \"%.100s\"", name);
}

static void read_model(struct reading *r, struct model_info *info, int *known)
{
    const struct node *at = node_get(r->s->root, "model");
    struct err e = {0};

    r->s->model = r->keys.model;
    if (!r->keys.model) {
        if (!at || node_is_null(at))
            problems_add(r->p, r->s->root,
                         "model: path of a Hugging Face checkpoint folder",
                         "\"model\" is missing");
        return;
    }
    if (!file_exists(r->keys.model)) {
        problems_add(r->p, at, "check the path; it is relative to the job file", "%s: %s",
                     r->keys.model, strerror(errno));
        return;
    }
    if (!file_is_dir(r->keys.model)) {
        problems_add(r->p, at, "name the folder that holds config.json",
                     "%s: is a file, a folder is needed", r->keys.model);
        return;
    }
    if (model_read_info(r->keys.model, info, &e))
        problems_add(r->p, at, e.mend, "%s", e.msg);
    else
        *known = 1;
}

/* All the files of one key of the data section. */
static void check_files(struct reading *r, const char *key, const struct opt_list *l)
{
    const struct node *n = node_get(r->keys.data, key);
    const struct node *at = n && n->kind == NODE_LIST ? n->child : n;

    for (size_t i = 0; i < l->n; i++) {
        if (*l->text[i]) /* "": a problem is known already */
            spec_check_file(r->p, at, l->text[i]);
        if (at && n->kind == NODE_LIST)
            at = at->next;
    }
}

static void read_data(struct reading *r, const struct model_info *info, int known)
{
    struct data_spec *d = &r->s->data;
    const struct node *at = node_get(r->keys.data, "max_tokens");
    char mend[80];
    int before;

    opt_defaults(data_options, d);
    if (!r->keys.data) {
        problems_add(r->p, r->s->root, "data: {train: FILE, validation: FILE, test: FILE}",
                     "\"data\" is missing");
        return;
    }
    before = r->p->errors;
    opt_apply(data_options, d, r->keys.data, r->s->folder, NULL, &r->s->arena, r->p);
    known &= r->p->errors == before;
    data_resolve(d, r->keys.data, r->s->task.kind == TASK_GENERATE, &r->s->arena, r->p);
    check_files(r, "train", &d->train);
    check_files(r, "validation", &d->validation);
    check_files(r, "test", &d->test);
    check_files(r, "file", &d->file);
    if (!known || !info->positions || d->max_tokens <= info->positions)
        return;
    snprintf(mend, sizeof mend, "set data.max_tokens to at most %ld", info->positions);
    problems_add(r->p, at ? at : r->keys.data, mend,
                 "\"max_tokens\" is %ld, beyond the model's %ld positions", d->max_tokens,
                 info->positions);
}

const char *spec_device(const struct spec *s)
{
    static const char *const names[] = {"auto", "cpu", "cuda"};

    return names[s->resources.device];
}

void spec_place(const struct spec *s, const struct node *at, char out[FILE_PATH_MAX])
{
    if (at && at->line)
        snprintf(out, FILE_PATH_MAX, "%s:%d:%d", s->file, at->line, at->column);
    else
        snprintf(out, FILE_PATH_MAX, "%s", s->file);
}

/* fp16 is another word for f16. What the device has no units for is right, and slow. */
static void read_precision(struct reading *r)
{
    const struct backend *b = backend_find(spec_device(r->s));
    const struct node *at = node_get(r->keys.resources, "precision");
    int *asked = &r->s->resources.precision;
    char where[FILE_PATH_MAX];

    if (*asked == ASK_FP16)
        *asked = ASK_F16;
    if (!b || !b->devices())
        return;
    spec_place(r->s, at, where);
    if ((*asked == ASK_BF16 && !b->bf16()) || (*asked == ASK_F16 && !b->f16()))
        problems_warn(r->p, where, "precision: auto",
                      "nothing here multiplies %s numbers: they are rounded and multiplied "
                      "in f32, which is slower than f32",
                      *asked == ASK_F16 ? "f16" : "bf16");
    if (*asked == ASK_TF32 && strcmp(b->name, "cuda") != 0)
        problems_warn(r->p, where, "precision: auto",
                      "only GPUs have tf32: matrix products are done in f32 here");
}

static void read_resources(struct reading *r)
{
    struct resources *o = &r->s->resources;
    const struct node *at = r->keys.resources;

    opt_defaults(resource_options, o);
    opt_apply(resource_options, o, at, r->s->folder, NULL, &r->s->arena, r->p);
    read_precision(r);
    spec_check_slurm(r);
}

/* What the stages ask of the splits. */
static void check_splits(struct reading *r)
{
    const struct data_spec *d = &r->s->data;
    int trains = 0;

    if (!r->keys.data)
        return;
    for (size_t i = 0; i < r->s->n_stages; i++) {
        const struct stage_spec *st = &r->s->stage[i];

        if (!st->stage->loss)
            continue;
        trains = 1;
        if (d->validation.n || (d->file.n && d->validation_share > 0))
            continue;
        if (st->common.select == SELECT_BEST)
            problems_add(r->p, st->node,
                         "give data.validation or data.split, or set select: last",
                         "stage %s selects its best checkpoint, and there is no validation "
                         "split",
                         st->name);
        if (st->common.stop_metric)
            problems_add(r->p, st->node, "give data.validation or data.split",
                         "stage %s stops by a metric, and there is no validation split",
                         st->name);
    }
    if (trains && !d->train.n && !d->file.n)
        problems_add(r->p, r->keys.data, "data: {train: FILE}, or {file: FILE, split: ...}",
                     "no training rows: neither \"train\" nor \"file\" is given");
}

void spec_check_rows(const struct spec *s, const size_t rows[SPLITS], struct problems *p)
{
    int trains = 0, selects = 0;

    for (size_t i = 0; i < s->n_stages; i++)
        if (s->stage[i].stage->loss) {
            trains = 1;
            selects |=
                s->stage[i].common.select == SELECT_BEST || s->stage[i].common.stop_metric;
        }
    if (trains && !rows[SPLIT_TRAIN])
        problems_add(p, node_get(s->root, "data"), "check the files and \"split\"",
                     "the training split has no rows");
    if (selects && !rows[SPLIT_VALIDATION])
        problems_add(
            p, node_get(s->root, "data"),
            "give it rows, or set select: last in every stage",
            "the validation split has no rows, and the best checkpoint is selected "
            "by it");
}

static int find_folder(struct spec *s, const char *path, struct err *e)
{
    char dir[FILE_PATH_MAX], *real;

    file_dirname(dir, sizeof dir, path);
    real = realpath(dir, NULL);
    if (!real)
        return err_errno(e, ERR_CONFIG, errno, "%s", dir);
    s->folder = arena_strdup(&s->arena, real);
    s->file = arena_strdup(&s->arena, path);
    free(real);
    if (!s->folder || !s->file)
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    return 0;
}

/* Text to tree, with the overrides; a failure here hides everything else. */
static int read_tree(struct spec *s, const char *path, const char *const *set,
                     struct problems *p, struct err *e)
{
    struct node *root = NULL;
    int rc = find_folder(s, path, e);

    if (!rc)
        rc = node_read(&s->arena, path, &root, e);
    for (; !rc && set && *set; set++)
        rc = node_set(&s->arena, root, *set, e);
    if (rc)
        problems_add_at(p, "", e->mend, "%s", e->msg);
    s->root = root;
    return rc;
}

int spec_read(struct spec *s, const char *path, const char *const *set, struct problems *p,
              struct err *e)
{
    struct reading r = {.s = s, .p = p};
    struct model_info info = {0};
    int rc, known = 0;

    memset(s, 0, sizeof *s);
    rc = read_tree(s, path, set, p, e);
    if (rc)
        return rc;
    p->file = s->file;
    opt_defaults(job_options, &r.keys);
    opt_apply(job_options, &r.keys, s->root, s->folder, NULL, &s->arena, p);
    if (s->root->kind != NODE_MAP && p->errors)
        return problems_result(p, e);
    s->seed = r.keys.seed;
    s->seeds = r.keys.seeds;
    read_name(&r);
    read_notify(&r);
    read_model(&r, &info, &known);
    spec_read_task(&r);
    read_data(&r, &info, known);
    read_resources(&r);
    opt_defaults(save_options, &s->save);
    opt_apply(save_options, &s->save, r.keys.save, s->folder, NULL, &s->arena, p);
    spec_read_stages(&r);
    check_splits(&r);
    return problems_result(p, e);
}

void spec_fini(struct spec *s)
{
    arena_fini(&s->arena);
    memset(s, 0, sizeof *s);
}

struct stage_spec *spec_find_stage(struct spec *s, const char *name)
{
    for (size_t i = 0; i < s->n_stages; i++)
        if (!strcmp(s->stage[i].name, name))
            return &s->stage[i];
    return NULL;
}

int spec_find_need(const struct spec *s, const struct stage_spec *st, const char *algorithm)
{
    for (int i = 0; i < st->n_needs; i++)
        if (!strcmp(s->stage[st->needs[i]].stage->name, algorithm))
            return i;
    return -1;
}

const char *spec_select_metric(const struct stage_spec *s)
{
    return s->common.select_metric >= 0 ? spec_metric_names[s->common.select_metric]
                                        : s->stage->default_metric;
}

const struct stage *stage_find(const char *name, enum task_kind kind)
{
    for (const struct stage *const *s = stage_registry; *s; s++)
        if (!strcmp((*s)->name, name) && (*s)->kind == kind)
            return *s;
    return NULL;
}
