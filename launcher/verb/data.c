/* hone data: carried out by hone-worker. */
#include "launcher/verb.h"

const struct verb verb_data = {"data", "what a job's data holds: show, prefer, export",
                               verb_exec_worker};
