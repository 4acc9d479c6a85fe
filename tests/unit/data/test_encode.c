/* Sequences, packing, epoch order and preference lists on a vocabulary of a few words. */
#include "tests/unit/data/scratch.h"

#include "base/mem.h"
#include "worker/data/pack.h"
#include "worker/data/prefer.h"

/* Ids: [PAD] 0 [UNK] 1 [CLS] 2 [SEP] 3 a 4 b 5 c 6 | 7 : 8 p 9 x 10 y 11 */
static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\nc\n|\n:\np\nx\ny\n";
static const char *const candidates[] = {"x", "x y"};
static struct tok *tok;

static struct row row_of(const char *one, const char *two)
{
    struct row r = {.text = {one, two}, .len = {strlen(one), two ? strlen(two) : 0}};

    return r;
}

static int ids[64], types[64];

static void read_sequence(const struct sequences *s, size_t i)
{
    struct store_buf buf = {0};
    struct err e;

    assert_true(s->offset[i + 1] - s->offset[i] <= 64);
    assert_int_equal(sequences_read(s, i, &buf, ids, types, &e), 0);
    store_buf_fini(&buf);
}

static void sequence_is(const struct sequences *s, size_t i, const int *want)
{
    size_t n = 0;

    while (want[n] >= 0)
        n++;
    assert_int_equal(s->offset[i + 1] - s->offset[i], n);
    read_sequence(s, i);
    for (size_t k = 0; k < n; k++)
        assert_int_equal(ids[k], want[k]);
}
#define IDS(...) ((const int[]){__VA_ARGS__, -1})

static void policy(void **state)
{
    struct row rows[] = {row_of("a b c", NULL), row_of("", NULL),
                         row_of("a b c a b", NULL)};
    struct encode_spec spec = {.tok = tok, .max_tokens = 5};
    struct sequences s;
    struct err e;

    (void)state;
    assert_int_equal(encode_policy(&s, rows, 3, &spec, &e), 0);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.per_example, 1);
    assert_int_equal(s.truncated, 1);
    assert_int_equal(s.longest, 5);
    sequence_is(&s, 0, IDS(2, 4, 5, 6, 3));
    for (int i = 0; i < 5; i++)
        assert_int_equal(types[i], 0);
    sequence_is(&s, 1, IDS(2, 3));
    sequence_is(&s, 2, IDS(2, 4, 5, 6, 3));
    sequences_fini(&s);
    spec.max_tokens = 2;
    assert_int_equal(encode_policy(&s, rows, 3, &spec, &e), ERR_CONFIG);
}

static void policy_pairs(void **state)
{
    struct row rows[] = {row_of("a b c a", "a b"), row_of("a b c", "a b c"),
                         row_of("a", "a b c a b")};
    struct encode_spec spec = {.tok = tok, .max_tokens = 6};
    struct sequences s;
    struct err e;

    (void)state;
    assert_int_equal(encode_policy(&s, rows, 3, &spec, &e), 0);
    sequence_is(&s, 0, IDS(2, 4, 3, 4, 5, 3)); /* the first of two as long is cut */
    sequence_is(&s, 1, IDS(2, 4, 3, 4, 5, 3));
    sequence_is(&s, 2, IDS(2, 4, 3, 4, 5, 3));
    assert_int_equal(s.truncated, 3);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(types[i], i >= 3);
    sequences_fini(&s);
}

