/* The daemon's machine: see machine.h. What cannot be read is not known, never an error. */
#include "daemon/machine.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

void machine_cores(struct cores *out)
{
    cpu_set_t set;

    if (!sched_getaffinity(0, sizeof set, &set))
        for (int i = 0; i < CPU_SETSIZE && i < CORES_MAX; i++)
            if (CPU_ISSET(i, &set))
                cores_add(out, i);
    if (!cores_count(out))
        cores_add(out, 0);
}

/* Files that the kernel makes up say a length of 0. -1: there is none. */
static int read_made_up(const char *path, char *out, size_t size)
{
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(out, 1, size - 1, f) : 0;

    if (f)
        fclose(f);
    out[n] = '\0';
    return f ? 0 : -1;
}

/* The rest of the line that begins with `key`, without blanks; "": there is none. */
static void find_line(const char *text, const char *key, char *out, size_t n)
{
    *out = '\0';
    for (const char *s = text; *s; s += strcspn(s, "\n"), s += *s == '\n') {
        if (!str_starts(s, key))
            continue;
        s += strlen(key);
        s += strspn(s, " \t");
        snprintf(out, n, "%.*s", (int)strcspn(s, "\n"), s);
        return;
    }
}

uint64_t machine_limit(const char *root, const char *group)
{
    char path[FILE_PATH_MAX], at[FILE_PATH_MAX], text[64];
    uint64_t least = 0;
    long limit;

    if (snprintf(at, sizeof at, "%s", group) >= (int)sizeof at)
        return 0;
    for (;;) {
        if (snprintf(path, sizeof path, "%s%s/memory.max", root, at) < (int)sizeof path &&
            !read_made_up(path, text, sizeof text)) {
            text[strcspn(text, "\n")] = '\0';
            if (!str_to_long(text, &limit) && limit > 0 &&
                (!least || (uint64_t)limit < least))
                least = (uint64_t)limit;
        }
        if (!*at)
            return least;
        *(strrchr(at, '/') ? strrchr(at, '/') : at) = '\0';
    }
}

uint64_t machine_memory(void)
{
    uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    char text[4096], group[FILE_PATH_MAX] = "";
    uint64_t limit;

    if (!read_made_up("/proc/self/cgroup", text, sizeof text))
        find_line(text, "0::", group, sizeof group);
    limit = machine_limit("/sys/fs/cgroup", group);
    return limit && limit < bytes ? limit : bytes;
}

uint64_t machine_free(void)
{
    char text[4096], value[64];

    if (read_made_up("/proc/meminfo", text, sizeof text))
        return 0;
    find_line(text, "MemAvailable:", value, sizeof value);
    return (uint64_t)strtoull(value, NULL, 10) * 1024;
}

double machine_load(void)
{
    double load;

    return getloadavg(&load, 1) == 1 ? load : -1;
}

static void read_gpu(const char *folder, const char *name, struct machine_gpu *out)
{
    char path[FILE_PATH_MAX], text[4096];

    out->name[0] = '\0';
    if (snprintf(path, sizeof path, "%s/%s/information", folder, name) < (int)sizeof path &&
        !read_made_up(path, text, sizeof text))
        find_line(text, "Model:", out->name, sizeof out->name);
}

size_t machine_gpus(const char *folder, struct machine_gpu *out, size_t most)
{
    size_t n = 0, found = 0;
    char **names;
    struct err e;

    if (file_list(folder, &names, &n, &e)) /* sorted: the order of the bus */
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (found < most &&
            strspn(names[i], "0123456789abcdefABCDEF:.") == strlen(names[i]))
            read_gpu(folder, names[i], &out[found++]);
        mem_free(names[i]);
    }
    mem_free(names);
    return found;
}
