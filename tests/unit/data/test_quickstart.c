/* The quick start's rows, one for one and in order, against what a reference converter
 * (Python: html.unescape, str.split, str.lower, hashlib) made of the same two files:
 * SHA-256 over "label<TAB>text<LF>" of every split. HONE_QUICKSTART_DATA names the folder
 * of the ratings; by default deploy/cache/data, where deploy/quickstart.sh puts them. */
#include "tests/unit/data/scratch.h"

#include "base/hash.h"

static const char *const want[SPLITS] = {
    "3ebfc5cf03b47fef6c2eb3092b4d2d8a60b5e744d0070109bf390f0c1cc9d295",
    "b29e1bc32b164f927028067faac991400c619913fb426cd96282cc355d1a2f3a",
    "59932dc24797a41f8f46da93796ce0e4cd492e38fdcaaced25eaecb702d93434"};
static const size_t rows[SPLITS] = {6185, 824, 828};
static const size_t counts[SPLITS][5] = {
    {653, 1150, 1260, 1683, 1439}, {96, 151, 150, 242, 185}, {71, 169, 148, 211, 229}};

static void quickstart(void **state)
{
    const char *root = getenv("HONE_QUICKSTART_DATA");
    char yaml[2048], path[600];

    (void)state;
    root = root ? root : "deploy/cache/data";
    snprintf(path, sizeof path, "%s/tweets_GroundTruth.txt", root);
    if (!file_exists(path))
        skip();
    snprintf(yaml, sizeof yaml,
             "file: [%.500s/amazonReviewSnippets_GroundTruth.txt, "
             "%.500s/tweets_GroundTruth.txt]\n"
             "format: {kind: tsv, header: false}\n"
             "columns: {text: 3, label: 2}\n"
             "label: {bins: [-1.75, -0.5, 0.5, 1.75]}\n"
             "clean: [html, space]\n"
             "duplicates: drop\n"
             "split: {validation: 0.1, test: 0.1, by: hash}\n",
             root, root);
    if (*root != '/') {
        char *here = realpath(".", NULL);

        snprintf(folder, sizeof folder, "%.63s", here);
        free(here);
    }
    for (int k = 0; k < SPLITS; k++) {
        size_t n[5] = {0};
        struct dataset d;
        struct str s = {0}, hex = {0};
        unsigned char sha[32];

        loads(&d, yaml, (enum split)k);
        assert_int_equal(d.n, rows[k]);
        for (size_t i = 0; i < d.n; i++) {
            str_addf(&s, "%d\t", row_at(&d, i).label);
            str_add(&s, row_at(&d, i).text[0]);
            str_add_char(&s, '\n');
            n[row_at(&d, i).label]++;
        }
        for (int c = 0; c < 5; c++)
            assert_int_equal(n[c], counts[k][c]);
        hash_sha256(s.s, s.len, sha);
        for (int i = 0; i < 32; i++)
            str_addf(&hex, "%02x", sha[i]);
        assert_string_equal(str_get(&hex), want[k]);
        str_fini(&s);
        str_fini(&hex);
        dataset_fini(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(quickstart)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
