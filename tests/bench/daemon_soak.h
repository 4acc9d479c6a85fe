/* Does the daemon stay as it is when it is used for long? Churn: jobs are submitted,
 * watched, report metrics, are paused, resumed, cancelled, and forgotten when enough newer
 * ones are there. After a warm-up of a third nothing may grow any more: honed's memory,
 * the memory of the process that forks checks, descriptors, bytes of the database and of
 * the journals, processes. */
#ifndef TESTS_BENCH_DAEMON_SOAK_H
#define TESTS_BENCH_DAEMON_SOAK_H

int soak_run(double seconds); /* how many things grew; prints a line for each sample */

#endif
