/* Clocks: monotonic seconds for durations, wall time for people. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stddef.h>

double clock_now(void);           /* monotonic seconds */
double clock_wall(void);          /* seconds since the epoch */
double clock_process_start(void); /* wall time at which this process was created */
char *clock_iso(char *buf, size_t n, double wall); /* "2026-11-21T10:59:20Z"; n >= 21 */

#endif
