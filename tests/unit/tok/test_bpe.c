/* Byte-level BPE against ids recorded from Hugging Face tokenizers, and its corners. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "tests/unit/tok/vectors.h"
#include "worker/tok/bytelevel.h"

static char folder[] = "/tmp/hone-bpe-XXXXXX";

static void recorded(void **state)
{
    static const char *const names[] = {
        "roberta-base", "gpt2",    "codegen-phi2", "llama2",    "llama3.2",
        "mistral-v0.1", "qwen2.5", "qwen3",        "baichuan2", "chatglm3"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char dir[512], path[600], rest[80];
        struct tok *t;
        struct err e;
        int n, bad;

        snprintf(rest, sizeof rest, "fixtures/tokenizers/%s", names[i]);
        shared_path(dir, sizeof dir, rest);
        snprintf(path, sizeof path, "%s/vectors.jsonl", dir);
        if (!file_exists(path))
            skip();
        if (tok_open(&t, dir, &e))
            fail_msg("%s", e.msg);
        bad = check_vectors(t, path, &n);
        tok_close(t);
        assert_int_equal(bad, 0);
        assert_true(n >= 60);
    }
}

static void cut_is(enum bytelevel_cut cut, const char *text, const char *want)
{
    size_t n = strlen(text), at = 0;
    struct str got = {0};

    while (at < n) {
        size_t end = bytelevel_word(cut, text, n, at);

        assert_true(end > at && end <= n);
        str_add(&got, at ? "|" : "");
        str_add_bytes(&got, text + at, end - at);
        at = end;
    }
    assert_string_equal(str_get(&got), want);
    str_fini(&got);
}

static void words(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"I've  it don't", "I|'ve| | it| don|'t"},
        {"a\n\nb", "a|\n|\n|b"},
        {"a   b  ", "a|  | b|  "},
        {"12ab34 !? x", "12|ab|34| !?| x"},
        {"'re'r'S ''s", "'re|'|r|'|S| ''|s"},
        {"a\t b\t", "a|\t| b|\t"},
        {"\xc3\xa9t\xc3\xa9 \xc2\xbd\xe2\x80\x83x",
         "\xc3\xa9t\xc3\xa9| \xc2\xbd|\xe2\x80\x83|x"},
        {" ", " "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cut_is(CUT_GPT2, cases[i].text, cases[i].words);
}

/* The other patterns; recorded() has more of them. */
static void other_cuts(void **state)
{
    static const struct {
        enum bytelevel_cut cut;
        const char *text, *words;
    } cases[] = {
        {CUT_DIGITS, "ab 12c  3", "ab| |1|2|c|  |3"},
        {CUT_DIGITS, "x 's", "x| '|s"},
        {CUT_LLAMA3, "12345 a-b !!x\n\n  y  ", "123|45| a|-b| !!|x|\n\n| | y|  "},
        {CUT_LLAMA3, "I'LL we'Re !?\r\nz", "I|'LL| we|'Re| !?\r\n|z"},
        {CUT_LLAMA3, "'\xc5\xbf\t\tq", "'\xc5\xbf|\t|\tq"},
        {CUT_QWEN2, "a 1234 \n \n b", "a| |1|2|3|4| \n \n| b"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cut_is(cases[i].cut, cases[i].text, cases[i].words);
}

static void alphabet(void **state)
{
    (void)state;
    for (int b = 0; b < 256; b++)
        assert_int_equal(bytelevel_byte(bytelevel_char((unsigned char)b)), b);
    assert_int_equal(bytelevel_char(' '), 0x120);
    assert_int_equal(bytelevel_byte(0x144), -1);
    assert_int_equal(bytelevel_byte(' '), -1);
}

static void lossy(void **state)
{
    struct str s = {0};
    static const char bytes[] = "a\xf0\x9f\x98\xff\xe2\x82"
                                "b\x80\xc3";

    (void)state;
    bytelevel_add_lossy(bytes, sizeof bytes - 1, &s);
    assert_string_equal(str_get(&s), "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                                     "b\xef\xbf\xbd\xef\xbf\xbd");
    str_fini(&s);
}

#define BPE(pre, merges)                                                                   \
    "{\"pre_tokenizer\": " pre ", \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": "     \
    "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"\xc4\xa0\": 2, \"ab\": 3, "     \
    "\"\xc4\xa0"                                                                           \
    "a\": 4, \"abab\": 5, \"aa\": 6, \"aaaa\": 7}, \"merges\": " merges "}}"
#define LEVEL(space)                                                                       \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": " space ", \"use_regex\": true}"
#define MERGES "[\"a b\", [\"\xc4\xa0\", \"a\"], \"ab ab\", \"a a\", \"aa aa\"]"

static int open_text(struct tok **t, const char *json, struct err *e)
{
    char path[64];
    int rc;

    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    assert_int_equal(file_write_atomic(path, json, strlen(json), e), 0);
    rc = tok_open(t, folder, e);
    unlink(path);
    return rc;
}

static void ids_are(const struct tok *t, const char *text, const char *want)
{
    struct tok_ids ids = {0};
    struct str got = {0};
    struct err e;

    assert_int_equal(tok_encode(t, text, strlen(text), &ids, &e), 0);
    for (size_t i = 0; i < ids.n; i++)
        str_addf(&got, "%s%d", i ? " " : "", ids.id[i]);
    assert_string_equal(str_get(&got), want);
    str_fini(&got);
    tok_ids_fini(&ids);
}

static void merges(void **state)
{
    struct tok *t;
    struct err e;
    char text[402], want[1024] = "";

    (void)state;
    assert_int_equal(open_text(&t, BPE(LEVEL("false"), MERGES), &e), 0);
    ids_are(t, "abab ab a", "5 2 3 4");
    ids_are(t, "aab", "0 3"); /* rank before place */
    ids_are(t, "aaaaa", "7 0");
    ids_are(t, "axb", "3"); /* a byte without token and no unknown token: nothing */
    /* A long word goes through the heap: 4 bytes a token, one left over. */
    memset(text, 'a', 401);
    text[401] = 0;
    for (int i = 0; i < 100; i++)
        strcat(want, i ? " 7" : "7");
    strcat(want, " 0");
    ids_are(t, text, want);
    tok_close(t);
    assert_int_equal(open_text(&t, BPE(LEVEL("true"), MERGES), &e), 0);
    ids_are(t, "a a", "4 4");
    ids_are(t, " a", "4");
    ids_are(t, "", "");
    tok_close(t);
}

/* SentencePiece's BPE as its tokenizer.json has it: 0 <unk>, 1 <0xC3>, 2 <0xA9>, 3 U+2581,
 * 4 a, 5 b, 6 U+2581 a, 7 ab. */
#define LETTERS(parts, blank)                                                              \
    "{" parts ", \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": "         \
    "\"Replace\", \"pattern\": {\"String\": \"\xe2\x96\x81\"}, \"content\": \" \"}, "      \
    "{\"type\": "                                                                          \
    "\"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", "  \
    "\"start\": 1, \"stop\": 0}]}, \"model\": {\"type\": \"BPE\", \"unk_token\": "         \
    "\"<unk>\", "                                                                          \
    "\"byte_fallback\": true, \"fuse_unk\": true, \"vocab\": {\"<unk>\": 0, \"<0xC3>\": "  \
    "1, "                                                                                  \
    "\"<0xA9>\": 2, \"" blank "\": 3, \"a\": 4, \"b\": 5, \"\xe2\x96\x81"                  \
    "a\": 6, \"ab\": 7}, "                                                                 \
    "\"merges\": [\"a b\", \"\xe2\x96\x81 a\"]}}"
#define NORMALIZERS                                                                        \
    "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", "  \
    "\"prepend\": \"\xe2\x96\x81\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": "   \
    "\" \"}, "                                                                             \
    "\"content\": \"\xe2\x96\x81\"}]}, \"pre_tokenizer\": null"
#define METASPACE                                                                          \
    "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\", "     \
    "\"prepend_scheme\": \"first\", \"split\": false}"

static void letters(void **state)
{
    static const int bytes[] = {3, 1, 2, 4}, torn[] = {6, 1, 4};
    struct tok *t = NULL;
    struct str s = {0};
    struct err e;

    (void)state;
    assert_int_equal(open_text(&t, LETTERS(NORMALIZERS, "\xe2\x96\x81"), &e), 0);
    ids_are(t, "ab", "3 7"); /* a b comes before U+2581 a */
    ids_are(t, "a a", "6 6");
    ids_are(t, " a", "3 6");
    ids_are(t, "\xc3\xa9", "3 1 2");
    ids_are(t, "zzza", "3 0 4"); /* one unknown */
    ids_are(t, "", "");
    assert_int_equal(tok_decode(t, bytes, 4, 0, &s, &e), 0);
    assert_string_equal(str_get(&s), "\xc3\xa9"
                                     "a");
    str_clear(&s);
    assert_int_equal(tok_decode(t, torn, 3, 0, &s, &e), 0);
    assert_string_equal(str_get(&s), "a\xef\xbf\xbd"
                                     "a");
    str_fini(&s);
    tok_close(t);
    assert_int_equal(open_text(&t, LETTERS(METASPACE, "\xe2\x96\x81"), &e), 0);
    ids_are(t, "a a", "6 6");
    ids_are(t, " a", "6"); /* one blank is enough */
    tok_close(t);
    assert_int_equal(open_text(&t, LETTERS(NORMALIZERS, "x"), &e), ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "is no token"));
}

static void refused(void **state)
{
    struct tok *t = NULL;
    struct err e;

    (void)state;
    assert_int_equal(open_text(&t, BPE(LEVEL("true"), "[\"a c\"]"), &e), ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "\"c\" is no token"));
    assert_int_equal(open_text(&t, BPE(LEVEL("true"), "[\"a\"]"), &e), ERR_CORRUPT);
    assert_int_equal(open_text(&t, BPE(LEVEL("true"), "[[\"a\"]]"), &e), ERR_CORRUPT);
    assert_int_equal(open_text(&t, BPE(LEVEL("true"), "[[\"a\", \"b\", \"a\"]]"), &e),
                     ERR_CORRUPT);
    assert_int_equal(open_text(&t, BPE("{\"type\": \"Sequence\"}", MERGES), &e),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "Sequence"));
    assert_null(t);
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
        cmocka_unit_test(recorded), cmocka_unit_test(words),   cmocka_unit_test(other_cuts),
        cmocka_unit_test(alphabet), cmocka_unit_test(lossy),   cmocka_unit_test(letters),
        cmocka_unit_test(merges),   cmocka_unit_test(refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
