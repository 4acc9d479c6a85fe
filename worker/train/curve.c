/* metrics.jsonl; see curve.h. */
#include "worker/train/curve.h"

#include <string.h>

#include "base/json.h"

int curve_open(struct curve *r, const char *dir, long long keep, struct err *e)
{
    long long have;
    int rc = file_join(r->path, sizeof r->path, dir, "metrics.jsonl", e);

    if (rc)
        return rc;
    r->size = keep;
    have = file_size(r->path);
    if (have < 0 && !keep)
        return file_append(r->path, "", 0, e);
    if (have < keep) {
        if (have < 0)
            err_set(e, ERR_CORRUPT, "%s: is missing, the checkpoint counts on it", r->path);
        else
            err_set(e, ERR_CORRUPT, "%s: cut short: %lld bytes, the checkpoint says %lld",
                    r->path, have, keep);
        return err_mend(e, "put it back, or start over in another --out");
    }
    return file_truncate(r->path, (size_t)keep, e);
}

int curve_line(struct curve *r, const char *json, struct err *e)
{
    struct str line = {0};
    int rc;

    str_addf(&line, "%s\n", json);
    if (str_failed(&line)) {
        str_fini(&line);
        return err_set(e, ERR_NOMEM, "%s: out of memory", r->path);
    }
    rc = file_append(r->path, line.s, line.len, e);
    r->size += (long long)line.len;
    str_fini(&line);
    return rc;
}

int curve_sync(struct curve *r, struct err *e)
{
    /* The length is what it is already; file_truncate() fsyncs. */
    return file_truncate(r->path, (size_t)r->size, e);
}

void curve_format(struct str *out, long step, double epoch, double time, const char *split,
                  const struct metric_list *m)
{
    str_addf(out, "{\"step\": %ld, \"epoch\": ", step);
    json_number(out, epoch);
    str_addf(out, ", \"time\": %.3f, \"split\": \"%s\"", time, split);
    for (int i = 0; i < m->n; i++) {
        str_addf(out, ", \"%s\": ", m->name[i]);
        json_number(out, m->value[i]);
    }
    str_add_char(out, '}');
}
