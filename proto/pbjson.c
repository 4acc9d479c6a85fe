/* JSON and protobuf: see pbjson.h. Reading goes by way of protobuf's wire format, which
 * message_unpack() turns into a message within its budget: here is no memory to manage but
 * that of a buffer. Messages are not recursive (proto/message.c), so writing ends. */
#include "proto/pbjson.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "proto/frame.h"
#include "proto/message.h"

enum { NAMES_MAX = 64, NAME_MAX_BYTES = 64, DOUBLES_EXACT_BITS = 53 };

static const char base64[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* ---- where we are, for messages ---- */

struct reader {
    char *field; /* PBJSON_FIELD_MAX */
    struct err *e;
};

/* The field at fault: its name is put in front of those that are there already. */
static void enter(struct reader *r, const char *name, long index)
{
    char deeper[PBJSON_FIELD_MAX], at[32] = "";

    snprintf(deeper, sizeof deeper, "%s", r->field);
    if (index >= 0)
        snprintf(at, sizeof at, "[%ld]", index);
    if (snprintf(r->field, PBJSON_FIELD_MAX, "%s%s%s%s", name, at, *deeper ? "." : "",
                 deeper) >= PBJSON_FIELD_MAX)
        r->field[PBJSON_FIELD_MAX - 1] = '\0';
}

static int wrong(struct reader *r, const char *fmt, const char *what)
{
    return err_set(r->e, ERR_CONFIG, fmt, what);
}

/* ---- JSON to the wire ---- */

static void put_varint(struct str *out, uint64_t x)
{
    for (; x > 127; x >>= 7)
        str_add_char(out, (char)(x | 128));
    str_add_char(out, (char)x);
}

static void put_fixed(struct str *out, uint64_t x, int bytes)
{
    for (int i = 0; i < bytes; i++)
        str_add_char(out, (char)(x >> 8 * i));
}

static void put_block(struct str *out, const void *p, size_t n)
{
    put_varint(out, n);
    str_add_bytes(out, p, n);
}

enum { VARINT = 0, FIXED64 = 1, BLOCK = 2, FIXED32 = 5 };

static int wire_type(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return FIXED32;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return FIXED64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return BLOCK;
    default:
        return VARINT;
    }
}

static int is_unsigned(ProtobufCType t)
{
    return t == PROTOBUF_C_TYPE_UINT32 || t == PROTOBUF_C_TYPE_FIXED32 ||
           t == PROTOBUF_C_TYPE_UINT64 || t == PROTOBUF_C_TYPE_FIXED64;
}

static int is_32_bits(ProtobufCType t)
{
    return t == PROTOBUF_C_TYPE_INT32 || t == PROTOBUF_C_TYPE_SINT32 ||
           t == PROTOBUF_C_TYPE_SFIXED32 || t == PROTOBUF_C_TYPE_UINT32 ||
           t == PROTOBUF_C_TYPE_FIXED32;
}

/* A whole number from a number or a string of digits; unsigned ones as their bits. */
static int read_integer(const json_t *v, ProtobufCType t, int64_t *out)
{
    char plain[32];
    const char *s = json_string_value(v);
    char *end;

    if (json_is_integer(v)) {
        snprintf(plain, sizeof plain, "%lld", (long long)json_integer_value(v));
        s = plain;
    }
    if (!s || !*s || strspn(s + (*s == '-'), "0123456789") != strlen(s + (*s == '-')))
        return -1;
    errno = 0;
    if (is_unsigned(t)) {
        uint64_t x = strtoull(s, &end, 10);

        if (*s == '-' || errno || *end || (is_32_bits(t) && x > UINT32_MAX))
            return -1;
        *out = (int64_t)x;
        return 0;
    }
    *out = strtoll(s, &end, 10);
    return errno || end == s || *end ||
                   (is_32_bits(t) && (*out > INT32_MAX || *out < INT32_MIN))
               ? -1
               : 0;
}

static int read_number(const json_t *v, double *out)
{
    const char *s = json_string_value(v);

    if (json_is_number(v))
        *out = json_number_value(v);
    else if (s && !strcmp(s, "NaN"))
        *out = NAN;
    else if (s && !strcmp(s, "Infinity"))
        *out = INFINITY;
    else if (s && !strcmp(s, "-Infinity"))
        *out = -INFINITY;
    else
        return -1;
    return 0;
}

