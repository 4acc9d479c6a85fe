/* hone doctor: carried out by hone-worker. */
#include "launcher/verb.h"

const struct verb verb_doctor = {
    "doctor", "what this machine offers, how fast it is, and what to mend",
    verb_exec_worker};
