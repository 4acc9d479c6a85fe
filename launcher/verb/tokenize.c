/* hone tokenize: carried out by hone-worker. */
#include "launcher/verb.h"

const struct verb verb_tokenize = {"tokenize", "token ids of texts", verb_exec_worker};
