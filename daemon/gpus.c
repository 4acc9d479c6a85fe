/* GPUs by number: see gpus.h. */
#include "daemon/gpus.h"

#include <ctype.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static int read_list(const char *text, struct cores *out)
{
    char *end;

    for (const char *p = text; *p; p = *end ? end + 1 : end) {
        long i = strtol(p, &end, 10);

        if (!isdigit((unsigned char)*p) || (*end && *end != ',') || (*end && !end[1]) ||
            i < 0 || i >= CORES_MAX || cores_has(out, (int)i))
            return -1;
        cores_add(out, (int)i);
    }
    return 0;
}

int gpus_parse(const char *text, struct cores *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    if (!strcmp(text, "none") || (*text && !read_list(text, out)))
        return 0;
    memset(out, 0, sizeof *out);
    err_set(e, ERR_USAGE, "--gpus: \"%.100s\" is no list of GPUs", text);
    return err_mend(e, "--gpus 0,1,2,3 (numbers as nvidia-smi shows them), or --gpus none");
}

void gpus_find(const char *visible, const char *proc, struct cores *out)
{
    struct dirent *entry;
    DIR *dir;
    int n = 0;

    memset(out, 0, sizeof *out);
    if (visible) {
        if (read_list(visible, out))
            memset(out, 0, sizeof *out);
        return;
    }
    dir = opendir(proc);
    if (!dir)
        return; /* no driver */
    while ((entry = readdir(dir)) && n < CORES_MAX)
        if (entry->d_name[0] != '.')
            cores_add(out, n++);
    closedir(dir);
}
