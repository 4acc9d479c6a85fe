/* Rows of sparse tables over several devices: those that some rank has touched are packed
 * together, summed, and put back, as many at a time as a bucket holds. All buffers are made
 * at the start: nothing asks for device memory inside a step.
 *
 * Fails as the communicator does, and with ERR_DEVICE where copies fail. */
#include <string.h>

#include "base/mem.h"
#include "worker/train/optim_internal.h"

int optim_rows_open(struct optim_rows *w, const struct optim *o, struct err *e)
{
    size_t least = COMM_DEVICE_BUCKET;

    w->cap = COMM_DEVICE_BUCKET;
    for (int i = 0; i < o->n; i++) {
        size_t cols = o->ready[i] ? (size_t)o->param[i]->cols : 0;

        w->cap = cols > w->cap ? cols : w->cap;
        least = cols && cols < least ? cols : least;
    }
    w->cap_ids = (long)(w->cap / least) + 1;
    w->packed = o->backend->alloc(w->cap * sizeof *w->packed);
    w->device_id = o->backend->alloc((size_t)w->cap_ids * sizeof *w->device_id);
    w->id = mem_array((size_t)w->cap_ids, sizeof *w->id);
    w->span = mem_array((size_t)o->n + 1, sizeof *w->span);
    if (w->packed && w->device_id && w->id && w->span)
        return 0;
    return err_set(e, ERR_NOMEM, "rows of embedding tables: out of memory");
}

void optim_rows_close(struct optim_rows *w, const struct optim *o)
{
    if (w->packed)
        o->backend->release(w->packed);
    if (w->device_id)
        o->backend->release(w->device_id);
    mem_free(w->id);
    mem_free(w->span);
    memset(w, 0, sizeof *w);
}

static int copy_spans(const struct optim_rows *w, struct optim *o, int back, struct err *e)
{
    int r = 0;

    for (int k = 0; !r && k < w->spans; k++) {
        const struct optim_span *s = &w->span[k];
        struct param *p = o->param[s->param];

        r = o->comm->row_copy(o->comm, w->packed + s->at, p->grad, w->device_id + s->first,
                              s->n, p->cols, back, e);
    }
    return r;
}

/* What is packed together is summed and put back. */
static int sum_packed(struct optim_rows *w, struct optim *o, struct err *e)
{
    int r = 0;

    if (!w->at)
        return 0;
    if (o->backend->copy_in(w->device_id, w->id, (size_t)w->ids * sizeof *w->id))
        r = err_set(e, ERR_DEVICE, "rows of embedding tables: %s", o->backend->error());
    if (!r)
        r = copy_spans(w, o, 0, e);
    r = comm_agree(o->comm, r, e);
    if (!r)
        r = o->comm->device_sum(o->comm, w->packed, w->at, e);
    if (!r)
        r = comm_agree(o->comm, copy_spans(w, o, 1, e), e);
    w->spans = 0;
    w->ids = 0;
    w->at = 0;
    return r;
}

static void add_row(struct optim_rows *w, int param, long row, size_t cols)
{
    struct optim_span *s = w->spans ? &w->span[w->spans - 1] : NULL;

    if (!s || s->param != param) {
        s = &w->span[w->spans++];
        *s = (struct optim_span){param, w->ids, 0, w->at};
    }
    w->id[w->ids++] = (int)row;
    s->n++;
    w->at += cols;
}

int optim_rows_sum(struct optim_rows *w, struct optim *o, const unsigned *bits,
                   struct err *e)
{
    int r = 0;

    for (int i = 0; !r && i < o->n; i++) {
        struct param *p = o->param[i];

        if (!o->ready[i])
            continue;
        for (long row = 0; !r && row < p->rows; row++) {
            if (!(bits[row / 32] >> row % 32 & 1))
                continue;
            if (w->at + (size_t)p->cols > w->cap || w->ids == w->cap_ids)
                r = sum_packed(w, o, e);
            add_row(w, i, row, (size_t)p->cols);
            p->touched[row] = p->live[row] = 1;
        }
        bits += (p->rows + 31) / 32;
    }
    return r ? r : sum_packed(w, o, e);
}
