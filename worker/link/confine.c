/* Landlock: see confine.h. The numbers are the kernel's interface (linux/landlock.h), here
 * because distributions' headers lag behind their kernels. */
#include "worker/link/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"

enum { CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446 };
enum { QUERY_VERSION = 1, PATH_BENEATH = 1 };

enum {
    EXECUTE = 1 << 0,
    WRITE_FILE = 1 << 1,
    READ_FILE = 1 << 2,
    READ_DIR = 1 << 3,
    FIRST_13 = (1 << 13) - 1, /* all that version 1 knows */
    REFER = 1 << 13,          /* version 2: links and renames between folders */
    TRUNCATE = 1 << 14,       /* version 3 */
    OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE,
    LOOK = EXECUTE | READ_FILE | READ_DIR,
    USE = READ_FILE | WRITE_FILE,
};

struct ruleset {
    uint64_t handled;
};
struct __attribute__((packed)) beneath {
    uint64_t allowed;
    int32_t parent;
};

static int allow(int rules, const char *path, uint64_t access, int must, struct err *e)
{
    struct beneath b = {.allowed = access};
    struct stat st;
    int rc = 0;

    b.parent = open(path, O_PATH | O_CLOEXEC);
    if (b.parent < 0)
        return must ? err_errno(e, ERR_CONFIG, errno, "confine to %s", path) : 0;
    if (!fstat(b.parent, &st) && !S_ISDIR(st.st_mode))
        b.allowed &= OF_FILES;
    if (syscall(ADD_RULE, rules, PATH_BENEATH, &b, 0))
        rc = err_errno(e, ERR_FAILED, errno, "confine to %s", path);
    close(b.parent);
    return rc;
}

static int allow_list(int rules, const char *const *paths, uint64_t access, struct err *e)
{
    int rc = 0;

    for (; !rc && *paths; paths++)
        rc = allow(rules, *paths, access, 0, e);
    return rc;
}

static int allow_system(int rules, struct err *e)
{
    static const char *const look[] = {"/usr",
                                       "/lib",
                                       "/lib64",
                                       "/bin",
                                       "/sbin",
                                       "/opt",
                                       "/sys",
                                       "/proc/self",
                                       "/proc/cpuinfo",
                                       "/proc/meminfo",
                                       "/proc/stat",
                                       "/proc/devices",
                                       "/proc/modules",
                                       "/proc/driver",
                                       "/proc/sys",
                                       "/etc/ld.so.cache",
                                       "/etc/localtime",
                                       "/etc/passwd",
                                       "/etc/group",
                                       "/etc/nsswitch.conf",
                                       "/etc/hosts",
                                       "/etc/host.conf",
                                       "/etc/resolv.conf",
                                       "/etc/hostname",
                                       "/etc/openmpi",
                                       NULL};
    static const char *const use[] = {"/dev/null",   "/dev/zero",    "/dev/full",
                                      "/dev/random", "/dev/urandom", "/dev/tty",
                                      NULL};
    char path[FILE_PATH_MAX + 8];
    glob_t devices = {0};
    int rc = allow_list(rules, look, LOOK, e);

    if (!rc)
        rc = allow_list(rules, use, USE, e);
    snprintf(path, sizeof path, "/proc/%ld/comm", (long)getppid()); /* is it mpirun? */
    if (!rc)
        rc = allow(rules, path, LOOK, 0, e);
    if (!rc && !glob("/dev/nvidia*", 0, NULL, &devices))
        for (size_t i = 0; !rc && i < devices.gl_pathc; i++)
            rc = allow(rules, devices.gl_pathv[i], USE | READ_DIR, 0, e);
    globfree(&devices);
    if (!rc && !file_self_dir(path, FILE_PATH_MAX, e)) {
        strcat(path, "/.."); /* bin/ and lib/ */
        rc = allow(rules, path, LOOK, 0, e);
    }
    return rc;
}

static int allow_roots(int rules, const char *roots, uint64_t all, struct err *e)
{
    char path[FILE_PATH_MAX];
    int rc = allow(rules, "/dev/shm", all, 0, e);

    for (size_t n; !rc && *roots; roots += n + (roots[n] == ':')) {
        n = strcspn(roots, ":");
        if (n && snprintf(path, sizeof path, "%.*s", (int)n, roots) < (int)sizeof path)
            rc = allow(rules, path, all, 1, e);
    }
    return rc;
}

/* Where mpirun and its ranks meet; who starts us says it, not the job. */
static int allow_sessions(int rules, uint64_t all, struct err *e)
{
    static const char *const names[] = {"OMPI_MCA_orte_jobfam_session_dir",
                                        "PMIX_SERVER_TMPDIR"};
    int rc = 0;

    for (size_t i = 0; !rc && i < sizeof names / sizeof *names; i++) {
        const char *path = getenv(names[i]);

        if (path && path[0] == '/')
            rc = allow(rules, path, all, 0, e);
    }
    return rc;
}

static int set_environment(const char *roots, struct err *e)
{
    char path[FILE_PATH_MAX];

    if (snprintf(path, sizeof path, "%.*s/.hone-tmp", (int)strcspn(roots, ":"), roots) >=
        (int)sizeof path)
        return err_set(e, ERR_CONFIG, "confine: the path is too long");
    if (mkdir(path, 0700) && errno != EEXIST)
        return err_errno(e, ERR_IO, errno, "create %s", path);
    /* Processes confined apart may not read each other's memory: Open MPI is not to try. */
    if (setenv("TMPDIR", path, 1) ||
        setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 1))
        return err_errno(e, ERR_NOMEM, errno, "confine");
    return 0;
}

int confine(struct err *e)
{
    const char *roots = getenv("HONE_CONFINE");
    struct ruleset set = {FIRST_13};
    long version;
    int rules, rc;

    if (!roots || !*roots)
        return 0;
    version = syscall(CREATE_RULESET, NULL, 0, QUERY_VERSION);
    if (version < 1) {
        err_set(e, ERR_UNSUPPORTED, "this kernel cannot confine a job to folders");
        return err_mend(e, "Linux 5.13 with Landlock, or honed without --root");
    }
    set.handled |= version >= 2 ? REFER : 0;
    set.handled |= version >= 3 ? TRUNCATE : 0;
    rc = set_environment(roots, e);
    if (rc)
        return rc;
    rules = (int)syscall(CREATE_RULESET, &set, sizeof set, 0);
    if (rules < 0)
        return err_errno(e, ERR_UNSUPPORTED, errno, "confine");
    rc = allow_system(rules, e);
    if (!rc)
        rc = allow_roots(rules, roots, set.handled, e);
    if (!rc)
        rc = allow_sessions(rules, set.handled, e);
    if (!rc && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(RESTRICT_SELF, rules, 0)))
        rc = err_errno(e, ERR_FAILED, errno, "confine");
    close(rules);
    return rc;
}
