/* What HEAD_LOGPROB's outputs say of answers: sums over rows, and the metrics of a language
 * model. Nothing here can fail; values that are not finite come out as such. */
#ifndef WORKER_TRAIN_ANSWERS_H
#define WORKER_TRAIN_ANSWERS_H

#include "worker/stage/stage.h"

/* Columns of the outputs (n, LOGPROB_OUT). */
enum { ANSWER_LOGP, ANSWER_ENTROPY, ANSWER_LIKELIEST, ANSWER_TOKENS };

/* Column k of n answers, summed. */
double answers_sum(const float *out, size_t n, int k);

/* stage->evaluate() of language models: nll, perplexity, accuracy and entropy, means over
 * all answer tokens; answer_tokens, n. */
int answers_evaluate(struct stage_run *run, const int *label, size_t n, const float *out,
                     struct metric_list *m, struct err *e);
extern const char *const answers_metrics[]; /* of these, what may select a checkpoint */

#endif
