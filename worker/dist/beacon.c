/* Signs of life between hosts; see beacon.h. */
#include "worker/dist/beacon.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "worker/dist/comm.h"
#include "worker/dist/lag.h"

static const double beat_every = 0.5;

struct beat { /* a datagram; hosts of one job are of one build */
    uint64_t number;
    int32_t host, leaves;
    struct beacon_state state;
};

struct seen {
    double at;   /* when it was heard last; 0: never */
    int skipped; /* looks of ours since: a machine that slept judges nobody */
    int left;    /* it has said goodbye */
    struct beacon_state state;
};

struct beacon {
    int fd;
    struct beacon_host *host;
    struct seen *seen;
    int hosts, own;
    struct beacon_calls calls;
    struct lag lag;       /* host 0's, of hosts */
    pthread_mutex_t lock; /* of seen[].at and .state */
    _Atomic int *reported;
    pthread_t thread;
    int started;
    _Atomic int stopping;
};

static void list_addresses(struct beacon_host *h)
{
    struct ifaddrs *list, *i;
    int n = 0;

    if (getifaddrs(&list))
        return;
    for (i = list; i && n < BEACON_ADDRESSES; i = i->ifa_next) {
        const struct sockaddr_in *a = (const struct sockaddr_in *)(void *)i->ifa_addr;

        if (a && a->sin_family == AF_INET && (i->ifa_flags & IFF_UP) &&
            !(i->ifa_flags & IFF_LOOPBACK))
            h->address[n++] = a->sin_addr.s_addr;
    }
    freeifaddrs(list);
}

int beacon_open(struct beacon **out, struct beacon_host *own, struct err *e)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t len = sizeof any;
    struct beacon *b = mem_alloc(sizeof *b);

    *out = NULL;
    if (!b)
        return err_set(e, ERR_NOMEM, "beacon: out of memory");
    pthread_mutex_init(&b->lock, NULL);
    b->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (b->fd < 0 || bind(b->fd, (struct sockaddr *)&any, sizeof any) ||
        getsockname(b->fd, (struct sockaddr *)&any, &len) ||
        getrandom(&own->number, sizeof own->number, 0) != sizeof own->number) {
        err_errno(e, ERR_IO, errno, "beacon: socket");
        beacon_stop(b);
        return e->code;
    }
    own->port = any.sin_port;
    list_addresses(own);
    *out = b;
    return 0;
}

static void note_state(struct beacon *b, int host, const struct beacon_state *s)
{
    pthread_mutex_lock(&b->lock);
    b->seen[host].at = clock_now();
    b->seen[host].state = *s;
    pthread_mutex_unlock(&b->lock);
}

static void send_beats(struct beacon *b, int leaves)
{
    struct beat beat = {b->host[0].number, b->own, leaves, {0}};

    b->calls.look(b->calls.arg, &beat.state);
    note_state(b, b->own, &beat.state);
    for (int h = 0; h < b->hosts; h++)
        for (int i = 0; h != b->own && i < BEACON_ADDRESSES; i++) {
            struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = b->host[h].port};

            to.sin_addr.s_addr = b->host[h].address[i];
            if (to.sin_addr.s_addr) /* what does not go out is not heard */
                (void)!sendto(b->fd, &beat, sizeof beat, 0, (struct sockaddr *)&to,
                              sizeof to);
        }
}

static void hear(struct beacon *b)
{
    struct beat beat;
    ssize_t n;

    while ((n = recv(b->fd, &beat, sizeof beat, 0)) >= 0) {
        if (n != sizeof beat || beat.number != b->host[0].number || beat.host < 0 ||
            beat.host >= b->hosts)
            continue;
        b->seen[beat.host].skipped = 0;
        b->seen[beat.host].left |= beat.leaves;
        note_state(b, beat.host, &beat.state);
    }
}

static int is_lost(const struct seen *s)
{
    return s->at > 0 && !s->left && s->skipped > BEACON_SILENCE / beat_every &&
           clock_now() - s->at > BEACON_SILENCE;
}

/* Does every other host wait for one? Hosts are seen at moments up to half a second apart:
 * over many looks that makes no difference. */
static void look_for_lag(struct beacon *b)
{
    int who = -1, working = 0, named;
    const struct beacon_state *s;
    char text[ERR_MSG_MAX];
    double share;

    for (int h = 0; h < b->hosts; h++) {
        s = &b->seen[h].state;
        if (b->seen[h].left || s->one.phase < COMM_FORWARD || s->one.phase > COMM_UPDATE)
            return;
        working += s->working > 0;
        who = s->working > 0 ? h : who;
    }
    named = lag_look(&b->lag, working == 1 ? who : -1, &share);
    if (named < 0)
        return;
    s = &b->seen[named].state;
    lag_say(text, sizeof text, s->one.rank, b->host[named].name, s->one.pid, share,
            (long)s->one.step, s->one.phase);
    b->calls.lag(b->calls.told, text);
}

