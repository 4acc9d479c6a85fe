/* Between load.c, which writes a row's record, and dataset.c, which reads it. */
#ifndef WORKER_DATA_LOAD_H
#define WORKER_DATA_LOAD_H

#include <stdint.h>

/* Followed by both texts, each with a NUL (of a data set without pairs: by one). */
struct record_head {
    uint32_t len[2], file, line;
};

#endif
