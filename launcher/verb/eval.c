/* hone eval: carried out by hone-worker. */
#include "launcher/verb.h"

const struct verb verb_eval = {"eval", "accuracy, macro-F1, MCC, ECE of a model on a file",
                               verb_exec_worker};
