/* honed token: credentials of those who come over the network (daemon/auth.h). The token is
 * printed once, alone on standard output, and is not kept anywhere. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/auth.h"
#include "daemon/main/commands.h"

struct options {
    const char *state, *role;
    int json;
    struct arg_list words;
};

static const struct arg_flag flags[] = {
    ARG_VALUE("--role", "viewer|operator|admin", "what they may do (viewer)",
              struct options, role),
    ARG_VALUE("--state", "DIR", "folder of the daemon's state", struct options, state),
    ARG_SWITCH("--json", "list: one JSON document", struct options, json), ARG_END};

static const struct arg_spec spec = {
    "honed token",
    "add NAME [--role ROLE] | list | revoke NAME|ID  [--state DIR]",
    "Tokens and certificates that let people in over the network.\n\n"
    "  add NAME        makes a token and prints it; it cannot be shown again\n"
    "  list            names, roles and ids of tokens and certificates\n"
    "  revoke NAME|ID  they are refused from now on, also on open connections\n\n"
    "Viewers look, operators submit and steer their own jobs, admins steer every job.\n"
    "A running honed needs no restart.",
    flags,
    1,
    2,
    offsetof(struct options, words)};

static int add(const struct options *o, const char *state, struct err *e)
{
    enum access_role role = ACCESS_VIEWER;
    char token[AUTH_TOKEN_SIZE];
    int rc;

    if (o->role && access_role_parse(o->role, &role)) {
        err_set(e, ERR_USAGE, "--role: there is no role \"%.50s\"", o->role);
        return err_mend(e, "viewer, operator or admin");
    }
    rc = file_make_dirs(state, e);
    if (!rc)
        rc = auth_add_token(state, o->words.item[1], role, token, e);
    if (rc)
        return rc;
    printf("%s\n", token);
    fprintf(stderr,
            "token of %s (%s); it is not shown again. Keep it in a file of mode 0600, and "
            "name the file in ~/.config/hone/config.yaml\n",
            o->words.item[1], access_role_name(role));
    return 0;
}

static void print_list(const struct auth_entry *list, size_t n, int json)
{
    struct str out = {0};
    char made[32];

    if (json)
        str_add_char(&out, '[');
    else if (n)
        str_addf(&out, "%-8s  %-11s  %-8s  %-20s  %s\n", "ID", "KIND", "ROLE", "MADE",
                 "NAME");
    for (size_t i = 0; i < n; i++) {
        const char *kind = auth_kind_name(list[i].kind);
        const char *role = access_role_name(list[i].role);

        clock_iso(made, sizeof made, list[i].made);
        if (json)
            str_addf(&out,
                     "%s{\"id\": \"%.8s\", \"kind\": \"%s\", \"role\": \"%s\", \"made\": "
                     "\"%s\", \"name\": \"%s\"}",
                     i ? ", " : "", list[i].hash, kind, role, made, list[i].name);
        else
            str_addf(&out, "%.8s  %-11s  %-8s  %-20s  %s\n", list[i].hash, kind, role, made,
                     list[i].name);
    }
    if (json)
        str_add(&out, "]\n");
    fputs(str_get(&out), stdout);
    if (!json && !n)
        fprintf(stderr, "nobody may come over the network\n  try: honed token add NAME "
                        "--role operator\n");
    str_fini(&out);
}

static int list_all(const struct options *o, const char *state, struct err *e)
{
    struct auth_entry *list;
    size_t n;
    int rc = auth_list(state, &list, &n, e);

    if (!rc)
        print_list(list, n, o->json);
    mem_free(list);
    return rc;
}

static int revoke(const struct options *o, const char *state, struct err *e)
{
    size_t n;
    int rc = auth_revoke(state, o->words.item[1], &n, e);

    if (!rc && !n) {
        err_set(e, ERR_CONFIG, "no credential has the name or id \"%.100s\"",
                o->words.item[1]);
        return err_mend(e, "honed token list");
    }
    if (!rc)
        fprintf(stderr, "revoked: %zu\n", n);
    return rc;
}

int token_main(int argc, char **argv, struct err *e)
{
    static const struct {
        const char *name;
        int words;
        int (*run)(const struct options *o, const char *state, struct err *e);
    } verbs[] = {{"add", 2, add}, {"list", 1, list_all}, {"revoke", 2, revoke}};
    struct options o = {0};
    char state[FILE_PATH_MAX];
    int rc = args_parse(&spec, argc, argv, &o, e);

    if (rc)
        return rc;
    rc = state_folder(o.state, state, sizeof state, e);
    for (size_t i = 0; !rc && i < sizeof verbs / sizeof *verbs; i++)
        if (!strcmp(o.words.item[0], verbs[i].name) && o.words.n == verbs[i].words)
            return verbs[i].run(&o, state, e);
    if (rc)
        return rc;
    err_set(e, ERR_USAGE, "honed token %.50s: that is not how it goes", o.words.item[0]);
    return err_mend(e, "honed token %s", spec.usage);
}
