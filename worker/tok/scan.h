/* JSON read once, front to back, without a tree: for tokenizer.json, whose vocabulary of
 * tens of thousands of members would cost more as a tree than everything else together.
 *
 * Values that are not walked are stepped over with scan_skip() and handed as bytes to
 * jansson, which checks them; what is walked is checked here. The text is UTF-8 (checked by
 * the caller). Depth at most 64. Fails with ERR_CORRUPT "name:line: what". */
#ifndef WORKER_TOK_SCAN_H
#define WORKER_TOK_SCAN_H

#include <stddef.h>

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"

struct scan {
    const char *name, *s;
    size_t n, i;
    struct str text; /* the last string that had escapes */
};

struct span { /* bytes of the scanned text, or of scan.text until the next string */
    const char *s;
    size_t n;
};

void scan_init(struct scan *s, const char *name, const char *text, size_t n);
void scan_fini(struct scan *s);

int scan_fail(const struct scan *s, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

char scan_peek(struct scan *s); /* first byte of the next value; 0 at the end */

/* The opening bracket, '{' or '['. */
int scan_open(struct scan *s, char bracket, struct err *e);
/* The next item: 1, 0 after the last one (closing bracket eaten), or an error. `first` is
 * 1 before the first call and cleared by it. */
int scan_item(struct scan *s, char closing, int *first, struct err *e);
/* Key and colon of an object's item. No NUL within. */
int scan_key(struct scan *s, struct span *key, struct err *e);
int scan_string(struct scan *s, struct span *out, struct err *e);
int scan_long(struct scan *s, long *out, struct err *e);
int scan_double(struct scan *s, double *out, struct err *e);
int scan_skip(struct scan *s, struct span *out, struct err *e);
/* Step over a value and parse it with jansson (json_decref by the caller). */
int scan_json(struct scan *s, json_t **out, struct err *e);
/* Nothing but white space is left. */
int scan_end(struct scan *s, struct err *e);

#endif
