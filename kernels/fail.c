/* The message behind op_fail(). A plug-in holds a copy of its own: what its operators say
 * is read through its table. */
#include "kernels/fail.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char op_message[512];

int op_fail(int code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(op_message, sizeof op_message, fmt, ap);
    va_end(ap);
    return code;
}

const char *op_error(void)
{
    return op_message;
}
