/* Checks of jobs for a daemon: `hone-worker --checks`, started once and kept.
 *
 * Orders come over descriptor 3 (proto/check.proto), and every check is a process forked
 * for it alone: it begins with what this program has loaded, which saves the start, and
 * with nothing that an earlier check has left. It has descriptors 0, 1 and 2 and no other,
 * leads a process group, dies with us, may have so much memory and so many seconds, and is
 * the first that the kernel ends when memory runs out. As many run at once as there are
 * cores, in order of arrival; what a check prints and how it ends is told as news.
 *
 * Nothing of a job is read in this process, so that no job can harm the next one's check.
 * It ends when the daemon does. */
#ifndef WORKER_LINK_CHECKS_H
#define WORKER_LINK_CHECKS_H

/* When memory runs out, rather this process and its checks than the daemon or a stage that
 * has trained for a week. To be called before confine(), which takes /proc away. */
void checks_go_first(void);

/* `check` gets an order's words and gives an exit status; it is called in the forked
 * process, with one thread. Returns the exit status of this one. */
int checks_serve(int (*check)(int argc, char **argv));

#endif
