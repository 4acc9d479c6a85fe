/* Writing configuration trees, as YAML or JSON.
 *
 * Invariant: what node_write_yaml() wrote reads back as the same tree (keys, texts, and
 * which scalars count as strings). Core schema:
 * https://yaml.org/spec/1.2.2/#103-core-schema
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/node.h"

static int one_of(const char *s, const char *const *words)
{
    for (; *words; words++)
        if (!strcmp(s, *words))
            return 1;
    return 0;
}

static int text_is_null(const char *s)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};

    return one_of(s, words);
}

/* -1: no boolean. */
static int text_bool(const char *s)
{
    static const char *const yes[] = {"true", "True", "TRUE", NULL};
    static const char *const no[] = {"false", "False", "FALSE", NULL};

    return one_of(s, yes) ? 1 : one_of(s, no) ? 0 : -1;
}

static int digits(const char **s, const char *set)
{
    size_t n = strspn(*s, set);

    *s += n;
    return n > 0;
}

static int text_is_number(const char *s)
{
    static const char *const special[] = {".inf",  ".Inf",  ".INF",  "+.inf", "+.Inf",
                                          "+.INF", "-.inf", "-.Inf", "-.INF", ".nan",
                                          ".NaN",  ".NAN",  NULL};
    int whole, fraction = 0;

    if (one_of(s, special))
        return 1;
    if (s[0] == '0' && s[1] == 'x')
        return s += 2, digits(&s, "0123456789abcdefABCDEF") && !*s;
    if (s[0] == '0' && s[1] == 'o')
        return s += 2, digits(&s, "01234567") && !*s;
    s += *s == '-' || *s == '+';
    whole = digits(&s, "0123456789");
    if (*s == '.') {
        s++;
        fraction = digits(&s, "0123456789");
    }
    if (!whole && !fraction)
        return 0;
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '-' || *s == '+';
        if (!digits(&s, "0123456789"))
            return 0;
    }
    return !*s;
}

/* A number that JSON can hold as it stands. */
static int is_json_number(const char *s)
{
    s += *s == '-';
    if (*s == '0')
        s++;
    else if (!digits(&s, "0123456789"))
        return 0;
    if (*s == '.' && (s++, !digits(&s, "0123456789")))
        return 0;
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '-' || *s == '+';
        if (!digits(&s, "0123456789"))
            return 0;
    }
    return !*s;
}

int node_is_null(const struct node *n)
{
    return n->kind == NODE_SCALAR && !n->quoted && text_is_null(n->text);
}

int node_text_is_typed(const char *text)
{
    return text_is_null(text) || text_bool(text) >= 0 || text_is_number(text);
}