static int put_integer(struct reader *r, const json_t *v, ProtobufCType t, struct str *out)
{
    int64_t x;

    if (read_integer(v, t, &x))
        return wrong(r, "expected a whole number%s",
                     is_unsigned(t)
                         ? (is_32_bits(t) ? " from 0 to 4294967295" : ", 0 or more")
                     : is_32_bits(t) ? " of 32 bits"
                                     : "");
    if (wire_type(t) == FIXED32)
        put_fixed(out, (uint64_t)x, 4);
    else if (wire_type(t) == FIXED64)
        put_fixed(out, (uint64_t)x, 8);
    else if (t == PROTOBUF_C_TYPE_SINT32 || t == PROTOBUF_C_TYPE_SINT64)
        put_varint(out, (uint64_t)x << 1 ^ (uint64_t)(x >> 63));
    else
        put_varint(out, (uint64_t)x);
    return 0;
}

static int put_real(struct reader *r, const json_t *v, ProtobufCType t, struct str *out)
{
    double x;
    float f;
    uint64_t bits = 0;

    if (read_number(v, &x))
        return wrong(r, "%s", "expected a number");
    f = (float)x;
    if (t == PROTOBUF_C_TYPE_FLOAT)
        memcpy(&bits, &f, sizeof f);
    else
        memcpy(&bits, &x, sizeof x);
    put_fixed(out, bits, t == PROTOBUF_C_TYPE_FLOAT ? 4 : 8);
    return 0;
}

static int put_enum(struct reader *r, const json_t *v, const ProtobufCEnumDescriptor *d,
                    struct str *out)
{
    const char *s = json_string_value(v), *names[NAMES_MAX + 1], *near;
    const ProtobufCEnumValue *value = NULL;
    unsigned n = 0;

    if (s)
        value = protobuf_c_enum_descriptor_get_value_by_name(d, s);
    else if (json_is_integer(v) && json_integer_value(v) >= INT_MIN &&
             json_integer_value(v) <= INT_MAX)
        value = protobuf_c_enum_descriptor_get_value(d, (int)json_integer_value(v));
    if (value) {
        put_varint(out, (uint64_t)(int64_t)value->value);
        return 0;
    }
    for (; n < d->n_values && n < NAMES_MAX; n++)
        names[n] = d->values[n].name;
    names[n] = NULL;
    wrong(r, "expected a name of %s", d->short_name);
    near = s ? str_nearest(s, names) : NULL;
    return near ? err_mend(r->e, "did you mean \"%s\"?", near)
                : err_mend(r->e, "\"%s\" is one", n ? names[0] : "");
}

static int put_bytes(struct reader *r, const json_t *v, struct str *out)
{
    const char *s = json_string_value(v), *digit;
    struct str raw = {0};
    unsigned bits = 0, have = 0;
    size_t n = s ? strlen(s) : 0;
    int bad = !s;

    while (n && s[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n && !bad; i++) {
        digit = strchr(base64, s[i] == '-' ? '+' : s[i] == '_' ? '/' : s[i]);
        bad = !digit;
        bits = bits << 6 | (unsigned)(digit ? digit - base64 : 0);
        have += 6;
        if (have >= 8) {
            have -= 8;
            str_add_char(&raw, (char)(bits >> have));
        }
    }
    if (!bad)
        put_block(out, str_get(&raw), raw.len);
    str_fini(&raw);
    return bad ? wrong(r, "%s", "expected bytes in base64") : 0;
}

static int put_message(struct reader *r, const json_t *v,
                       const ProtobufCMessageDescriptor *d, struct str *out);

static int put_value(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *v,
                     struct str *out)
{
    struct str inner = {0};
    int rc;

    put_varint(out, (uint64_t)f->id << 3 | (unsigned)wire_type(f->type));
    switch (f->type) {
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_is_boolean(v))
            return wrong(r, "%s", "expected true or false");
        put_varint(out, json_is_true(v));
        return 0;
    case PROTOBUF_C_TYPE_ENUM:
        return put_enum(r, v, f->descriptor, out);
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        return put_real(r, v, f->type, out);
    case PROTOBUF_C_TYPE_STRING:
        if (!json_is_string(v))
            return wrong(r, "%s", "expected a string");
        put_block(out, json_string_value(v), json_string_length(v));
        return 0;
    case PROTOBUF_C_TYPE_BYTES:
        return put_bytes(r, v, out);
    case PROTOBUF_C_TYPE_MESSAGE:
        rc = put_message(r, v, f->descriptor, &inner);
        put_block(out, str_get(&inner), inner.len);
        out->failed |= inner.failed;
        str_fini(&inner);
        return rc;
    default:
        return put_integer(r, v, f->type, out);
    }
}

