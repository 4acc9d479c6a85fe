/* Fuzzer: a connection to the daemon, over an outside world that does nothing. Whatever
 * comes, the daemon answers or closes, and has no job afterwards. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/log.h"
#include "daemon/admit.h"
#include "daemon/conn.h"
#include "daemon/daemon.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static double now(struct io *io)
{
    (void)io;
    return 1;
}

static void send_nothing(struct io *io, uint64_t conn, const void *p, size_t n)
{
    (void)io;
    (void)conn;
    (void)p;
    invariant(n >= FRAME_HEAD);
}

static size_t unsent(struct io *io, uint64_t conn)
{
    (void)io;
    (void)conn;
    return 0;
}

static void close_nothing(struct io *io, uint64_t conn)
{
    (void)io;
    (void)conn;
}

static int spawn_nothing(struct io *io, const struct io_command *c, uint64_t *child,
                         struct err *e)
{
    (void)io;
    invariant(c->argv[0]);
    *child = 0;
    return err_set(e, ERR_FAILED, "no processes here");
}

static void kill_nothing(struct io *io, uint64_t child, int signal)
{
    (void)io;
    (void)child;
    (void)signal;
}

static void wake_never(struct io *io, double when)
{
    (void)io;
    (void)when;
}

static void stop_nothing(struct io *io)
{
    (void)io;
}

/* One for all inputs: nothing is ever stored. */
static char dir[64] = "/tmp/hone-fuzz-XXXXXX";
static struct store *store;

static void remove_store(void)
{
    struct err e;

    store_close(store);
    file_remove_tree(dir, &e);
}

static void open_store(void)
{
    struct err e;

    invariant(mkdtemp(dir) && !store_open(&store, dir, STORE_EPHEMERAL, &e));
    atexit(remove_store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct io_ops ops = {now,           send_nothing,  unsent,
                                      close_nothing, spawn_nothing, kill_nothing,
                                      wake_never,    stop_nothing};
    struct io io = {.ops = &ops};
    struct daemon d;

    log_set_level(LOG_ERROR);
    if (!store)
        open_store();
    daemon_init(&d, &io, store, dir, "unix:/nowhere", 1);
    io.events->connected(io.ctx, 1);
    for (size_t at = 0; at < size; at += 61)
        io.events->received(io.ctx, 1, data + at, size - at < 61 ? size - at : 61);
    io.events->closed(io.ctx, 1);
    invariant(d.n_jobs == 0 && !d.conns && !d.admissions && !d.watches);
    daemon_fini(&d);
    return 0;
}
