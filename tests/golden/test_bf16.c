/* The golden folders once more with matrix products in bf16, held by norms: each tensor,
 * gradients too, within a few per cent of PyTorch's f32 (a rounding of one operand is up to
 * 0.4 %, and layers add theirs up), and the loss within one. Tensors far smaller than what
 * cancels in them (key biases) are left out. Without fixtures each case is skipped. */
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
#include "worker/verb/verify.h"

/* Largest norm of a difference by the norm of what it should be. */
#define FORWARD_MOST  0.015
#define GRADIENT_MOST 0.04

static void check(const char *model, const char *golden)
{
    struct verify_options o = {
        .backend = "cpu", .rtol = VERIFY_RTOL, .precision = PRECISION_BF16};
    struct verify_report r;
    double worst = 0;
    struct err e;

    if (!file_exists(golden)) {
        print_message("skipped: %s is not here\n", golden);
        skip();
    }
    if (verify_run(model, golden, &o, &r, &e))
        fail_msg("%s: %s", model, e.msg);
    for (size_t i = 0; i < r.n; i++) {
        const char *name = r.row[i].name;
        double most = strncmp(name, "grad.", 5) ? FORWARD_MOST : GRADIENT_MOST;

        if (!r.row[i].n || strstr(name, "k.bias") || strstr(name, "key.bias") ||
            strstr(name, "k_lin.bias") || strstr(name, "k_proj.bias"))
            continue;
        if (!(r.row[i].rms <= most))
            print_error("%s: %s is off by %.3g of its norm\n", model, name, r.row[i].rms);
        worst = fmax(worst, r.row[i].rms / most);
    }
    assert_true(r.compared >= 2);
    assert_true(worst > 0.01); /* bf16 was in force */
    assert_true(worst <= 1);
    verify_fini(&r);
}

#define FAMILY(symbol, folder)                                                             \
    static void test_##symbol(void **state)                                                \
    {                                                                                      \
        const char *shared = getenv("HONE_SHARED");                                        \
        char dir[1024], golden[1100];                                                      \
                                                                                           \
        (void)state;                                                                       \
        snprintf(dir, sizeof dir, "%s/fixtures/golden/families/%s",                        \
                 shared ? shared : "../shared", folder);                                   \
        snprintf(golden, sizeof golden, "%s/golden.safetensors", dir);                     \
        check(dir, golden);                                                                \
    }

FAMILY(bert, "bert")
FAMILY(bert_mlm, "bert-mlm")
FAMILY(roberta, "roberta")
FAMILY(distilbert, "distilbert")
FAMILY(llama, "llama")
FAMILY(llama_reward, "llama-reward")
FAMILY(gpt2, "gpt2")
FAMILY(qwen3, "qwen3")

static void test_minilm(void **state)
{
    const char *shared = getenv("HONE_SHARED"), *model = getenv("HONE_MODEL");
    char golden[1024];

    (void)state;
    if (!model) {
        print_message("skipped: HONE_MODEL (folder of all-MiniLM-L6-v2) is not set\n");
        skip();
    }
    snprintf(golden, sizeof golden, "%s/fixtures/golden/minilm/golden.safetensors",
             shared ? shared : "../shared");
    check(model, golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bert),    cmocka_unit_test(test_bert_mlm),
        cmocka_unit_test(test_roberta), cmocka_unit_test(test_distilbert),
        cmocka_unit_test(test_llama),   cmocka_unit_test(test_llama_reward),
        cmocka_unit_test(test_gpt2),    cmocka_unit_test(test_qwen3),
        cmocka_unit_test(test_minilm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
