/* Prints the tables of "Several GPUs: a model of the step" in docs/PERFORMANCE.md.
 *
 *     ninja -C build/release step_table && build/release/bin/step_table
 *
 * Every figure that goes in stands below: data sheets, or an assumption of ours. */
#include <stdio.h>

#include "tests/bench/step_model.h"

/* RTX 4090: 165 TFLOP/s (bf16, sums in f32), 1008 GB/s, no peer access: sums go through the
 * host, 8 to 13 GB/s. V100 SXM2: 125 TFLOP/s (fp16), 900 GB/s, NVLink; PCIe: 112 TFLOP/s.
 * Assumed: 45 % of the peak, 80 % of memory bandwidth, latencies of a hop; of the host 4 us
 * a call without graphs, 5 us a graph and 0.2 us for each call in it. Calls of a step as
 * the emulator counts them.
 */
static const struct step_box boxes[] = {
    {"8×RTX 4090, PCIe through the host", 8, 165e12, 0.45, 806e9, 10e9, 20e-6, 4e-6, 5e-6,
     0.2e-6},
    {"4×V100 SXM2, NVLink", 4, 125e12, 0.45, 720e9, 120e9, 6e-6, 4e-6, 5e-6, 0.2e-6},
    {"4×V100 PCIe", 4, 112e12, 0.45, 720e9, 10e9, 12e-6, 4e-6, 5e-6, 0.2e-6},
};
static const struct step_net nets[] = {
    {"MiniLM (L6, 384)", 6, 384, 1536, 30522, 512, 0, 128, 1, 57, 48},
    {"BERT-base", 12, 768, 3072, 30522, 512, 0, 128, 1, 57, 48},
    {"Llama, 1.5B (L25, 2048)", 25, 2048, 6144, 32000, 0, 1, 2048, 0, 57, 48},
};

static void ninety(const struct step_box *box, const struct step_net *net, int width)
{
    struct step_time t;
    double tokens = step_tokens_at(box, net, 0.9, width, 16e6, &t);

    printf("| %s | %s | %d | %.1f | %.0f | %.0f | %.1f | %.1f |\n", box->name, net->name,
           width, t.alone * 1e3, tokens, tokens / (double)net->tokens, t.total * 1e3,
           tokens * box->gpus / t.total / 1e3);
}

int main(void)
{
    static struct step_param p[STEP_PARAMS_MAX];
    struct step_time with, without;
    double total;

    printf("| box | model | bytes of a gradient | all-reduce alone, ms | tokens on each "
           "GPU for 90 %% | texts | step, ms | 1000 tokens/s, all GPUs |\n"
           "|---|---|---|---|---|---|---|---|\n");
    for (size_t b = 0; b < sizeof boxes / sizeof *boxes; b++)
        for (size_t n = 0; n < sizeof nets / sizeof *nets; n++)
            for (int width = 2; width <= 4; width += 2)
                ninety(&boxes[b], &nets[n], width);
    printf(
        "\n| model | parameters | step on one GPU of %s, 128, 512, 2048 tokens, ms: with "
        "graphs / launches one by one |\n|---|---|---|\n",
        boxes[0].name);
    for (size_t n = 0; n < sizeof nets / sizeof *nets; n++) {
        struct step_box one = boxes[0];

        one.gpus = 1;
        step_params(&nets[n], p, &total);
        printf("| %s | %.1f M |", nets[n].name, total / 1e6);
        for (int tokens = 128; tokens <= 2048; tokens *= 4) {
            step_predict(&one, &nets[n], tokens, 2, 16e6, 1, &with);
            step_predict(&one, &nets[n], tokens, 2, 16e6, 0, &without);
            printf("%s %.2f / %.2f", tokens > 128 ? "," : "", with.total * 1e3,
                   without.total * 1e3);
        }
        printf(" |\n");
    }
    return 0;
}
