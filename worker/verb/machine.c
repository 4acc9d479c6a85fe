/* What this machine offers, from /proc, /sys and the PATH.
 *
 * Limits of control groups hold for a group and all above it: the smallest counts. Version
 * 2 has one tree (cpu.max, memory.max), version 1 one for each controller; in a container
 * the path may name a folder that is not mounted: then the top alone is read.
 *
 * Nothing here fails: a file that is absent or makes no sense leaves its fact unknown. */
#include <dlfcn.h>
#include <glob.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "worker/verb/doctor.h"

enum { FILE_BYTES_MAX = 8 << 20, CHUNK = 1 << 15, VERSION_MS = 2000 };

/* The file's text (mem_alloc'ed), or NULL. Files of /proc say that they are empty: read
 * until the end. */
static char *slurp(const char *root, const char *path)
{
    char full[FILE_PATH_MAX], *text = NULL, *more;
    size_t n = 0, got;
    FILE *f;

    if (snprintf(full, sizeof full, "%s%s", root, path) >= (int)sizeof full)
        return NULL;
    f = fopen(full, "re");
    if (!f)
        return NULL;
    do {
        more = mem_resize(text, n + CHUNK + 1, 1);
        if (!more)
            break;
        text = more;
        got = fread(text + n, 1, CHUNK, f);
        n += got;
        text[n] = '\0';
    } while (got == CHUNK && n < FILE_BYTES_MAX);
    fclose(f);
    return text;
}

/* What follows "key <blanks> :" on the first such line at or after *at; moves *at behind
 * it. 0: there is none. */
static int field(const char **at, const char *key, char *out, size_t n)
{
    size_t k = strlen(key);

    for (const char *line = *at; line && *line; line = strchr(line, '\n')) {
        const char *s;
        size_t len;

        line += *line == '\n';
        if (strncmp(line, key, k))
            continue;
        s = line + k + strspn(line + k, " \t");
        if (*s++ != ':')
            continue;
        s += strspn(s, " \t");
        len = strcspn(s, "\n");
        *at = s + len;
        snprintf(out, n, "%.*s", (int)len, s);
        return 1;
    }
    return 0;
}

static double kilobytes(const char *text, const char *key)
{
    char value[64];
    const char *at = text;
    double kb = text && field(&at, key, value, sizeof value) ? strtod(value, NULL) : 0;

    return kb > 0 && kb < 1e15 ? kb * 1024 : 0;
}

/* ---- processors ---------------------------------------------------------------------- */

static int has_word(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *s = list; (s = strstr(s, word)); s += n)
        if ((s == list || s[-1] == ' ') && (s[n] == ' ' || !s[n]))
            return 1;
    return 0;
}

static void read_flags(struct machine *m, const char *list)
{
    static const struct {
        const char *flag, *name;
    } known[] = {{"avx2", "AVX2"},
                 {"fma", "FMA"},
                 {"f16c", "F16C"},
                 {"avx512f", "AVX-512"},
                 {"avx512_bf16", "AVX512_BF16"},
                 {"avx512_vnni", "AVX512_VNNI"},
                 {"amx_bf16", "AMX-BF16"}};
    int n = 0;

    for (size_t i = 0; i < sizeof known / sizeof *known && n < MACHINE_FLAGS_MAX; i++)
        if (has_word(list, known[i].flag))
            m->flag[n++] = known[i].name;
    m->fast = has_word(list, "avx2") && has_word(list, "fma");
}

/* Cores: different pairs of socket and core. */
static int count_cores(const char *text)
{
    enum { CORES_MAX = 4096 };
    static const char *const keys[] = {"physical id", "core id"};
    long *seen = mem_array(CORES_MAX, sizeof *seen);
    const char *at = text;
    char value[2][32];
    int n = 0;

    while (seen && n < CORES_MAX && field(&at, keys[0], value[0], sizeof value[0]) &&
           field(&at, keys[1], value[1], sizeof value[1])) {
        long id = strtol(value[0], NULL, 10) * 65536 + strtol(value[1], NULL, 10);
        int k = 0;

        while (k < n && seen[k] != id)
            k++;
        seen[n] = id;
        n += k == n;
    }
    mem_free(seen);
    return n;
}

