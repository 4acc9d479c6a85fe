/* What a folder says about its tokenizer: tokenizer.json, or vocab.txt with
 * tokenizer_config.json (BERT's older form), brought into the shape of tokenizer.json.
 *
 * Fails with ERR_CORRUPT and the line, or ERR_UNSUPPORTED with the kind and a mend. */
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/tok/internal.h"

enum { FILE_MAX = 256 << 20, CONFIG_MAX = 4 << 20 };

void tok_file_fini(struct tok_file *f)
{
    json_decref(f->model);
    json_decref(f->normalizer);
    json_decref(f->pre_tokenizer);
    json_decref(f->post_processor);
    json_decref(f->decoder);
    json_decref(f->added_tokens);
    mem_free(f->text);
    memset(f, 0, sizeof *f);
}

static int read_vocab(struct scan *s, struct vocab *v, struct err *e)
{
    int first = 1, rc = scan_open(s, '{', e);

    while (!rc && (rc = scan_item(s, '}', &first, e)) > 0) {
        struct span key;
        long id = 0;
        size_t at = v->n_bytes;

        /* The key may lie in the scanner's buffer: take it before the number is read. */
        rc = scan_key(s, &key, e);
        if (!rc)
            rc = vocab_add(v, key.s, key.n, 0, e);
        if (!rc)
            rc = scan_long(s, &id, e);
        if (!rc && (id < 0 || id > VOCAB_ID_MAX))
            rc = scan_fail(s, e, "id %ld of token \"%.60s\" is not within 0 and %d", id,
                           v->bytes + at, VOCAB_ID_MAX);
        if (!rc)
            v->entry[v->n - 1].id = (int)id;
    }
    return rc;
}

static int read_model(struct scan *s, struct tok_file *f, struct vocab *v, struct err *e)
{
    int first = 1, rc = scan_open(s, '{', e);

    f->model = json_object();
    if (!rc && !f->model)
        return err_set(e, ERR_NOMEM, "%s: out of memory", s->name);
    while (!rc && (rc = scan_item(s, '}', &first, e)) > 0) {
        struct span key;
        char name[64];
        json_t *value;

        rc = scan_key(s, &key, e);
        if (rc)
            break;
        snprintf(name, sizeof name, "%.*s", key.n < 63 ? (int)key.n : 63, key.s);
        if (!strcmp(name, "vocab") && scan_peek(s) == '{') {
            rc = read_vocab(s, v, e);
        } else if (!strcmp(name, "vocab")) {
            struct span skipped;

            f->list_vocab = 1;
            rc = scan_skip(s, &skipped, e);
        } else if (!strcmp(name, "merges")) {
            rc = scan_skip(s, &f->merges, e);
        } else {
            rc = scan_json(s, &value, e);
            if (!rc && json_object_set_new(f->model, name, value))
                rc = err_set(e, ERR_NOMEM, "%s: out of memory", s->name);
        }
    }
    return rc;
}

static json_t **part(struct tok_file *f, const struct span *key)
{
    static const char *const names[] = {"normalizer", "pre_tokenizer", "post_processor",
                                        "decoder", "added_tokens"};
    json_t **const parts[] = {&f->normalizer, &f->pre_tokenizer, &f->post_processor,
                              &f->decoder, &f->added_tokens};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (key->n == strlen(names[i]) && !memcmp(key->s, names[i], key->n))
            return parts[i];
    return NULL;
}

/* null counts as absent. */
static int read_part(struct scan *s, json_t **at, struct err *e)
{
    json_t *value;
    int rc = scan_json(s, &value, e);

    if (rc)
        return rc;
    if (json_is_null(value)) {
        json_decref(value);
        value = NULL;
    }
    json_decref(*at);
    *at = value;
    return 0;
}

int tok_file_parse(struct tok_file *f, struct vocab *v, const char *name, char *text,
                   size_t n, struct err *e)
{
    struct scan s;
    size_t valid = str_utf8_valid(text, n);
    int first = 1, rc;

    f->path = name;
    f->text = text;
    scan_init(&s, name, text, n);
    if (valid < n) {
        s.i = valid;
        return scan_fail(&s, e, "not UTF-8 (byte %zu)", valid);
    }
    rc = scan_open(&s, '{', e);
    while (!rc && (rc = scan_item(&s, '}', &first, e)) > 0) {
        struct span key, skipped;
        json_t **at;

        rc = scan_key(&s, &key, e);
        if (rc)
            break;
        at = part(f, &key);
        if (key.n == 5 && !memcmp(key.s, "model", 5) && !f->model)
            rc = read_model(&s, f, v, e);
        else
            rc = at ? read_part(&s, at, e) : scan_skip(&s, &skipped, e);
    }
    if (!rc)
        rc = scan_end(&s, e);
    scan_fini(&s);
    if (!rc && !f->model)
        rc = err_set(e, ERR_CORRUPT, "%s: \"model\" is missing", name);
    return rc;
}

