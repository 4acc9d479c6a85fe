/* The scheduler against its invariants (daemon/sched.h), over random queues and random
 * histories: jobs end, fail, are stopped in every order. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "daemon/sched.h"

enum { JOBS = 5, STAGES = 5, HISTORIES = 3000, EVENTS = 60 };

struct world {
    struct job job[JOBS];
    struct job *list[JOBS];
    struct job_stage stage[JOBS][STAGES];
    size_t needs[JOBS][STAGES][STAGES];
    int cores;
    double now;
};

/* Needs point to earlier stages only: no cycles, as the worker's check guarantees. */
static void make_world(struct world *w, struct rng *r)
{
    *w = (struct world){.cores = 1 + (int)rng_below(r, 8)};
    for (size_t i = 0; i < JOBS; i++) {
        struct job *j = &w->job[i];

        w->list[i] = j;
        j->id = i + 1;
        j->kill_at = INFINITY;
        j->stage = w->stage[i];
        j->n_stages = 1 + rng_below(r, STAGES);
        for (size_t k = 0; k < j->n_stages; k++) {
            struct job_stage *s = &j->stage[k];

            s->name = "stage";
            s->cores = 1 + (int)rng_below(r, 10);
            s->needs = w->needs[i][k];
            for (size_t q = 0; q < k; q++)
                if (rng_below(r, 3) == 0)
                    s->needs[s->n_needs++] = q;
        }
    }
}

static int count(const struct world *w, enum stage_state state, int *cores)
{
    int n = 0;

    *cores = 0;
    for (size_t i = 0; i < JOBS; i++)
        for (size_t k = 0; k < w->job[i].n_stages; k++)
            if (w->job[i].stage[k].state == state) {
                n++;
                *cores += w->job[i].stage[k].cores;
            }
    return n;
}

static int is_ready(const struct job *j, size_t k)
{
    const struct job_stage *s = &j->stage[k];

    if (j->stop || s->state != STAGE_WAITING)
        return 0;
    for (size_t i = 0; i < j->n_stages; i++)
        if (j->stage[i].state == STAGE_FAILED || j->stage[i].state == STAGE_STOPPED)
            return 0;
    for (size_t i = 0; i < s->n_needs; i++)
        if (j->stage[s->needs[i]].state != STAGE_DONE)
            return 0;
    return 1;
}

/* Nothing ready that was left out stands before something that was started. */
static void assert_fair(const struct world *w, const struct schedule *plan)
{
    int left_out = 0;
    size_t d = 0;

    for (size_t i = 0; i < JOBS; i++)
        for (size_t k = 0; k < w->job[i].n_stages; k++) {
            while (d < plan->n && plan->item[d].kind == DECIDE_KILL)
                d++;
            if (!is_ready(&w->job[i], k))
                continue;
            if (d < plan->n && plan->item[d].job == i && plan->item[d].stage == k) {
                assert_false(left_out);
                d++;
            } else {
                left_out = 1;
            }
        }
    assert_int_equal(d, plan->n);
}

static void apply(struct world *w)
{
    struct schedule plan;
    int cores, ready = 0, running = count(w, STAGE_RUNNING, &cores);

    for (size_t i = 0; i < JOBS; i++)
        for (size_t k = 0; k < w->job[i].n_stages; k++)
            ready += is_ready(&w->job[i], k);
    sched_decide(w->list, JOBS, w->cores, w->now, &plan);
    assert_fair(w, &plan);
    if (!running && ready)
        assert_true(plan.n > 0);
    for (size_t i = 0; i < plan.n; i++) {
        struct job *j = w->list[plan.item[i].job];
        struct job_stage *s = &j->stage[plan.item[i].stage];

        if (plan.item[i].kind == DECIDE_KILL) {
            assert_int_equal(s->state, STAGE_RUNNING);
            assert_true(j->kill_at <= w->now);
            continue;
        }
        assert_true(is_ready(j, plan.item[i].stage));
        stage_move(s, STAGE_RUNNING);
    }
    running = count(w, STAGE_RUNNING, &cores);
    assert_true(cores <= w->cores || running == 1);
    /* Asked again at the same instant it has nothing to add. */
    sched_decide(w->list, JOBS, w->cores, w->now, &plan);
    for (size_t i = 0; i < plan.n; i++)
        assert_int_equal(plan.item[i].kind, DECIDE_KILL);
    assert_true(plan.wake > w->now);
}

