/* Limits of a worker: see limit.h. */
#include "worker/link/limit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/str.h"

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

/* 0: none. */
static int read_limit(long *bytes, struct err *e)
{
    const char *text = getenv("HONE_LIMIT_MEMORY");

    *bytes = 0;
    if (!text || !*text)
        return 0;
    if (str_to_long(text, bytes) || *bytes < 1)
        return err_set(e, ERR_USAGE, "HONE_LIMIT_MEMORY: \"%.40s\" is no number of bytes",
                       text);
    return 0;
}

/* The kernel's first choice when memory is out. Everybody may offer himself. */
static void volunteer(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)!write(fd, "500\n", 4);
    close(fd);
}

static void lower(int what, rlim_t to)
{
    struct rlimit r;

    if (getrlimit(what, &r))
        return;
    if (r.rlim_max == RLIM_INFINITY || r.rlim_max > to)
        r.rlim_max = to;
    r.rlim_cur = r.rlim_max;
    setrlimit(what, &r); /* refused: an outer limit is lower, and holds */
}

int limit_memory(struct err *e)
{
    long bytes;
    int rc = read_limit(&bytes, e);

    if (rc || !bytes)
        return rc;
    volunteer();
    lower(RLIMIT_DATA, (rlim_t)bytes);
    lower(RLIMIT_CORE, 0);
    return 0;
}

#ifdef ARCH
/* fork, vfork and clone without CLONE_THREAD: EPERM. clone3, whose flags lie in memory:
 * ENOSYS, and the C library takes clone. */
static int install(void)
{
    const unsigned denied = SECCOMP_RET_ERRNO | EPERM, unknown = SECCOMP_RET_ERRNO | ENOSYS;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, denied),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#if defined(__x86_64__)
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1), /* x32 */
        BPF_STMT(BPF_RET | BPF_K, denied),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fork, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_vfork, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, denied),
#endif
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, unknown),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, denied),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
                   &program);
}
#else
static int install(void)
{
    errno = ENOSYS;
    return -1;
}
#endif

int limit_processes(struct err *e)
{
    long bytes;
    int rc = read_limit(&bytes, e);

    if (!rc && bytes && install() && errno != ENOSYS && errno != EINVAL)
        rc = err_errno(e, ERR_FAILED, errno, "limit the processes of this one");
    return rc; /* a kernel without seccomp: as before */
}