/* Plain without doubt: words of harmless characters with single blanks between them. */
static int is_plain(const char *s)
{
    static const char harmless[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                   "0123456789_./+- ";
    size_t n = strlen(s);

    if (n == 0 || n > 200 || s[0] == ' ' || s[n - 1] == ' ' ||
        strspn(s, harmless) != strlen(s))
        return 0;
    /* "- a", "---", "..." and a lone "-" mean something. */
    return !(s[0] == '-' && (s[1] == ' ' || s[1] == '-' || !s[1])) && strcmp(s, "...") &&
           !(s[0] == '.' && s[1] == '.' && s[2] == '.' && s[3] == ' ');
}

/* Double-quoted; what libyaml's reader refuses or takes for a line break is escaped. */
static void write_quoted(const char *s, struct str *out)
{
    str_add_char(out, '"');
    while (*s) {
        unsigned char c = (unsigned char)*s, d = (unsigned char)s[1];

        if (c == '"' || c == '\\') {
            str_addf(out, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            str_addf(out, "\\x%02x", c);
        } else if (c == 0xc2 && d < 0xa1) { /* U+0080 .. U+00A0 */
            str_addf(out, "\\x%02x", d);
            s++;
        } else if ((c == 0xe2 && d == 0x80) || c == 0xef) {
            unsigned u = (c & 0xfu) << 12 | (d & 0x3fu) << 6 | ((unsigned char)s[2] & 0x3f);

            str_addf(out, "\\u%04x", u);
            s += 2;
        } else {
            str_add_char(out, (char)c);
        }
        s++;
    }
    str_add_char(out, '"');
}

void node_write_string(const char *text, struct str *out)
{
    if (is_plain(text) && !node_text_is_typed(text))
        str_add(out, text);
    else
        write_quoted(text, out);
}

static void write_scalar(const struct node *n, struct str *out)
{
    if (node_is_null(n))
        str_add(out, "null");
    else if (!n->quoted && node_text_is_typed(n->text))
        str_add(out, n->text);
    else
        node_write_string(n->text, out);
}

static void write_block(const struct node *n, int indent, struct str *out)
{
    for (const struct node *c = n->child; c; c = c->next) {
        str_addf(out, "%*s", indent, "");
        if (n->kind == NODE_MAP) {
            node_write_string(c->key, out);
            str_add_char(out, ':');
        } else {
            str_add_char(out, '-');
        }
        if (c->kind == NODE_SCALAR || !c->child) {
            str_add_char(out, ' ');
            if (c->kind == NODE_SCALAR)
                write_scalar(c, out);
            else
                str_add(out, c->kind == NODE_MAP ? "{}" : "[]");
            str_add_char(out, '\n');
        } else {
            str_add_char(out, '\n');
            write_block(c, indent + 2, out);
        }
    }
}

void node_write_flow(const struct node *n, struct str *out)
{
    if (n->kind == NODE_SCALAR) {
        write_scalar(n, out);
        return;
    }
    str_add_char(out, n->kind == NODE_MAP ? '{' : '[');
    for (const struct node *c = n->child; c; c = c->next) {
        if (c != n->child)
            str_add(out, ", ");
        if (n->kind == NODE_MAP) {
            node_write_string(c->key, out);
            str_add(out, ": ");
        }
        node_write_flow(c, out);
    }
    str_add_char(out, n->kind == NODE_MAP ? '}' : ']');
}

void node_write_yaml(const struct node *n, struct str *out)
{
    if (n->kind != NODE_SCALAR && n->child) {
        write_block(n, 0, out);
        return;
    }
    /* A lone `{}` would be taken for JSON, as which it means the same. */
    if (n->kind == NODE_SCALAR)
        write_scalar(n, out);
    else
        str_add(out, n->kind == NODE_MAP ? "{}" : "[]");
    str_add_char(out, '\n');
}

/* The number that the text means; NAN for .inf and .nan. */
static double number_of(const char *s)
{
    if (s[0] == '0' && s[1] == 'o')
        return (double)strtoull(s + 2, NULL, 8);
    return strpbrk(s, "iInN") ? NAN : strtod(s, NULL);
}

static void scalar_json(const struct node *n, struct str *out)
{
    const char *s = n->text;

    if (node_is_null(n)) {
        str_add(out, "null");
    } else if (!n->quoted && text_bool(s) >= 0) {
        str_add(out, text_bool(s) ? "true" : "false");
    } else if (!n->quoted && text_is_number(s)) {
        if (!isfinite(number_of(s))) /* JSON has no word for it */
            str_add(out, "null");
        else if (is_json_number(s) && strlen(s) <= 18)
            str_add(out, s);
        else
            str_addf(out, "%.17g", number_of(s));
    } else {
        str_add_json(out, s, strlen(s));
    }
}

void node_write_json(const struct node *n, struct str *out)
{
    if (n->kind == NODE_SCALAR) {
        scalar_json(n, out);
        return;
    }
    str_add_char(out, n->kind == NODE_MAP ? '{' : '[');
    for (const struct node *c = n->child; c; c = c->next) {
        if (c != n->child)
            str_add(out, ", ");
        if (n->kind == NODE_MAP) {
            str_add_json(out, c->key, strlen(c->key));
            str_add(out, ": ");
        }
        node_write_json(c, out);
    }
    str_add_char(out, n->kind == NODE_MAP ? '}' : ']');
}