static void happen(struct world *w, struct rng *r)
{
    struct job *j = &w->job[rng_below(r, JOBS)];
    struct job_stage *s = &j->stage[rng_below(r, (uint32_t)j->n_stages)];

    w->now += rng_uniform(r);
    if (rng_below(r, 12) == 0) {
        j->stop = 1;
        j->kill_at = fmin(j->kill_at, w->now + 3 * rng_uniform(r));
    }
    if (s->state == STAGE_RUNNING)
        stage_move(s, rng_below(r, 8) == 0 ? STAGE_FAILED
                      : j->stop            ? STAGE_STOPPED
                                           : STAGE_DONE);
    job_settle(j);
}

static void test_random_histories(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < HISTORIES; seed++) {
        struct world w;
        struct rng r;

        rng_init(&r, rng_key(seed, 1, 0, 0));
        make_world(&w, &r);
        for (int i = 0; i < EVENTS; i++) {
            apply(&w);
            happen(&w, &r);
        }
        for (size_t i = 0; i < JOBS; i++)
            arena_fini(&w.job[i].arena);
    }
}

/* Without failures everything ends, whatever the order. */
static void test_all_jobs_end(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < HISTORIES; seed++) {
        struct world w;
        struct rng r;
        int cores;

        rng_init(&r, rng_key(seed, 2, 0, 0));
        make_world(&w, &r);
        for (;;) {
            int n, pick;

            apply(&w);
            n = count(&w, STAGE_RUNNING, &cores);
            if (!n)
                break;
            pick = (int)rng_below(&r, (uint32_t)n);
            for (size_t i = 0; i < JOBS; i++)
                for (size_t k = 0; k < w.job[i].n_stages; k++)
                    if (w.job[i].stage[k].state == STAGE_RUNNING && pick-- == 0)
                        stage_move(&w.job[i].stage[k], STAGE_DONE);
        }
        for (size_t i = 0; i < JOBS; i++) {
            assert_int_equal(job_settle(&w.job[i]), 1);
            assert_int_equal(w.job[i].state, JOB_DONE);
            assert_int_equal(w.job[i].exit_status, 0);
        }
    }
}

static void test_sft_and_rm_side_by_side(void **state)
{
    size_t needs[] = {0, 1};
    struct job_stage stage[] = {{.name = "sft", .cores = 1},
                                {.name = "rm", .cores = 1},
                                {.name = "ppo", .cores = 1, .needs = needs, .n_needs = 2}};
    struct job j = {.stage = stage, .n_stages = 3, .kill_at = INFINITY};
    struct job *list[] = {&j};
    struct schedule plan;

    (void)state;
    sched_decide(list, 1, 2, 0, &plan);
    assert_int_equal(plan.n, 2);
    sched_decide(list, 1, 1, 0, &plan);
    assert_int_equal(plan.n, 1);
    assert_int_equal(plan.item[0].stage, 0);
    stage[0].state = stage[1].state = STAGE_DONE;
    sched_decide(list, 1, 1, 0, &plan);
    assert_int_equal(plan.n, 1);
    assert_int_equal(plan.item[0].stage, 2);
}

static void test_outcomes(void **state)
{
    (void)state;
    assert_int_equal(stage_outcome(0, 0), STAGE_DONE);
    assert_int_equal(stage_outcome(3, 0), STAGE_STOPPED);
    assert_int_equal(stage_outcome(1, 0), STAGE_FAILED);
    assert_int_equal(stage_outcome(0, 9), STAGE_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_histories),
        cmocka_unit_test(test_all_jobs_end),
        cmocka_unit_test(test_sft_and_rm_side_by_side),
        cmocka_unit_test(test_outcomes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
