/* Back ends: who carries out the operators.
 *
 * The reference back end (`ref`) defines every operator with plain loops and double
 * accumulators; its table is complete (a missing function is a link error). Another back
 * end overrides what it does faster and inherits the rest if it works on host memory.
 *
 * Invariant: a table from backend_find() has no NULL operator. `abi` and `size` must equal
 * the host's: plug-ins ship with the host. No device is "0 devices", never an error:
 * describe() then says why. */
#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

#include <stddef.h>

#include "kernels/op.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a back end found out by timing and keeps to: which algorithm computes a kind of
 * product. Bits depend on it, so a program stores it and gives it back. */
struct backend_choices {
    /* What choices hold for: "NVIDIA H200, driver for CUDA 12.4, cuBLASLt 120402". */
    void (*key)(char *buf, size_t n);
    unsigned long (*changes)(void); /* how many have been made by timing so far */
    /* As text, cut to n; the bytes that all need, less the NUL. all: also those for which
     * timing was off or had no memory. */
    size_t (*get)(char *buf, size_t n, int all);
    /* These win over what there is. ERR_CORRUPT: not such a text, nothing was taken. */
    int (*put)(const char *text);
    /* Choose now for the kind of this product, whose memory is not touched: of the pointers
     * only the alignment counts (NULL: aligned). Within a step nothing is timed: a kind met
     * there first gets what needs no timing. */
    int (*prepare)(const struct matmul_args *a);
};

/* What the work on a device is for. The first ones are the parts of a step. */
enum backend_part {
    BACKEND_LOAD,
    BACKEND_FORWARD,
    BACKEND_BACKWARD,
    BACKEND_REDUCE,
    BACKEND_UPDATE,
    BACKEND_STEP_PARTS,
    BACKEND_CHECKPOINT = BACKEND_STEP_PARTS,
    BACKEND_EVALUATE,
    BACKEND_PARTS
};

/* A device that works beside the host, to be looked at. */
struct backend_device {
    void (*bus)(char *buf, size_t n); /* its PCI address, "0000:3B:00.0"; "": not known */
    /* From now on work is for `part`; -1: for nothing of these. Profilers show it, and the
     * parts of a step are timed. */
    void (*enter)(int part);
    /* A step has ended. 1, and the seconds that the device spent in the first n parts of
     * the step BEFORE it; or 0: not known. Never waits. */
    int (*step_seconds)(double *seconds, int n);
    /* 1, and something that people should know, once; 0: nothing. */
    int (*notice)(char *buf, size_t n);
};

/* A process's device, so that ranks can compare theirs. */
struct backend_card {
    char name[96], id[64]; /* id: the same for no other device of any host */
    int index;
};

/* How far the sums of a group have come. */
struct backend_progress {
    long queued, done; /* collectives */
    char failed[192];  /* what the library or the device reports; "" */
};

/* Between the host and each device, in bytes a second; and does i reach k's memory? */
enum { BACKEND_LINKS_MAX = 16 };
struct backend_links {
    int n;
    double to_device[BACKEND_LINKS_MAX], from_device[BACKEND_LINKS_MAX];
    unsigned char peer[BACKEND_LINKS_MAX][BACKEND_LINKS_MAX];
};

struct backend_group;
enum { BACKEND_GROUP_ID = 128, BACKEND_PART_ALIGN = 16 /* floats */ };

/* Sums over the devices of several processes (NCCL). Collectives are queued on a stream of
 * their own, behind the operators queued so far, and nothing waits but what says so; every
 * rank queues the same ones in the same order. Rank i's part of n floats is [share(i),
 * share(i + 1)), see backend_share(). Functions return 0, or a code with error() set. */
