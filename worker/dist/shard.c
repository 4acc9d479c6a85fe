/* Sharding a batch; see shard.h. Fails when memory is short. */
#include "worker/dist/shard.h"

#include <stdlib.h>

#include "base/mem.h"

struct item {
    size_t tokens, example;
};

static int longer(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    if (x->tokens != y->tokens)
        return x->tokens < y->tokens ? 1 : -1;
    return x->example < y->example ? -1 : 1;
}

int shard_by_tokens(const size_t *tokens, size_t n, int world, int *owner, struct err *e)
{
    struct item *item = mem_array(n + 1, sizeof *item);
    size_t *load = mem_array((size_t)world, sizeof *load);

    if (!item || !load) {
        mem_free(item);
        mem_free(load);
        return err_set(e, ERR_NOMEM, "sharding of a batch: out of memory");
    }
    for (size_t i = 0; i < n; i++)
        item[i] = (struct item){tokens[i], i};
    qsort(item, n, sizeof *item, longer);
    for (size_t i = 0; i < n; i++) {
        int least = 0;

        for (int r = 1; r < world; r++)
            if (load[r] < load[least])
                least = r;
        owner[item[i].example] = least;
        load[least] += item[i].tokens;
    }
    mem_free(item);
    mem_free(load);
    return 0;
}
