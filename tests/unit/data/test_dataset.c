/* Loading: mapping, labels, bins, duplicates, split, limit, and every bad input. */
#include "tests/unit/data/scratch.h"

#include "base/mem.h"
#include "worker/data/text.h"

static void jsonl(void **state)
{
    struct dataset d;

    (void)state;
    put("a.jsonl", "\xef\xbb\xbf{\"text\": \"One\", \"label\": 1}\r\n"
                   "\n"
                   "{\"label\": \"very positive\", \"text\": \"T\\u00e9 \\ud83d\\ude00\"}\n"
                   "{\"text\": \"three\", \"label\": \"3\", \"other\": [1, {}]}");
    loads(&d, "train: a.jsonl", SPLIT_TRAIN);
    assert_int_equal(d.n, 3);
    assert_false(d.pairs);
    assert_string_equal(row_at(&d, 0).text[0], "One");
    assert_int_equal(row_at(&d, 0).label, 1);
    assert_int_equal(row_at(&d, 0).line, 1);
    assert_string_equal(row_at(&d, 1).text[0], "T\xc3\xa9 \xf0\x9f\x98\x80");
    assert_int_equal(row_at(&d, 1).len[0], 8);
    assert_int_equal(row_at(&d, 1).label, 4);
    assert_int_equal(row_at(&d, 2).label, 3);
    assert_int_equal(row_at(&d, 2).line, 4);
    assert_null(row_at(&d, 2).text[1]);
    dataset_fini(&d);
    loads(&d, "train: a.jsonl", SPLIT_TEST);
    assert_int_equal(d.n, 0);
    dataset_fini(&d);
}

static void pairs(void **state)
{
    struct dataset d;

    (void)state;
    put("p.jsonl", "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": 0}\n"
                   "{\"sentence1\": \"c\", \"sentence2\": \"\", \"label\": 1}\n");
    loads(&d, "train: p.jsonl", SPLIT_TRAIN);
    assert_true(d.pairs);
    assert_int_equal(d.n, 2);
    assert_string_equal(row_at(&d, 0).text[1], "b");
    assert_string_equal(row_at(&d, 1).text[1], "");
    dataset_fini(&d);
    put("p.tsv", "text1\ttext2\tlabel\na\tb\t0\n");
    loads(&d, "train: [p.tsv, p.jsonl]", SPLIT_TRAIN);
    assert_int_equal(d.n, 3);
    assert_int_equal(row_at(&d, 1).file, 1);
    dataset_fini(&d);
    put("one.tsv", "text\tlabel\na\t0\n");
    refuses("train: [p.tsv, one.tsv]", SPLIT_TRAIN, "has pairs of texts");
    refuses("{train: p.jsonl, columns: {text1: sentence1}}", SPLIT_TRAIN, "one text of");
}

static void tsv(void **state)
{
    struct dataset d;

    (void)state;
    put("r.txt", "id1\t-1.75\t\"quoted\" &amp;  more\r\nid2\t1.7\t&#39;b&#39\r\n");
    loads(
        &d,
        "{train: r.txt, format: {kind: tsv, header: false}, columns: {text: 3, label: 2}, "
        "label: {bins: [-1.75, -0.5, 0.5, 1.75]}, clean: [html, space]}",
        SPLIT_TRAIN);
    assert_int_equal(d.n, 2);
    assert_string_equal(row_at(&d, 0).text[0], "\"quoted\" & more");
    assert_int_equal(row_at(&d, 0).label, 0); /* an edge belongs to the class below it */
    assert_string_equal(row_at(&d, 1).text[0], "'b'");
    assert_int_equal(row_at(&d, 1).label, 3);
    dataset_fini(&d);
    put("h.tsv", "Label\tBody\tx\n2\tb\t\n");
    loads(&d, "{train: h.tsv, columns: {text: Body, label: Label}}", SPLIT_TRAIN);
    assert_int_equal(row_at(&d, 0).label, 2);
    assert_int_equal(row_at(&d, 0).line, 2);
    dataset_fini(&d);
    refuses("{train: h.tsv, columns: {text: body, label: Label}}", SPLIT_TRAIN,
            "no column \"body\"");
    refuses("{train: r.txt, format: {kind: tsv, header: false}}", SPLIT_TRAIN,
            "which column is the text");
    refuses("{train: r.txt, format: {kind: tsv, header: false}, columns: {text: 9, label: "
            "2}}",
            SPLIT_TRAIN, "has 3 columns");
    refuses("{train: r.txt, format: {kind: tsv, header: false}, columns: {text: b, label: "
            "2}}",
            SPLIT_TRAIN, "is no number");
    refuses("train: r.txt", SPLIT_TRAIN, "what kind of file");
    put("m.tsv", "text\tlabel\na\t1\nb\nc\t2\t3\n");
    refuses("train: m.tsv", SPLIT_TRAIN, "m.tsv: row 3: 1 columns");
    refuses("train: m.tsv", SPLIT_TRAIN, "m.tsv: row 4: 3 columns");
}

