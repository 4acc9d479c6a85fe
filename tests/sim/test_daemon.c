/* The daemon's core under seeded schedules of kills, delays, cuts, repeated requests, disk
 * errors, clock jumps and restarts, in virtual time; after every event its invariants
 * (client.c, world.c) are checked, and at the end, when nothing fails any more, every job
 * must come to rest with nothing lost and nothing doubled.
 *
 *     test_daemon [--seeds N] [--from SEED] [--seed SEED]      (one seed, with its trace)
 *
 * A schedule is a function of its seed alone: the first ones are run twice and compared. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "tests/sim/sim.h"

enum { EVENTS = 400, CALM = 6000, SEEDS = 150, TWICE = 10 };

/* A connection or a process that lives; -1: none. */
static int pick_conn(struct sim *s)
{
    int i = (int)rng_below(&s->r, SIM_CONNS);

    for (int k = 0; k < SIM_CONNS; k++)
        if (s->conn[(i + k) % SIM_CONNS].id)
            return (i + k) % SIM_CONNS;
    return -1;
}

static int pick_process(struct sim *s)
{
    int n = s->n_processes, i = n ? (int)rng_below(&s->r, (uint32_t)n) : 0;

    for (int k = 0; k < n; k++)
        if (s->process[(i + k) % n].alive)
            return (i + k) % n;
    return -1;
}

static void hear(struct sim *s, int conn)
{
    const struct sim_conn *c = &s->conn[conn];

    if (c->worker >= 0)
        sim_worker_hear(s, c->worker);
    else if (c->client >= 0)
        sim_client_hear(s, c->client);
}

static void go_wrong(struct sim *s)
{
    static const char *const errors[] = {"fsync:1:EIO", "fsync:2:EIO", "write:1:ENOSPC",
                                         "write:2:EIO", "fsync:3:ENOSPC"};
    int conn = pick_conn(s);

    switch (rng_below(&s->r, 7)) {
    case 0:
        if (rng_below(&s->r, 2))
            s->dies = 1 + (int)rng_below(&s->r, 6);
        else if (s->up)
            sim_kill_daemon(s);
        break;
    case 1:
    case 2:
        if (conn >= 0)
            sim_cut(s, conn);
        break;
    case 3:
    case 4:
        fault_arm(errors[rng_below(&s->r, 5)]);
        sim_trace(s, "the disk will fail");
        break;
    case 5:
        fault_arm(NULL);
        break;
    default:
        sim_advance(s, 30.0 * rng_uniform(&s->r)); /* nobody did anything for a while */
    }
}

static void tell_ends(struct sim *s, int all)
{
    for (int i = 0; i < s->n_processes; i++)
        if ((all || rng_below(&s->r, 3) == 0) && sim_tell_end(s, i))
            sim_check_facts(s);
    for (int i = 0; i < SIM_CONNS; i++)
        if (s->conn[i].id && s->conn[i].cut)
            sim_cut(s, i);
}

static void one_event(struct sim *s)
{
    int conn = pick_conn(s), process = pick_process(s);
    uint32_t dice = rng_below(&s->r, 100);

    if (!s->up && dice < 30)
        sim_start_daemon(s);
    else if (dice < 35 && conn >= 0)
        sim_deliver(s, conn, 1 + rng_below(&s->r, 200));
    else if (dice < 55 && conn >= 0)
        hear(s, conn);
    else if (dice < 75 && process >= 0)
        sim_worker_act(s, process);
    else if (dice < 88)
        sim_client_act(s, (int)rng_below(&s->r, SIM_CLIENTS), 0);
    else if (dice < 97)
        sim_advance(s, 1.5 * rng_uniform(&s->r));
    else
        go_wrong(s);
    tell_ends(s, 0);
    sim_check_facts(s);
    s->events++;
}

static int at_rest(struct sim *s)
{
    for (int i = 0; i < s->n_processes; i++)
        if (s->process[i].alive)
            return 0;
    for (size_t i = 0; i < s->d.n_jobs; i++)
        if (s->d.jobs[i]->state != JOB_PAUSED)
            return 0;
    return !s->d.admissions;
}

/* Nothing fails any more: everything must come to an end. */
static void calm_down(struct sim *s)
{
    fault_arm(NULL);
    s->broken = 0;
    sim_trace(s, "from here on nothing fails");
    if (!s->up)
        sim_start_daemon(s);
    for (int i = 0; i < CALM; i++) {
        for (int k = 0; k < SIM_CONNS; k++)
            if (s->conn[k].id) {
                while (sim_deliver(s, k, 1 << 20))
                    ;
                hear(s, k);
            }
        for (int k = 0; k < s->n_processes; k++)
            sim_worker_act(s, k);
        for (int k = 0; k < SIM_CLIENTS; k++)
            sim_client_act(s, k, 1);
        tell_ends(s, 1);
        sim_advance(s, 0.3);
        sim_check_facts(s);
        if (i > 100 && at_rest(s))
            break;
    }
    for (size_t i = 0; !at_rest(s) && i < s->d.n_jobs; i++)
        for (size_t k = 0; k < s->d.jobs[i]->n_stages; k++)
            sim_trace(s, "job %llu is %s, to %s; %s is %s, not before %.3f",
                      (unsigned long long)s->d.jobs[i]->id,
                      job_state_name(s->d.jobs[i]->state),
                      job_want_name(s->d.jobs[i]->want), s->d.jobs[i]->stage[k].name,
                      stage_state_name(s->d.jobs[i]->stage[k].state),
                      s->d.jobs[i]->stage[k].not_before);
    sim_check(s, at_rest(s));
    sim_check_end(s);
}

/* What the daemon had on its stack when it was killed is never freed. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static uint64_t run_seed(uint64_t seed, int verbose)
{
    static struct sim s;

    sim_open(&s, seed);
    s.verbose = verbose;
    s.seeds = seed % 3 ? 1 : SIM_SEEDS;
    s.keep = seed % 5 ? 0 : 1 + seed % 2;
    s.open = seed % 7 ? 0 : 3;
    s.event_bytes = seed % 4 ? 0 : 6000;
    fault_arm(NULL);
    sim_start_daemon(&s);
    for (volatile int i = 0; i < EVENTS; i++)
        if (setjmp(s.death) == 0)
            one_event(&s);
        else
            sim_kill_daemon(&s);
    s.dies = 0;
    calm_down(&s);
    sim_close(&s);
    return s.hash;
}

int main(int argc, char **argv)
{
    uint64_t seeds = SEEDS, from = 1, only = 0;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seeds"))
            seeds = strtoull(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--from"))
            from = strtoull(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--seed"))
            only = strtoull(argv[i + 1], NULL, 10);
    }
    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_ERROR + 1);
    if (only) {
        run_seed(only, 1);
        return 0;
    }
    for (uint64_t seed = from; seed < from + seeds; seed++) {
        uint64_t hash = run_seed(seed, 0);

        if (seed < from + TWICE && run_seed(seed, 0) != hash) {
            fprintf(stderr, "sim: seed %llu went differently the second time\n",
                    (unsigned long long)seed);
            return 1;
        }
    }
    printf("sim: %llu schedules of %d events\n", (unsigned long long)seeds, EVENTS);
    return 0;
}