static void reward(void **state)
{
    struct row rows[] = {row_of("a b c", NULL), row_of("a", NULL)};
    struct encode_spec spec = {.tok = tok,
                               .max_tokens = 10,
                               .prefix = "p",
                               .candidate = candidates,
                               .n_candidates = 2};
    struct sequences s;
    struct err e;

    (void)state;
    /* 2 special, 2 + 2 candidate, 2 prefix, 1 text */
    assert_int_equal(encode_least_tokens(&spec, 0, &e), 9);
    assert_int_equal(encode_least_tokens(&spec, 1, &e), 13);
    assert_int_equal(encode_reward_special(&spec, 0, &e), 6);
    assert_int_equal(encode_reward(&s, rows, 2, &spec, &e), 0);
    assert_int_equal(s.n, 4);
    assert_int_equal(s.per_example, 2);
    assert_int_equal(s.truncated, 2);
    sequence_is(&s, 0, IDS(2, 9, 8, 4, 5, 7, 7, 10, 3)); /* cut for the longest candidate */
    sequence_is(&s, 1, IDS(2, 9, 8, 4, 5, 7, 7, 10, 11, 3));
    sequence_is(&s, 3, IDS(2, 9, 8, 4, 7, 7, 10, 11, 3));
    sequences_fini(&s);
    rows[0] = row_of("a b c", "b");
    spec.max_tokens = 14;
    assert_int_equal(encode_reward(&s, rows, 1, &spec, &e), 0);
    sequence_is(&s, 1, IDS(2, 9, 8, 4, 5, 3, 9, 8, 5, 7, 7, 10, 11, 3));
    for (int i = 0; i < 14; i++)
        assert_int_equal(types[i], 0);
    sequences_fini(&s);
    spec.max_tokens = 6;
    assert_int_equal(encode_reward(&s, rows, 1, &spec, &e), ERR_CONFIG);
}

/* Prompt, response and its end; the prompt loses its beginning, the response its end. */
static void answers(void **state)
{
    struct row rows[] = {row_of("a b c", "x y"), row_of("", "x"), row_of("a b c", "x"),
                         row_of("a", "x y x y x y")};
    struct encode_spec spec = {.tok = tok, .max_tokens = 7, .answers = 1, .eos = 3};
    static const uint32_t order[] = {3, 0};
    struct sequences s;
    struct packer *p;
    struct packed out;
    size_t next = 0;
    struct err e;

    (void)state;
    assert_int_equal(encode_policy(&s, rows, 4, &spec, &e), 0);
    assert_int_equal(s.truncated, 1);
    sequence_is(&s, 0, IDS(2, 4, 5, 6, 10, 11, 3));
    sequence_is(&s, 1, IDS(2, 10, 3));
    sequence_is(&s, 2, IDS(2, 4, 5, 6, 10, 3));
    sequence_is(&s, 3, IDS(2, 4, 10, 11, 10, 11, 10));
    assert_int_equal(s.answer[0], 4);
    assert_int_equal(s.answer[1], 1);
    assert_int_equal(s.answer[3], 2);
    p = packer_new(&s, 100, &e);
    assert_non_null(p);
    assert_int_equal(packer_fill(p, order, 2, &next, &out, &e), 0);
    assert_int_equal(out.answer[0], 2);
    assert_int_equal(out.answer[1], 4);
    packer_free(p);
    sequences_fini(&s);
    spec.max_tokens = 5;
    spec.template = "p {prompt} :";
    assert_int_equal(encode_policy(&s, rows, 4, &spec, &e), 0);
    assert_int_equal(s.truncated, 3);
    sequence_is(&s, 0, IDS(2, 8, 10, 11, 3));
    sequence_is(&s, 1, IDS(2, 9, 8, 10, 3));
    sequence_is(&s, 2, IDS(2, 6, 8, 10, 3));
    sequence_is(&s, 3, IDS(2, 8, 10, 11, 10));
    sequences_fini(&s);
    spec.max_tokens = 2;
    assert_int_equal(encode_policy(&s, rows, 4, &spec, &e), ERR_CONFIG);
}

