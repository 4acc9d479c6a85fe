/* Jobs as text for people, on standard output. */
#ifndef LAUNCHER_JOBS_H
#define LAUNCHER_JOBS_H

#include <stdio.h>

#include "hone.pb-c.h"

void jobs_print_line(const Hone__V1__Job *j); /* "job 3 sst5: pausing" */
void jobs_print_table(FILE *out, const Hone__V1__JobList *list);
void jobs_print_details(const Hone__V1__Job *j);

#endif
