/* Sets of cores: see cores.h. */
#include "daemon/cores.h"

void cores_write(const struct cores *c, struct str *out)
{
    int first = 1;

    for (int i = 0; i < CORES_MAX; i++)
        if (cores_has(c, i)) {
            str_addf(out, "%s%d", first ? "" : ",", i);
            first = 0;
        }
}