static void packing(void **state)
{
    struct row rows[] = {row_of("a", NULL), row_of("a b c", NULL), row_of("b", NULL),
                         row_of("c a", NULL)};
    struct encode_spec spec = {.tok = tok, .max_tokens = 10};
    static const uint32_t order[] = {2, 0, 1, 3};
    static const int want[] = {2, 5, 3, 2, 4, 3};
    struct sequences s;
    struct packer *p;
    struct packed out;
    size_t next = 0;
    struct err e;

    (void)state;
    assert_int_equal(encode_policy(&s, rows, 4, &spec, &e), 0);
    p = packer_new(&s, 7, &e);
    assert_non_null(p);
    assert_int_equal(packer_fill(p, order, 4, &next, &out, &e), 0);
    assert_int_equal(next, 2);
    assert_int_equal(out.B, 2);
    assert_int_equal(out.T, 6);
    assert_int_equal(out.max_len, 3);
    assert_memory_equal(out.ids, want, sizeof want);
    assert_int_equal(out.cu_seqlens[1], 3);
    assert_int_equal(out.cu_seqlens[2], 6);
    assert_int_equal(out.position[4], 1);
    assert_int_equal(out.example[2], 2);
    assert_int_equal(out.example[3], 0);
    assert_int_equal(out.answer[0], 1);
    assert_int_equal(packer_fill(p, order, 4, &next, &out, &e), 0);
    assert_int_equal(next, 3);
    assert_int_equal(out.T, 5);
    assert_int_equal(packer_fill(p, order, 4, &next, &out, &e), 0);
    assert_int_equal(next, 4);
    packer_free(p);
    p = packer_new(&s, 1, &e); /* a longer sequence stands alone */
    next = 0;
    assert_int_equal(packer_fill(p, order, 4, &next, &out, &e), 0);
    assert_int_equal(next, 1);
    assert_int_equal(out.B, 1);
    packer_free(p);
    p = packer_new(&s, 7, &e); /* filled up to 2 sequences and 3 tokens more */
    packer_round(p);
    next = 0;
    assert_int_equal(packer_fill(p, order, 4, &next, &out, &e), 0);
    assert_int_equal(next, 2);
    assert_int_equal(out.B, 3);
    assert_int_equal(out.T, 8);
    assert_memory_equal(out.ids, want, sizeof want);
    assert_int_equal(out.cu_seqlens[2], 6);
    assert_int_equal(out.cu_seqlens[3], 8);
    assert_int_equal(out.ids[7], out.ids[0]);
    assert_int_equal(out.position[7], 1);
    assert_int_equal(out.answer[2], 1);
    packer_free(p);
    sequences_fini(&s);
}

static void rounding(void **state)
{
    struct pack_size have, n;
    size_t sizes = 0, before = 0, more;

    (void)state;
    for (size_t T = 2; T < 4200; T += 1 + (T < 2048) * T / 60)
        for (size_t B = 1; B <= T / 2; B += 1 + B / 3)
            for (size_t R = 0; R <= T - B; R += 1 + T / 3) {
                size_t longest = T - 2 * (B - 1) + (R > 0);

                have = (struct pack_size){T, B, R};
                n = pack_round(have, longest);
                more = n.sequences - B;
                assert_true(n.tokens >= T + 2 * more);
                assert_true(n.tokens == T ? !more : more > 0);
                assert_true(R ? n.answers >= R + more : !n.answers);
                for (size_t i = 0; i < more; i++) { /* no longer than what is there */
                    size_t len = pack_filling(n.tokens - T, more, i);

                    assert_true(len <= longest);
                    assert_true(pack_filling(n.answers - R, more, i) < len);
                }
                if (R || B != 1 || T < 2048 || T >= 4096)
                    continue;
                sizes += n.tokens > before; /* sixteen an octave */
                before = n.tokens > before ? n.tokens : before;
                assert_true(n.tokens - T <= T / 16 + 2 * more);
            }
    assert_int_equal(sizes, 17);
    have = (struct pack_size){100, 16, 40};
    n = pack_round(have, 40);
    assert_int_equal(n.tokens, 112);
    assert_int_equal(n.sequences, 18);
    assert_int_equal(n.answers, 48);
}

static void epochs(void **state)
{
    uint32_t a[100], b[100];
    int seen[100] = {0}, moved = 0;

    (void)state;
    assert_int_equal(order_epoch(a, 100, 1, "sft", 0), 0);
    assert_int_equal(order_epoch(b, 100, 1, "sft", 0), 0);
    assert_memory_equal(a, b, sizeof a);
    for (int i = 0; i < 100; i++) {
        assert_true(a[i] < 100 && !seen[a[i]]);
        seen[a[i]] = 1;
        moved += a[i] != (uint32_t)i;
    }
    assert_true(moved > 80);
    order_epoch(b, 100, 1, "sft", 1);
    assert_memory_not_equal(a, b, sizeof a);
    order_epoch(b, 100, 1, "rm", 0);
    assert_memory_not_equal(a, b, sizeof a);
    order_epoch(b, 100, 2, "sft", 0);
    assert_memory_not_equal(a, b, sizeof a);
}

