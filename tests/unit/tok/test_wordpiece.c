/* WordPiece against ids recorded from Hugging Face tokenizers, and against small
 * vocabularies made here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "tests/unit/tok/vectors.h"

static char folder[] = "/tmp/hone-tok-XXXXXX";

static void put(const char *name, const char *text)
{
    char path[256];
    struct err e;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &e), 0);
}

static void drop(const char *name)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

static void replay(const char *from, const char *vectors)
{
    char path[512];
    struct tok *t;
    struct err e;
    int n, bad;

    if (!file_exists(shared_path(path, sizeof path, vectors)))
        skip();
    if (tok_open(&t, from, &e))
        fail_msg("%s", e.msg);
    bad = check_vectors(t, path, &n);
    tok_close(t);
    assert_int_equal(bad, 0);
    assert_true(n >= 60);
}

static void recorded_json(void **state)
{
    char dir[512];

    (void)state;
    replay(shared_path(dir, sizeof dir, "fixtures/tokenizers/bert-base-uncased"),
           "fixtures/tokenizers/bert-base-uncased/vectors.jsonl");
    replay(shared_path(dir, sizeof dir, "fixtures/tokenizers/bert-base-cased"),
           "fixtures/tokenizers/bert-base-cased/vectors.jsonl");
}

static void recorded_txt(void **state)
{
    static const char *const names[] = {"bert-base-uncased", "bert-base-cased"};
    char path[512], rest[256], to[256];
    struct err e;

    (void)state;
    for (int cased = 0; cased < 2; cased++) {
        snprintf(rest, sizeof rest, "fixtures/tokenizers/%s/vocab.txt", names[cased]);
        if (!file_exists(shared_path(path, sizeof path, rest)))
            skip();
        snprintf(to, sizeof to, "%s/vocab.txt", folder);
        assert_int_equal(file_copy(path, to, &e), 0);
        put("tokenizer_config.json",
            cased ? "{\"do_lower_case\": false}" : "{\"do_lower_case\": true}");
        snprintf(rest, sizeof rest, "fixtures/tokenizers/%s/vectors.jsonl", names[cased]);
        replay(folder, rest);
        drop("vocab.txt");
        drop("tokenizer_config.json");
    }
}

static struct tok *open_text(const char *json)
{
    struct tok *t;
    struct err e;

    put("tokenizer.json", json);
    if (tok_open(&t, folder, &e))
        fail_msg("%s", e.msg);
    drop("tokenizer.json");
    return t;
}

static void expect_tokens(const struct tok *t, const char *text, const char *want)
{
    struct tok_ids ids = {0};
    struct str got = {0};
    struct err e;

    assert_int_equal(tok_encode(t, text, strlen(text), &ids, &e), 0);
    for (size_t i = 0; i < ids.n; i++)
        str_addf(&got, "%s%s", i ? " " : "", tok_token(t, ids.id[i]));
    assert_string_equal(str_get(&got), want);
    str_fini(&got);
    tok_ids_fini(&ids);
}

#define VOCAB                                                                              \
    "\"vocab\": {\"[UNK]\": 0, \"[CLS]\": 1, \"[SEP]\": 2, \"un\": 3, \"##able\": 4, "     \
    "\"able\": 5, \"##a\": 6, \"e\": 7, \"!\": 8, \"##b\": 9, \"\\u4f60\": 10, \"a\": "    \
    "11, "                                                                                 \
    "\"\\ud83d\\ude00\": 12, \"[PAD]\": 13, \"i\": 14, \"##i\": 15}"
#define MODEL                                                                              \
    "\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", "                      \
    "\"continuing_subword_prefix\": \"##\", \"max_input_chars_per_word\": 8, " VOCAB "}"
#define PRE    "\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}"
#define NORMAL "\"normalizer\": {\"type\": \"BertNormalizer\", \"lowercase\": true}"

static void rules(void **state)
{
    struct tok *t = open_text("{" NORMAL ", " PRE ", " MODEL "}");

    (void)state;
    assert_int_equal(tok_vocab_size(t), 16);
    assert_int_equal(tok_cls(t), 1);
    assert_int_equal(tok_sep(t), 2);
    assert_int_equal(tok_pad(t), 13);
    assert_int_equal(tok_id(t, "nothing"), -1);
    assert_null(tok_token(t, 16));
    assert_null(tok_token(t, -1));
    expect_tokens(t, "", "");
    expect_tokens(t, "unable Able", "un ##able able");
    expect_tokens(t, "unablex", "[UNK]");
    expect_tokens(t, "unable!!", "un ##able ! !");
    expect_tokens(t, "unaaaaaa", "un ##a ##a ##a ##a ##a ##a");
    expect_tokens(t, "unaaaaaaa", "[UNK]"); /* nine characters */
    expect_tokens(t, "\xc3\xa9 e\xcc\x81 E\xe2\x80\x8b\xcc\x81", "e e e");
    expect_tokens(t,
                  "a\xe4\xbd\xa0"
                  "a",
                  "a \xe4\xbd\xa0 a");
    expect_tokens(t, "a\xf0\x9f\x98\x80", "[UNK]");
    expect_tokens(t, "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80");
    expect_tokens(t,
                  "a\xc2\xa0"
                  "e\xe3\x80\x80"
                  "a\xe2\x80\xa9",
                  "a e a");
    expect_tokens(t,
                  "a\x01\x7f\xef\xbf\xbd"
                  "b",
                  "a ##b");
    expect_tokens(t, "[CLS]", "[UNK] [UNK] [UNK]"); /* no added tokens here */
    tok_close(t);
}

