/* Notification: a program of STATE/notify/, named in the job file (`notify`) or by the
 * submit, is run with
 *
 *     PROGRAM EVENT JOB NAME TEXT          EVENT: done failed stopped alarm
 *
 * and HONE_JOB, HONE_EVENT, HONE_NAME, HONE_RUN, HONE_TEXT in its environment. Only what
 * the daemon's owner has put into that folder can be run. Its output is not looked at; a
 * program that fails is a line in the log. */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include "daemon/daemon.h"

/* Is there such a program? ERR_CONFIG. */
int notify_check(const struct daemon *d, const char *program, struct err *e);
void notify_run(struct daemon *d, const struct job *j, const char *event, const char *text);

#endif
