/* GPUs by number: see gpus.h. */
#include "daemon/gpus.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/machine.h"

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
    struct machine_gpu found[MACHINE_GPUS_MAX];
    size_t n;

    memset(out, 0, sizeof *out);
    if (visible) {
        if (read_list(visible, out))
            memset(out, 0, sizeof *out);
        return;
    }
    n = machine_gpus(proc, found, MACHINE_GPUS_MAX); /* 0: no driver */
    for (size_t i = 0; i < n; i++)
        cores_add(out, (int)i);
}