static void added_tokens(void **state)
{
    struct tok *t = open_text(
        "{" NORMAL ", " PRE ", \"added_tokens\": ["
        "{\"id\": 2, \"content\": \"[SEP]\", \"special\": true, \"normalized\": false},"
        "{\"id\": 20, \"content\": \"[S\", \"special\": false, \"normalized\": false},"
        "{\"id\": 21, \"content\": \"<w>\", \"single_word\": true, \"normalized\": false},"
        "{\"id\": 22, \"content\": \"<l>\", \"lstrip\": true, \"normalized\": false},"
        "{\"id\": 23, \"content\": \"<N>\", \"normalized\": true}], " MODEL "}");
    struct tok_ids ids = {0};
    struct str s = {0};
    struct err e;

    (void)state;
    assert_int_equal(tok_vocab_size(t), 24);
    assert_int_equal(tok_id(t, "<w>"), 21);
    expect_tokens(t, "a[SEP]a", "a [SEP] a");
    expect_tokens(t, "a[Sa", "a [S a");
    expect_tokens(t, "a <w> a", "a <w> a");
    expect_tokens(t, "a<w> a", "a [UNK] [UNK] [UNK] a");
    expect_tokens(t, "a  <l>", "a <l>");
    expect_tokens(t, "a<n>[SEP]<N>", "a <N> [SEP] <N>");
    assert_int_equal(tok_encode(t, "un[SEP]unable", 13, &ids, &e), 0);
    assert_int_equal(tok_decode(t, ids.id, ids.n, 1, &s, &e), 0);
    assert_string_equal(str_get(&s), "un un ##able"); /* no decoder: tokens and blanks */
    str_fini(&s);
    tok_ids_fini(&ids);
    tok_close(t);
}

static void frames(void **state)
{
    struct tok *t = open_text("{" PRE ", " MODEL ", \"post_processor\": {\"type\": "
                              "\"BertProcessing\", \"sep\": [\"[SEP]\", 2], \"cls\": "
                              "[\"[CLS]\", 1]}}");
    struct tok_frame f;

    (void)state;
    tok_frame(t, 0, &f);
    assert_int_equal(f.n_prefix, 1);
    assert_int_equal(f.prefix[0], 1);
    assert_int_equal(f.n_middle, 0);
    assert_int_equal(f.n_suffix, 1);
    tok_frame(t, 1, &f);
    assert_int_equal(f.n_middle, 1);
    assert_int_equal(f.middle[0], 2);
    assert_int_equal(f.pair_type, 1);
    tok_close(t);
}

