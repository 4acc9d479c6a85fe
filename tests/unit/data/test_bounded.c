/* Bounded memory: what lies in a file is what would lie in memory, bit for bit, for every
 * number of threads; packing ahead gives what packing gives; and a full disk is said. */
#include "tests/unit/data/scratch.h"

#include <limits.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"
#include "worker/data/pack.h"

enum { ROWS = 3000 };

static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\nc\n|\n:\np\nx\ny\n";
static const char *const candidates[] = {"x", "x y", "y y y"};
static struct tok *tok;

static void store_in_pieces(void **state)
{
    struct store s = {0};
    struct store_buf buf = {0};
    char want[5000];
    struct err e;
    size_t at = 0;

    (void)state;
    for (size_t i = 0; i < sizeof want; i++)
        want[i] = (char)(i * 7 % 251);
    store_set_memory(100);
    for (size_t n = 1; at + n <= sizeof want; at += n, n = n % 97 + 1)
        assert_int_equal(store_add(&s, want + at, n, &e), 0);
    assert_true(s.is_file);
    assert_int_equal(s.size, at);
    assert_int_equal(store_flush(&s, &e), 0);
    for (size_t i = 0; i + 61 < at; i += 53)
        assert_memory_equal(store_get(&s, i, 61, &buf, &e), want + i, 61);
    assert_int_equal(store_add(&s, want, 10, &e), 0); /* it may grow further */
    assert_int_equal(store_flush(&s, &e), 0);
    assert_memory_equal(store_get(&s, at, 10, &buf, &e), want, 10);
    store_fini(&s);
    store_buf_fini(&buf);
    store_set_memory(0);
    assert_int_equal(store_add(&s, want, sizeof want, &e), 0);
    assert_false(s.is_file);
    assert_memory_equal(store_get(&s, 5, 100, &buf, &e), want + 5, 100);
    store_fini(&s);
}

static void no_room(void **state)
{
    struct store s = {0};
    struct err e;

    (void)state;
    store_set_memory(10);
    assert_int_equal(fault_arm("write:1:ENOSPC"), 0);
    assert_int_equal(store_add(&s, "0123456789ab", 12, &e), 0);
    assert_int_equal(store_flush(&s, &e), ERR_IO);
    fault_arm(NULL);
    assert_non_null(strstr(e.msg, "temporary file in"));
    assert_non_null(strstr(e.mend, "TMPDIR"));
    store_fini(&s);
    setenv("TMPDIR", "/nonexistent", 1);
    assert_int_equal(store_add(&s, "0123456789ab", 12, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "/nonexistent"));
    unsetenv("TMPDIR");
    store_fini(&s);
    store_set_memory(0);
}

static void same_rows(const struct dataset *a, const struct dataset *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->pairs, b->pairs);
    for (size_t i = 0; i < a->n; i++) {
        struct row x = row_at(a, i), y = row_at(b, i);

        assert_int_equal(x.label, y.label);
        assert_int_equal(x.line, y.line);
        assert_int_equal(x.file, y.file);
        for (int k = 0; k <= a->pairs; k++) {
            assert_int_equal(x.len[k], y.len[k]);
            assert_string_equal(x.text[k], y.text[k]);
        }
    }
}

/* Long texts and short ones, many of them twice. */
static void put_rows(void)
{
    struct str s = {0}, p = {0};
    struct rng r;

    rng_init(&r, 1);
    for (int i = 0; i < ROWS; i++) {
        int words = i % 100 ? (int)rng_below(&r, 9) : 900;

        str_add(&s, "{\"text\": \"");
        for (int k = 0; k < words; k++)
            str_addf(&s, "%c ", "abcABC"[rng_below(&r, 6)]);
        str_addf(&s, "%d\", \"label\": %d}\n", i % 2000, i % 5);
        str_addf(&p, "{\"text1\": \"a %d\", \"text2\": \"b c a\", \"label\": 1}\n", i);
    }
    put("rows.jsonl", str_get(&s));
    put("pairs.jsonl", str_get(&p));
    put("other.jsonl", "{\"text\": \"other\", \"label\": 1}\n");
    str_fini(&s);
    str_fini(&p);
}

