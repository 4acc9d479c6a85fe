/* Every registered family: a tiny random checkpoint, in every spelling that real files
 * have, is loaded and saved byte-identical, and its forward is finite. */
#include <math.h>

#include "tests/family/checkpoint.h"
#include "worker/tape/tape.h"

static char saved[] = "/tmp/hone_saved_XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(saved) ? 0 : -1;
}

static int remove_folder(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(saved, &e);
}

static void round_trip(const char *dir, enum head_kind head, enum pooling pooling,
                       int trainable)
{
    struct model_options o = options_for(head, pooling);
    struct model *m;
    struct err e;

    o.trainable = trainable;
    m = open_or_fail(dir, &o);
    if (model_save(m, saved, NULL, &e))
        fail_msg("%s", e.msg);
    model_close(m);
    assert_true(
        same_file(path_in(dir, "model.safetensors"), path_in(saved, "model.safetensors")));
}

static int has_head(const struct family *f, enum head_kind head)
{
    return head == HEAD_CAUSAL   ? f->arch_causal != NULL
           : head == HEAD_MASKED ? f->arch_masked != NULL
                                 : 1;
}

/* Every save waits for the disk: all heads with the plain spelling, else one a file. */
static int is_chosen(int spelling, size_t dtype, size_t head)
{
    return spelling == 0 ? dtype == 0 || head == 1 : head == (size_t)spelling % 2;
}

static void test_byte_identical(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F64};
    static const enum head_kind heads[] = {HEAD_NONE, HEAD_CLASSIFY, HEAD_CAUSAL,
                                           HEAD_MASKED};

    (void)state;
    for (size_t f = 0; family_registry[f]; f++)
        for (int spelling = 0; spelling < 8; spelling++)
            for (size_t d = 0; d < (spelling % 7 ? 1 : 4); d++) {
                struct checkpoint_options o = {.bare = spelling & 1,
                                               .alias = spelling >> 1 & 1,
                                               .untied = spelling >> 2 & 1,
                                               .dtype = dtypes[d]};
                struct checkpoint c;
                long live;

                checkpoint_make(&c, family_registry[f]->model_type, &o);
                checkpoint_write(&c);
                live = mem_live();
                for (size_t h = 0; h < 4; h++)
                    for (int trainable = 0; trainable < 2; trainable++)
                        if (has_head(c.family, heads[h]) && is_chosen(spelling, d, h))
                            round_trip(c.dir, heads[h], POOLING_MODEL, trainable);
                assert_int_equal(mem_live(), live);
                checkpoint_free(&c);
            }
}

/* Two shards become one file with the same tensors. */
static void test_shards(void **state)
{
    (void)state;
    for (size_t f = 0; family_registry[f]; f++) {
        struct checkpoint_options o = {.dtype = DTYPE_BF16};
        static const char *const part[] = {"model-1.safetensors", "model-2.safetensors"};
        json_t *map = json_object(), *index = json_pack("{s:o}", "weight_map", map);
        struct model_options mo = options_for(HEAD_CLASSIFY, POOLING_MODEL);
        struct checkpoint c;
        struct model *m;
        struct err e;
        size_t half;

        checkpoint_make(&c, family_registry[f]->model_type, &o);
        checkpoint_write(&c);
        assert_int_equal(
            file_rename(path_in(c.dir, "model.safetensors"), path_in(c.dir, "whole"), &e),
            0);
        half = c.n / 2;
        for (size_t i = 0; i < c.n; i++)
            json_object_set_new(map, c.item[i].name, json_string(part[i >= half]));
        assert_int_equal(
            json_write(path_in(c.dir, "model.safetensors.index.json"), index, &e), 0);
        assert_int_equal(safetensors_write(path_in(c.dir, part[0]), NULL, c.item, half, &e),
                         0);
        assert_int_equal(safetensors_write(path_in(c.dir, part[1]), "{\"format\":\"pt\"}",
                                           c.item + half, c.n - half, &e),
                         0);
        m = open_or_fail(c.dir, &mo);
        if (model_save(m, saved, NULL, &e))
            fail_msg("%s", e.msg);
        model_close(m);
        assert_true(
            same_file(path_in(c.dir, "whole"), path_in(saved, "model.safetensors")));
        json_decref(index);
        checkpoint_free(&c);
    }
}

/* Saved in shards or as another type: what is read back is what was saved. */
static void save_as(const char *dir, int dtype, long shard_bytes, const char *to)
{
    struct model_options o = options_for(HEAD_CLASSIFY, POOLING_MODEL);
    struct model *m;
    struct err e;

    o.save = (struct model_save_options){dtype, shard_bytes};
    m = open_or_fail(dir, &o);
    assert_int_equal(file_remove_tree(to, &e), 0);
    if (model_save(m, to, NULL, &e))
        fail_msg("%s", e.msg);
    model_close(m);
}

