/* Learning-rate schedules: a factor in [0, 1] for each step, counted from 0.
 *
 * As in transformers: during warm-up step / warmup (so step 0 has rate 0), afterwards
 *   linear    (total - step) / (total - warmup)
 *   cosine    (1 + cos(pi * (step - warmup) / (total - warmup))) / 2
 *   constant  1 */
#ifndef WORKER_TRAIN_SCHED_H
#define WORKER_TRAIN_SCHED_H

enum schedule { SCHEDULE_LINEAR, SCHEDULE_COSINE, SCHEDULE_CONSTANT };

struct sched {
    enum schedule kind;
    long warmup, total; /* steps */
};

/* share: of the total that is warm-up, rounded up as transformers does. */
void sched_init(struct sched *s, enum schedule kind, double share, long total);
double sched_factor(const struct sched *s, long step);

#endif
