/* A terminal: whether it can be redrawn, how large it is, what fits. */
#ifndef LAUNCHER_SCREEN_H
#define LAUNCHER_SCREEN_H

#include <stddef.h>

int screen_is_live(int fd); /* a terminal that moves its cursor: not a file, not "dumb" */
int screen_has_colour(int fd); /* one that is live, and NO_COLOR is not set */
int screen_speaks_utf8(void);  /* as LC_ALL, LC_CTYPE or LANG say */

/* Never 0; 80 by 24 where nobody knows. */
void screen_size(int fd, size_t *columns, size_t *lines);

/* Bytes of `s` that take at most `width` columns, and columns that all of it takes: escape
 * sequences and continuation bytes take none, every other character takes one. */
size_t screen_cut(const char *s, size_t width);
size_t screen_width(const char *s);

#endif
