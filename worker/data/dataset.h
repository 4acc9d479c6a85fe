/* Data sets: rows of text with a label, from JSONL, TSV or CSV files, as the job maps them.
 *
 * One validating pass reads everything before step 0; a bad last row starts nothing. Every
 * problem names file and row ("train.jsonl: row 17: label 7 is not below 5"). Rows of one
 * `file` are split by the hash rule and sorted in hash order where `split` or `limit` ask
 * for it: any prefix is a random sample. Rows never change afterwards.
 *
 * Memory: 12 bytes a row and at most STORE_MEMORY of texts, whatever the size of the files
 * (store.h); while loading, up to 44 more a row where duplicates, split or limit need the
 * keys. The files themselves are only passed over. */
#ifndef WORKER_DATA_DATASET_H
#define WORKER_DATA_DATASET_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/opt.h"
#include "base/problems.h"
#include "worker/data/store.h"

enum split { SPLIT_TRAIN, SPLIT_VALIDATION, SPLIT_TEST, SPLITS };
extern const char *const split_names[]; /* "train", "validation", "test", NULL */

enum data_kind { DATA_AUTO, DATA_JSONL, DATA_TSV, DATA_CSV }; /* auto: by the name */
enum duplicates { DUPLICATES_KEEP, DUPLICATES_DROP, DUPLICATES_FAIL };

/* The job's `data` section (option table data_options[], interface.md section 2). */
struct data_spec {
    struct opt_list train, validation, test, file; /* paths */
    const struct node *format, *columns, *label, *split;
    struct opt_list clean; /* html, space */
    int duplicates;        /* enum duplicates (default: keep; drop with `split`) */
    long limit;            /* 0: all */
    long max_tokens;
    /* resolved from the nodes by data_resolve() */
    int answers;         /* rows are a prompt and its response */
    int kind, header;    /* enum data_kind; header row present */
    const char *text[2]; /* column names or numbers; text[1] NULL: single texts;
                            answers: of the prompt and the response */
    const char *label_column;
    struct opt_list bins;
    double validation_share, test_share;
    int clean_html, clean_space;
};
extern const struct opt data_options[];

/* Check the section and fill the resolved fields; answers: what the job's task wants. */
void data_resolve(struct data_spec *d, const struct node *section, int answers,
                  struct arena *a, struct problems *p);

struct row {
    const char *text[2]; /* text[1] NULL: no pair; NUL-terminated UTF-8 */
    size_t len[2];
    int label;           /* -1: none (predict) */
    uint32_t file, line; /* where it came from: index into files, 1-based row number */
};

struct dataset {
    size_t n;
    int *label;        /* (n) */
    uint64_t *at;      /* (n) place of its record in `text` */
    struct store text; /* records: struct record_head, texts */
    struct arena arena;
    const char **file;
    size_t n_files;
    size_t dropped_duplicates, dropped_empty;
    int pairs;
};

/* Load all splits, each file once. labels: names from task.labels (ids are accepted too),
 * n_labels of them. A split without source gives n = 0. Warnings (one class only, ...) go
 * to `p`, and so does everything a user can mend: *e then says the first of it. Only
 * ERR_NOMEM and ERR_IO are in *e alone. After a failure all of d is empty. */
int dataset_load_all(struct dataset d[SPLITS], const struct data_spec *spec,
                     const char *const *labels, size_t n_labels, struct problems *p,
                     struct err *e);
/* The same for one split. */
int dataset_load(struct dataset *d, const struct data_spec *spec, enum split split,
                 const char *const *labels, size_t n_labels, struct problems *p,
                 struct err *e);
void dataset_fini(struct dataset *d);

/* Row i; its texts are valid until buf is used again or the data set goes. Several threads
 * may read, each with a buffer of its own. */
int dataset_get(const struct dataset *d, size_t i, struct store_buf *buf, struct row *out,
                struct err *e);

/* Bytes of memory it holds. */
size_t dataset_bytes(const struct dataset *d);

/* One line of JSONL or plain text for predict: fills row (text only). A line whose first
 * character is `{` is JSON. `name` and `number` are for messages. */
int dataset_parse_line(struct arena *a, const char *line, size_t len, const char *name,
                       long number, struct row *out, struct err *e);

#endif