static void read_cpu(struct machine *m, const char *root)
{
    char *text = slurp(root, "/proc/cpuinfo"), *load = slurp(root, "/proc/loadavg");
    char *list = mem_alloc(8192), value[32];
    const char *at = text;
    cpu_set_t set;

    if (text) {
        field(&at, "model name", m->cpu, sizeof m->cpu);
        at = text;
        if (list && field(&at, "flags", list, 8192))
            read_flags(m, list);
        for (at = text; field(&at, "processor", value, sizeof value);)
            m->logical++;
        m->cores = count_cores(text);
    }
    if (load)
        m->load = strtod(load, NULL);
    if (!(m->load >= 0 && m->load < 1e6))
        m->load = 0;
    if (!m->logical)
        m->logical = (int)sysconf(_SC_NPROCESSORS_ONLN);
    m->affinity = sched_getaffinity(0, sizeof set, &set) ? m->logical : CPU_COUNT(&set);
    mem_free(text);
    mem_free(load);
    mem_free(list);
}

int machine_usable(const struct machine *m)
{
    int n = m->affinity;

    if (m->quota > 0 && m->quota < n)
        n = (int)m->quota;
    return n < 1 ? 1 : n;
}

/* ---- control groups ------------------------------------------------------------------ */

static void lower(double *limit, double x)
{
    if (x > 0 && (*limit == 0 || x < *limit))
        *limit = x;
}

static double number_in(const char *root, const char *folder, const char *file)
{
    char path[FILE_PATH_MAX], *text;
    double x = 0;

    if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path)
        return 0;
    text = slurp(root, path);
    if (text)
        x = strtod(text, NULL); /* "max": 0 */
    mem_free(text);
    return x > 0 && x < 1e18 ? x : 0;
}

/* cpu.max: "max 100000" or "150000 100000". */
static double cpu_max(const char *root, const char *folder)
{
    char path[FILE_PATH_MAX], *text;
    double quota = 0, period = 0;

    if (snprintf(path, sizeof path, "%s/cpu.max", folder) >= (int)sizeof path)
        return 0;
    text = slurp(root, path);
    if (!text || sscanf(text, "%lf %lf", &quota, &period) != 2)
        quota = period = 0;
    mem_free(text);
    return quota > 0 && period > 0 ? quota / period : 0;
}

static void read_group(struct machine *m, const char *root, const char *folder)
{
    double period = number_in(root, folder, "cpu.cfs_period_us");

    lower(&m->quota, cpu_max(root, folder));
    if (period > 0)
        lower(&m->quota, number_in(root, folder, "cpu.cfs_quota_us") / period);
    lower(&m->memory_limit, number_in(root, folder, "memory.max"));
    lower(&m->memory_limit, number_in(root, folder, "memory.limit_in_bytes"));
}

/* A group and all above it, up to the mount point. */
static void read_groups(struct machine *m, const char *root, const char *mount,
                        const char *group)
{
    char folder[FILE_PATH_MAX], *slash;

    if (strstr(group, "..") ||
        snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder)
        return;
    for (;;) {
        double used = number_in(root, folder, "memory.current");

        if (!used)
            used = number_in(root, folder, "memory.usage_in_bytes");
        if (!m->memory_used)
            m->memory_used = used;
        read_group(m, root, folder);
        slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < strlen(mount))
            return;
        *slash = '\0';
    }
}