static void csv(void **state)
{
    struct dataset d;

    (void)state;
    put("c.csv",
        "text,label\r\n\"a, \"\"b\"\"\r\nc\",1\r\n\r\nplain,2\r\n\"\",3\n'x',\"4\"");
    loads(&d, "train: c.csv", SPLIT_TRAIN);
    assert_int_equal(d.n, 3); /* a row without text is left out */
    assert_int_equal(d.dropped_empty, 1);
    assert_string_equal(row_at(&d, 0).text[0], "a, \"b\"\r\nc");
    assert_int_equal(row_at(&d, 0).line, 2);
    assert_int_equal(row_at(&d, 1).line, 5);
    assert_string_equal(row_at(&d, 2).text[0], "'x'");
    assert_int_equal(row_at(&d, 2).label, 4);
    dataset_fini(&d);
    put("q.csv", "text,label\na \"b\",1\n\"a\"b,1\nok,1\n\"never,1\nc,1\n");
    refuses("train: q.csv", SPLIT_TRAIN, "q.csv: row 2: a double quote within");
    refuses("train: q.csv", SPLIT_TRAIN, "q.csv: row 3: text behind a closing quote");
    refuses("train: q.csv", SPLIT_TRAIN, "q.csv: row 5: a quoted cell does not end");
}

static void bad_rows(void **state)
{
    struct dataset d;
    struct problems p;
    struct err e;
    struct str s = {0};

    (void)state;
    put("b.jsonl", "{\"text\": \"a\", \"label\": 5}\n"
                   "{\"text\": \"a\", \"label\": -1}\n"
                   "{\"text\": \"a\", \"label\": \"postive\"}\n"
                   "{\"text\": \"a\"}\n"
                   "{\"label\": 1}\n"
                   "{\"text\": 3, \"label\": 1}\n"
                   "{\"text\": \"a\", \"label\": true}\n"
                   "{\"text\": \"a\", \"label\": 1.5}\n"
                   "{\"text\": \"a\", \"label\": 1,}\n"
                   "[1]\n"
                   "{\"text\": \"\\ud800\", \"label\": 1}\n"
                   "{\"text\": \"\\u0000\", \"label\": 1}\n"
                   "{\"text\": \"\xff\", \"label\": 1}\n"
                   "{\"text\": \"\xed\xa0\x80\", \"label\": 1}\n"
                   "{\"text\": \"a\", \"text\": \"b\", \"label\": 1}\n");
    assert_int_equal(load(&d, "train: b.jsonl", SPLIT_TRAIN, five, 5, &p, &e), ERR_CONFIG);
    assert_int_equal(p.errors, 15);
    assert_true(says(&p, &e, "b.jsonl: row 1: label 5 is not below 5"));
    assert_true(says(&p, &e, "row 2: label -1 is below 0"));
    assert_true(says(&p, &e, "row 3: unknown label \"postive\""));
    assert_string_equal(p.item[2].mend, "did you mean \"positive\"?");
    assert_true(says(&p, &e, "row 4: \"label\" is missing"));
    assert_true(says(&p, &e, "row 5: \"text\" is missing"));
    assert_true(says(&p, &e, "row 6: \"text\" must be a string"));
    assert_true(says(&p, &e, "row 7: the label must be a name or a number"));
    assert_true(says(&p, &e, "row 8: unknown label \"1.5\""));
    assert_true(says(&p, &e, "row 9: "));
    assert_true(says(&p, &e, "row 10: no JSON object"));
    assert_true(says(&p, &e, "row 11: "));
    assert_true(says(&p, &e, "row 12: "));
    assert_true(says(&p, &e, "row 13: not UTF-8 (byte 11 of the row)"));
    assert_true(says(&p, &e, "row 14: not UTF-8"));
    assert_true(says(&p, &e, "row 15: "));
    problems_fini(&p);

    for (int i = 0; i < 50; i++)
        str_add(&s, "{\"text\": \"a\", \"label\": 9}\n");
    put("many.jsonl", str_get(&s));
    assert_int_equal(load(&d, "train: many.jsonl", SPLIT_TRAIN, five, 5, &p, &e),
                     ERR_CONFIG);
    assert_int_equal(p.errors, 21);
    assert_true(says(&p, &e, "and 30 more bad rows"));
    problems_fini(&p);
    str_fini(&s);
    put_bytes("nul.tsv", "text\tlabel\na\0b\t1\n", 17);
    refuses("train: nul.tsv", SPLIT_TRAIN, "row 2: holds a NUL");
}