static void preferences(void **state)
{
    static const int low[25] = {0, 1, 2, 3, 4, 1, 0, 2, 3, 4, 2, 1, 3,
                                0, 4, 3, 2, 4, 1, 0, 4, 3, 2, 1, 0};
    static const int high3[5] = {3, 4, 2, 1, 0};
    static const float embedding[] = {1, 0, 0.6f, 0.8f, 0, 1};
    int order[25];
    double d[9];
    char path[128];
    struct err e;

    (void)state;
    prefer_order(5, NULL, TIES_LOW, order);
    assert_memory_equal(order, low, sizeof low); /* y = 3: the published 3,2,4,1,0 */
    prefer_order(5, NULL, TIES_HIGH, order);
    assert_memory_equal(order + 15, high3, sizeof high3); /* the paper's own example */
    prefer_cosine(3, 2, embedding, d);
    assert_true(d[1] > 0.399 && d[1] < 0.401 && d[5] > 0.199 && d[5] < 0.201 && d[2] == 1);
    prefer_order(3, d, TIES_LOW, order);
    assert_memory_equal(order, ((int[]){0, 1, 2, 1, 2, 0, 2, 1, 0}), 9 * sizeof(int));
    snprintf(path, sizeof path, "%s/m", folder);
    put("m", "[[0, 2, 1], [1, 9, 1], [3, 2.5, 0]]");
    assert_int_equal(prefer_read_matrix(path, 3, d, &e), 0);
    prefer_order(3, d, TIES_LOW, order);
    /* The gold label leads whatever its distance. */
    assert_memory_equal(order, ((int[]){0, 2, 1, 1, 0, 2, 2, 1, 0}), 9 * sizeof(int));
    put("m", "0 2 1\n1,9,1\r\n3\t2.5 0\n");
    assert_int_equal(prefer_read_matrix(path, 3, d, &e), 0);
    assert_true(d[7] == 2.5);
    put("m", "0 2\n1 9\n");
    assert_int_equal(prefer_read_matrix(path, 3, d, &e), ERR_CONFIG);
    put("m", "0 2 1\n1 9x 1\n3 2 0\n");
    assert_int_equal(prefer_read_matrix(path, 3, d, &e), ERR_CONFIG);
    put("m", "[[0, 2, 1], [1, -9, 1], [3, 2.5, 0]]");
    assert_int_equal(prefer_read_matrix(path, 3, d, &e), ERR_CONFIG);
    put("m", "[[0, 2, 1], [1, 9], [3, 2.5, 0]]");
    assert_int_equal(prefer_read_matrix(path, 3, d, &e), ERR_CONFIG);
}

/* Every allocation may fail: an error, no leak, no crash. */
static void out_of_memory(void **state)
{
    struct row rows[] = {row_of("a b c", "b")};
    struct encode_spec spec = {.tok = tok,
                               .max_tokens = 14,
                               .prefix = "p",
                               .candidate = candidates,
                               .n_candidates = 2};
    long live = mem_live();

    (void)state;
    for (long n = 0;; n++) {
        struct sequences s = {0};
        struct err e;
        int rc, failed;

        mem_fail_at(n);
        rc = encode_reward(&s, rows, 1, &spec, &e);
        failed = mem_failed();
        mem_fail_at(-1);
        sequences_fini(&s);
        assert_int_equal(mem_live(), live);
        if (!failed)
            break;
        assert_int_equal(rc, ERR_NOMEM);
    }
}

static int open_all(void **state)
{
    struct err e;

    if (make_folder(state))
        return -1;
    put("vocab.txt", vocab);
    return tok_open(&tok, folder, &e);
}

static int close_all(void **state)
{
    tok_close(tok);
    return remove_folder(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policy),        cmocka_unit_test(policy_pairs),
        cmocka_unit_test(reward),        cmocka_unit_test(answers),
        cmocka_unit_test(packing),       cmocka_unit_test(rounding),
        cmocka_unit_test(epochs),        cmocka_unit_test(preferences),
        cmocka_unit_test(out_of_memory),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