static int put_field(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *v,
                     struct str *out)
{
    size_t i;
    json_t *item;
    int rc = 0;

    if (f->label != PROTOBUF_C_LABEL_REPEATED) {
        rc = put_value(r, f, v, out);
        if (rc)
            enter(r, f->name, -1);
        return rc;
    }
    if (!json_is_array(v)) {
        rc = wrong(r, "%s", "expected a list");
        enter(r, f->name, -1);
        return rc;
    }
    json_array_foreach(v, i, item)
    {
        rc = put_value(r, f, item, out);
        if (rc) {
            enter(r, f->name, (long)i);
            return rc;
        }
    }
    return 0;
}

/* "request_id" by that name or as "requestId". */
static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *d,
                                                  const char *key)
{
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field_by_name(d, key);
    char snake[NAME_MAX_BYTES];
    size_t n = 0;

    if (f || strchr(key, '_'))
        return f;
    for (; *key; key++) {
        if (n + 3 > sizeof snake)
            return NULL;
        if (*key >= 'A' && *key <= 'Z')
            snake[n++] = '_';
        snake[n++] = *key >= 'A' && *key <= 'Z' ? (char)(*key - 'A' + 'a') : *key;
    }
    snake[n] = '\0';
    return protobuf_c_message_descriptor_get_field_by_name(d, snake);
}

static int unknown_field(struct reader *r, const ProtobufCMessageDescriptor *d,
                         const char *key)
{
    const char *names[NAMES_MAX + 1], *near;
    unsigned n = 0;

    for (; n < d->n_fields && n < NAMES_MAX; n++)
        names[n] = d->fields[n].name;
    names[n] = NULL;
    near = str_nearest(key, names);
    err_set(r->e, ERR_CONFIG, "%s has no field \"%.60s\"", d->short_name, key);
    if (near)
        err_mend(r->e, "did you mean \"%s\"?", near);
    snprintf(r->field, PBJSON_FIELD_MAX, "%.60s", key);
    return r->e->code;
}

static int put_message(struct reader *r, const json_t *v,
                       const ProtobufCMessageDescriptor *d, struct str *out)
{
    uint64_t seen = 0;
    const char *key;
    json_t *item;
    int rc;

    if (!json_is_object(v))
        return wrong(r, "expected an object (%s)", d->short_name);
    json_object_foreach((json_t *)(uintptr_t)v, key, item)
    {
        const ProtobufCFieldDescriptor *f = find_field(d, key);
        size_t at = f ? (size_t)(f - d->fields) : 0;

        if (!f)
            return unknown_field(r, d, key);
        if (json_is_null(item))
            continue;
        if (at < 64 && seen >> at & 1) { /* by both its names */
            snprintf(r->field, PBJSON_FIELD_MAX, "%s", f->name);
            return wrong(r, "%s", "is there twice");
        }
        if (at < 64)
            seen |= (uint64_t)1 << at;
        rc = put_field(r, f, item, out);
        if (rc)
            return rc;
    }
    for (unsigned i = 0; i < d->n_fields && i < 64; i++)
        if (d->fields[i].label == PROTOBUF_C_LABEL_REQUIRED && !(seen >> i & 1)) {
            snprintf(r->field, PBJSON_FIELD_MAX, "%s", d->fields[i].name);
            return wrong(r, "%s", "is missing");
        }
    return 0;
}

int pbjson_parse(const ProtobufCMessageDescriptor *d, const char *text, size_t n,
                 ProtobufCMessage **out, char field[PBJSON_FIELD_MAX], struct err *e)
{
    struct reader r = {field, e};
    struct str wire = {0};
    json_t *v = NULL;
    int rc;

    *out = NULL;
    *field = '\0';
    if (n > FRAME_CAP)
        return err_set(e, ERR_CORRUPT, "%zu bytes of JSON, %d are allowed", n, FRAME_CAP);
    rc = n ? json_parse("request", text, n, &v, e) : 0;
    if (!rc)
        rc =
            v ? put_message(&r, v, d, &wire) : put_message(&r, v = json_object(), d, &wire);
    if (rc && *field)
        err_wrap(e, "%s", field);
    if (!rc && str_failed(&wire))
        rc = err_set(e, ERR_NOMEM, "%s: out of memory", d->short_name);
    if (!rc)
        rc = message_unpack(d, str_get(&wire), wire.len, out, e);
    json_decref(v);
    str_fini(&wire);
    return rc;
}

