/* Progress of a job for people, on standard error: on a terminal a bar per stage that is
 * redrawn in place, elsewhere plain lines (a start, about ten steps, an end per stage).
 *
 * Only what an event says is shown: step, tokens a second, loss, the newest validation
 * metric, and the time left by the pace of the steps seen so far. Text from outside loses
 * its control characters. Never fails; what memory does not suffice for is left out. */
#ifndef LAUNCHER_PROGRESS_H
#define LAUNCHER_PROGRESS_H

#include "hone.pb-c.h"

struct progress;

struct progress *progress_new(void); /* NULL: out of memory; all calls accept NULL */
void progress_free(struct progress *p);

void progress_job(struct progress *p, const Hone__V1__Job *job);
void progress_event(struct progress *p, const Hone__V1__Event *ev);
/* A line that stays, above the bars. */
void progress_say(struct progress *p, const char *text);
/* Redraw what changed; returns in how many milliseconds to call again, -1: no need. */
int progress_draw(struct progress *p);
void progress_end(struct progress *p); /* the last state stays on the screen */

#endif
