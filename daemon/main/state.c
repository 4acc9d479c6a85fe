/* honed backup and honed verify: the store of a daemon, also of one that runs. */
#include <stdio.h>

#include "base/file.h"
#include "daemon/main/commands.h"
#include "daemon/store/store.h"

struct options {
    struct arg_list words;
    const char *state;
};

static const struct arg_flag flags[] = {
    ARG_VALUE("--state", "DIR", "folder of the daemon's state", struct options, state),
    ARG_END};

static int open_store(const struct options *o, struct store **s, struct err *e)
{
    char dir[FILE_PATH_MAX];
    int rc = state_folder(o->state, dir, sizeof dir, e);

    return rc ? rc : store_open(s, dir, STORE_READ, e);
}

int backup_main(int argc, char **argv, struct err *e)
{
    static const struct arg_spec spec = {
        "honed backup",
        "FILE [--state DIR]",
        "Copies the jobs of a daemon into a new file, while it runs.",
        flags,
        1,
        1,
        offsetof(struct options, words)};
    struct options o = {0};
    struct store *s = NULL;
    int rc = args_parse(&spec, argc, argv, &o, e);

    if (!rc && file_exists(o.words.item[0]))
        rc = err_set(e, ERR_CONFIG, "%s is there already", o.words.item[0]);
    if (!rc)
        rc = open_store(&o, &s, e);
    if (!rc)
        rc = store_backup(s, o.words.item[0], e);
    store_close(s);
    return rc;
}

int verify_main(int argc, char **argv, struct err *e)
{
    static const struct arg_spec spec = {"honed verify",
                                         "[--state DIR]",
                                         "Checks the file with a daemon's jobs.",
                                         flags,
                                         0,
                                         0,
                                         0};
    struct options o = {0};
    struct store *s = NULL;
    int rc = args_parse(&spec, argc, argv, &o, e);

    if (!rc)
        rc = open_store(&o, &s, e);
    if (!rc)
        rc = store_verify(s, e);
    if (!rc)
        printf("ok\n");
    store_close(s);
    return rc;
}
