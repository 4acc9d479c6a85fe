/* The daemon's core in a world that the test plays: a virtual clock, processes, connections
 * and a disk that fail as a seed says. tests/sim/test_daemon.c runs seeds; world.c is the
 * outside world (daemon/io.h), worker.c the workers, client.c the clients and what they
 * know for certain. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <setjmp.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/str.h"
#include "daemon/daemon.h"
#include "hone.pb-c.h"
#include "proto/frame.h"
#include "wire.pb-c.h"
#include "worker.pb-c.h"

enum {
    SIM_JOBS = 6,
    SIM_STAGES = 3, /* of each seed */
    SIM_SEEDS = 2,
    SIM_PROCESSES = 256,
    SIM_CONNS = 64,
    SIM_CLIENTS = 3,
    SIM_TRACE = 1 << 16,
};

/* A connection: bytes on their way in both directions. */
struct sim_conn {
    uint64_t id; /* 0: closed */
    int cut;     /* the daemon has not heard of its end yet */
    int goodbye; /* the daemon closed it: what is on its way still arrives */
    struct str up, down;
    struct frame_reader in; /* of the other end */
    int worker, client;     /* index of the owner, -1 */
};

enum { MSG_MAX = 128 };

struct sim_process {
    int alive, is_check, hung, stopping, listens;
    uint64_t child; /* by the present daemon, 0: it does not know it */
    int told;       /* its end has been told to the present daemon */
    int status, signal;
    char file[128], stage[16], token[80], status_file[256];
    uint64_t job;
    unsigned attempt;
    struct cores cores, gpus;
    int lock;
    int conn; /* index, -1 */
    int welcome;
    uint64_t instance, seq, acked, sent; /* of numbered messages: made, safe, written */
    char text[MSG_MAX][40];
    int done_made; /* the last message is its end */
    int steps, ends;
    double beat;
};

/* What is known for certain about a job, because it was acknowledged. */
struct sim_fact {
    char request[16];
    uint64_t id;       /* 0: not acknowledged */
    int paused, ended; /* acknowledged, and nothing else asked since */
    unsigned asked;    /* how often something was asked that ends such a state */
    int gone;          /* it had ended, and was forgotten */
    int over;          /* it had ended, when last seen */
    int skipped[SIM_SEEDS * SIM_STAGES];
};

struct sim_client {
    int conn, hello, busy; /* index; welcomed; a call is open */
    int what;              /* the open call's kind */
    int fact;              /* its job */
    unsigned asked;        /* the job's count then */
    int contested; /* another client was asking for the opposite when it was opened */
    int stage;
    uint32_t id;
    int watching; /* fact, -1 */
    uint64_t seen[SIM_JOBS];
};

struct sim {
    struct io io; /* first */
    struct daemon d;
    struct store *store;
    jmp_buf death;
    int dies;       /* in so many calls of the outside world, 0: not planned */
    int up, broken; /* the daemon lives; nothing fails any more when 0 */
    struct rng r;
    uint64_t seed;
    double now, wake;
    int workers;          /* ranks of every stage */
    int seeds;            /* of every job */
    uint64_t event_bytes; /* of a job; 0: any number */
    uint64_t keep, open;  /* ended jobs kept; an owner's that have not; 0: any number */
    char dir[64], file[96], state[96];
    struct sim_conn conn[SIM_CONNS];
    struct sim_process process[SIM_PROCESSES];
    int n_processes;
    struct sim_client client[SIM_CLIENTS];
    struct sim_fact fact[SIM_JOBS];
    uint64_t next_id, events;
    char trace[SIM_TRACE];
    size_t n_trace;
    uint64_t hash; /* of the whole trace */
    int verbose;
};

void sim_trace(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void sim_fail(struct sim *s, const char *file, int line, const char *what);
#define sim_check(s, cond) ((cond) ? (void)0 : sim_fail(s, __FILE__, __LINE__, #cond))

/* world.c */
void sim_open(struct sim *s, uint64_t seed);
void sim_close(struct sim *s);
void sim_start_daemon(struct sim *s);
void sim_kill_daemon(struct sim *s);
int sim_dial(struct sim *s, int worker, int client); /* -1: nobody is there */
void sim_cut(struct sim *s, int conn);
int sim_deliver(struct sim *s, int conn, size_t most); /* to the daemon; 1: something */
void sim_say(struct sim *s, int conn, const ProtobufCMessage *m);
void sim_advance(struct sim *s, double seconds);
void sim_end_process(struct sim *s, int process, int status, int signal);
int sim_tell_end(struct sim *s, int process); /* 1: told */

/* worker.c */
void sim_worker_hear(struct sim *s, int process); /* what has arrived */
void sim_worker_act(struct sim *s, int process);
int sim_is_finished(const struct sim *s, uint64_t job, const char *stage);

/* client.c */
void sim_client_hear(struct sim *s, int client);
void sim_client_act(struct sim *s, int client, int calm);
void sim_submit(struct sim *s, int client, int fact);
int sim_stage_index(const char *name); /* "seed-2/rm": 4 */
/* After every event. */
void sim_check_facts(struct sim *s);
/* After everything has come to rest. */
void sim_check_end(struct sim *s);

#endif
