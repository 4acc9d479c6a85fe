/* Jobs as messages, for replies and events. They borrow from the job and live in the arena.
 * NULL: out of memory. */
#ifndef DAEMON_SHOW_H
#define DAEMON_SHOW_H

#include "base/arena.h"
#include "daemon/job.h"
#include "hone.pb-c.h"

/* now: the io's clock, for how long ago ranks were heard. */
Hone__V1__Job *show_job(struct arena *a, const struct job *j, double now);

#endif