static void bad_files(void **state)
{
    struct str s = {0};
    char path[128];
    struct err e;

    (void)state;
    refuses("train: none.jsonl", SPLIT_TRAIN, "none.jsonl");
    put("empty.jsonl", "");
    refuses("train: empty.jsonl", SPLIT_TRAIN, "is empty");
    put("blank.jsonl", "\n\n");
    refuses("train: blank.jsonl", SPLIT_TRAIN, "no rows for train");
    snprintf(path, sizeof path, "%s/dir.jsonl", folder);
    assert_int_equal(file_make_dirs(path, &e), 0);
    refuses("train: dir.jsonl", SPLIT_TRAIN, "dir.jsonl");
    str_add(&s, "{\"text\": \"");
    for (size_t i = 0; i < (16u << 20); i += 16)
        str_add(&s, "0123456789abcdef");
    str_add(&s, "\", \"label\": 1}\n{\"text\": \"a\", \"label\": 1}\n");
    put("long.jsonl", str_get(&s));
    refuses("train: long.jsonl", SPLIT_TRAIN, "row 1: longer than 16 MiB");
    str_fini(&s);
    put("ok.tsv", "text\tlabel\na\t1\n");
    refuses("{train: ok.tsv, label: {bins: [1, 2]}}", SPLIT_TRAIN,
            "2 edges make 3 classes");
    put("w.tsv", "text\tlabel\na\tx\n");
    refuses("{train: w.tsv, label: {bins: [1, 2, 3, 4]}}", SPLIT_TRAIN,
            "\"x\" is no number");
}

/* {"text": "a", "label": 1} and a line end, packed. */
static const char gz[] =
    "\037\213\010\000\000\000\000\000\002\003\253\126\052\111\255\050\121\262\122\120"
    "\112\124\322\121\120\312\111\114\112\315\001\362\014\153\271\000\001\034\117\107"
    "\032\000\000\000";
static const char zst[] =
    "\050\265\057\375\000\130\321\000\000\173\042\164\145\170\164\042\072\040\042\141"
    "\042\054\040\042\154\141\142\145\154\042\072\040\061\175\012";

static void packed_files(void **state)
{
    struct dataset d;

    (void)state;
    put_bytes("p.jsonl.gz", gz, sizeof gz - 1);
    put_bytes("p.jsonl.zst", zst, sizeof zst - 1);
    loads(&d, "train: [p.jsonl.gz, p.jsonl.zst]", SPLIT_TRAIN);
    assert_int_equal(d.n, 2);
    assert_string_equal(row_at(&d, 0).text[0], "a");
    assert_int_equal(row_at(&d, 1).label, 1);
    dataset_fini(&d);
    put_bytes("cut.jsonl.gz", gz, sizeof gz - 6);
    refuses("train: cut.jsonl.gz", SPLIT_TRAIN, "unpack");
    put_bytes("cut.jsonl.zst", zst, sizeof zst - 4);
    refuses("train: cut.jsonl.zst", SPLIT_TRAIN, "cut short");
    put("no.jsonl.gz", "plain");
    refuses("train: no.jsonl.gz", SPLIT_TRAIN, "not in gzip format");
    put("no.jsonl.zst", "plain");
    refuses("train: no.jsonl.zst", SPLIT_TRAIN, "unpack");
    refuses("train: none.jsonl.zst", SPLIT_TRAIN, "none.jsonl.zst");
}

