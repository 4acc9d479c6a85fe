/* The service as JSON over HTTP, above the server that daemon/io.h stands for:
 *
 *     POST /hone.v1.Hone/METHOD     a JSON object in, a JSON object out (proto/pbjson.h)
 *     GET  /hone.v1.Hone/METHOD?FIELD=VALUE&...    streams alone, for EventSource
 *     GET  /metrics                 for Prometheus
 *     GET  /                        the page for browsers (daemon/web.h)
 *
 * Streams (Watch, Logs, Metrics) are Server-Sent Events: every message is an event whose id
 * is where to go on; a client that comes back with Last-Event-ID misses and repeats
 * nothing. The last event is `end`, or `error` with what a failed call's body holds.
 *
 * Every request but for the page needs a credential: `Authorization: Bearer TOKEN`, or a
 * client certificate. Pages of other sites get nothing: a strange Origin, Sec-Fetch-Site
 * or, without TLS, Host (DNS rebinding) is refused before anything is looked at, and a POST
 * must be application/json. Nothing here reads files by name. An error is
 *
 *     {"error": {"status": 2, "code": "invalid configuration", "message": ...,
 *                "field": "stages[0]", "mend": ...}}
 *
 * with the exit status of the same failure on the command line. */
#ifndef DAEMON_HTTP_H
#define DAEMON_HTTP_H

#include <stdint.h>

#include "daemon/daemon.h"

void http_requested(struct daemon *d, uint64_t request, const struct io_request *r);
int http_closed(struct daemon *d, uint64_t request); /* 1: it was one of ours */
void http_free_all(struct daemon *d);

/* Streams whose credential was revoked are ended within some seconds. */
void http_tick(struct daemon *d);
double http_next(const struct daemon *d); /* when http_tick() wants to be called */

int http_is_stream(const char *method);

#endif
