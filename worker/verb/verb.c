#include "worker/verb/verb.h"

#include <string.h>

#include "base/args.h"

const struct verb verbs[] = {
    {"check", verb_check, "check a job file and show its plan"},
    {"data", verb_data, "show, export or rank the data of a job"},
    {"doctor", verb_doctor, "what this machine offers, and how fast it is"},
    {"eval", verb_eval, "measure a model on a file"},
    {"predict", verb_predict, "labels for texts"},
    {"tokenize", verb_tokenize, "token ids of texts"},
    {"verify", verb_verify, "compare with numbers recorded from PyTorch"},
    {NULL, NULL, NULL},
};

const struct verb *verb_find(const char *name)
{
    for (const struct verb *v = verbs; v->name; v++)
        if (!strcmp(v->name, name))
            return v;
    return NULL;
}

int verb_result(int rc, const struct err *e)
{
    if (rc == ARGS_HELP || rc == 0)
        return 0;
    err_print(e, "hone");
    return err_exit_status(rc);
}
