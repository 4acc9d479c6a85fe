/* What all families share: the registry, shape strings, and checked members of config.json.
 * Every failure names the key, what was found and what Hone takes. */
#include "worker/family/family.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"

const struct family *family_find(const char *model_type, struct err *e)
{
    struct str known = {0};

    for (size_t i = 0; family_registry[i]; i++)
        if (!strcmp(family_registry[i]->model_type, model_type))
            return family_registry[i];
    for (size_t i = 0; family_registry[i]; i++)
        str_addf(&known, "%s%s", i ? ", " : "", family_registry[i]->model_type);
    err_set(e, ERR_UNSUPPORTED, "model_type \"%.60s\" is not supported", model_type);
    err_mend(e, "use a checkpoint of one of: %s", str_get(&known));
    str_fini(&known);
    return NULL;
}

static const long *dim_of(const struct dims *dims, char letter)
{
    switch (letter) {
    case 'V':
        return &dims->V;
    case 'D':
        return &dims->D;
    case 'L':
        return &dims->L;
    case 'H':
        return &dims->H;
    case 'K':
        return &dims->K;
    case 'd':
        return &dims->d;
    case 'F':
        return &dims->F;
    case 'P':
        return &dims->P;
    case 'X':
        return &dims->X;
    case 'C':
        return &dims->C;
    default:
        return NULL;
    }
}

/* One factor, a letter or a number; moves *s behind it. */
static int factor(const char **s, const struct dims *dims, long *out)
{
    const long *dim = dim_of(dims, **s);

    if (dim) {
        *out = *dim;
        ++*s;
        return 0;
    }
    if (**s < '1' || **s > '9')
        return -1;
    *out = strtol(*s, (char **)s, 10);
    return 0;
}

/* Factors joined by '*': the product, and *s behind them. */
static int product(const char **s, const struct dims *dims, long *out)
{
    long x;

    *out = 1;
    for (;;) {
        if (factor(s, dims, &x) || __builtin_mul_overflow(*out, x, out))
            return -1;
        if (**s != '*')
            return 0;
        ++*s;
    }
}

int family_shape(const char *shape, const struct dims *dims, long out[2], struct err *e)
{
    const char *s = shape;

    for (int rank = 0; rank < 2; s++) {
        if (product(&s, dims, &out[rank++]))
            break;
        if (*s == '\0')
            return rank;
        if (*s != ' ')
            break;
    }
    return err_set(e, ERR_CORRUPT, "shape \"%s\": cannot be evaluated", shape);
}

/* ---- members of config.json ---------------------------------------------------------- */

int family_get_size(const json_t *config, const char *key, long fallback, long *out,
                    struct err *e)
{
    enum { MOST = 1 << 24 };
    int rc;

    *out = fallback;
    rc = json_get_long(config, key, fallback == 0, out, e);
    if (rc)
        return rc;
    if (*out < 1 || *out > MOST)
        return err_set(e, ERR_CORRUPT, "\"%s\" is %ld, want 1 to %d", key, *out, MOST);
    return 0;
}

int family_get_rate(const json_t *config, const char *key, double fallback, double *out,
                    struct err *e)
{
    int rc;

    *out = fallback;
    rc = json_get_double(config, key, 0, out, e);
    if (rc)
        return rc;
    if (!(*out >= 0 && *out < 1))
        return err_set(e, ERR_CORRUPT, "\"%s\" is %g, want 0 or more and less than 1", key,
                       *out);
    return 0;
}

int family_get_positive(const json_t *config, const char *key, double fallback, double *out,
                        struct err *e)
{
    int rc;

    *out = fallback;
    rc = json_get_double(config, key, fallback == 0, out, e);
    if (rc)
        return rc;
    if (!(*out > 0 && *out < 1e30))
        return err_set(e, ERR_CORRUPT, "\"%s\" is %g, want more than 0", key, *out);
    return 0;
}

int family_get_id(const json_t *config, const char *key, int fallback, int *out,
                  struct err *e)
{
    const json_t *v = json_object_get(config, key);
    long id = fallback;
    int rc = 0;

    if (json_is_array(v) && json_is_integer(json_array_get(v, 0)))
        id = (long)json_integer_value(json_array_get(v, 0));
    else
        rc = json_get_long(config, key, 0, &id, e);
    if (rc)
        return rc;
    if (id < -1 || id > 1 << 24)
        return err_set(e, ERR_CORRUPT, "\"%s\" is %ld, which is no token id", key, id);
    *out = (int)id;
    return 0;
}

int family_get_act(const json_t *config, const char *key, const char *fallback,
                   enum op_act *out, struct err *e)
{
    static const struct {
        const char *name;
        enum op_act act;
    } known[] = {
        {"gelu", ACT_GELU_ERF},       {"gelu_python", ACT_GELU_ERF},
        {"gelu_new", ACT_GELU_TANH},  {"gelu_pytorch_tanh", ACT_GELU_TANH},
        {"gelu_fast", ACT_GELU_TANH}, {"relu", ACT_RELU},
        {"silu", ACT_SILU},           {"swish", ACT_SILU},
        {"tanh", ACT_TANH},
    };
    const char *name = fallback;
    int rc = json_get_string(config, key, 0, &name, e);

    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, name)) {
            *out = known[i].act;
            return 0;
        }
    return err_set(e, ERR_UNSUPPORTED,
                   "\"%s\" is \"%.60s\"; Hone has gelu, gelu_new, gelu_pytorch_tanh, relu, "
                   "silu, tanh",
                   key, name);
}

int family_want_string(const json_t *config, const char *key, const char *want,
                       struct err *e)
{
    const char *found = want;
    int rc = json_get_string(config, key, 0, &found, e);

    if (rc)
        return rc;
    if (strcmp(found, want))
        return err_set(e, ERR_UNSUPPORTED, "\"%s\" is \"%.60s\"; Hone has \"%s\" alone",
                       key, found, want);
    return 0;
}

int family_want_bool(const json_t *config, const char *key, int want, struct err *e)
{
    int found = want, rc = json_get_bool(config, key, 0, &found, e);

    if (rc)
        return rc;
    if (found != want)
        return err_set(e, ERR_UNSUPPORTED, "\"%s\" is %s, which Hone does not have", key,
                       found ? "true" : "false");
    return 0;
}

int family_check_heads(struct dims *dims, struct err *e)
{
    if (dims->K == 0)
        dims->K = dims->H;
    if (dims->d == 0) {
        if (dims->D % dims->H)
            return err_set(e, ERR_CORRUPT, "%ld heads do not divide the width %ld", dims->H,
                           dims->D);
        dims->d = dims->D / dims->H;
    }
    if (dims->H % dims->K)
        return err_set(e, ERR_CORRUPT, "%ld key-value heads do not divide %ld heads",
                       dims->K, dims->H);
    return 0;
}
