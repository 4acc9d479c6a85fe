/* Events of a job as JSON lines on standard output, for programs that watch (`--json`).
 *
 *     {"event": "job", "time", "name", "state", "run", "stages": {"sft": "running", ...}}
 *     {"event": "progress", "time", "stage", "phase", "step", "total", "figures": {...}}
 *     {"event": "metric", "time", "stage", "data": {...}}      a line of metrics.jsonl
 *     {"event": "note", "time", "stage", "level", "text"}
 *     {"event": "gap", "time", "stage", "dropped"}
 * What hone watch prints has "seq" where the event has a number, and metrics and notes of
 * a worker "attempt".
 *     {"event": "end", "state", "exit_status", "run", "report"}  always the last */
#ifndef LAUNCHER_EVENTS_H
#define LAUNCHER_EVENTS_H

#include "hone.pb-c.h"

void events_start(const Hone__V1__Job *job);
void events_print(const Hone__V1__Event *ev);
void events_end(const char *state, int exit_status, const char *run, const char *report);

#endif
