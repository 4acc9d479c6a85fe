/* hone check: carried out by hone-worker. */
#include "launcher/verb.h"

const struct verb verb_check = {
    "check", "every problem of a job file at once, then its plan", verb_exec_worker};
