/* What goes from a checkpoint's folder to the next one as it is: the tokenizer's files. A
 * model in training holds them, so that a source folder that is moved or replaced while it
 * trains cannot spoil its checkpoints. */
#include "base/file.h"
#include "base/mem.h"
#include "worker/model/internal.h"

enum { FILE_BYTES_MAX = 256 << 20 };

static const char *const names[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
};

enum { NAMES = sizeof names / sizeof *names };

int files_read(struct model *m, struct err *e)
{
    char path[FILE_PATH_MAX];
    int rc = 0;

    if (m->file)
        return 0;
    m->file = arena_array(&m->arena, NAMES, sizeof *m->file);
    if (!m->file)
        return err_set(e, ERR_NOMEM, "%s: out of memory", m->dir);
    for (size_t i = 0; i < NAMES && !rc; i++) {
        struct model_file *f = &m->file[m->n_files];

        rc = file_join(path, sizeof path, m->dir, names[i], e);
        if (rc || !file_exists(path))
            continue;
        rc = file_read(path, FILE_BYTES_MAX, &f->bytes, &f->len, e);
        if (!rc) {
            f->name = names[i];
            m->n_files++;
        }
    }
    return rc;
}

void files_free(struct model *m)
{
    for (size_t i = 0; i < m->n_files; i++)
        mem_free(m->file[i].bytes);
    m->n_files = 0;
}