/* A packed file with something behind it. */
static void put_around(const char *name, const char *packed, size_t n, const char *after,
                       size_t n_after)
{
    struct str s = {0};

    str_add_bytes(&s, packed, n);
    str_add_bytes(&s, after, n_after);
    put_bytes(name, str_get(&s), s.len);
    str_fini(&s);
}

/* What gzip and zstd themselves make of files put one behind the other, and what no tool
 * would have made. */
static void joined_files(void **state)
{
    static const char skippable[] = "\x50\x2a\x4d\x18\x03\x00\x00\x00xyz";
    char damaged[sizeof gz];
    struct dataset d;

    (void)state;
    put_around("two.jsonl.gz", gz, sizeof gz - 1, gz, sizeof gz - 1);
    put_around("two.jsonl.zst", zst, sizeof zst - 1, zst, sizeof zst - 1);
    put_around("pad.jsonl.gz", gz, sizeof gz - 1, "\0\0\0\0\0\0\0", 7);
    put_around("skip.jsonl.zst", zst, sizeof zst - 1, skippable, sizeof skippable - 1);
    loads(&d, "train: [two.jsonl.gz, two.jsonl.zst, pad.jsonl.gz, skip.jsonl.zst]",
          SPLIT_TRAIN);
    assert_int_equal(d.n, 6);
    assert_int_equal(row_at(&d, 1).line, 2);
    assert_string_equal(row_at(&d, 5).text[0], "a");
    dataset_fini(&d);
    put_around("cut2.jsonl.gz", gz, sizeof gz - 1, gz, sizeof gz - 9);
    refuses("train: cut2.jsonl.gz", SPLIT_TRAIN, "cut short");
    put_around("cut3.jsonl.gz", gz, sizeof gz - 1, gz, 3);
    refuses("train: cut3.jsonl.gz", SPLIT_TRAIN, "cut short");
    put_around("cut2.jsonl.zst", zst, sizeof zst - 1, zst, 6);
    refuses("train: cut2.jsonl.zst", SPLIT_TRAIN, "cut short");
    put_around("junk.jsonl.gz", gz, sizeof gz - 1, "{\"text\"", 7);
    refuses("train: junk.jsonl.gz", SPLIT_TRAIN, "something else follows");
    put_around("junk.jsonl.zst", zst, sizeof zst - 1, "{\"text\"", 7);
    refuses("train: junk.jsonl.zst", SPLIT_TRAIN, "unpack");
    put_bytes("empty.jsonl.gz", "", 0);
    refuses("train: empty.jsonl.gz", SPLIT_TRAIN, "cut short");
    put_bytes("empty.jsonl.zst", "", 0);
    refuses("train: empty.jsonl.zst", SPLIT_TRAIN, "cut short");
    for (size_t i = 0; i < sizeof gz - 1; i++) { /* a flipped bit never goes unseen... */
        struct problems p;
        struct err e = {0};

        memcpy(damaged, gz, sizeof gz);
        damaged[i] ^= 0x10;
        put_bytes("bit.jsonl.gz", damaged, sizeof gz - 1);
        if (load(&d, "train: bit.jsonl.gz", SPLIT_TRAIN, five, 5, &p, &e))
            assert_int_not_equal(p.errors, 0);
        else /* ...but in the header, where it says nothing about the data */
            assert_true(i >= 4 && i < 10 && d.n == 1);
        dataset_fini(&d);
        problems_fini(&p);
    }
}