struct backend_ranks {
    /* Of the library, as 22809 for 2.28.9; 0: there is none that serves, and why. */
    int (*version)(char *why, size_t n);
    int (*card)(struct backend_card *d);
    int (*links)(struct backend_links *l);      /* measured, about 50 ms a device */
    int (*group_id)(char id[BACKEND_GROUP_ID]); /* one rank's, carried to the others */
    /* Collective; waits `seconds` for the others, or until *given_up. */
    int (*open)(struct backend_group **out, const char id[BACKEND_GROUP_ID], int rank,
                int world, double seconds, int (*given_up)(void *arg), void *arg);
    void (*close)(struct backend_group *g); /* total; aborts where sums are left over */
    /* End all that is queued: it will not complete. From any thread; the group is dead. */
    void (*abort)(struct backend_group *g);
    /* From any thread. */
    void (*look)(struct backend_group *g, struct backend_progress *p);
    /* x (n) = its sum over the ranks; parts: of this rank's part alone. two_bytes: values
     * travel as bf16 and are summed in f32, in order of rank. */
    int (*sum)(struct backend_group *g, float *x, size_t n, int parts, int two_bytes);
    int (*gather)(struct backend_group *g, float *x, size_t n); /* the parts of all */
    int (*join)(struct backend_group *g); /* later operators wait for what is queued */
    /* Room for two-byte sums of up to n elements: then a sum needs no memory. */
    int (*reserve)(struct backend_group *g, size_t n);
    /* packed (rows, cols) = table[id[i]], or back; all on the device. An operator. */
    int (*rows)(float *packed, float *table, const int *id, long rows, long cols, int back);
};

static inline size_t backend_share(size_t n, int i, int world)
{
    size_t each = n / (size_t)world / BACKEND_PART_ALIGN * BACKEND_PART_ALIGN;

    return i == world ? n : each * (size_t)i;
}

struct backend {
    unsigned abi, size;
    const char *name; /* "ref", "cpu", "cuda" */
    int (*devices)(void);
    /* One line for people: instruction set, library and threads in use. */
    void (*describe)(char *buf, size_t n);
    /* The instructions that serve bf16 products ("amx", ...); NULL: none, operands are
     * rounded and multiplied in f32, which is slower than f32 itself. */
    const char *(*bf16)(void);
    /* The same for f16. */
    const char *(*f16)(void);
    void (*set_threads)(int n); /* 0: all this process may use */
    int (*threads)(void);
    void *(*alloc)(size_t bytes); /* device memory, 64-aligned, not zeroed; NULL: none */
    void (*release)(void *p);
    int (*copy_in)(void *device, const void *host, size_t bytes);
    int (*copy_out)(void *host, const void *device, size_t bytes);
    int (*fill_zero)(void *device, size_t bytes);
    /* Bytes of the device's memory, free and in all; 0 and 0: as large as the host's. */
    int (*memory)(size_t *left, size_t *all);
    /* Take `bytes` of it at once, of which alloc() gives until it is used up, and `scratch`
     * for the operators; all else that is made on first use is made now. */
    int (*reserve)(size_t bytes, size_t scratch);
    /* A step begins (1) or has ended (0): in between nothing asks the device for memory,
     * where enough was reserved. */
    void (*step)(int begins);
    void (*pack_free)(struct op_pack *p);
    const char *(*error)(void); /* the newest failure of an operator, on this thread */
    const struct backend_choices *choices; /* NULL: none are made */
    const struct backend_device *device;   /* NULL: the host itself */
    const struct backend_ranks *ranks;     /* NULL: sums go through host memory */
#define X(op) int (*op)(const struct op##_args *);
    HONE_OPS(X)
#undef X
};

#define HONE_BACKEND_ABI 8u

/* "cpu", "ref" (the reference), "cuda" (a plug-in, see plugin.h), or "auto": cuda where it
 * has a device, else cpu. NULL: no such back end, or its plug-in is not usable. */
const struct backend *backend_find(const char *name);

/* Why a back end is not there or has no device, in one line; "" when it can be used. */
const char *backend_reason(const char *name);

/* Reference operators, callable by other host back ends. */
#define X(op) int ref_##op(const struct op##_args *);
HONE_OPS(X)
#undef X

#ifdef __cplusplus
}
#endif
#endif
