/* The standard descriptors of a program: open at its start, said to be written at its end.
 *
 * A descriptor that the caller closed would be given to the next file we open, and what is
 * meant for standard output would be written into it. It is opened the wrong way round
 * instead, so that reading and writing it fail as they do when it is closed. */
#ifndef BASE_STANDARD_H
#define BASE_STANDARD_H

void standard_open(void);

/* The exit status: `status`, or 1 with a message when it is 0 and not all that was printed
 * reached standard output. Call it last. */
int standard_close(const char *program, int status);

#endif
