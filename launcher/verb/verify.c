/* hone verify: carried out by hone-worker. */
#include "launcher/verb.h"

const struct verb verb_verify = {"verify", "compare with numbers recorded from PyTorch",
                                 verb_exec_worker};
