/* Cleaning and keys, against what Python's html.unescape, str.split and str.lower give. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "worker/data/text.h"
#include "worker/tok/unicode.h"

typedef void change(const char *s, size_t n, struct str *out);

static void gives(change *f, const char *from, const char *want)
{
    struct str s = {0};

    f(from, strlen(from), &s);
    assert_string_equal(str_get(&s), want);
    str_fini(&s);
}

static void unescape(void **state)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"a & b &", "a & b &"},
        {"&amp;&lt;&gt;&quot;&apos;&nbsp;", "&<>\"'\xc2\xa0"},
        {"&ampamp;", "&amp;"},
        {"&notit; &notin; &not", "\xc2\xacit; \xe2\x88\x89 \xc2\xac"},
        {"&AMP &Amp;", "& &Amp;"},
        {"&unknown; &x", "&unknown; &x"},
        {"&CounterClockwiseContourIntegral;", "\xe2\x88\xb3"},
        {"&acE;", "\xe2\x88\xbe\xcc\xb3"},
        {"&#65;&#x41;&#X41&#065", "AAAA"},
        {"&#; &#x; &#xg", "&#; &#x; &#xg"},
        {"&#0;&#xd800;&#1114112;&#99999999999999999999;",
         "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"&#1;&#x7f;&#xfdd0;&#xffff;&#11;x", "x"},
        {"&#128;&#x99;&#129;&#13;", "\xe2\x82\xac\xe2\x84\xa2\xc2\x81\r"},
        {"&amp;amp;", "&amp;"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        gives(text_unescape, cases[i][0], cases[i][1]);
}

static void squeeze(void **state)
{
    (void)state;
    gives(text_squeeze, "", "");
    gives(text_squeeze, " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f ", "");
    gives(text_squeeze, "  a  b\t\nc ", "a b c");
    gives(text_squeeze,
          "a\xc2\xa0\xe2\x80\x83\xe3\x80\x80\xc2\x85"
          "b",
          "a b");
    gives(text_squeeze,
          "a\xe2\x80\x8b"
          "b",
          "a\xe2\x80\x8b"
          "b"); /* U+200B is no space */
}

static void lower(void **state)
{
    (void)state;
    gives(unicode_lower_text, "ABC xyz \xc3\x89", "abc xyz \xc3\xa9");
    gives(unicode_lower_text, "\xc4\xb0", "i\xcc\x87");
    /* Sigma: final behind a letter and before none. */
    gives(unicode_lower_text, "\xce\xa3", "\xcf\x83");
    gives(unicode_lower_text, "\xce\x91\xce\xa3", "\xce\xb1\xcf\x82");
    gives(unicode_lower_text, "\xce\x91\xce\xa3.", "\xce\xb1\xcf\x82.");
    gives(unicode_lower_text, "\xce\x91\xce\xa3.a", "\xce\xb1\xcf\x83.a");
    gives(unicode_lower_text, "A'\xce\xa3 b", "a'\xcf\x82 b");
    gives(unicode_lower_text, "1\xce\xa3", "1\xcf\x83");
}

static void keys(void **state)
{
    static const unsigned char abc[8] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea};
    const char *text[2] = {"aBc", NULL};
    size_t len[2] = {3, 0};
    unsigned char one[TEXT_KEY], two[TEXT_KEY];
    struct str work = {0};

    (void)state;
    assert_int_equal(text_key(text, len, &work, one), 0);
    assert_memory_equal(one, abc, sizeof abc); /* SHA-256 of "abc" */
    text[1] = "";
    assert_int_equal(text_key(text, len, &work, two), 0);
    assert_memory_not_equal(one, two, TEXT_KEY);
    memset(one, 0, sizeof one);
    assert_true(text_share(one) == 0);
    one[0] = 0x80;
    assert_true(text_share(one) == 0.5);
    str_fini(&work);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(unescape),
                                       cmocka_unit_test(squeeze), cmocka_unit_test(lower),
                                       cmocka_unit_test(keys)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
