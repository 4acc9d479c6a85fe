/* Events of jobs: kept in the job's journal, then told to its watchers.
 *
 * What has a number (states, metrics, notes, gaps) is told only once it is in the journal,
 * so that whoever comes with "after N" gets each exactly once, also from the next daemon.
 */
#ifndef DAEMON_EVENT_H
#define DAEMON_EVENT_H

#include "daemon/daemon.h"
#include "hone.pb-c.h"

/* The job's journal, opened when it is first asked for. NULL: *e says why. */
struct journal *event_journal(struct daemon *d, struct job *j, struct err *e);
void event_remove_journal(struct daemon *d, struct job *j);

/* Append an event of a stage (NULL: of the job); fills job, stage, time and seq. */
int event_add(struct daemon *d, struct job *j, const struct job_stage *s,
              Hone__V1__Event *ev, struct err *e);
/* Keep what was appended, then tell it. A failure: none of it is kept or told. */
int event_flush(struct daemon *d, struct job *j, struct err *e);

/* The job as it is now, as an event. */
void event_state(struct daemon *d, struct job *j);
void event_note(struct daemon *d, struct job *j, const struct job_stage *s,
                const char *level, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

#endif
