/* Every golden folder of the families we have, on the CPU back end: logits, each layer,
 * loss, the gradient of every parameter. Nothing in those files may stay uncompared. Then
 * stories260K's logits (from llama2.c), and sentence embeddings of the real MiniLM
 * ($HONE_MODEL: its folder). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/model/model.h"
#include "worker/verb/golden.h"
#include "worker/verb/verify.h"

static const char *shared(void)
{
    const char *dir = getenv("HONE_SHARED");

    return dir ? dir : "../shared";
}

static void need(const char *path)
{
    if (file_exists(path))
        return;
    print_message("skipped: %s is not here\n", path);
    skip();
}

static void check_folder(const char *name, const char *backend, size_t least)
{
    char dir[1024], golden[1100];
    struct verify_options o = {.backend = backend, .rtol = VERIFY_RTOL};
    struct verify_report r;
    struct err e;

    snprintf(dir, sizeof dir, "%s/fixtures/golden/families/%s", shared(), name);
    snprintf(golden, sizeof golden, "%s/golden.safetensors", dir);
    need(golden);
    if (verify_run(dir, golden, &o, &r, &e))
        fail_msg("%s: %s", name, e.msg);
    for (size_t i = 0; i < r.n; i++) {
        if (!r.row[i].n)
            print_error("%s: %s was not compared\n", name, r.row[i].name);
        else if (r.row[i].share > 1)
            print_error("%s: %s: got %.9g, want %.9g\n", name, r.row[i].name, r.row[i].got,
                        r.row[i].want);
    }
    assert_int_equal(r.failed, 0);
    assert_int_equal(r.unknown, 0);
    assert_true(r.compared >= least);
    verify_fini(&r);
}

#define FAMILY(symbol, folder, least)                                                      \
    static void test_##symbol(void **state)                                                \
    {                                                                                      \
        (void)state;                                                                       \
        check_folder(folder, "cpu", least);                                                \
        check_folder(folder, "ref", least);                                                \
    }

FAMILY(bert, "bert", 46)
FAMILY(bert_mlm, "bert-mlm", 43)
FAMILY(roberta, "roberta", 45)
FAMILY(distilbert, "distilbert", 45)
FAMILY(llama, "llama", 27)
FAMILY(llama32, "llama3.2-style", 26)
FAMILY(llama_reward, "llama-reward", 27)
FAMILY(gpt2, "gpt2", 34)
FAMILY(gpt2_prefixed, "gpt2-prefixed", 34)
FAMILY(qwen2, "qwen2", 32)
FAMILY(qwen2_reward, "qwen2-reward", 32)
FAMILY(qwen3, "qwen3", 30)
FAMILY(mistral, "mistral", 27)

/* ---- stories260K --------------------------------------------------------------------- */

enum { STORY_TOKENS = 32, STORY_VOCAB = 512 };

