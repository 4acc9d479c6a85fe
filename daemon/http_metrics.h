/* The daemon's state in Prometheus's text format, version 0.0.4. Names follow Prometheus's
 * rules: base units, `_total` for what only grows. */
#ifndef DAEMON_HTTP_METRICS_H
#define DAEMON_HTTP_METRICS_H

#include "base/str.h"
#include "hone.pb-c.h"

void http_metrics_write(const Hone__V1__StatusReply *m, struct str *out);

#endif
