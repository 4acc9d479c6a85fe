/* Definition of the embedding sum: y[t] = sum over tables of table[i][index[i][t]]. */
#include "kernels/ref/ref.h"

int ref_embedding(const struct embedding_args *a)
{
    for (long t = 0; t < a->T; t++) {
        for (long c = 0; c < a->D; c++) {
            double sum = 0;

            for (int i = 0; i < a->n; i++)
                sum += a->table[i][(long)a->index[i][t] * a->D + c];
            a->y[t * a->D + c] = (float)sum;
        }
    }
    return 0;
}
