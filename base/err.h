/* Errors: a code to branch on, a sentence to read, and where there is one, the mend.
 *
 * A fallible function returns 0 or a negative ERR_ code and takes `struct err *` last.
 * The frame that detects the failure says what happened; every frame above it may say,
 * with err_wrap(), what it was trying to do. The user sees one line, outermost first:
 *
 *     hone: load model /m: read model-00002.safetensors: header is 12 bytes short
 *       try: download the file again
 *
 * Invariant: a function that returns non-zero has filled *e. Messages are cut, never
 * overrun. Bugs are not errors: they go through invariant(), which aborts. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define ERR_CODES(X)                                                                       \
    X(NOMEM, "out of memory", 1)                                                           \
    X(IO, "input/output error", 1)                                                         \
    X(FAILED, "the work failed", 1)                                                        \
    X(DEVICE, "accelerator error", 1)                                                      \
    X(CORRUPT, "malformed data", 2)                                                        \
    X(CONFIG, "invalid configuration", 2)                                                  \
    X(USAGE, "wrong command line", 2)                                                      \
    X(UNSUPPORTED, "not supported", 2)                                                     \
    X(STOPPED, "stopped on request", 3)                                                    \
    X(UNREACHABLE, "daemon cannot be reached", 4)                                          \
    X(DENIED, "not allowed", 5)

enum err_code {
    ERR_NONE = 0,
#define X(name, text, status) ERR_##name##__ord,
    ERR_CODES(X)
#undef X
#define X(name, text, status) ERR_##name = -ERR_##name##__ord,
        ERR_CODES(X)
#undef X
};

enum { ERR_MSG_MAX = 1024, ERR_MEND_MAX = 320 };

struct err {
    int code;
    char msg[ERR_MSG_MAX];
    char mend[ERR_MEND_MAX]; /* "" where nothing is known to help */
};

/* Record a failure (and forget an older mend); returns `code`, to be returned at once. */
int err_set(struct err *e, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Like err_set, with ": <strerror(errno_value)>" after the message. ENOSPC, EDQUOT and
 * EACCES bring their mend along; ENOMEM becomes ERR_NOMEM whatever `code` is. */
int err_errno(struct err *e, int code, int errno_value, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Put "<text>: " in front of the message; returns e->code. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Say what the user can do about it; returns e->code. */
int err_mend(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

const char *err_name(int code); /* "out of memory", ... */
int err_exit_status(int code);  /* interface.md section 1: 0, 1, 2, 3, 4 or 5 */

/* Print "<program>: <msg>\n" and, where there is one, "  try: <mend>\n" to stderr. */
void err_print(const struct err *e, const char *program);

/* A broken invariant is a bug: say where and abort. Always compiled in. */
#define invariant(cond) ((cond) ? (void)0 : err_invariant_failed(#cond, __FILE__, __LINE__))
void err_invariant_failed(const char *cond, const char *file, int line)
    __attribute__((noreturn));

#endif