static void read_story(const char *dir, int ids[STORY_TOKENS],
                       float want[STORY_TOKENS * STORY_VOCAB])
{
    char path[1100], *bytes;
    json_t *j, *list;
    size_t n;
    struct err e;

    snprintf(path, sizeof path, "%s/reference.json", dir);
    need(path);
    if (json_read(path, 1 << 20, &j, &e))
        fail_msg("%s", e.msg);
    list = json_object_get(j, "ids");
    assert_int_equal(json_array_size(list), STORY_TOKENS);
    for (size_t i = 0; i < STORY_TOKENS; i++)
        ids[i] = (int)json_integer_value(json_array_get(list, i));
    json_decref(j);
    snprintf(path, sizeof path, "%s/reference_logits.f32", dir);
    if (file_read(path, 1 << 20, &bytes, &n, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(n, STORY_TOKENS * STORY_VOCAB * sizeof *want);
    memcpy(want, bytes, n);
    mem_free(bytes);
}

static void test_stories(void **state)
{
    static float want[STORY_TOKENS * STORY_VOCAB], got[STORY_TOKENS * STORY_VOCAB];
    int ids[STORY_TOKENS], types[STORY_TOKENS] = {0}, cu[2] = {0, STORY_TOKENS};
    uint32_t position[STORY_TOKENS], example[STORY_TOKENS] = {0};
    struct packed in = {1,        STORY_TOKENS, STORY_TOKENS, ids, types,
                        position, example,      cu,           NULL};
    struct model_options o = {.backend = backend_find("cpu"), .head = HEAD_CAUSAL};
    struct model_out out;
    struct tape *t;
    struct model *m;
    char dir[1024];
    struct err e;

    (void)state;
    snprintf(dir, sizeof dir, "%s/fixtures/models/stories260K", shared());
    read_story(dir, ids, want);
    for (uint32_t i = 0; i < STORY_TOKENS; i++)
        position[i] = i;
    if (model_open(&m, dir, &o, &e))
        fail_msg("%s", e.msg);
    t = tape_new(o.backend, &e);
    assert_non_null(t);
    if (model_forward(m, t, &in, NULL, &out, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(out.logits->rows, STORY_TOKENS);
    assert_int_equal(out.logits->cols, STORY_VOCAB);
    o.backend->copy_out(got, out.logits->data, sizeof got);
    for (int i = 0; i < STORY_TOKENS * STORY_VOCAB; i++) {
        double scale = fabs(want[i]) > 1 ? fabs(want[i]) : 1;

        /* Against llama2.c, whose sums run in f32: PyTorch's own distance is 1.6e-5. */
        if (fabs((double)got[i] - want[i]) > 5e-5 * scale)
            fail_msg("logit %d of token %d: got %.9g, want %.9g", i % STORY_VOCAB,
                     i / STORY_VOCAB, (double)got[i], (double)want[i]);
    }
    tape_free(t);
    model_close(m);
}

/* ---- poolings ------------------------------------------------------------------------ */

static void check_pooling(const char *folder, enum pooling pooling, const char *wanted)
{
    struct model_options o = {.backend = backend_find("cpu"),
                              .head = HEAD_REWARD,
                              .pooling = pooling,
                              .keep_head = 1};
    char dir[1024], path[1100];
    struct model_out out;
    struct golden g;
    struct model *m;
    struct tape *t;
    const float *want;
    float got[64];
    struct err e;

    snprintf(dir, sizeof dir, "%s/fixtures/golden/clahf/%s", shared(), folder);
    snprintf(path, sizeof path, "%s/golden.safetensors", dir);
    need(path);
    if (golden_open(&g, path, &e) || model_open(&m, dir, &o, &e))
        fail_msg("%s", e.msg);
    t = tape_new(o.backend, &e);
    assert_non_null(t);
    if (model_forward(m, t, &g.in, NULL, &out, &e))
        fail_msg("%s", e.msg);
    assert_true(g.in.B <= 64 && out.logits->rows == g.in.B && out.logits->cols == 1);
    o.backend->copy_out(got, out.logits->data, (size_t)g.in.B * sizeof *got);
    want = golden_get(&g, wanted, g.in.B, &e);
    assert_non_null(want);
    for (long i = 0; i < g.in.B; i++)
        if (fabs((double)got[i] - want[i]) > 2e-5)
            fail_msg("%s: row %ld: got %.9g, want %.9g", wanted, i, (double)got[i],
                     (double)want[i]);
    tape_free(t);
    model_close(m);
    golden_close(&g);
}

static void test_poolings(void **state)
{
    static const char *const folders[] = {"rm_k2", "rm_k5"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        check_pooling(folders[i], POOLING_CLS, "rewards_cls");
        check_pooling(folders[i], POOLING_MEAN, "rewards_mean");
        check_pooling(folders[i], POOLING_LAST_TOKEN, "rewards_last_token");
        check_pooling(folders[i], POOLING_MODEL, "rewards_pooler");
    }
}

/* ---- the real MiniLM ----------------------------------------------------------------- */

static void test_minilm(void **state)
{
    const char *model = getenv("HONE_MODEL");
    struct verify_options o = {.backend = "cpu", .rtol = VERIFY_RTOL};
    char golden[1024];
    struct verify_report r;
    size_t seen = 0;
    struct err e;

    (void)state;
    if (!model) {
        print_message("skipped: HONE_MODEL (folder of all-MiniLM-L6-v2) is not set\n");
        skip();
    }
    snprintf(golden, sizeof golden, "%s/fixtures/golden/minilm/golden.safetensors",
             shared());
    need(golden);
    if (verify_run(model, golden, &o, &r, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(r.failed, 0);
    for (size_t i = 0; i < r.n; i++)
        seen += r.row[i].n > 0;
    assert_int_equal(seen, 2); /* cls, mean; the head's tensors belong to training */
    verify_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bert),          cmocka_unit_test(test_bert_mlm),
        cmocka_unit_test(test_roberta),       cmocka_unit_test(test_distilbert),
        cmocka_unit_test(test_llama),         cmocka_unit_test(test_llama32),
        cmocka_unit_test(test_llama_reward),  cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_gpt2_prefixed), cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_qwen2_reward),  cmocka_unit_test(test_qwen3),
        cmocka_unit_test(test_mistral),       cmocka_unit_test(test_stories),
        cmocka_unit_test(test_poolings),      cmocka_unit_test(test_minilm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
