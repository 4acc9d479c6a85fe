/* y[t] = sum of one row of each table.
 *
 * Backward wants each table's tokens sorted by index: a stable counting sort on the host,
 * once a micro-batch, so that the sum over equal indices runs in token order whatever the
 * threads. Rows met are marked in the parameter's touched and live flags. On a device the
 * number of segments depends on the shapes alone, so that its graph of calls comes again:
 * those behind the last are empty. */
#include <string.h>

#include "base/mem.h"
#include "worker/tape/rule.h"

struct sorted {
    const int *index, *order, *start; /* device */
    long segments;
};

struct embedding_node {
    struct tape_node node;
    struct tensor *y;
    int n;
    struct param *table[OP_TABLES_MAX];
    struct sorted sorted[OP_TABLES_MAX];
};

static int backward(struct tape *t, struct tape_node *node)
{
    struct embedding_node *n = (struct embedding_node *)node;

    for (int i = 0; i < n->n; i++) {
        const struct sorted *s = &n->sorted[i];
        struct embedding_backward_args a = {.index = s->index,
                                            .order = s->order,
                                            .start = s->start,
                                            .n_segments = s->segments,
                                            .T = n->y->rows,
                                            .D = n->y->cols,
                                            .dy = n->y->grad,
                                            .dtable = n->table[i]->grad};

        if (param_trains(n->table[i]))
            TAPE_RUN(t, embedding_backward, &a);
    }
    return t->err.code;
}

static int counting_sort(struct tape *t, const int *index, long T, const struct param *p,
                         int *order, int *start, long *segments)
{
    size_t rows = (size_t)p->rows;
    int *count, at = 0;
    long s = 0;

    if (rows > t->cap_count) {
        count = mem_resize(t->count, rows, sizeof *count);
        if (!count)
            return tape_fail(t, ERR_NOMEM, "out of memory for the books of a step");
        t->count = count;
        t->cap_count = rows;
    }
    count = t->count;
    memset(count, 0, rows * sizeof *count);
    for (long i = 0; i < T; i++)
        count[index[i]]++;
    for (size_t r = 0; r < rows; r++) {
        int c = count[r];

        if (!c)
            continue;
        start[s++] = at;
        count[r] = at;
        at += c;
        if (p->live)
            p->live[r] = 1;
        if (p->touched)
            p->touched[r] = 1;
    }
    for (long i = s; i <= T; i++)
        start[i] = at;
    for (long i = 0; i < T; i++)
        order[count[index[i]]++] = (int)i;
    *segments = s;
    if (t->be->device)
        *segments = T < p->rows ? T : p->rows;
    return 0;
}

/* The memory does not depend on the ids, so that a plan counts the same. */
static int sort_index(struct tape *t, const int *index, long T, const struct param *p,
                      struct sorted *out)
{
    size_t n = (size_t)T;
    int *order = mem_array(n, sizeof *order), *start = mem_array(n + 1, sizeof *start);

    if (!order || !start)
        tape_fail(t, ERR_NOMEM, "out of memory for the books of a step");
    else if (tape_runs(t))
        counting_sort(t, index, T, p, order, start, &out->segments);
    out->order = tape_copy(t, order, n * sizeof *order);
    out->start = tape_copy(t, start, (n + 1) * sizeof *start);
    mem_free(order);
    mem_free(start);
    return t->err.code;
}

struct tensor *tape_embedding(struct tape *t, int n, struct param *const *table,
                              const int *const *index)
{
    struct embedding_args a = {.n = n, .T = t->batch.T};
    struct embedding_node *node;
    struct tensor *y;
    int trains = 0;

    if (t->err.code)
        return NULL;
    invariant(n >= 1 && n <= OP_TABLES_MAX);
    for (int i = 0; i < n; i++) {
        invariant(table[i]->cols == table[0]->cols);
        trains |= param_trains(table[i]);
        a.table[i] = table[i]->data;
        a.index[i] = tape_copy(t, index[i], (size_t)a.T * sizeof **index);
    }
    y = tape_tensor(t, a.T, table[0]->cols, trains);
    if (!y)
        return NULL;
    a.y = y->data;
    a.D = y->cols;
    TAPE_RUN(t, embedding, &a);
    node = tape_record(t, sizeof *node, backward, y, NULL);
    if (!node)
        return y;
    node->y = y;
    node->n = n;
    for (int i = 0; i < n; i++) {
        node->table[i] = table[i];
        node->sorted[i].index = a.index[i];
        tape_adds_to(&node->node, table[i]);
        if (param_trains(table[i]))
            sort_index(t, index[i], a.T, table[i], &node->sorted[i]);
    }
    return t->err.code ? NULL : y;
}
