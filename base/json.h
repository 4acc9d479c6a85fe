/* JSON through jansson: strict parsing with bounded depth, and typed getters that say what
 * is wrong with which key of which file.
 *
 * Numbers are written with 9 significant digits or more (json_number). Fails with
 * ERR_CORRUPT; the message holds file, line and what was expected. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>

#include "base/err.h"
#include "base/str.h"

/* Parse bytes (or a file of at most `limit` bytes); duplicate keys are refused. */
int json_parse(const char *name, const char *text, size_t len, json_t **out, struct err *e);
int json_read(const char *path, size_t limit, json_t **out, struct err *e);

/* Typed members: 0 and *out; absent or null with `required` 0 leaves *out as it was. */
int json_get_long(const json_t *o, const char *key, int required, long *out, struct err *e);
int json_get_double(const json_t *o, const char *key, int required, double *out,
                    struct err *e);
int json_get_bool(const json_t *o, const char *key, int required, int *out, struct err *e);
int json_get_string(const json_t *o, const char *key, int required, const char **out,
                    struct err *e); /* borrowed */

/* Append a number: integers plainly, others with %.9g; nan and inf become null. */
void json_number(struct str *out, double x);
int json_write(const char *path, const json_t *v, struct err *e); /* atomic, indented */

#endif