static void load_all(struct dataset d[SPLITS], const char *yaml)
{
    struct arena a = {0};
    struct data_spec spec;
    struct problems p;
    struct err e;

    read_section(&spec, yaml, &a, &p);
    if (dataset_load_all(d, &spec, five, 5, &p, &e))
        fail_msg("%s", e.msg);
    problems_fini(&p);
    arena_fini(&a);
}

/* One pass over a file fills all splits as loading each by itself does; a file is as
 * memory. */
static void splits_in_one_pass(void **state)
{
    static const char *const sections[] = {
        "{file: rows.jsonl, split: {validation: 0.2, test: 0.1}}",
        "{file: rows.jsonl, split: {validation: 0.2}, test: other.jsonl, limit: 100}",
        "{train: rows.jsonl, validation: rows.jsonl, test: other.jsonl, limit: 2500}",
        "{train: [rows.jsonl, other.jsonl], duplicates: drop}",
        "{train: pairs.jsonl, validation: pairs.jsonl, limit: 10}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        struct dataset all[SPLITS], file[SPLITS], one;

        load_all(all, sections[i]);
        store_set_memory(1000);
        load_all(file, sections[i]);
        store_set_memory(0);
        assert_false(all[0].text.is_file);
        assert_true(file[0].text.is_file);
        for (int k = 0; k < SPLITS; k++) {
            loads(&one, sections[i], (enum split)k);
            same_rows(&one, &all[k]);
            same_rows(&one, &file[k]);
            assert_int_equal(one.dropped_duplicates, all[k].dropped_duplicates);
            dataset_fini(&one);
            dataset_fini(&all[k]);
            dataset_fini(&file[k]);
        }
    }
    store_set_memory(1000);
    refuses("{train: rows.jsonl, duplicates: fail}", SPLIT_TRAIN, "the same text as");
    store_set_memory(0);
}

static void same_sequences(const struct sequences *a, const struct sequences *b)
{
    static int ids[4000], types[4000], ids2[4000], types2[4000];
    struct store_buf buf = {0}, buf2 = {0};
    struct err e;

    assert_int_equal(a->n, b->n);
    assert_int_equal(a->truncated, b->truncated);
    assert_int_equal(a->longest, b->longest);
    assert_memory_equal(a->offset, b->offset, (a->n + 1) * sizeof *a->offset);
    for (size_t i = 0; i < a->n; i++) {
        size_t n = a->offset[i + 1] - a->offset[i];

        assert_int_equal(sequences_read(a, i, &buf, ids, types, &e), 0);
        assert_int_equal(sequences_read(b, i, &buf2, ids2, types2, &e), 0);
        assert_memory_equal(ids, ids2, n * sizeof *ids);
        assert_memory_equal(types, types2, n * sizeof *ids);
    }
    store_buf_fini(&buf);
    store_buf_fini(&buf2);
}

static void encode_set(struct sequences *out, const struct dataset *d,
                       const unsigned char *only, int reward, int threads)
{
    struct encode_spec spec = {.tok = tok,
                               .max_tokens = 60,
                               .prefix = "p",
                               .candidate = candidates,
                               .n_candidates = 3,
                               .threads = threads};
    struct err e;

    if (encode_dataset(out, d, only, reward, &spec, &e))
        fail_msg("%s", e.msg);
}

