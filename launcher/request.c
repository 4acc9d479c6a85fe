/* A submit from a command line: see request.h. */
#include "launcher/request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

static int absolute(const char *what, const char *path, char *out, struct err *e)
{
    char cwd[FILE_PATH_MAX];

    if (str_utf8_valid(path, strlen(path)) != strlen(path))
        return err_set(e, ERR_USAGE, "%s: the path is not UTF-8", what);
    if (!*path)
        return err_set(e, ERR_USAGE, "%s: the path is empty", what);
    if (!getcwd(cwd, sizeof cwd))
        return err_errno(e, ERR_FAILED, errno, "current folder");
    return file_join(out, FILE_PATH_MAX, cwd, path, e);
}

static int split_stages(struct request *r, const char *stages, struct err *e)
{
    char *s;

    if (!stages)
        return 0;
    r->stage_text = s = mem_strdup(stages);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (char *name; (name = strsep(&s, ","));) {
        if (!*name || r->n_stages == ARGS_LIST_MAX) {
            err_set(e, ERR_USAGE, "--stages: \"%s\" is no list of stages", stages);
            return err_mend(e, "--stages sft,rm");
        }
        r->stage[r->n_stages++] = name;
    }
    return 0;
}

int request_make(struct request *r, const char *file, const char *out, const char *stages,
                 const struct arg_list *set, int resume, struct err *e)
{
    int rc = absolute("job file", file, r->file, e);

    r->out[0] = '\0';
    r->n_stages = 0;
    r->stage_text = NULL;
    r->set = set;
    r->resume = resume;
    if (!rc && out)
        rc = absolute("--out", out, r->out, e);
    for (int i = 0; !rc && i < set->n; i++) {
        const char *s = set->item[i];

        if (str_utf8_valid(s, strlen(s)) != strlen(s))
            rc = err_set(e, ERR_USAGE, "--set: the text is not UTF-8");
    }
    return rc ? rc : split_stages(r, stages, e);
}

void request_fini(struct request *r)
{
    mem_free(r->stage_text);
    r->stage_text = NULL;
}

void request_message(struct request *r, Hone__V1__SubmitRequest *m)
{
    m->file = r->file;
    m->set = (char **)(uintptr_t)r->set->item;
    m->n_set = (size_t)r->set->n;
    m->out = r->out[0] ? r->out : NULL;
    m->stages = r->stage;
    m->n_stages = r->n_stages;
    m->has_resume = 1;
    m->resume = r->resume;
}

void request_print_problem(const Hone__V1__Problem *p)
{
    fprintf(stderr, "hone: %s%s%s%s\n", p->has_warning && p->warning ? "warning: " : "",
            p->where ? p->where : "", p->where && *p->where ? ": " : "", p->message);
    if (p->mend && *p->mend)
        fprintf(stderr, "  try: %s\n", p->mend);
}
