/* RUN/report.html of a job that has ended, written by `hone report` as the process that
 * hone run calls as well. */
#ifndef DAEMON_REPORT_H
#define DAEMON_REPORT_H

#include "daemon/daemon.h"

/* Nobody waits for it; what goes wrong is in the log. Not done for a private daemon, whose
 * owner writes it, nor where jobs are held to folders (honed --root): hone report is not
 * held, and what lies in a run folder belongs to its job. */
void report_begin(struct daemon *d, const struct job *j);

#endif
