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

/* The word is what clients branch on (docs/PROTOCOL.md): it never changes. */
#define ERR_CODES(X)                                                                       \
    X(NOMEM, "out_of_memory", 1)                                                           \
    X(IO, "input_output", 1)                                                               \
    X(FAILED, "failed", 1)                                                                 \
    X(DEVICE, "device", 1)                                                                 \
    X(CORRUPT, "malformed_data", 2)                                                        \
    X(CONFIG, "invalid_request", 2)                                                        \
    X(USAGE, "wrong_usage", 2)                                                             \
    X(UNSUPPORTED, "not_supported", 2)                                                     \
    X(STOPPED, "stopped", 3)                                                               \
    X(UNREACHABLE, "unreachable", 4)                                                       \
    X(DENIED, "not_allowed", 5)

enum err_code {
    ERR_NONE = 0,
#define X(name, word, status) ERR_##name##__ord,
    ERR_CODES(X)
#undef X
#define X(name, word, status) ERR_##name = -ERR_##name##__ord,
        ERR_CODES(X)
#undef X
};

enum { ERR_MSG_MAX = 1024, ERR_MEND_MAX = 320, ERR_FIELD_MAX = 64 };

struct err {
    int code;
    char msg[ERR_MSG_MAX];
    char mend[ERR_MEND_MAX];   /* "" where nothing is known to help */
    char field[ERR_FIELD_MAX]; /* of a request, that is to blame; "" where there is none */
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

/* Name the field of the request that is to blame; returns e->code. */
int err_field(struct err *e, const char *field);

const char *err_name(int code); /* "out_of_memory", ...; "ok" */
int err_exit_status(int code);  /* interface.md section 1: 0, 1, 2, 3, 4 or 5 */

/* Print "<program>: <msg>\n" and, where there is one, "  try: <mend>\n" to stderr. */
void err_print(const struct err *e, const char *program);

/* A broken invariant is a bug: say where and abort. Always compiled in. */
#define invariant(cond) ((cond) ? (void)0 : err_invariant_failed(#cond, __FILE__, __LINE__))
void err_invariant_failed(const char *cond, const char *file, int line)
    __attribute__((noreturn));

#endif
