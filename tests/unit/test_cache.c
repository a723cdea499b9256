/* Loading that is cancelled, with and without a cache of packed weights: nothing stays behind; and
 * a session that would not fit. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <tessera/tessera.h>

struct countdown {
    int calls_left; /* until progress says no */
};

static bool count_down(void *user, const char *stage, uint64_t done, uint64_t total)
{
    struct countdown *countdown = user;
    assert_string_equal(stage, "loading");
    assert_true(done <= total);
    return countdown->calls_left-- > 0;
}

static int n_files(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static int open_with(struct countdown *countdown, const char *folder, tsr_engine **engine)
{
    struct tsr_settings settings = tsr_settings_default();
    struct tsr_error error;
    settings.model_path = TSR_TEST_MODEL;
    settings.n_threads = 1;
    settings.pack_cache = folder;
    settings.progress = count_down;
    settings.user = countdown;
    return tsr_engine_open(&settings, engine, &error);
}

/* At every call of progress in turn, which are those of packing and then those of writing. */
static void cancel_everywhere(const char *folder)
{
    tsr_engine *engine = NULL;
    const char *place = folder ? folder : "/proc/self/task";
    int calls = 0, code = TSR_ECANCELED, before = n_files(place);
    for (; code == TSR_ECANCELED; calls++) {
        struct countdown countdown = {.calls_left = calls};
        code = open_with(&countdown, folder, &engine);
        assert_int_equal(n_files(place), before + (folder && code == TSR_OK));
        assert_true(code == TSR_OK || !engine);
    }
    assert_int_equal(code, TSR_OK);
    assert_true(calls > 3);
    tsr_engine_close(engine);
}

static void test_cancel(void **state)
{
    cancel_everywhere(NULL);
}

static void test_cancel_cache(void **state)
{
    char folder[] = "/tmp/tessera-cache-XXXXXX", command[64];
    assert_non_null(mkdtemp(folder));
    cancel_everywhere(folder);
    struct countdown countdown = {.calls_left = 1000};
    tsr_engine *engine;
    assert_int_equal(open_with(&countdown, folder, &engine), TSR_OK);
    struct tsr_engine_info info = {.struct_size = sizeof info};
    tsr_engine_info(engine, &info);
    assert_true(info.packed_from_cache);
    assert_true(info.huge_page_bytes == 0 && info.packed_bytes > 0);
    tsr_engine_close(engine);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void test_session_to_come(void **state)
{
    struct tsr_settings settings = tsr_settings_default();
    struct tsr_session_settings session = tsr_session_settings_default();
    struct tsr_error error;
    tsr_engine *engine;
    settings.model_path = TSR_TEST_MODEL;
    settings.n_threads = 1;
    settings.session = &session;
    assert_int_equal(tsr_engine_open(&settings, &engine, &error), TSR_OK);
    tsr_engine_close(engine);
    session.n_ctx = INT32_MAX;
    assert_int_equal(tsr_engine_open(&settings, &engine, &error), TSR_ENOMEM);
    assert_null(engine);
    assert_non_null(strstr(error.text, "packed weights of "));
    assert_non_null(strstr(error.text, " MiB needed, "));
    assert_null(strchr(error.text, '\n'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_cache),
        cmocka_unit_test(test_session_to_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
