/* Terminals: see screen.h. */
#include "launcher/screen.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int screen_is_live(int fd)
{
    const char *term = getenv("TERM");

    return isatty(fd) && term && *term && strcmp(term, "dumb") != 0;
}

int screen_has_colour(int fd)
{
    const char *no = getenv("NO_COLOR");

    return screen_is_live(fd) && !(no && *no);
}

int screen_speaks_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    const char *lang = NULL;

    for (size_t i = 0; i < sizeof names / sizeof *names && !(lang && *lang); i++)
        lang = getenv(names[i]);
    return lang && (strstr(lang, "UTF-8") || strstr(lang, "utf8"));
}

void screen_size(int fd, size_t *columns, size_t *lines)
{
    struct winsize w;
    int known = !ioctl(fd, TIOCGWINSZ, &w);

    *columns = known && w.ws_col ? w.ws_col : 80;
    *lines = known && w.ws_row ? w.ws_row : 24;
}

static size_t measure(const char *s, size_t most, size_t *columns)
{
    size_t i = 0;

    for (*columns = 0; s[i];) {
        if (s[i] == '\033') {
            i += strcspn(s + i, "m");
            i += s[i] != '\0';
            continue;
        }
        if (*columns == most)
            break;
        i++;
        while (((unsigned char)s[i] & 0xc0) == 0x80)
            i++;
        ++*columns;
    }
    return i;
}

size_t screen_cut(const char *s, size_t width)
{
    size_t columns;

    return measure(s, width, &columns);
}

size_t screen_width(const char *s)
{
    size_t columns;

    measure(s, SIZE_MAX, &columns);
    return columns;
}