static void bad_sections(void **state)
{
    (void)state;
    refuses("{train: a.jsonl, clean: [htm]}", SPLIT_TRAIN, "\"htm\"");
    refuses("{train: a.jsonl, label: {bins: [1, 1]}}", SPLIT_TRAIN, "does not lie above");
    refuses("{train: a.jsonl, split: {validation: 0.1}}", SPLIT_TRAIN, "data.file");
    refuses("{file: a.jsonl, split: {validation: 0.5, test: 0.5}}", SPLIT_TRAIN,
            "leaves nothing");
    refuses("{file: a.jsonl, split: {validaton: 0.5}}", SPLIT_TRAIN, "validaton");
    refuses("{file: a.jsonl, train: a.jsonl}", SPLIT_TRAIN, "both data.file");
    refuses("{file: a.jsonl, test: a.jsonl, split: {test: 0.1}}", SPLIT_TRAIN,
            "both data.test");
    refuses("{train: a.jsonl, columns: {text: a, text1: b, text2: c}}", SPLIT_TRAIN,
            "both");
    refuses("{train: a.jsonl, duplicates: dorp}", SPLIT_TRAIN, "duplicates");
    refuses("{train: a.jsonl, format: {kind: xml}}", SPLIT_TRAIN, "kind");
    refuses("{train: a.jsonl, max_tokens: 4x}", SPLIT_TRAIN, "max_tokens");
}

static void duplicates(void **state)
{
    struct dataset d;

    (void)state;
    put("d.jsonl",
        "{\"text\": \"Same\", \"label\": 1}\n{\"text\": \"sAME\", \"label\": 2}\n"
        "{\"text\": \"same \", \"label\": 3}\n");
    loads(&d, "train: d.jsonl", SPLIT_TRAIN);
    assert_int_equal(d.n, 3);
    dataset_fini(&d);
    loads(&d, "{train: d.jsonl, duplicates: drop}", SPLIT_TRAIN);
    assert_int_equal(d.n, 2); /* the blank at the end makes it another text */
    assert_int_equal(row_at(&d, 0).label, 1);
    assert_int_equal(d.dropped_duplicates, 1);
    dataset_fini(&d);
    loads(&d, "{train: d.jsonl, duplicates: drop, clean: space}", SPLIT_TRAIN);
    assert_int_equal(d.n, 1);
    dataset_fini(&d);
    refuses("{train: d.jsonl, duplicates: fail}", SPLIT_TRAIN, "row 2: the same text as");
}

/* Where a row stands in hash order. */
static double share_at(const struct dataset *d, size_t i)
{
    struct row row = row_at(d, i);
    unsigned char key[TEXT_KEY];
    struct str work = {0};

    assert_int_equal(text_key(row.text, row.len, &work, key), 0);
    str_fini(&work);
    return text_share(key);
}

static void split_and_limit(void **state)
{
    struct dataset part[SPLITS], some, all;
    struct str s = {0};
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 1000; i++)
        str_addf(&s, "{\"text\": \"text %d\", \"label\": %d}\n", i, i % 5);
    put("s.jsonl", str_get(&s));
    str_fini(&s);
    for (int k = 0; k < SPLITS; k++) {
        loads(&part[k], "{file: s.jsonl, split: {validation: 0.2, test: 0.1, by: hash}}",
              (enum split)k);
        n += part[k].n;
        for (size_t i = 1; i < part[k].n; i++)
            assert_true(share_at(&part[k], i - 1) < share_at(&part[k], i));
    }
    assert_int_equal(n, 1000);
    assert_in_range(part[SPLIT_VALIDATION].n, 160, 240);
    assert_in_range(part[SPLIT_TEST].n, 70, 130);
    /* The first key of a split bounds it: 0.2 of 2^64 begins with 0x33. */
    assert_true(share_at(&part[SPLIT_VALIDATION], part[SPLIT_VALIDATION].n - 1) < 0.2);
    assert_true(share_at(&part[SPLIT_TEST], 0) >= 0.2);
    loads(&some, "{file: s.jsonl, split: {validation: 0.2, test: 0.1}, limit: 20}",
          SPLIT_TRAIN);
    assert_int_equal(some.n, 20);
    for (size_t i = 0; i < some.n; i++)
        assert_string_equal(row_at(&some, i).text[0],
                            row_at(&part[SPLIT_TRAIN], i).text[0]);
    dataset_fini(&some);
    loads(&some, "{train: s.jsonl, limit: 7}", SPLIT_TRAIN);
    loads(&all, "train: s.jsonl", SPLIT_TRAIN);
    assert_int_equal(some.n, 7);
    assert_string_equal(row_at(&all, 999).text[0], "text 999");
    assert_true(share_at(&some, 0) < share_at(&some, 6));
    dataset_fini(&some);
    dataset_fini(&all);
    loads(&all, "{train: a.jsonl, test: s.jsonl, limit: 7}", SPLIT_TEST);
    assert_int_equal(all.n, 1000);
    dataset_fini(&all);
    for (int k = 0; k < SPLITS; k++)
        dataset_fini(&part[k]);
    put("one.jsonl", "{\"text\": \"a\", \"label\": 1}\n");
    refuses("{file: one.jsonl, split: {validation: 0.01}}", SPLIT_VALIDATION,
            "no rows for validation");
}

