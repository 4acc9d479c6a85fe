/* Credentials of those who come over the network: bearer tokens and client certificates,
 * each with a name and a role (daemon/access.h). Over a Unix socket the kernel vouches.
 *
 * STATE/credentials, mode 0600, one a line:
 *
 *     token|certificate  NAME  ROLE  SHA-256 in hexadecimal  seconds since the epoch
 *
 * A token itself is shown once, when it is made: 256 random bits, of which only the hash is
 * kept; of a certificate it is the fingerprint. The file is read again when it has changed,
 * so that `honed token add` and `revoke` work on a running daemon: a connection whose
 * credential has gone is refused its next call. A file that others may read is refused. */
#ifndef DAEMON_AUTH_H
#define DAEMON_AUTH_H

#include <stddef.h>

#include "base/err.h"
#include "daemon/access.h"

enum { AUTH_TOKEN_SIZE = 64, AUTH_ID = 9, AUTH_HASH = 65 };

enum auth_kind { AUTH_TOKEN, AUTH_CERTIFICATE };

struct auth_entry {
    enum auth_kind kind;
    char name[ACCESS_NAME_MAX];
    enum access_role role;
    char hash[AUTH_HASH]; /* its first 8 digits are the credential's id */
    double made;
};

struct auth;

int auth_open(struct auth **out, const char *state, struct err *e);
void auth_close(struct auth *a);

/* Who is it? ERR_DENIED: nobody we know. Either may be NULL or "". */
int auth_who(struct auth *a, const char *token, const char *certificate, struct access *who,
             struct err *e);
/* Is this still so? ERR_DENIED: revoked. */
int auth_still(struct auth *a, const struct access *who, struct err *e);
/* How many credentials there are; an error when the file cannot be used. */
int auth_count(struct auth *a, size_t *n, struct err *e);

/* For the commands. Names: 1 to 63 letters, digits and . _ @ -; a name may have several
 * credentials. */
int auth_check_name(const char *name, struct err *e);
int auth_add_token(const char *state, const char *name, enum access_role role,
                   char token[AUTH_TOKEN_SIZE], struct err *e);
int auth_add_certificate(const char *state, const char *name, enum access_role role,
                         const char *fingerprint, struct err *e);
/* By name (all of them) or by id; *n: how many went. */
int auth_revoke(const char *state, const char *name_or_id, size_t *n, struct err *e);
/* mem_free() the list. */
int auth_list(const char *state, struct auth_entry **list, size_t *n, struct err *e);

const char *auth_kind_name(enum auth_kind kind);

#endif
