/* Greedy text against the recorded ids, through the public API.
 *
 *     golden_greedy demo DEMO_MODEL DEMO_JSON      or      golden_greedy stories MODEL JSON
 *
 * A step whose best two logits are closer than the limit may fall either way: ids are compared up
 * to there, and the text goes on from the recorded id. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tessera/tessera.h>

enum { SKIPPED = 77, MAX_IDS = 512 };

/* Activations are rounded differently by every engine: see the fixtures' README. */
static const double TIE_QUANTIZED = 0.25, TIE_F32 = 0.05;

static size_t read_ids(const json_t *array, int32_t *ids)
{
    size_t n = json_array_size(array);
    n = n < MAX_IDS ? n : MAX_IDS;
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return n;
}

static bool check_prompt(tsr_engine *engine, const json_t *entry)
{
    const json_t *prompt = json_object_get(entry, "prompt");
    if (!prompt)
        return true;
    int32_t expected[MAX_IDS], ids[MAX_IDS];
    size_t n = read_ids(json_object_get(entry, "prompt_ids"), expected);
    const char *text = json_string_value(prompt);
    int64_t got = tsr_tokenize(engine, text, strlen(text), TSR_TOKENIZE_SPECIAL, ids, MAX_IDS);
    if (got == (int64_t)n && memcmp(ids, expected, n * sizeof *ids) == 0)
        return true;
    printf("FAIL prompt ids of '%s'\n", text);
    return false;
}

/* The number of steps compared, or -1 at the first that differs without a tie. */
static int follow(tsr_session *session, const json_t *entry, const json_t *gaps, double tie)
{
    int32_t prompt[MAX_IDS], ids[MAX_IDS];
    size_t n_prompt = read_ids(json_object_get(entry, "prompt_ids"), prompt);
    size_t n = read_ids(json_object_get(entry, "ids"), ids);
    struct tsr_sampling greedy = tsr_sampling_default();
    greedy.temperature = 0.0f;
    if (tsr_session_sync(session, prompt, n_prompt))
        return -1;
    for (size_t i = 0; i < n; i++) {
        int32_t id = tsr_session_sample(session, &greedy);
        bool near_tie = json_number_value(json_array_get(gaps, i)) < tie;
        if (id != ids[i] && !near_tie) {
            printf("FAIL step %zu: id %d, recorded %d\n", i, id, ids[i]);
            return -1;
        }
        if (id != ids[i])
            return (int)i; /* the texts part here, rightly */
        if (tsr_session_eval(session, &ids[i], 1, NULL))
            return -1;
    }
    return (int)n;
}

static int check_entries(tsr_engine *engine, const json_t *entries, double tie)
{
    struct tsr_session_settings settings = tsr_session_settings_default();
    settings.kv_type = TSR_KV_F32;
    tsr_session *session;
    if (tsr_session_open(engine, &settings, &session)) {
        printf("FAIL %s\n", tsr_engine_message(engine));
        return 1;
    }
    size_t i;
    json_t *entry;
    int passed = 0, failed = 0;
    json_array_foreach(entries, i, entry) {
        const json_t *gaps = json_object_get(entry, "top2_gap");
        int steps = check_prompt(engine, entry) ? follow(session, entry, gaps, tie) : -1;
        if (steps >= 0)
            printf("ok   prompt %zu: %d steps\n", i, steps);
        steps > 0 ? passed++ : failed++;
    }
    tsr_session_close(session);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0 || passed == 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    if (access(argv[2], R_OK) != 0 || access(argv[3], R_OK) != 0) {
        printf("skipped: %s or %s is not there\n", argv[2], argv[3]);
        return SKIPPED;
    }
    bool demo = strcmp(argv[1], "demo") == 0;
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = argv[2];
    settings.n_threads = 2;
    struct tsr_error error;
    tsr_engine *engine;
    if (tsr_engine_open(&settings, &engine, &error)) {
        printf("FAIL %s\n", error.text);
        return 1;
    }
    json_t *root = json_load_file(argv[3], 0, NULL);
    json_t *entries;
    if (demo)
        entries = json_incref(json_object_get(
            json_object_get(json_object_get(root, "models"), "q4_0"), "greedy"));
    else
        entries = json_pack("[O]", root);
    int status = check_entries(engine, entries, demo ? TIE_QUANTIZED : TIE_F32);
    json_decref(entries);
    json_decref(root);
    tsr_engine_close(engine);
    return status;
}
