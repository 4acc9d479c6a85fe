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

enum { JOBS = 5, STAGES = 5, HISTORIES = 1000, EVENTS = 60 };

static const char *no_options[] = {NULL};

struct world {
    struct job job[JOBS];
    struct job *list[JOBS];
    struct job_stage stage[JOBS][STAGES];
    size_t needs[JOBS][STAGES][STAGES];
    struct resources has;
    double now;
};

/* Needs point to earlier stages only: no cycles, as the worker's check guarantees. */
static void make_world(struct world *w, struct rng *r)
{
    *w = (struct world){.has.memory = 1 + rng_below(r, 100)};
    for (int n = 1 + (int)rng_below(r, 8); cores_count(&w->has.cores) < n;)
        cores_add(&w->has.cores, (int)rng_below(r, CORES_MAX));
    for (int n = (int)rng_below(r, 4); cores_count(&w->has.gpus) < n;)
        cores_add(&w->has.gpus, (int)rng_below(r, 8));
    for (size_t i = 0; i < JOBS; i++) {
        struct job *j = &w->job[i];
        unsigned seeds = 1 + rng_below(r, 2);

        w->list[i] = j;
        j->id = i + 1;
        j->kill_at = INFINITY;
        j->stage = w->stage[i];
        j->slurm = rng_below(r, 6) ? NULL : no_options;
        j->n_stages = 1 + rng_below(r, STAGES);
        for (size_t k = 0; k < j->n_stages; k++) {
            struct job_stage *s = &j->stage[k];

            s->name = "stage";
            s->n_cores = 1 + (int)rng_below(r, 10);
            s->n_gpus = rng_below(r, 3)
                            ? 0
                            : (int)rng_below(r, (uint32_t)cores_count(&w->has.gpus) + 1);
            s->memory = rng_below(r, 4) ? rng_below(r, 60) : 150;
            if (j->slurm)
                s->n_cores = s->n_gpus = 0, s->memory = 0;
            s->needs = w->needs[i][k];
            s->seed = seeds > 1 ? 1 + (unsigned)(k % seeds) : 0;
            for (size_t q = 0; q < k; q++)
                if (rng_below(r, 3) == 0 && j->stage[q].seed == s->seed)
                    s->needs[s->n_needs++] = q;
        }
    }
}

static int count(const struct world *w, enum stage_state state)
{
    int n = 0;

    for (size_t i = 0; i < JOBS; i++)
        for (size_t k = 0; k < w->job[i].n_stages; k++)
            n += w->job[i].stage[k].state == state;
    return n;
}

/* No core, no GPU and no byte twice; what wants more than there is has all of it, alone. */
static void assert_not_overcommitted(const struct world *w)
{
    int total = cores_count(&w->has.cores), running = 0;
    struct cores used = {0}, gpus = {0};
    uint64_t memory = 0;

    for (size_t i = 0; i < JOBS; i++)
        for (size_t k = 0; k < w->job[i].n_stages; k++) {
            const struct job_stage *s = &w->job[i].stage[k];
            int want = s->n_cores < total ? s->n_cores : total;

            if (s->state != STAGE_RUNNING)
                continue;
            assert_int_equal(cores_count(&s->cores), want);
            assert_false(cores_overlap(&used, &s->cores));
            cores_join(&used, &s->cores);
            assert_int_equal(cores_count(&s->gpus), s->n_gpus);
            assert_false(cores_overlap(&gpus, &s->gpus));
            cores_join(&gpus, &s->gpus);
            running += !w->job[i].slurm;
            memory += s->memory;
        }
    for (int i = 0; i < CORES_MAX; i++)
        assert_false((cores_has(&used, i) && !cores_has(&w->has.cores, i)) ||
                     (cores_has(&gpus, i) && !cores_has(&w->has.gpus, i)));
    assert_true(memory <= w->has.memory || running == 1);
}

static int is_ready(const struct job *j, size_t k)
{
    const struct job_stage *s = &j->stage[k];

    if (j->want != WANT_RUN || s->state != STAGE_WAITING)
        return 0;
    for (size_t i = 0; i < j->n_stages; i++)
        if (j->stage[i].seed == s->seed &&
            (j->stage[i].state == STAGE_FAILED || j->stage[i].state == STAGE_STOPPED))
            return 0;
    for (size_t i = 0; i < s->n_needs; i++)
        if (!stage_over(j->stage[s->needs[i]].state))
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
                assert_true(w->job[i].slurm || !left_out);
                d++;
            } else {
                assert_null(w->job[i].slurm); /* there is always room */
                left_out = 1;
            }
        }
    assert_int_equal(d, plan->n);
}

static void apply(struct world *w)
{
    struct schedule plan;
    int ready = 0, running = count(w, STAGE_RUNNING);

    for (size_t i = 0; i < JOBS; i++)
        for (size_t k = 0; k < w->job[i].n_stages; k++)
            ready += is_ready(&w->job[i], k);
    sched_decide(w->list, JOBS, &w->has, w->now, &plan);
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
        s->cores = plan.item[i].cores;
        s->gpus = plan.item[i].gpus;
        stage_move(s, STAGE_RUNNING);
    }
    assert_not_overcommitted(w);
    /* Asked again at the same instant it has nothing to add. */
    sched_decide(w->list, JOBS, &w->has, w->now, &plan);
    for (size_t i = 0; i < plan.n; i++)
        assert_int_equal(plan.item[i].kind, DECIDE_KILL);
    assert_true(plan.wake > w->now);
}

