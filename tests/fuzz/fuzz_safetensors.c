/* Fuzzer: tensor files. What opens can be read to its last element, and its header written
 * anew describes the same tensors. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "worker/ckpt/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const struct safetensors *s)
{
    struct err e;

    for (size_t i = 0; i < s->n; i++) {
        const struct safetensors_tensor *t = &s->tensor[i];
        void *p = mem_alloc(t->elements * 8 + 1);

        invariant(p && safetensors_find(s, t->name) == t);
        invariant(!safetensors_read(s, t, 0, t->elements, p, &e));
        if (dtype_is_float(t->dtype))
            invariant(!safetensors_read_f32(s, t, 0, t->elements, p, &e));
        mem_free(p);
    }
}

static void write_again(const struct safetensors *s)
{
    struct safetensors_item *item = mem_array(s->n + 1, sizeof *item);
    struct safetensors again;
    struct str header = {0};
    struct err e;

    invariant(item);
    for (size_t i = 0; i < s->n; i++) {
        item[i].name = s->tensor[i].name;
        item[i].dtype = s->tensor[i].dtype;
        item[i].rank = s->tensor[i].rank;
        memcpy(item[i].shape, s->tensor[i].shape, sizeof item[i].shape);
    }
    invariant(!safetensors_header(&header, s->metadata, item, s->n, &e));
    invariant(!safetensors_parse(&again, "again", header.s, header.len, s->data_len, &e));
    invariant(again.n == s->n);
    for (size_t i = 0; i < s->n; i++)
        invariant(!strcmp(again.tensor[i].name, s->tensor[i].name) &&
                  again.tensor[i].elements == s->tensor[i].elements);
    safetensors_close(&again);
    str_fini(&header);
    mem_free(item);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    struct safetensors s;
    char path[64];
    struct err e;

    invariant(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!safetensors_open(&s, path, &e)) {
        read_all(&s);
        write_again(&s);
        safetensors_close(&s);
    }
    close(fd);
    return 0;
}