static int count_shards(const char *dir, long most)
{
    char **names;
    size_t n;
    int shards = 0;
    struct err e;

    assert_int_equal(file_list(dir, &names, &n, &e), 0);
    for (size_t i = 0; i < n; i++) {
        if (str_ends(names[i], ".safetensors")) {
            shards++;
            assert_true(file_size(path_in(dir, names[i])) < most);
        }
        mem_free(names[i]);
    }
    mem_free(names);
    return shards;
}

static void test_saved_shards(void **state)
{
    char once[sizeof saved + 8], again[sizeof saved + 8];
    int yes;
    struct err e;

    (void)state;
    snprintf(once, sizeof once, "%s-1", saved);
    snprintf(again, sizeof again, "%s-2", saved);
    for (size_t f = 0; family_registry[f]; f++) {
        struct checkpoint_options o = {.dtype = DTYPE_F32};
        struct checkpoint c;

        checkpoint_make(&c, family_registry[f]->model_type, &o);
        checkpoint_write(&c);
        save_as(c.dir, MODEL_SAVE_AS_LOADED, 0, saved);
        save_as(c.dir, MODEL_SAVE_AS_LOADED, 4000, once);
        /* A shard holds one tensor at least; with its header it stays near its size. */
        assert_true(count_shards(once, 4000 + 4000) > 3);
        assert_false(file_exists(path_in(once, "model.safetensors")));
        assert_true(file_exists(path_in(once, "model.safetensors.index.json")));
        save_as(once, MODEL_SAVE_AS_LOADED, 0, again);
        assert_true(same_file(path_in(saved, "model.safetensors"),
                              path_in(again, "model.safetensors")));
        assert_int_equal(model_is_stored_exactly(once, &yes, &e), 0);
        assert_true(yes);
        checkpoint_free(&c);
    }
    assert_int_equal(file_remove_tree(once, &e), 0);
    assert_int_equal(file_remove_tree(again, &e), 0);
}

static void test_saved_types(void **state)
{
    static const struct {
        int save;
        enum dtype dtype;
        const char *name;
    } types[] = {{MODEL_SAVE_BF16, DTYPE_BF16, "\"bfloat16\""},
                 {MODEL_SAVE_F16, DTYPE_F16, "\"float16\""},
                 {MODEL_SAVE_F32, DTYPE_F32, "\"float32\""}};
    char again[sizeof saved + 8], *config;
    struct safetensors s;
    struct err e;
    size_t n;
    int yes;

    (void)state;
    snprintf(again, sizeof again, "%s-2", saved);
    for (size_t f = 0; family_registry[f]; f++)
        for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
            struct checkpoint_options o = {.dtype = DTYPE_F32};
            struct checkpoint c;

            checkpoint_make(&c, family_registry[f]->model_type, &o);
            checkpoint_write(&c);
            save_as(c.dir, types[k].save, k == 1 ? 3000 : 0, saved);
            assert_int_equal(model_is_stored_exactly(saved, &yes, &e), 0);
            assert_int_equal(yes, types[k].dtype == DTYPE_F32);
            assert_int_equal(
                file_read(path_in(saved, "config.json"), 1 << 20, &config, &n, &e), 0);
            assert_non_null(strstr(config, types[k].name));
            mem_free(config);
            /* Rounded once; then it stays as it is. */
            save_as(saved, MODEL_SAVE_AS_LOADED, 0, again);
            assert_int_equal(safetensors_open(&s, path_in(again, "model.safetensors"), &e),
                             0);
            for (size_t i = 0; i < s.n; i++)
                assert_true(s.tensor[i].dtype == types[k].dtype ||
                            !dtype_is_float(s.tensor[i].dtype));
            safetensors_close(&s);
            if (types[k].dtype == DTYPE_F32) {
                save_as(c.dir, MODEL_SAVE_AS_LOADED, 0, again);
                assert_true(same_file(path_in(saved, "model.safetensors"),
                                      path_in(again, "model.safetensors")));
            }
            checkpoint_free(&c);
        }
    assert_int_equal(file_remove_tree(again, &e), 0);
}

/* The order of names in the header need not be that of the bytes. */
static void test_order_of_bytes(void **state)
{
    struct checkpoint_options o = {.dtype = DTYPE_F32};
    struct checkpoint c;
    struct str header = {0};
    char *text, *data;
    size_t len;
    struct err e;
    uint64_t n;

    (void)state;
    checkpoint_make(&c, "bert", &o);
    checkpoint_write(&c);
    /* Swap the names of two neighbours of one shape in the header. */
    assert_int_equal(
        file_read(path_in(c.dir, "model.safetensors"), 1 << 24, &text, &len, &e), 0);
    memcpy(&n, text, 8);
    str_add_bytes(&header, text + 8, n);
    data = strstr(header.s, "layer.0.attention.self.query.weight");
    assert_non_null(data);
    memcpy(data, "layer.0.attention.self.QUERY.weight", 35);
    memcpy(strstr(header.s, "layer.1.attention.self.query.weight"),
           "layer.0.attention.self.query.weight", 35);
    memcpy(data, "layer.1.attention.self.query.weight", 35);
    memcpy(text + 8, header.s, n);
    assert_int_equal(file_write_atomic(path_in(c.dir, "model.safetensors"), text, len, &e),
                     0);
    round_trip(c.dir, HEAD_CLASSIFY, POOLING_MODEL, 1);
    mem_free(text);
    str_fini(&header);
    checkpoint_free(&c);
}