static void one_class(void **state)
{
    struct dataset d;
    struct problems p;
    struct err e = {0};

    (void)state;
    put("one.jsonl", "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": 1}\n");
    assert_int_equal(load(&d, "train: one.jsonl", SPLIT_TRAIN, five, 5, &p, &e), 0);
    assert_int_equal(p.errors, 0);
    assert_int_equal(p.n, 1);
    assert_true(says(&p, &e, "all 2 training rows have the label \"negative\""));
    problems_fini(&p);
    dataset_fini(&d);
}

static void lines(void **state)
{
    struct arena a = {0};
    struct row r;
    struct err e;

    (void)state;
    assert_int_equal(dataset_parse_line(&a, "plain text\r\n", 12, "in", 1, &r, &e), 0);
    assert_string_equal(r.text[0], "plain text");
    assert_int_equal(r.len[0], 10);
    assert_int_equal(r.label, -1);
    assert_int_equal(dataset_parse_line(&a, "{\"sentence\": \"x\"}", 17, "in", 2, &r, &e),
                     0);
    assert_string_equal(r.text[0], "x");
    assert_int_equal(
        dataset_parse_line(&a, "{\"text1\":\"x\",\"text2\":\"y\"}", 25, "in", 2, &r, &e),
        0);
    assert_string_equal(r.text[1], "y");
    assert_int_equal(dataset_parse_line(&a, "{\"text\": 1}", 11, "in", 3, &r, &e),
                     ERR_CORRUPT);
    assert_string_equal(e.msg, "in: row 3: \"text\" must be a string");
    assert_int_equal(dataset_parse_line(&a, "{\"tex\": 1", 9, "in", 4, &r, &e),
                     ERR_CORRUPT);
    assert_int_equal(dataset_parse_line(&a, "\xff", 1, "in", 5, &r, &e), ERR_CORRUPT);
    assert_int_equal(dataset_parse_line(&a, "", 0, "in", 6, &r, &e), 0);
    assert_string_equal(r.text[0], "");
    arena_fini(&a);
}

/* Every allocation may fail: an error, no leak, no crash. */
static void out_of_memory(void **state)
{
    static const char yaml[] =
        "{file: o.jsonl, split: {validation: 0.5}, clean: [html, space]}";
    struct arena a = {0};
    struct data_spec spec;
    struct problems p;
    long live;

    (void)state;
    put("o.jsonl",
        "{\"text\": \"One &amp; \", \"label\": 1}\n{\"text\": \"b\", \"label\": 7}\n"
        "{\"text\": \"one &\", \"label\": 0}\n");
    read_section(&spec, yaml, &a, &p);
    problems_fini(&p);
    live = mem_live();
    for (long n = 0;; n++) {
        struct dataset d;
        struct err e;
        int rc, failed;

        problems_init(&p, "job.yaml");
        mem_fail_at(n);
        rc = dataset_load(&d, &spec, SPLIT_TRAIN, five, 5, &p, &e);
        failed = mem_failed();
        mem_fail_at(-1);
        dataset_fini(&d);
        problems_fini(&p);
        assert_int_equal(mem_live(), live);
        assert_int_not_equal(rc, 0);
        if (!failed)
            break;
    }
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jsonl),
        cmocka_unit_test(pairs),
        cmocka_unit_test(tsv),
        cmocka_unit_test(csv),
        cmocka_unit_test(bad_rows),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(packed_files),
        cmocka_unit_test(joined_files),
        cmocka_unit_test(bad_sections),
        cmocka_unit_test(duplicates),
        cmocka_unit_test(split_and_limit),
        cmocka_unit_test(one_class),
        cmocka_unit_test(lines),
        cmocka_unit_test(out_of_memory),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
