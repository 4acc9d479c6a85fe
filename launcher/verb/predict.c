/* hone predict: carried out by hone-worker. */
#include "launcher/verb.h"

const struct verb verb_predict = {"predict", "labels for texts", verb_exec_worker};
