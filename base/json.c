/* JSON: one file for jansson. jansson is strict (lone surrogates, bad UTF-8, NUL and
 * trailing garbage are refused) and stops at depth 2048; here the depth is capped at 64
 * before a tree is built. */
#include "base/json.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

enum { DEPTH_MAX = 64 };

/* Line of the first bracket nested deeper than DEPTH_MAX, or 0. */
static int too_deep(const char *s, size_t n)
{
    int depth = 0, line = 1, in_string = 0;

    for (size_t i = 0; i < n; i++) {
        char c = s[i];

        if (c == '\n')
            line++;
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = 0;
        } else if (c == '"') {
            in_string = 1;
        } else if (c == '[' || c == '{') {
            if (++depth > DEPTH_MAX)
                return line;
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return 0;
}

int json_parse(const char *name, const char *text, size_t len, json_t **out, struct err *e)
{
    json_error_t je;
    int line = too_deep(text, len);

    *out = NULL;
    if (line)
        return err_set(e, ERR_CORRUPT, "%s:%d: nested deeper than %d", name, line,
                       DEPTH_MAX);
    *out = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (*out)
        return 0;
    if (json_error_code(&je) == json_error_out_of_memory)
        return err_set(e, ERR_NOMEM, "%s: out of memory", name);
    return err_set(
        e, ERR_CORRUPT, "%s:%d:%d: %s", name, je.line, je.column > 0 ? je.column : 1,
        json_error_code(&je) == json_error_null_character ? "holds a NUL (\\u0000)"
                                                          : je.text);
}

int json_read(const char *path, size_t limit, json_t **out, struct err *e)
{
    char *text = NULL;
    size_t len = 0;
    int rc;

    *out = NULL;
    rc = file_read(path, limit, &text, &len, e);
    if (!rc)
        rc = json_parse(path, text, len, out, e);
    mem_free(text);
    return rc;
}

static const char *type_name(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

/* The member: 0 and *v (NULL: not there and not required), or an error. */
static int member(const json_t *o, const char *key, int required, const json_t **v,
                  struct err *e)
{
    *v = NULL;
    if (!json_is_object(o))
        return err_set(e, ERR_CORRUPT, "expected an object, found %s",
                       o ? type_name(o) : "nothing");
    *v = json_object_get(o, key);
    if (*v && json_is_null(*v))
        *v = NULL;
    if (!*v && required)
        return err_set(e, ERR_CORRUPT, "\"%s\" is missing", key);
    return 0;
}

static int mismatch(const char *key, const char *want, const json_t *v, struct err *e)
{
    return err_set(e, ERR_CORRUPT, "\"%s\" must be %s, found %s", key, want, type_name(v));
}

int json_get_long(const json_t *o, const char *key, int required, long *out, struct err *e)
{
    const json_t *v;
    int rc = member(o, key, required, &v, e);

    if (rc || !v)
        return rc;
    if (!json_is_integer(v))
        return mismatch(key, "an integer", v, e);
    *out = (long)json_integer_value(v);
    return 0;
}

int json_get_double(const json_t *o, const char *key, int required, double *out,
                    struct err *e)
{
    const json_t *v;
    int rc = member(o, key, required, &v, e);

    if (rc || !v)
        return rc;
    if (!json_is_number(v))
        return mismatch(key, "a number", v, e);
    *out = json_number_value(v);
    return 0;
}

int json_get_bool(const json_t *o, const char *key, int required, int *out, struct err *e)
{
    const json_t *v;
    int rc = member(o, key, required, &v, e);

    if (rc || !v)
        return rc;
    if (!json_is_boolean(v))
        return mismatch(key, "true or false", v, e);
    *out = json_is_true(v);
    return 0;
}

int json_get_string(const json_t *o, const char *key, int required, const char **out,
                    struct err *e)
{
    const json_t *v;
    int rc = member(o, key, required, &v, e);

    if (rc || !v)
        return rc;
    if (!json_is_string(v))
        return mismatch(key, "a string", v, e);
    *out = json_string_value(v);
    return 0;
}

void json_number(struct str *out, double x)
{
    if (!isfinite(x))
        str_add(out, "null");
    else if (x == floor(x) && fabs(x) < 1e15)
        str_addf(out, "%.0f", x);
    else
        str_addf(out, "%.9g", x);
}

/* 15 digits where they say the same as 17: 0.1, not 0.10000000000000001. */
static char *dump(const json_t *v)
{
    char *text = json_dumps(v, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    json_t *again = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    int same = again && json_equal(v, again);

    json_decref(again);
    if (same)
        return text;
    free(text);
    return json_dumps(v, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
}

int json_write(const char *path, const json_t *v, struct err *e)
{
    char *text = dump(v);
    struct str b = {0};
    int rc;

    if (!text)
        return err_set(e, ERR_NOMEM, "write %s: out of memory", path);
    str_add(&b, text);
    str_add_char(&b, '\n');
    free(text);
    rc = str_failed(&b) ? err_set(e, ERR_NOMEM, "write %s: out of memory", path)
                        : file_write_atomic(path, b.s, b.len, e);
    str_fini(&b);
    return rc;
}