/* Lines "0::/path" (version 2) and "4:memory:/path". */
static void read_limits(struct machine *m, const char *root)
{
    char *text = slurp(root, "/proc/self/cgroup"), *save = NULL;

    for (char *line = strtok_r(text ? text : (char[]){""}, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char *kind = strchr(line, ':'), *path = kind ? strchr(kind + 1, ':') : NULL;
        char mount[128];

        if (!path)
            continue;
        *path++ = '\0';
        kind++;
        if (!*kind)
            snprintf(mount, sizeof mount, "/sys/fs/cgroup");
        else if (strstr(kind, "memory") || strstr(kind, "cpu"))
            snprintf(mount, sizeof mount, "/sys/fs/cgroup/%.80s", kind);
        else
            continue;
        read_groups(m, root, mount, path[0] == '/' && path[1] ? path : "");
    }
    mem_free(text);
    if (m->memory && m->memory_limit >= m->memory)
        m->memory_limit = 0;
}

/* ---- memory and disk ----------------------------------------------------------------- */

static void read_memory(struct machine *m, const char *root)
{
    char *text = slurp(root, "/proc/meminfo"), path[FILE_PATH_MAX];
    struct statvfs fs;

    m->memory = kilobytes(text, "MemTotal");
    m->available = kilobytes(text, "MemAvailable");
    mem_free(text);
    m->disk_free = (double)file_free_bytes(".");
    snprintf(path, sizeof path, "%s/dev/shm", root);
    if (!statvfs(path, &fs)) {
        m->shm = (double)fs.f_blocks * (double)fs.f_frsize;
        m->shm_free = (double)fs.f_bavail * (double)fs.f_frsize;
    }
}

/* ---- programs ------------------------------------------------------------------------ */

static int find_program(const char *name, char *out, size_t n)
{
    const char *path = getenv("PATH");

    for (size_t len; path && *path; path += len + (path[len] == ':')) {
        len = strcspn(path, ":");
        if (len && snprintf(out, n, "%.*s/%s", (int)len, path, name) < (int)n &&
            !access(out, X_OK))
            return 1;
    }
    *out = '\0';
    return 0;
}

/* The first line that `program --version` prints, within two seconds. */
static void ask_version(const char *program, char *out, size_t n)
{
    int fd[2], status;
    size_t len = 0;
    pid_t pid;

    *out = '\0';
    if (pipe(fd))
        return;
    pid = fork();
    if (pid == 0) {
        dup2(fd[1], STDOUT_FILENO);
        close(fd[0]);
        close(fd[1]);
        execl(program, program, "--version", (char *)NULL);
        _exit(127);
    }
    close(fd[1]);
    while (pid > 0 && len + 1 < n) {
        struct pollfd p = {.fd = fd[0], .events = POLLIN};
        ssize_t got =
            poll(&p, 1, VERSION_MS) == 1 ? read(fd[0], out + len, n - 1 - len) : 0;

        if (got <= 0)
            break;
        len += (size_t)got;
    }
    close(fd[0]);
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    out[len] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

static void read_programs(struct machine *m)
{
    const char *a = getenv("OMPI_ALLOW_RUN_AS_ROOT");
    const char *b = getenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM");
    char path[256];

    m->root = geteuid() == 0;
    m->mpi_root_allowed = a && b && !strcmp(a, "1") && !strcmp(b, "1");
    if (find_program("mpirun", m->mpirun, sizeof m->mpirun))
        ask_version(m->mpirun, m->mpi, sizeof m->mpi);
    m->open_mpi = strstr(m->mpi, "Open MPI") != NULL;
    m->slurm = find_program("sbatch", path, sizeof path);
    m->nccl = m->gpus && dlopen("libnccl.so.2", RTLD_LAZY | RTLD_LOCAL);
}

/* ---- GPUs ---------------------------------------------------------------------------- */

/* The number in a file of a GPU's folder below /sys/bus/pci/devices; 0: none. */
static double link_value(const char *root, const char *bus, const char *file)
{
    char path[FILE_PATH_MAX], *text;
    double x;

    snprintf(path, sizeof path, "%s/sys/bus/pci/devices/%.32s/%s", root, bus, file);
    text = slurp("", path);
    x = text ? strtod(text, NULL) : 0;
    mem_free(text);
    return x > 0 && x < 1e4 ? x : 0;
}

/* information: ".../gpus/0000:01:00.0/information", of the GPU that is read. */
static void read_link(struct machine *m, const char *root, const char *information)
{
    const char *end = strrchr(information, '/'), *bus = end;
    char name[33] = "";

    while (bus > information && bus[-1] != '/')
        bus--;
    snprintf(name, sizeof name, "%.*s", (int)(end - bus), bus);
    m->lanes[m->gpus] = (int)link_value(root, name, "current_link_width");
    m->lanes_most[m->gpus] = (int)link_value(root, name, "max_link_width");
    m->transfers[m->gpus] =
        link_value(root, name, "max_link_speed") * 1e9; /* "16.0 GT/s" */
}

static int has_iommu(const char *root)
{
    char pattern[FILE_PATH_MAX];
    glob_t g;
    int found;

    snprintf(pattern, sizeof pattern, "%s/sys/class/iommu/*", root);
    found = !glob(pattern, 0, NULL, &g);
    if (found)
        globfree(&g);
    return found;
}

/* As NVIDIA's driver lists them; whether they can be used, the back end says. */
static void read_gpus(struct machine *m, const char *root)
{
    char pattern[FILE_PATH_MAX];
    glob_t g;

    snprintf(pattern, sizeof pattern, "%s/proc/driver/nvidia/gpus/*/information", root);
    if (glob(pattern, 0, NULL, &g))
        return;
    for (size_t i = 0; i < g.gl_pathc && m->gpus < MACHINE_GPUS_MAX; i++) {
        char *text = slurp("", g.gl_pathv[i]);
        const char *at = text;

        if (text && field(&at, "Model", m->gpu[m->gpus], sizeof m->gpu[0])) {
            read_link(m, root, g.gl_pathv[i]);
            m->gpus++;
        }
        mem_free(text);
    }
    globfree(&g);
}

void machine_read(struct machine *m, const char *root)
{
    memset(m, 0, sizeof *m);
    if (gethostname(m->host, sizeof m->host - 1))
        m->host[0] = '\0';
    read_cpu(m, root);
    read_memory(m, root);
    read_limits(m, root);
    read_gpus(m, root);
    m->iommu = has_iommu(root);
    read_programs(m);
}
