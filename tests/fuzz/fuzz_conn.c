/* Fuzzer: a connection to the daemon, over an outside world that does nothing. Whatever
 * comes, the daemon answers or closes, and has no job afterwards. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/log.h"
#include "daemon/admit.h"
#include "daemon/conn.h"
#include "daemon/daemon.h"
#include "tests/quiet_io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
    struct quiet q;
    struct daemon d;

    log_set_level(LOG_ERROR);
    if (!store)
        open_store();
    quiet_open(&q);
    q.peer.local = 1;
    daemon_init(&d, &q.io, store, dir, "unix:/nowhere", 1);
    q.io.events->connected(q.io.ctx, QUIET_ID);
    for (size_t at = 0; at < size; at += 61)
        q.io.events->received(q.io.ctx, QUIET_ID, data + at,
                              size - at < 61 ? size - at : 61);
    q.io.events->closed(q.io.ctx, QUIET_ID);
    invariant(d.n_jobs == 0 && !d.conns && !d.admissions && !d.watches);
    daemon_fini(&d);
    quiet_close_all(&q);
    return 0;
}
