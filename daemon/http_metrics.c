/* Metrics for Prometheus: see http_metrics.h. */
#include "daemon/http_metrics.h"

static void gauge(struct str *out, const char *name, const char *help, double value)
{
    str_addf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %.15g\n", name, help, name, name,
             value);
}

void http_metrics_write(const Hone__V1__StatusReply *m, struct str *out)
{
    str_add(out, "# HELP hone_jobs Jobs that have not ended.\n# TYPE hone_jobs gauge\n");
    str_addf(out, "hone_jobs{state=\"queued\"} %u\n", m->queued);
    str_addf(out, "hone_jobs{state=\"running\"} %u\n", m->running);
    str_addf(out, "hone_jobs{state=\"paused\"} %u\n", m->paused);
    gauge(out, "hone_cores", "Cores to give.", m->cores);
    gauge(out, "hone_cores_used", "Cores that stages run on.", m->cores_used);
    gauge(out, "hone_gpus", "GPUs to give.", m->gpus);
    gauge(out, "hone_gpus_used", "GPUs that stages run on.", m->gpus_used);
    gauge(out, "hone_memory_bytes", "Memory to give.", (double)m->memory);
    gauge(out, "hone_memory_used_bytes", "Memory planned for stages that run.",
          (double)m->memory_used);
    gauge(out, "hone_jobs_ended", "Jobs that have ended and are kept.", (double)m->ended);
    gauge(out, "hone_jobs_ended_limit", "The oldest are forgotten above it; 0: never.",
          (double)m->ended_limit);
    gauge(out, "hone_state_bytes", "Of the state folder.", (double)m->state_bytes);
    gauge(out, "hone_state_limit_bytes", "Submits are refused above it; 0: never.",
          (double)m->state_limit);
    gauge(out, "hone_warnings", "Limits that are near.", (double)m->n_warnings);
    gauge(out, "hone_connections", "Clients and workers.", m->connections);
    gauge(out, "hone_watchers", "Streams of events.", m->watchers);
    gauge(out, "hone_up_seconds", "Time since the daemon's start.", m->up);
    gauge(out, "hone_epoch", "Daemons that had this state folder, with this one.",
          (double)m->epoch);
}
