/* TLS: finds the module, see tls.h. */
#include "proto/tls.h"

int tls_load(const struct tls_api **out, struct err *e)
{
    static const struct module want = {TLS_ABI, sizeof(struct tls_api)};
    static const struct tls_api *loaded;
    const void *table;
    int rc = 0;

    if (!loaded) {
        rc = module_find("hone-tls", "hone_tls", &want, &table, e);
        if (!rc)
            loaded = table;
    }
    *out = loaded;
    return rc;
}
