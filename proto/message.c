/* Messages: an allocator that counts what protobuf-c takes, and a walk over the strings of
 * what came out. The allocator lives only while unpacking: protobuf-c frees through the
 * allocator it is given, so message_free() passes one that only frees. */
#include "proto/message.h"

#include <string.h>

#include "base/mem.h"
#include "proto/frame.h"

enum { BUDGET_PER_BYTE = 16, BUDGET_BASE = 4096 };

struct budget {
    size_t left;
    int exceeded;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *b = data;

    if (size > b->left) {
        b->exceeded = 1;
        return NULL;
    }
    b->left -= size;
    return mem_alloc(size ? size : 1);
}

static void budget_free(void *data, void *p)
{
    (void)data;
    mem_free(p);
}

int message_pack(const ProtobufCMessage *m, struct str *out, struct err *e)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *p = mem_alloc(n ? n : 1);

    if (!p)
        return err_set(e, ERR_NOMEM, "out of memory for a message of %zu bytes", n);
    protobuf_c_message_pack(m, p);
    str_add_bytes(out, p, n);
    mem_free(p);
    return str_failed(out)
               ? err_set(e, ERR_NOMEM, "out of memory for a message of %zu bytes", n)
               : 0;
}

int message_frame(const ProtobufCMessage *m, struct str *out, struct err *e)
{
    size_t n = protobuf_c_message_get_packed_size(m);

    if (n > FRAME_CAP)
        return err_set(e, ERR_CORRUPT, "message of %zu bytes, %d are allowed", n,
                       FRAME_CAP);
    frame_head(out, n);
    return message_pack(m, out, e);
}

/* The bytes of element i of a field, for messages and strings. */
static void *element(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, size_t i)
{
    void *field = (char *)m + f->offset;

    if (f->label != PROTOBUF_C_LABEL_REPEATED)
        return *(void **)field;
    return (*(void ***)field)[i];
}

/* Messages here are not recursive, so this ends at the depth of the .proto files. */
static const char *bad_text(const ProtobufCMessage *m)
{
    for (unsigned k = 0; k < m->descriptor->n_fields; k++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[k];
        size_t n = 1;

        if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (f->label == PROTOBUF_C_LABEL_REPEATED)
            n = *(const size_t *)((const char *)m + f->quantifier_offset);
        for (size_t i = 0; i < n; i++) {
            const char *p = element(m, f, i), *bad = NULL;

            if (!p)
                continue;
            if (f->type == PROTOBUF_C_TYPE_MESSAGE)
                bad = bad_text((const ProtobufCMessage *)p);
            else if (str_utf8_valid(p, strlen(p)) != strlen(p))
                bad = f->name;
            if (bad)
                return bad;
        }
    }
    return NULL;
}

int message_unpack(const ProtobufCMessageDescriptor *d, const void *p, size_t n,
                   ProtobufCMessage **out, struct err *e)
{
    struct budget budget = {n * BUDGET_PER_BYTE + BUDGET_BASE, 0};
    ProtobufCAllocator a = {budget_alloc, budget_free, &budget};
    const char *bad;

    *out = NULL;
    if (n > FRAME_CAP)
        return err_set(e, ERR_CORRUPT, "%s of %zu bytes, %d are allowed", d->name, n,
                       FRAME_CAP);
    *out = protobuf_c_message_unpack(d, &a, n, p);
    if (!*out)
        return err_set(e, ERR_CORRUPT,
                       budget.exceeded ? "%s of %zu bytes unpacks to too much memory"
                                       : "%s of %zu bytes is malformed",
                       d->name, n);
    bad = bad_text(*out);
    if (bad) {
        message_free(*out);
        *out = NULL;
        return err_set(e, ERR_CORRUPT, "%s: \"%s\" is not UTF-8", d->name, bad);
    }
    return 0;
}

void message_free(ProtobufCMessage *m)
{
    ProtobufCAllocator a = {budget_alloc, budget_free, NULL};

    if (m)
        protobuf_c_message_free_unpacked(m, &a);
}

static char *text_of(const char *s)
{
    return *s ? (char *)(uintptr_t)s : NULL;
}

void message_error(const struct err *e, Hone__V1__Error *out)
{
    hone__v1__error__init(out);
    out->status = (uint32_t)err_exit_status(e->code);
    out->message = (char *)(uintptr_t)e->msg;
    out->mend = text_of(e->mend);
    out->code = (char *)(uintptr_t)err_name(e->code);
    out->field = text_of(e->field);
}
