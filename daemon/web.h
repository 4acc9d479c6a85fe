/* The page that honed shows to a browser: three files of daemon/web, built into the
 * program. They hold nothing of any job: what a page shows it asks for, with its user's
 * token, as any other client. */
#ifndef DAEMON_WEB_H
#define DAEMON_WEB_H

#include <stddef.h>

struct web_file {
    const char *path, *content_type; /* "/app.js" */
    const char *start, *end;
};

const struct web_file *web_find(const char *path); /* NULL: no such file */

#endif
