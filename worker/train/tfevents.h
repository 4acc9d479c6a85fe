/* TensorBoard event files: the metrics of metrics.jsonl once more, for its reader.
 *
 * RUN/<stage>/events.out.tfevents.<seconds>.hone is a TFRecord file:
 *     u64 length | u32 masked crc32c(length) | data | u32 masked crc32c(data)
 * where data is a protobuf Event {wall_time = 1, step = 2, file_version = 3, summary = 5
 * {value = 1 {tag = 1, simple_value = 2}}} (tensorboard/compat/proto/event.proto). A resume
 * cuts the file back to the checkpoint. Numbers that are not finite are left out. */
#ifndef WORKER_TRAIN_TFEVENTS_H
#define WORKER_TRAIN_TFEVENTS_H

#include "base/err.h"
#include "base/file.h"
#include "worker/stage/stage.h"

struct tfevents {
    char path[FILE_PATH_MAX];
    long long size; /* bytes that belong to the run so far */
};

/* Open the folder's event file (a new one has just its version) and cut it to `keep`
 * bytes; keep 0, or a file that is shorter: anew. */
int tfevents_open(struct tfevents *t, const char *dir, long long keep, struct err *e);
int tfevents_add(struct tfevents *t, long step, const char *split,
                 const struct metric_list *m, struct err *e); /* tags "<split>/<name>" */
int tfevents_sync(struct tfevents *t, struct err *e);

#endif
