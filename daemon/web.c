/* The files of the page: see web.h. */
#include "daemon/web.h"

#include <string.h>

/* The assembler looks for them from the root of the project (CMakeLists.txt). */
#define FILE_OF_PAGE(name, file)                                                           \
    __asm__(".section .rodata\n"                                                           \
            ".global web_" #name "_start, web_" #name "_end\n"                             \
            "web_" #name "_start: .incbin \"daemon/web/" file "\"\n"                       \
            "web_" #name "_end: .byte 0\n"                                                 \
            ".text\n");                                                                    \
    extern const char web_##name##_start[], web_##name##_end[]

FILE_OF_PAGE(index, "index.html");
FILE_OF_PAGE(app, "app.js");
FILE_OF_PAGE(style, "style.css");

static const struct web_file files[] = {
    {"/", "text/html; charset=utf-8", web_index_start, web_index_end},
    {"/app.js", "text/javascript; charset=utf-8", web_app_start, web_app_end},
    {"/style.css", "text/css; charset=utf-8", web_style_start, web_style_end},
};

const struct web_file *web_find(const char *path)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!strcmp(path, files[i].path))
            return &files[i];
    return NULL;
}