static void judge(struct beacon *b)
{
    char where[128] = "", text[ERR_MSG_MAX];
    int report = 1;

    for (int h = 0; h < b->hosts; h++) {
        const struct beacon_host *x = &b->host[h];

        if (h == b->own)
            continue;
        b->seen[h].skipped++;
        if (!is_lost(&b->seen[h]))
            continue;
        for (int k = 0; k < b->own; k++) /* the first host that is left speaks */
            report &= is_lost(&b->seen[k]);
        b->calls.where(b->calls.arg, where, sizeof where);
        snprintf(text, sizeof text,
                 "%s (ranks %d to %d; rank %d, pid %d, was at step %ld, %s) has not been "
                 "heard for %d s %s: its network is cut, or it is down",
                 x->name, x->first_rank, x->first_rank + x->ranks - 1,
                 b->seen[h].state.one.rank, b->seen[h].state.one.pid,
                 (long)b->seen[h].state.one.step + 1,
                 comm_phase_name(b->seen[h].state.one.phase), BEACON_SILENCE, where);
        if (b->reported && atomic_exchange(b->reported, 1))
            report = 0;
        b->calls.lost(b->calls.told, text, report, 1);
        return;
    }
    if (b->calls.lag && b->own == 0)
        look_for_lag(b);
}

static void *shine(void *arg)
{
    struct beacon *b = arg;

    while (!atomic_load(&b->stopping)) {
        struct pollfd p = {.fd = b->fd, .events = POLLIN};
        double until = clock_now() + beat_every, rest;

        send_beats(b, 0);
        while ((rest = until - clock_now()) > 0 && !atomic_load(&b->stopping)) {
            if (poll(&p, 1, rest > 0.1 ? 100 : (int)(rest * 1000) + 1) > 0)
                hear(b);
        }
        judge(b);
    }
    send_beats(b, 1);
    return NULL;
}

int beacon_start(struct beacon *b, const struct beacon_host *host, int hosts, int own,
                 const struct beacon_calls *calls, _Atomic int *reported, struct err *e)
{
    int rc;

    b->host = mem_array((size_t)hosts, sizeof *b->host);
    b->seen = mem_array((size_t)hosts, sizeof *b->seen);
    if (!b->host || !b->seen ||
        (own == 0 && lag_open(&b->lag, hosts, (int)(LAG_SECONDS / beat_every))))
        return err_set(e, ERR_NOMEM, "beacon: out of memory");
    memcpy(b->host, host, (size_t)hosts * sizeof *host);
    b->hosts = hosts;
    b->own = own;
    b->calls = *calls;
    b->reported = reported;
    rc = pthread_create(&b->thread, NULL, shine, b);
    if (rc)
        return err_errno(e, ERR_FAILED, rc, "beacon: start a thread");
    b->started = 1;
    return 0;
}

int beacon_find(struct beacon *b, long number, struct beacon_rank *out, char *host,
                size_t n)
{
    int found = 0;

    pthread_mutex_lock(&b->lock);
    for (int h = 0; !found && h < b->hosts; h++) {
        const struct beacon_state *s = &b->seen[h].state;

        if (h == b->own || b->seen[h].at <= 0 ||
            (number ? s->last.joined >= number : !s->working))
            continue;
        *out = number ? s->last : s->one;
        snprintf(host, n, "%s", b->host[h].name);
        found = 1;
    }
    pthread_mutex_unlock(&b->lock);
    return found;
}

int beacon_speaks(struct beacon *b, long number)
{
    int first = 0;

    pthread_mutex_lock(&b->lock);
    while (first < b->own && (b->seen[first].at <= 0 || b->seen[first].state.most < number))
        first++;
    pthread_mutex_unlock(&b->lock);
    return first == b->own;
}

void beacon_stop(struct beacon *b)
{
    if (!b)
        return;
    if (b->started) {
        atomic_store(&b->stopping, 1);
        pthread_join(b->thread, NULL);
    }
    if (b->fd >= 0)
        close(b->fd);
    pthread_mutex_destroy(&b->lock);
    lag_close(&b->lag);
    mem_free(b->host);
    mem_free(b->seen);
    mem_free(b);
}
