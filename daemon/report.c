/* The report of a job: see report.h. */
#include "daemon/report.h"

#include "base/log.h"

void report_begin(struct daemon *d, const struct job *j)
{
    const char *const argv[] = {d->hone, "report", j->run, NULL};
    const struct io_command io = {.argv = argv, .keep_fd = -1};
    uint64_t child;
    struct err e;

    if (d->is_private || d->roots || j->attached || !*d->hone)
        return;
    if (d->io->ops->spawn(d->io, &io, &child, &e))
        log_error("job %llu: report: %s", (unsigned long long)j->id, e.msg);
}