static void happen(struct world *w, struct rng *r)
{
    struct job *j = &w->job[rng_below(r, JOBS)];
    struct job_stage *s = &j->stage[rng_below(r, (uint32_t)j->n_stages)];

    w->now += rng_uniform(r);
    if (rng_below(r, 20) == 0 && j->want == WANT_RUN)
        j->want = WANT_PAUSE;
    else if (rng_below(r, 4) == 0 && j->want == WANT_PAUSE)
        j->want = WANT_RUN;
    if (rng_below(r, 12) == 0) {
        j->want = WANT_STOP;
        j->kill_at = fmin(j->kill_at, w->now + 3 * rng_uniform(r));
    }
    if (s->state == STAGE_RUNNING)
        stage_move(s, rng_below(r, 8) == 0    ? STAGE_FAILED
                      : j->want == WANT_STOP  ? STAGE_STOPPED
                      : j->want == WANT_PAUSE ? STAGE_WAITING
                      : rng_below(r, 8) == 0  ? STAGE_SKIPPED
                                              : STAGE_DONE);
    job_settle(j);
}

/* What nothing can happen to any more has ended, or rests; what has ended has nothing
 * left to start. */
static void assert_settled(const struct world *w)
{
    for (size_t i = 0; i < JOBS; i++) {
        const struct job *j = &w->job[i];
        int alive = 0;

        for (size_t k = 0; k < j->n_stages; k++)
            alive |= is_ready(j, k) || j->stage[k].state == STAGE_RUNNING;
        if (j->want == WANT_RUN)
            assert_int_equal(!alive, job_ended(j));
        else if (alive)
            assert_false(job_ended(j));
    }
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
            assert_settled(&w);
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

        rng_init(&r, rng_key(seed, 2, 0, 0));
        make_world(&w, &r);
        for (;;) {
            int n, pick;

            apply(&w);
            n = count(&w, STAGE_RUNNING);
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
    struct job_stage stage[] = {
        {.name = "sft", .n_cores = 1},
        {.name = "rm", .n_cores = 1},
        {.name = "ppo", .n_cores = 1, .needs = needs, .n_needs = 2}};
    struct job j = {.stage = stage, .n_stages = 3, .kill_at = INFINITY};
    struct job *list[] = {&j};
    struct resources two = {.cores.word[0] = 0x28}, one = {.cores.word[0] = 2};
    struct schedule plan;

    (void)state;
    sched_decide(list, 1, &two, 0, &plan);
    assert_int_equal(plan.n, 2);
    assert_true(cores_has(&plan.item[0].cores, 3));
    assert_true(cores_has(&plan.item[1].cores, 5));
    sched_decide(list, 1, &one, 0, &plan);
    assert_int_equal(plan.n, 1);
    assert_int_equal(plan.item[0].stage, 0);
    stage[0].state = stage[1].state = STAGE_DONE;
    sched_decide(list, 1, &one, 0, &plan);
    assert_int_equal(plan.n, 1);
    assert_int_equal(plan.item[0].stage, 2);
}

/* A stage that is to be tried again later lets others pass, and asks to be woken. */
static void test_not_before(void **state)
{
    struct job_stage a[] = {{.name = "sft", .n_cores = 1, .not_before = 5}};
    struct job_stage b[] = {{.name = "sft", .n_cores = 1}};
    struct job first = {.stage = a, .n_stages = 1, .kill_at = INFINITY};
    struct job second = {.stage = b, .n_stages = 1, .kill_at = INFINITY};
    struct job *list[] = {&first, &second};
    struct resources one = {.cores.word[0] = 1};
    struct schedule plan;

    (void)state;
    sched_decide(list, 2, &one, 1, &plan);
    assert_int_equal(plan.n, 1);
    assert_int_equal(plan.item[0].job, 1);
    assert_true(plan.wake == 5);
    sched_decide(list, 2, &one, 5, &plan);
    assert_int_equal(plan.n, 1);
    assert_int_equal(plan.item[0].job, 0);
}

/* What one seed loses is not the others' loss: they go on, and the end names it. */
static void test_seeds(void **state)
{
    size_t first[] = {0}, second[] = {2};
    struct job_stage stage[] = {
        {.name = "seed-1/sft", .n_cores = 1},
        {.name = "seed-1/rm", .n_cores = 1, .needs = first, .n_needs = 1},
        {.name = "seed-2/sft", .n_cores = 1},
        {.name = "seed-2/rm", .n_cores = 1, .needs = second, .n_needs = 1}};
    struct job j = {.stage = stage, .n_stages = 4, .kill_at = INFINITY};
    struct job *list[] = {&j};
    struct resources two = {.cores.word[0] = 3};
    struct schedule plan;

    (void)state;
    for (int i = 0; i < 4; i++)
        stage[i].seed = stage_seed(stage[i].name);
    assert_int_equal(stage[3].seed, 2);
    assert_int_equal(stage_seed("seed-2"), 0);
    assert_int_equal(stage_seed("sft"), 0);
    sched_decide(list, 1, &two, 0, &plan);
    assert_int_equal(plan.n, 2);
    assert_int_equal(plan.item[1].stage, 2);
    stage[0].state = STAGE_FAILED;
    stage[2].state = STAGE_DONE;
    assert_int_equal(job_settle(&j), 0);
    sched_decide(list, 1, &two, 0, &plan);
    assert_int_equal(plan.n, 1);
    assert_int_equal(plan.item[0].stage, 3);
    stage[3].state = STAGE_DONE;
    assert_int_equal(job_settle(&j), 1);
    assert_int_equal(j.state, JOB_FAILED);
    assert_string_equal(j.message, "1 of 2 seeds failed: stage seed-1/sft: failed");
    arena_fini(&j.arena);
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
        cmocka_unit_test(test_not_before),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_outcomes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
