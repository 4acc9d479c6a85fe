/* The user's file of daemons, $XDG_CONFIG_HOME/hone/config.yaml or ~/.config/hone/…:
 *
 *     default: lab
 *     daemons:
 *       lab: {address: "gpu1:4663", authority: lab-ca.crt, token_file: lab.token}
 *
 * All keys are checked whenever it is read: a word that is misspelt must not lead to
 * another daemon than the one that was meant. What an entry says, and whether the default
 * is one of them, is checked when it is used (launcher/remote.h). */
#ifndef LAUNCHER_CONFIG_H
#define LAUNCHER_CONFIG_H

#include "base/arena.h"
#include "base/err.h"
#include "base/file.h"
#include "base/node.h"

struct config {
    char path[FILE_PATH_MAX]; /* "": neither HOME nor XDG_CONFIG_HOME is set */
    struct node *root;        /* a map, in the arena; empty where there is no file */
    const char *chosen;       /* the default, a name or an address; NULL: none */
};

/* $NAME/TAIL, or else $HOME/REST/TAIL. 1: neither is set. */
int config_user_path(const char *name, const char *rest, const char *tail, char *out,
                     size_t n);

/* ERR_CONFIG with the place of what is wrong. */
int config_read(struct config *c, struct arena *a, struct err *e);
/* First of the entries, each with its name as key; NULL: there are none. */
struct node *config_first(const struct config *c);
struct node *config_find(const struct config *c, const char *name);

/* Write the tree as it is now, whole or not at all; comments are lost. */
int config_write(const struct config *c, struct err *e);

#endif
