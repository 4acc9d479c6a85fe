/* What metrics cost training, in CPU time rather than wall time, which a shared machine's
 * neighbours move by more than the answer: everything that would not be there without a
 * daemon, as if all of it were taken from the training's cores. */
#ifndef TESTS_BENCH_DAEMON_TRAINING_H
#define TESTS_BENCH_DAEMON_TRAINING_H

struct training_cost {
    double worker; /* CPU seconds of the worker, all threads */
    double uplink; /* of these, of the uplink's thread */
    double calls;  /* what its reports take of the training thread: counted × measured */
    double honed;  /* CPU seconds of the daemon meanwhile */
    long points;
};

/* Runs the first stage of a job under honed with the real hone-worker. */
void training_measure(const char *worker, const char *job, struct training_cost *out);

#endif