static void refuses(const char *json, int code, const char *what)
{
    struct tok *t = NULL;
    struct err e;

    put("tokenizer.json", json);
    if (tok_open(&t, folder, &e) != code || !strstr(e.msg, what))
        fail_msg("%s: code %d, \"%s\"", what, e.code, e.msg);
    assert_null(t);
    drop("tokenizer.json");
}

static void bad_files(void **state)
{
    struct tok *t;
    struct err e;

    (void)state;
    assert_int_equal(tok_open(&t, folder, &e), ERR_CONFIG);
    put("spiece.model", "x");
    assert_int_equal(tok_open(&t, folder, &e), ERR_UNSUPPORTED);
    drop("spiece.model");
    refuses("", ERR_CORRUPT, "ends where '{' should be");
    refuses("{\"model\": ", ERR_CORRUPT, "ends where");
    refuses("{\n\"model\": {\"vocab\": {\"a\": x}}}", ERR_CORRUPT, "tokenizer.json:2");
    refuses("{}", ERR_CORRUPT, "\"model\" is missing");
    refuses("{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"a\": -1}}}", ERR_CORRUPT,
            "not within 0");
    refuses("{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"a\": 4000000000}}}",
            ERR_CORRUPT, "not within 0");
    refuses("{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"\\ud800\": 1}}}",
            ERR_CORRUPT, "lone surrogate");
    refuses("{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"\\u0000\": 1}}}",
            ERR_CORRUPT, "NUL");
    refuses("{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"\xff\": 1}}}", ERR_CORRUPT,
            "UTF-8");
    refuses("{" PRE ", " MODEL "} x", ERR_CORRUPT, "text after the end");
    refuses("{" MODEL "}", ERR_UNSUPPORTED, "pre_tokenizer null");
    refuses("{" PRE ", \"normalizer\": {\"type\": \"NFKC\"}, " MODEL "}", ERR_UNSUPPORTED,
            "NFKC");
    refuses("{" PRE ", \"decoder\": {\"type\": \"CTC\"}, " MODEL "}", ERR_UNSUPPORTED,
            "CTC");
    refuses("{" PRE ", \"post_processor\": {\"type\": \"BertProcessing\", \"sep\": "
            "[\"[SEP]\", 99], \"cls\": [\"[CLS]\", 1]}, " MODEL "}",
            ERR_CORRUPT, "id 99 is no token");
    refuses("{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", -1.0]]}}",
            ERR_UNSUPPORTED, "Unigram");
    refuses("{" PRE ", \"model\": {\"type\": \"WordPiece\", \"vocab\": {\"a\": 1}}}",
            ERR_CORRUPT, "[UNK]");
    refuses("{" PRE ", \"added_tokens\": [{\"content\": \"x\"}], " MODEL "}", ERR_CORRUPT,
            "added_tokens");
}

/* Every allocation may fail: an error, no leak, no crash. */
static void out_of_memory(void **state)
{
    long live = mem_live();

    (void)state;
    put("tokenizer.json",
        "{" NORMAL ", " PRE
        ", \"added_tokens\": [{\"id\": 20, \"content\": \"<N>\"}], \"decoder\":"
        " {\"type\": \"WordPiece\"}, " MODEL "}");
    for (long n = 0;; n++) {
        struct tok_ids ids = {0};
        struct str text = {0};
        struct tok *t = NULL;
        struct err e;
        int rc, failed;

        mem_fail_at(n);
        rc = tok_open(&t, folder, &e);
        if (!rc)
            rc = tok_encode(t, "un<n>able", 9, &ids, &e);
        if (!rc)
            rc = tok_decode(t, ids.id, ids.n, 0, &text, &e);
        failed = mem_failed();
        mem_fail_at(-1);
        tok_close(t);
        tok_ids_fini(&ids);
        str_fini(&text);
        assert_int_equal(mem_live(), live);
        if (!failed)
            break;
        assert_int_equal(rc, ERR_NOMEM);
    }
    drop("tokenizer.json");
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(folder, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_json), cmocka_unit_test(recorded_txt),
        cmocka_unit_test(rules),         cmocka_unit_test(added_tokens),
        cmocka_unit_test(frames),        cmocka_unit_test(bad_files),
        cmocka_unit_test(out_of_memory),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
