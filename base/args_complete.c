/* Completion of command lines from the tables of base/args.h, for every shell alike: the
 * shell's part (deploy/completion/) only passes words on and shows what comes back.
 *
 * A usage is read as it stands in the help: alternatives are separated by " | ", words in
 * brackets are optional, "a|b" are two names of the same place, "JOB..." may be repeated,
 * and flags (which the table has) are left out. What is written in small letters is typed
 * as it stands, what begins with a capital names what belongs there. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/str.h"

enum { PLACES_MAX = 16, PLACE_SIZE = 64 };

struct places { /* the plain words of one alternative, in order */
    char text[PLACES_MAX][PLACE_SIZE];
    int n, repeats; /* repeats: the last one */
};

void (*args_candidates)(const char *what, const char *prefix, int n, char **before);

void args_candidate(const char *prefix, const char *word, const char *help)
{
    if (!str_starts(word, prefix))
        return;
    if (help)
        printf("%s\t%.*s\n", word, (int)strcspn(help, "\n"), help);
    else
        printf("%s\n", word);
}

void args_swap_complete(int argc, char **argv, int is_verb)
{
    char *ask = argv[1];

    if (argc < 4 || strcmp(ask, "--complete") != 0 || !is_verb)
        return;
    argv[1] = argv[2];
    argv[2] = ask;
}

static const struct arg_flag *find_flag(const struct arg_spec *spec, const char *name)
{
    for (const struct arg_flag *f = spec->flags; f && f->name; f++)
        if (!strcmp(f->name, name))
            return f;
    return NULL;
}

/* "[--out" to "--out", "JOB...]" to "JOB". Returns whether there were dots. */
static int strip(char *word)
{
    size_t n = strspn(word, "[");
    int repeats;

    memmove(word, word + n, strlen(word) - n + 1);
    word[strcspn(word, "]")] = '\0';
    n = strlen(word);
    repeats = n > 3 && !strcmp(word + n - 3, "...");
    if (repeats)
        word[n - 3] = '\0';
    return repeats;
}

/* One alternative of the usage into *p; returns where the next begins, NULL: the last. */
static const char *read_places(const struct arg_spec *spec, const char *s, struct places *p)
{
    const struct arg_flag *flag = NULL;

    p->n = p->repeats = 0;
    for (size_t n; *(s += strspn(s, " \n")); s += n) {
        char word[PLACE_SIZE];
        int repeats;

        n = strcspn(s, " \n");
        if (n == 1 && *s == '|')
            return s + 1;
        snprintf(word, sizeof word, "%.*s", n < sizeof word ? (int)n : 0, s);
        repeats = strip(word);
        if (flag && flag->kind != ARG_KIND_SWITCH) {
            flag = NULL; /* that was its value */
            continue;
        }
        flag = find_flag(spec, word);
        if (flag || !isalpha((unsigned char)*word) || p->n == PLACES_MAX)
            continue;
        memcpy(p->text[p->n++], word, sizeof word);
        p->repeats = repeats;
    }
    return NULL;
}

static void complete_what(const char *what, const char *prefix, int n, char **before)
{
    char names[PLACE_SIZE * 2], *rest = names;
    size_t len = strlen(what);

    if (islower((unsigned char)*what)) {
        snprintf(names, sizeof names, "%s", what);
        for (char *name; (name = strsep(&rest, "|"));)
            args_candidate(prefix, name, NULL);
    } else if (!strcmp(what, "DIR") || !strcmp(what, "RUN")) {
        printf(":folders\n");
    } else if (str_starts(what, "FILE") || (len > 5 && !strcmp(what + len - 5, ".yaml"))) {
        printf(":files\n");
    } else if (args_candidates) {
        args_candidates(what, prefix, n, before);
    }
}

static int place_takes(const char *place, const char *word)
{
    size_t n = strlen(word);

    if (!islower((unsigned char)*place))
        return 1;
    for (const char *s = place;; s += strcspn(s, "|") + 1) {
        if (strcspn(s, "|") == n && !memcmp(s, word, n))
            return 1;
        if (!s[strcspn(s, "|")])
            return 0;
    }
}

/* words[n]: the plain word after given[n_given]. */
static void complete_word(const struct arg_spec *spec, int n, char **words, int n_given,
                          char **given)
{
    struct places p;

    for (const char *s = spec->usage; s;) {
        int fits = 1, at;

        s = read_places(spec, s, &p);
        for (int i = 0; i < n_given && i < p.n; i++)
            fits = fits && place_takes(p.text[i], given[i]);
        at = n_given < p.n ? n_given : p.repeats ? p.n - 1 : -1;
        if (fits && at >= 0)
            complete_what(p.text[at], words[n], n, words);
    }
}

void args_complete(const struct arg_spec *spec, int n, char **words)
{
    const struct arg_flag *flag = NULL; /* whose value the next word is */
    char *given[PLACES_MAX];
    const char *last;
    int n_given = 0, plain = 0;

    if (n < 1)
        return;
    last = words[n - 1];
    for (int i = 0; i < n - 1; i++) {
        const struct arg_flag *f = plain ? NULL : find_flag(spec, words[i]);

        if (flag)
            flag = NULL;
        else if (!plain && !strcmp(words[i], "--"))
            plain = 1;
        else if (f && f->kind != ARG_KIND_SWITCH)
            flag = f;
        else if ((plain || words[i][0] != '-') && n_given < PLACES_MAX)
            given[n_given++] = words[i];
    }
    if (flag) {
        complete_what(flag->what, last, n - 1, words);
        return;
    }
    if (!plain && *last == '-') {
        for (const struct arg_flag *f = spec->flags; f && f->name; f++)
            args_candidate(last, f->name, f->help);
        args_candidate(last, "--help", "what it does and takes");
        return;
    }
    complete_word(spec, n - 1, words, n_given, given);
}
