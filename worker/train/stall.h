/* Does the training loss still fall? A stage is looked at in windows of W steps, by default
 * a fifth of it (at least 100): with means m0, m1 and variances v0, v1 of the loss in two
 * windows, one after the other, it has stalled when
 *
 *     m0 - m1 <= 2 sqrt(v0 / W + v1 / W)
 *
 * that is when it has not fallen by more than twice the standard error of the difference.
 * The last window is not judged: the learning rate has run out there. It is said once, and
 * nothing follows from it but an event. After a resume the windows begin anew. Cannot fail.
 */
#ifndef WORKER_TRAIN_STALL_H
#define WORKER_TRAIN_STALL_H

struct stall {
    long window;                        /* W, 0: do not look */
    long n;                             /* steps of this window so far */
    double sum, square, mean, variance; /* this window; the one before */
    int windows;                        /* whole ones so far */
    int told;
};

/* asked: the job's `stall`: steps, 0: by the length of the stage, -1: off. */
void stall_init(struct stall *s, long asked, long total);
/* A step's loss, and how many are left. 1: it has stalled, and that is news. */
int stall_step(struct stall *s, double loss, long left);

#endif