/* One token a line; the line number is the id. */
static int read_lines(struct vocab *v, const char *path, struct err *e)
{
    char *text = NULL, *line, *end;
    size_t n = 0;
    long id = 0;
    int rc = file_read(path, FILE_MAX, &text, &n, e);

    if (rc)
        return rc;
    if (str_utf8_valid(text, n) < n)
        rc = err_set(e, ERR_CORRUPT, "%s: not UTF-8", path);
    for (line = text; !rc && line < text + n; line = end + 1, id++) {
        size_t len;

        end = memchr(line, '\n', (size_t)(text + n - line));
        if (!end)
            end = text + n;
        len = (size_t)(end - line);
        if (len && line[len - 1] == '\r')
            len--;
        rc = vocab_add(v, line, len, id, e);
        if (rc)
            err_wrap(e, "%s:%ld", path, id + 1);
    }
    mem_free(text);
    return rc;
}

static int has(const struct vocab *v, const char *token, int *id)
{
    for (size_t i = 0; i < v->n; i++)
        if (!strcmp(v->bytes + v->entry[i].at, token)) {
            *id = v->entry[i].id;
            return 1;
        }
    return 0;
}

/* The parts BertTokenizer builds from vocab.txt and its options. */
static int bert_parts(struct tok_file *f, const struct vocab *v, const json_t *config,
                      struct err *e)
{
    static const char *const specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    const json_t *strip = config ? json_object_get(config, "strip_accents") : NULL;
    int lower = tok_part_flag(config, "do_lower_case", 1), id, cls, sep;

    if (!has(v, "[CLS]", &cls) || !has(v, "[SEP]", &sep) || !has(v, "[UNK]", &id))
        return err_set(e, ERR_CORRUPT, "%s: [CLS], [SEP] or [UNK] is missing", f->path);
    f->added_tokens = json_array();
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++)
        if (has(v, specials[i], &id))
            json_array_append_new(f->added_tokens,
                                  json_pack("{s:i,s:s,s:b,s:b}", "id", id, "content",
                                            specials[i], "special", 1, "normalized", 0));
    f->model =
        json_pack("{s:s,s:s,s:s,s:i}", "type", "WordPiece", "unk_token", "[UNK]",
                  "continuing_subword_prefix", "##", "max_input_chars_per_word", 100);
    f->normalizer =
        json_pack("{s:s,s:b,s:b,s:b,s:b}", "type", "BertNormalizer", "clean_text", 1,
                  "handle_chinese_chars",
                  tok_part_flag(config, "tokenize_chinese_chars", 1), "strip_accents",
                  json_is_boolean(strip) ? json_is_true(strip) : lower, "lowercase", lower);
    f->pre_tokenizer = json_pack("{s:s}", "type", "BertPreTokenizer");
    f->post_processor = json_pack("{s:s,s:[s,i],s:[s,i]}", "type", "BertProcessing", "sep",
                                  "[SEP]", sep, "cls", "[CLS]", cls);
    f->decoder =
        json_pack("{s:s,s:s,s:b}", "type", "WordPiece", "prefix", "##", "cleanup", 1);
    if (!f->added_tokens || !f->model || !f->normalizer || !f->pre_tokenizer ||
        !f->post_processor || !f->decoder)
        return err_set(e, ERR_NOMEM, "%s: out of memory", f->path);
    return 0;
}

static int read_vocab_txt(struct tok_file *f, struct vocab *v, const char *dir,
                          const char *path, struct err *e)
{
    char config_path[FILE_PATH_MAX];
    json_t *config = NULL;
    int rc = read_lines(v, path, e);

    f->path = "vocab.txt";
    if (!rc)
        rc = file_join(config_path, sizeof config_path, dir, "tokenizer_config.json", e);
    if (!rc && file_exists(config_path))
        rc = json_read(config_path, CONFIG_MAX, &config, e);
    if (!rc)
        rc = bert_parts(f, v, config, e);
    json_decref(config);
    return rc;
}

static int missing(const char *dir, struct err *e)
{
    static const char *const others[] = {"tokenizer.model", "spiece.model",
                                         "sentencepiece.bpe.model", "vocab.json"};
    char path[FILE_PATH_MAX];

    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (file_join(path, sizeof path, dir, others[i], e) || !file_exists(path))
            continue;
        err_set(e, ERR_UNSUPPORTED, "%s without tokenizer.json is not supported",
                others[i]);
        return err_mend(e, "save it as tokenizer.json: transformers' "
                           "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)");
    }
    err_set(e, ERR_CONFIG, "there is neither tokenizer.json nor vocab.txt");
    return err_mend(e, "name a model folder in Hugging Face layout");
}

int tok_file_read(struct tok_file *f, struct vocab *v, const char *dir, struct err *e)
{
    char path[FILE_PATH_MAX], *text = NULL;
    size_t n = 0;
    int rc = file_join(path, sizeof path, dir, "tokenizer.json", e);

    if (rc)
        return rc;
    if (file_exists(path)) {
        rc = file_read(path, FILE_MAX, &text, &n, e);
        return rc ? rc : tok_file_parse(f, v, "tokenizer.json", text, n, e);
    }
    rc = file_join(path, sizeof path, dir, "vocab.txt", e);
    if (rc)
        return rc;
    return file_exists(path) ? read_vocab_txt(f, v, dir, path, e) : missing(dir, e);
}