/* ---- messages to JSON ---- */

static void write_signed(struct str *out, int64_t x)
{
    int64_t limit = (int64_t)1 << DOUBLES_EXACT_BITS;
    const char *quote = x > limit || x < -limit ? "\"" : "";

    str_addf(out, "%s%" PRId64 "%s", quote, x, quote);
}

static void write_unsigned(struct str *out, uint64_t x)
{
    const char *quote = x > (uint64_t)1 << DOUBLES_EXACT_BITS ? "\"" : "";

    str_addf(out, "%s%" PRIu64 "%s", quote, x, quote);
}

/* In 15 digits where they say the same as 17: 0.1, not 0.10000000000000001. */
static void write_real(struct str *out, double x)
{
    char text[40];

    if (isnan(x))
        str_add(out, "\"NaN\"");
    else if (isinf(x))
        str_add(out, x > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    else {
        snprintf(text, sizeof text, "%.15g", x);
        if (strtod(text, NULL) != x)
            snprintf(text, sizeof text, "%.17g", x);
        str_add(out, text);
    }
}

static void write_bytes(struct str *out, const ProtobufCBinaryData *b)
{
    str_add_char(out, '"');
    for (size_t i = 0; i < b->len; i += 3) {
        size_t left = b->len - i;
        unsigned x = (unsigned)b->data[i] << 16 |
                     (unsigned)(left > 1 ? b->data[i + 1] : 0) << 8 |
                     (unsigned)(left > 2 ? b->data[i + 2] : 0);
        char four[4] = {base64[x >> 18], base64[x >> 12 & 63],
                        left > 1 ? base64[x >> 6 & 63] : '=',
                        left > 2 ? base64[x & 63] : '='};

        str_add_bytes(out, four, sizeof four);
    }
    str_add_char(out, '"');
}

static size_t value_size(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(int);
    default:
        return is_32_bits(t) || t == PROTOBUF_C_TYPE_FLOAT ? 4 : 8;
    }
}

static void write_value(const ProtobufCFieldDescriptor *f, const void *p, struct str *out)
{
    const ProtobufCEnumValue *name;
    const char *s;

    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        s = *(char *const *)p;
        str_add_json(out, s, strlen(s));
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        pbjson_write(*(const ProtobufCMessage *const *)p, out);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        write_bytes(out, p);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        str_add(out, *(const protobuf_c_boolean *)p ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        name = protobuf_c_enum_descriptor_get_value(f->descriptor, *(const int *)p);
        if (name)
            str_addf(out, "\"%s\"", name->name);
        else
            str_addf(out, "%d", *(const int *)p);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        write_real(out, (double)*(const float *)p);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        write_real(out, *(const double *)p);
        break;
    default:
        if (is_unsigned(f->type))
            write_unsigned(out, is_32_bits(f->type) ? *(const uint32_t *)p
                                                    : *(const uint64_t *)p);
        else
            write_signed(out,
                         is_32_bits(f->type) ? *(const int32_t *)p : *(const int64_t *)p);
    }
}

static int is_there(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    const char *at = (const char *)m + f->offset;

    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)((const char *)m + f->quantifier_offset) > 0;
    if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(void *const *)at != NULL;
    return f->label == PROTOBUF_C_LABEL_REQUIRED ||
           *(const protobuf_c_boolean *)((const char *)m + f->quantifier_offset);
}

void pbjson_write(const ProtobufCMessage *m, struct str *out)
{
    const char *comma = "";

    str_add_char(out, '{');
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        const char *at = (const char *)m + f->offset;

        if (!is_there(m, f))
            continue;
        str_addf(out, "%s\"%s\": ", comma, f->name);
        comma = ", ";
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            write_value(f, at, out);
            continue;
        }
        str_add_char(out, '[');
        for (size_t k = 0; k < *(const size_t *)((const char *)m + f->quantifier_offset);
             k++) {
            if (k)
                str_add(out, ", ");
            write_value(f, *(char *const *)at + k * value_size(f->type), out);
        }
        str_add_char(out, ']');
    }
    str_add_char(out, '}');
}
