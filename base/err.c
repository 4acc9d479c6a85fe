#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;

    e->code = code;
    e->mend[0] = e->field[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    return code;
}

static const char *mend_for(int errno_value)
{
    switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
        return "free some disk space, then try again (a run: with --resume)";
    case EACCES:
    case EPERM:
        return "check the owner and the permissions";
    case EMFILE:
        return "raise the limit of open files (ulimit -n)";
    default:
        return "";
    }
}

int err_errno(struct err *e, int code, int errno_value, const char *fmt, ...)
{
    va_list ap;
    size_t used;

    e->code = errno_value == ENOMEM ? ERR_NOMEM : code;
    e->field[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    used = strlen(e->msg);
    snprintf(e->msg + used, sizeof e->msg - used, ": %s", strerror(errno_value));
    snprintf(e->mend, sizeof e->mend, "%s", mend_for(errno_value));
    return e->code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    char tail[ERR_MSG_MAX];
    va_list ap;
    size_t used;

    memcpy(tail, e->msg, sizeof tail);
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    used = strlen(e->msg);
    snprintf(e->msg + used, sizeof e->msg - used, ": %.*s", ERR_MSG_MAX - 3, tail);
    return e->code;
}

int err_mend(struct err *e, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(e->mend, sizeof e->mend, fmt, ap);
    va_end(ap);
    return e->code;
}

int err_field(struct err *e, const char *field)
{
    snprintf(e->field, sizeof e->field, "%s", field);
    return e->code;
}

const char *err_name(int code)
{
    switch (code) {
#define X(name, word, status)                                                              \
    case ERR_##name:                                                                       \
        return word;
        ERR_CODES(X)
#undef X
    default:
        return "ok";
    }
}

int err_exit_status(int code)
{
    switch (code) {
    case ERR_NONE:
        return 0;
#define X(name, word, status)                                                              \
    case ERR_##name:                                                                       \
        return status;
        ERR_CODES(X)
#undef X
    default:
        return 1;
    }
}

void err_print(const struct err *e, const char *program)
{
    fprintf(stderr, "%s: %s\n", program, e->msg);
    if (e->mend[0])
        fprintf(stderr, "  try: %s\n", e->mend);
}

void err_invariant_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "hone: bug: %s:%d: %s does not hold\n", file, line, cond);
    abort();
}
