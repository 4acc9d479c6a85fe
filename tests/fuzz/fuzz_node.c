/* Fuzzer: job files. What parses must be written and read again as the same tree. */
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/node.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {0};
    struct str one = {0}, two = {0}, json = {0};
    struct node *n;
    struct err e;

    if (!node_parse(&a, "f", (const char *)data, size, &n, &e)) {
        node_write_yaml(n, &one);
        /* Escapes may make it longer than what is read. */
        if (one.len < 1 << 20) {
            invariant(!node_parse(&a, "g", one.s, one.len, &n, &e));
            node_write_yaml(n, &two);
            invariant(!strcmp(one.s, two.s));
            node_write_json(n, &json);
            invariant(n->kind != NODE_MAP ||
                      !node_parse(&a, "h", json.s, json.len, &n, &e));
        }
    }
    str_fini(&one);
    str_fini(&two);
    str_fini(&json);
    arena_fini(&a);
    return 0;
}