/* What was recorded from transformers, and real models. */
static void test_recorded_folders(void **state)
{
    static const struct {
        const char *folder;
        enum head_kind head;
    } all[] = {
        {"golden/families/bert", HEAD_CLASSIFY},
        {"golden/families/bert-mlm", HEAD_MASKED},
        {"golden/families/roberta", HEAD_CLASSIFY},
        {"golden/families/distilbert", HEAD_CLASSIFY},
        {"golden/families/llama", HEAD_CAUSAL},
        {"golden/families/llama3.2-style", HEAD_CAUSAL},
        {"golden/families/llama-reward", HEAD_REWARD},
        {"golden/families/gpt2", HEAD_CAUSAL},
        {"golden/families/gpt2-prefixed", HEAD_CAUSAL},
        {"golden/families/qwen2", HEAD_CAUSAL},
        {"golden/families/qwen2-reward", HEAD_REWARD},
        {"golden/families/qwen3", HEAD_CAUSAL},
        {"golden/families/mistral", HEAD_CAUSAL},
        {"golden/clahf/rm_k2", HEAD_REWARD},
        {"golden/clahf/rm_k5", HEAD_REWARD},
        {"golden/clahf/ppo_code", HEAD_CLASSIFY},
        {"golden/clahf/ppo_paper", HEAD_CLASSIFY},
        {"golden/training/bert_sft", HEAD_CLASSIFY},
        {"models/stories260K", HEAD_CAUSAL},
    };
    const char *shared = getenv("HONE_SHARED"), *model = getenv("HONE_MODEL");
    char dir[512];

    (void)state;
    if (model)
        for (int trainable = 0; trainable < 2; trainable++)
            round_trip(model, HEAD_NONE, POOLING_MODEL, trainable);
    snprintf(dir, sizeof dir, "%s/fixtures/golden", shared ? shared : "../shared");
    if (!file_is_dir(dir)) {
        print_message("skipped: %s is not there\n", dir);
        skip();
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int trainable = 0; trainable < 2; trainable++) {
            snprintf(dir, sizeof dir, "%s/fixtures/%s", shared ? shared : "../shared",
                     all[i].folder);
            round_trip(dir, all[i].head, POOLING_MODEL, trainable);
        }
}

/* ---- forward ------------------------------------------------------------------------- */

static void run_forward(const char *dir, enum head_kind head)
{
    int ids[] = {5, 6, 7, 8, 9, 5, 11, 2}, types[8] = {0}, cu[] = {0, 5, 8};
    uint32_t position[] = {0, 1, 2, 3, 4, 0, 1, 2}, example[8] = {0};
    struct packed in = {2, 8, 5, ids, types, position, example, cu, NULL};
    struct model_options o = options_for(head, POOLING_MODEL);
    struct model *m = open_or_fail(dir, &o);
    struct model_out out;
    struct tensor *y;
    struct tape *t;
    struct err e;

    t = tape_new(o.backend, &e);
    assert_non_null(t);
    tape_reset(t, TAPE_INFER);
    if (model_forward(m, t, &in, NULL, &out, &e))
        fail_msg("%s", e.msg);
    y = head == HEAD_NONE ? out.hidden : out.logits;
    assert_non_null(y);
    for (long i = 0; i < y->rows * y->cols; i++)
        assert_true(isfinite(y->data[i]));
    tape_free(t);
    model_close(m);
}

static void test_forward_is_finite(void **state)
{
    static const enum head_kind heads[] = {HEAD_NONE, HEAD_CLASSIFY, HEAD_REWARD,
                                           HEAD_CAUSAL, HEAD_MASKED};

    (void)state;
    for (size_t f = 0; family_registry[f]; f++) {
        struct checkpoint_options o = {.dtype = DTYPE_F32};
        struct checkpoint c;

        checkpoint_make(&c, family_registry[f]->model_type, &o);
        checkpoint_write(&c);
        for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
            if (has_head(c.family, heads[h]))
                run_forward(c.dir, heads[h]);
        checkpoint_free(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_identical),    cmocka_unit_test(test_shards),
        cmocka_unit_test(test_saved_shards),      cmocka_unit_test(test_saved_types),
        cmocka_unit_test(test_order_of_bytes),    cmocka_unit_test(test_recorded_folders),
        cmocka_unit_test(test_forward_is_finite),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
