/* Sparklines: a series as one line of eight heights, ▁ to █, between its least and its
 * greatest value. However long the series, it is kept as at most SPARK_WIDTH means of
 * equally many points. */
#ifndef LAUNCHER_SPARK_H
#define LAUNCHER_SPARK_H

#include "base/str.h"

enum { SPARK_WIDTH = 24 };

struct spark { /* zeroed: empty */
    double mean[SPARK_WIDTH];
    int n;        /* means */
    int each, in; /* points a mean; points so far in the one that grows */
    double sum;
};

void spark_add(struct spark *s, double x); /* what is no number is left out */
void spark_write(const struct spark *s, struct str *out); /* UTF-8; nothing below 2 means */

#endif
