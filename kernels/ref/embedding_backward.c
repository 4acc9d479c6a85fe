/* Definition of the embedding's gradient: each segment of `order` is one row of the table;
 * its tokens' gradients are summed in token order and added once. */
#include "kernels/ref/ref.h"

int ref_embedding_backward(const struct embedding_backward_args *a)
{
    for (long s = 0; s < a->n_segments; s++) {
        int first = a->start[s];
        long row = first < a->start[s + 1] ? a->index[a->order[first]] : -1;

        for (long c = 0; row >= 0 && c < a->D; c++) {
            double sum = 0;

            for (int i = a->start[s]; i < a->start[s + 1]; i++)
                sum += a->dy[(long)a->order[i] * a->D + c];
            a->dtable[row * a->D + c] = (float)(a->dtable[row * a->D + c] + sum);
        }
    }
    return 0;
}
