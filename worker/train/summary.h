/* What a stage and a job leave for people and programs (interface.md section 3):
 *
 *     RUN/<stage>/stage.json, predictions-{validation,test}.jsonl      summary_stage()
 *     RUN/summary.json: all of them, and the comparison of the stages  summary_write_run()
 *
 * stage.json holds the stage's entry of summary.json, and for classifiers what a report
 * draws: temperature, confusion, reliability, label counts, standard errors. The comparison
 * has the rows "SFT", "SFT + temperature" and "ClaHF" on the test split, each with standard
 * errors (bootstrap over rows, 1,000 resamples) and the later ones with their paired
 * difference to the first.
 *
 * Invariant: a file is there whole or not at all; writers of summary.json take turns
 * (RUN/.summary.lock), and it is made from the stages' files alone, so writing it again
 * changes nothing but times. */
#ifndef WORKER_TRAIN_SUMMARY_H
#define WORKER_TRAIN_SUMMARY_H

#include "worker/data/dataset.h"
#include "worker/spec/spec.h"
#include "worker/stage/stage.h"

struct stage_facts {
    const char *dir;  /* RUN/<stage> */
    const char *name; /* its key in the job */
    const struct spec *spec;
    const char *precision;
    double seconds, train_seconds;  /* of the stage; of its training steps */
    long steps, skipped, best_step; /* best_step -1: none */
    double tokens, peak_bytes;
    const struct dataset *data;        /* (SPLITS) */
    const struct metric_list *metrics; /* (SPLITS), of validation and test */
    const float *logits[SPLITS]; /* classifiers: (n, K) of what lies in final/; else NULL */
};

/* Writes the predictions, then stage.json with state "done". */
int summary_stage(const struct stage_facts *f, struct err *e);

/* state NULL: "done" when every stage of the job is, else "running" (one stage was run for
 * a daemon). started: wall clock. seconds 0: one stage of several; then the start is that
 * of the file that is there (else `started`), and the time runs from it until now. */
int summary_write_run(const char *run, const struct spec *spec, const char *state,
                      double started, double seconds, struct err *e);

/* A stage ended before it could say so itself: "state" of the summary that is there, or of
 * one that says nothing else. */
int summary_set_state(const char *run, const struct spec *spec, const char *state,
                      struct err *e);

/* RUN/summary.json over RUN/seed-1/summary.json ...: every metric as {"mean", "se",
 * "values"}, se of the mean over the seeds. While some are not done, "seeds_done" has the
 * numbers of those that the figures are of, and "state" is that of the whole. seconds 0: as
 * above. */
int summary_write_seeds(const char *run, const struct spec *spec, double started,
                        double seconds, struct err *e);

#endif
