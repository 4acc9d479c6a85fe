/* TensorBoard event files; see tfevents.h for the format. */
#include "worker/train/tfevents.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

static const char prefix[] = "events.out.tfevents.";

/* CRC-32C (Castagnoli), reflected polynomial 0x82F63B78, bit by bit: a few hundred bytes a
 * line. Masked as TFRecord wants it. */
static uint32_t masked_crc(const void *p, size_t n)
{
    const unsigned char *s = p;
    uint32_t crc = 0xffffffffu;

    for (size_t i = 0; i < n; i++) {
        crc ^= s[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void add_le(struct str *s, uint64_t x, int bytes)
{
    for (int i = 0; i < bytes; i++)
        str_add_char(s, (char)(x >> 8 * i & 0xff));
}

static void add_varint(struct str *s, uint64_t x)
{
    for (; x >= 0x80; x >>= 7)
        str_add_char(s, (char)((x & 0x7f) | 0x80));
    str_add_char(s, (char)x);
}

static void add_bytes_field(struct str *s, int field, const void *p, size_t n)
{
    add_varint(s, (uint64_t)field << 3 | 2);
    add_varint(s, n);
    str_add_bytes(s, p, n);
}

static void add_header(struct str *event, double wall, long step)
{
    uint64_t bits;

    memcpy(&bits, &wall, sizeof bits);
    str_add_char(event, 1 << 3 | 1);
    add_le(event, bits, 8);
    str_add_char(event, 2 << 3);
    add_varint(event, (uint64_t)step);
}

static int append(struct tfevents *t, const struct str *event, struct err *e)
{
    struct str out = {0};
    int r;

    add_le(&out, event->len, 8);
    add_le(&out, str_failed(&out) ? 0 : masked_crc(out.s, 8), 4);
    str_add_bytes(&out, event->s, event->len);
    add_le(&out, str_failed(event) ? 0 : masked_crc(event->s, event->len), 4);
    if (str_failed(&out) || str_failed(event))
        r = err_set(e, ERR_NOMEM, "%s: out of memory", t->path);
    else
        r = file_append(t->path, out.s, out.len, e);
    t->size += (long long)out.len;
    str_fini(&out);
    return r;
}

/* The folder's event file, or the name of a new one. */
static int find(struct tfevents *t, const char *dir, struct err *e)
{
    char name[64], **names;
    size_t n;
    int r = file_list(dir, &names, &n, e);

    if (r)
        return r;
    snprintf(name, sizeof name, "%s%.0f.hone", prefix, floor(clock_wall()));
    for (size_t i = 0; i < n; i++) {
        if (str_starts(names[i], prefix) && strlen(names[i]) < sizeof name)
            memcpy(name, names[i], strlen(names[i]) + 1);
        mem_free(names[i]);
    }
    mem_free(names);
    return file_join(t->path, sizeof t->path, dir, name, e);
}

int tfevents_open(struct tfevents *t, const char *dir, long long keep, struct err *e)
{
    static const char version[] = "brain.Event:2";
    struct str event = {0};
    long long have;
    int r = find(t, dir, e);

    if (r)
        return r;
    have = file_size(t->path);
    if (have < keep) /* taken away by somebody: it only repeats metrics.jsonl */
        keep = 0;
    t->size = keep;
    if (have >= 0)
        r = file_truncate(t->path, (size_t)keep, e);
    if (r || keep)
        return r;
    add_header(&event, clock_wall(), 0);
    add_bytes_field(&event, 3, version, sizeof version - 1);
    r = append(t, &event, e);
    str_fini(&event);
    return r;
}

int tfevents_add(struct tfevents *t, long step, const char *split,
                 const struct metric_list *m, struct err *e)
{
    struct str event = {0}, summary = {0}, value = {0};
    char tag[128];
    int r;

    for (int i = 0; i < m->n; i++) {
        float x = (float)m->value[i];
        uint32_t bits;

        if (!isfinite(m->value[i]))
            continue;
        memcpy(&bits, &x, sizeof bits);
        snprintf(tag, sizeof tag, "%s/%s", split, m->name[i]);
        str_clear(&value);
        add_bytes_field(&value, 1, tag, strlen(tag));
        str_add_char(&value, 2 << 3 | 5);
        add_le(&value, bits, 4);
        add_bytes_field(&summary, 1, value.s, value.len);
    }
    add_header(&event, clock_wall(), step);
    add_bytes_field(&event, 5, str_get(&summary), summary.len);
    event.failed |= value.failed | summary.failed;
    r = append(t, &event, e);
    str_fini(&event);
    str_fini(&summary);
    str_fini(&value);
    return r;
}

int tfevents_sync(struct tfevents *t, struct err *e)
{
    return file_truncate(t->path, (size_t)t->size, e);
}