static void threads_and_files(void **state)
{
    static unsigned char only[ROWS];

    (void)state;
    for (int i = 0; i < ROWS; i++)
        only[i] = i % 3 == 0;
    for (int k = 0; k < 8; k++) {
        struct dataset d;
        struct sequences one, many, file;
        const unsigned char *mask = k & 4 ? only : NULL;

        loads(&d, k & 1 ? "train: pairs.jsonl" : "train: rows.jsonl", SPLIT_TRAIN);
        encode_set(&one, &d, mask, k & 2, 1);
        encode_set(&many, &d, mask, k & 2, 7);
        store_set_memory(500);
        encode_set(&file, &d, mask, k & 2, 3);
        store_set_memory(0);
        same_sequences(&one, &many);
        same_sequences(&one, &file);
        assert_int_equal(one.n, (mask ? ROWS / 3 : ROWS) * (k & 2 ? 3 : 1));
        sequences_fini(&one);
        sequences_fini(&many);
        sequences_fini(&file);
        dataset_fini(&d);
    }
}

static void same_packed(const struct packed *a, const struct packed *b)
{
    assert_int_equal(a->T, b->T);
    assert_int_equal(a->B, b->B);
    assert_int_equal(a->max_len, b->max_len);
    assert_memory_equal(a->ids, b->ids, (size_t)a->T * sizeof *a->ids);
    assert_memory_equal(a->types, b->types, (size_t)a->T * sizeof *a->types);
    assert_memory_equal(a->position, b->position, (size_t)a->T * sizeof *a->position);
    assert_memory_equal(a->example, b->example, (size_t)a->T * sizeof *a->example);
    assert_memory_equal(a->cu_seqlens, b->cu_seqlens,
                        ((size_t)a->B + 1) * sizeof *a->cu_seqlens);
}

/* Batches of many parts and of none, added one ahead, now and then forgotten. */
static void packing_ahead(void **state)
{
    static uint32_t order[ROWS];
    struct pack_part part[40];
    struct dataset d;
    struct sequences s;
    struct packer *p;
    struct ahead *a;
    struct err e;
    size_t added = 0, begin = 0;

    (void)state;
    loads(&d, "train: rows.jsonl", SPLIT_TRAIN);
    encode_set(&s, &d, NULL, 0, 2);
    assert_int_equal(order_epoch(order, ROWS, 1, "sft", 0), 0);
    p = packer_new(&s, LONG_MAX, &e);
    a = ahead_new(&s, 0, &e);
    assert_non_null(p);
    assert_non_null(a);
    for (size_t batch = 0, sizes[2] = {0, 0}; batch < 60; batch++) {
        size_t n = (batch * 7) % 40;

        for (size_t i = 0; i < n; i++)
            part[i] = (struct pack_part){(added + i * 3) % (ROWS - 5), 1 + i % 4};
        assert_int_equal(ahead_add(a, order, part, n, &e), 0);
        sizes[0] = sizes[1];
        sizes[1] = n;
        if (batch % 13 == 12) {
            ahead_clear(a);
            assert_int_equal(ahead_waiting(a), 0);
            sizes[1] = 0;
        } else if (batch) {
            assert_int_equal(ahead_waiting(a), sizes[0] + sizes[1]);
            for (size_t i = 0; i < sizes[0]; i++) {
                size_t first = (begin + i * 3) % (ROWS - 5), next = 0;
                struct packed got, want;

                assert_int_equal(ahead_next(a, &got, &e), 0);
                assert_int_equal(packer_fill(p, order + first, 1 + i % 4, &next, &want, &e),
                                 0);
                same_packed(&got, &want);
            }
        }
        begin = added;
        added += 3 * n;
    }
    ahead_free(a);
    packer_free(p);
    sequences_fini(&s);
    dataset_fini(&d);
}

static int open_all(void **state)
{
    struct err e;

    if (make_folder(state))
        return -1;
    put("vocab.txt", vocab);
    put_rows();
    return tok_open(&tok, folder, &e);
}

static int close_all(void **state)
{
    tok_close(tok);
    return remove_folder(state) || mem_live() ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_in_pieces),    cmocka_unit_test(no_room),
        cmocka_unit_test(splits_in_one_pass), cmocka_unit_test(threads_and_files),
        cmocka_unit_test(packing_ahead),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
