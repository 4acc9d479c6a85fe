/* Fuzzer: option tables. Whatever a file says, every field stays within its bounds, and
 * what is written reads back without a problem and is written the same again. */
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/opt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct config {
    int flag, mode;
    long batch;
    double lr, dropout;
    const char *title, *file;
    struct opt_list names, files, bins;
    const struct node *any;
};

static const char *const modes[] = {"linear", "cosine", "true", "1", NULL};
static const char *const dropout_words[] = {"model", NULL};
static const double dropout_values[] = {-1};

static const struct opt table[] = {
    OPT_BOOL(struct config, flag, 1, "a flag"),
    OPT_ENUM(struct config, mode, -1, modes, "a mode"),
    OPT_INT(struct config, batch, 16, 1, 1e12, "examples a step"),
    OPT_FLOAT(struct config, lr, 2e-5, 0, 1, "learning rate"),
    {"dropout", OPT_TYPE_FLOAT, offsetof(struct config, dropout), -1, 0, 1,
     .help = "share of zeros", .words = dropout_words, .word_values = dropout_values},
    OPT_STRING(struct config, title, "none", "a text"),
    OPT_PATH(struct config, file, "a file"),
    OPT_STRINGS(struct config, names, "texts"),
    OPT_PATHS(struct config, files, "files"),
    OPT_FLOATS(struct config, bins, "edges"),
    OPT_NODE(struct config, any, "anything"),
    OPT_END,
};

/* The number of problems, or -1 when it is no file at all. */
static int apply(const char *text, size_t n, struct config *c, struct arena *a)
{
    struct problems p;
    struct node *root;
    struct err e;
    int errors;

    opt_defaults(table, c);
    if (node_parse(a, "f", text, n, &root, &e))
        return -1;
    problems_init(&p, "f");
    opt_apply(table, c, root, "/jobs", NULL, a, &p);
    errors = p.errors;
    invariant(p.n <= PROBLEMS_MAX && (errors == 0) == (problems_result(&p, &e) == 0));
    problems_fini(&p);
    invariant((c->flag == 0 || c->flag == 1) && c->mode >= -1 && c->mode < 4);
    invariant(c->batch >= 1 && c->batch <= 1000000000000 && c->lr >= 0 && c->lr <= 1);
    invariant(c->dropout == -1 || (c->dropout >= 0 && c->dropout <= 1));
    return errors;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str one = {0}, two = {0};
    struct arena a = {0};
    struct config c, d;

    if (apply((const char *)data, size, &c, &a) == 0) {
        opt_write_yaml(table, &c, 0, &one);
        if (one.len < 1 << 20) {
            invariant(apply(one.s, one.len, &d, &a) == 0);
            opt_write_yaml(table, &d, 0, &two);
            invariant(!strcmp(one.s, two.s));
        }
    }
    str_fini(&one);
    str_fini(&two);
    arena_fini(&a);
    return 0;
}
