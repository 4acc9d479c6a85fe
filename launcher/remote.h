/* Long-lived daemons: which one, how to reach it, and one call to it.
 *
 *     --to unix:PATH | HOST:PORT | NAME        else $HONE_TO, else the default of the
 *                                              configuration, else the own one: `here`
 *
 * Names stand in config.yaml (launcher/config.h; hone context writes it).
 * Files are relative to that folder; a token file that others may read is refused. For an
 * address that no entry has, $HONE_TOKEN, $HONE_AUTHORITY, $HONE_CERTIFICATE and $HONE_KEY
 * say who we are. A token is never an argument. */
#ifndef LAUNCHER_REMOTE_H
#define LAUNCHER_REMOTE_H

#include <stdint.h>

#include "base/arena.h"
#include "base/args.h"
#include "base/err.h"
#include "hone.pb-c.h"
#include "launcher/config.h"
#include "proto/client.h"

#define REMOTE_FLAGS(T)                                                                    \
    ARG_VALUE("--to", "DAEMON", "unix:PATH, HOST:PORT or a name of config.yaml", T, to),   \
        ARG_SWITCH("--json", "JSON on standard output", T, json)

/* Texts live in the arena. */
int remote_target(const char *to, struct arena *a, struct client_target *out,
                  struct err *e);
/* The same for an entry of the configuration. */
int remote_use(const struct config *c, const struct node *entry, struct arena *a,
               struct client_target *out, struct err *e);
/* ERR_UNREACHABLE when nobody is there. */
int remote_open(struct client **out, const char *to, struct err *e);

/* A call with one reply; *out to be freed with message_free(). */
int remote_call(struct client *c, const char *method, const ProtobufCMessage *request,
                const ProtobufCMessageDescriptor *reply, ProtobufCMessage **out,
                struct err *e);

/* "3": the number of a job. */
int remote_job(const char *text, uint64_t *id, struct err *e);

/* A message as one line of JSON on standard output. */
int remote_print_json(const ProtobufCMessage *m, struct err *e);
/* Text from outside without control characters. */
const char *remote_clean(char *buf, size_t n, const char *text);

#endif
