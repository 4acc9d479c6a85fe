/* What BERT and its descendants share beside bert_body.inc: the keys of config.json. Fails
 * as `configure` of a family does. */
#ifndef WORKER_FAMILY_BERT_H
#define WORKER_FAMILY_BERT_H

#include "worker/family/family.h"

/* pad_id, eos_id: the defaults when config.json does not say (-1: none). */
int bert_configure(const json_t *c, int pad_id, int eos_id, struct model_config *m,
                   struct err *e);

#endif
