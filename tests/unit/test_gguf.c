/* The GGUF reader: what it reads of good files, and that bad ones give one clear line. */
#include "gguf/gguf.h"
#include "tests/support/check.h"
#include "bench/gguf_writer.h"
#include "bench/random_weights.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

static const char model[] = "models/tinystories-moe-q4_0.gguf";

/* ---- Good files ------------------------------------------------------------------------------ */

static const char *const words[] = {"", "a", "caf\xc3\xa9"};
static const int16_t shorts[] = {-32768, -1, 0, 32767};
/* An array of two arrays: u8 {1, 2}, and no strings. */
static const char nested[] = "\x09\0\0\0\x02\0\0\0\0\0\0\0" /* of arrays, two */
                             "\0\0\0\0\x02\0\0\0\0\0\0\0\x01\x02"
                             "\x08\0\0\0\0\0\0\0\0\0\0\0";

/* A file with every kind of value and three tensors. The result is temp_path's. */
static const char *write_sample(const char *name)
{
    const char *path = temp_path(name);
    double pi = 3.141592653589793;
    struct gguf_writer *w = gguf_writer_open(path);
    gguf_writer_string(w, "general.architecture", "sample");
    gguf_writer_int(w, "u8", GGUF_U8, 255);
    gguf_writer_int(w, "i8", GGUF_I8, -128);
    gguf_writer_int(w, "u16", GGUF_U16, 65535);
    gguf_writer_int(w, "i16", GGUF_I16, -2);
    gguf_writer_int(w, "u32", GGUF_U32, 4294967295);
    gguf_writer_int(w, "i32", GGUF_I32, -3);
    gguf_writer_int(w, "i32.positive", GGUF_I32, 7);
    gguf_writer_int(w, "u64", GGUF_U64, -1);
    gguf_writer_int(w, "i64", GGUF_I64, INT64_MIN);
    gguf_writer_f32(w, "f32", 1e-6f);
    gguf_writer_f32(w, "f32.nan", NAN);
    gguf_writer_raw(w, "f64", GGUF_F64, &pi, sizeof pi);
    gguf_writer_int(w, "bool", GGUF_BOOL, 1);
    gguf_writer_strings(w, "words", words, 3);
    gguf_writer_array(w, "shorts", GGUF_I16, shorts, 4);
    gguf_writer_raw(w, "nested", GGUF_ARRAY, nested, sizeof nested - 1);
    gguf_writer_string(w, "not utf-8", "a\xff\xc3(\xed\xa0\x80z");
    gguf_writer_alignment(w, 64);
    gguf_writer_tensor(w, "norm", BLOCK_F32, 1, (uint64_t[]){5}, (float[]){1, 2, 3, 4, 5});
    gguf_writer_tensor(w, "matrix", BLOCK_Q4_0, 2, (uint64_t[]){64, 3}, NULL);
    gguf_writer_tensor(w, "codes", BLOCK_IQ1_M, 4, (uint64_t[]){256, 2, 1, 3}, NULL);
    gguf_writer_close(w);
    return path;
}

static struct gguf *open_good(const char *path)
{
    struct tsr_error error = {0};
    struct gguf *gguf;
    if (gguf_open(path, &gguf, &error))
        fail_msg("%s", error.text);
    return gguf;
}

static void values(void **state)
{
    struct gguf *gguf = open_good(write_sample("sample.gguf"));
    assert_int_equal(gguf_version(gguf), 3);
    assert_int_equal(gguf_n_values(gguf), 19);
    assert_int_equal(gguf_find(gguf, "u8")->u, 255);
    assert_true(gguf_find(gguf, "i8")->i == -128);
    assert_int_equal(gguf_find(gguf, "u16")->u, 65535);
    assert_true(gguf_find(gguf, "i16")->i == -2);
    assert_true(gguf_find(gguf, "u32")->u == UINT32_MAX);
    assert_true(gguf_find(gguf, "i32")->i == -3);
    assert_true(gguf_find(gguf, "u64")->u == UINT64_MAX);
    assert_true(gguf_find(gguf, "i64")->i == INT64_MIN);
    assert_true(gguf_find(gguf, "f32")->f == (double)1e-6f);
    assert_true(gguf_find(gguf, "f64")->f == 3.141592653589793);
    assert_int_equal(gguf_find(gguf, "bool")->u, 1);
    assert_null(gguf_find(gguf, "absent"));
    assert_null(gguf_find(gguf, ""));

    const struct gguf_array *array = &gguf_find(gguf, "words")->array;
    assert_int_equal(array->count, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(array->strings[i].len, strlen(words[i]));
        assert_memory_equal(array->strings[i].data, words[i], strlen(words[i]));
    }
    array = &gguf_find(gguf, "shorts")->array;
    for (uint64_t i = 0; i < 4; i++) {
        assert_true(gguf_array_int(array, i) == shorts[i]);
        assert_true(gguf_array_float(array, i) == shorts[i]);
    }
    array = &gguf_find(gguf, "nested")->array;
    assert_int_equal(array->count, 2);
    assert_int_equal(array->arrays[0].type, GGUF_U8);
    assert_int_equal(gguf_array_int(&array->arrays[0], 1), 2);
    assert_int_equal(array->arrays[1].type, GGUF_STRING);
    assert_int_equal(array->arrays[1].count, 0);
    gguf_close(gguf);
}

static void typed(void **state)
{
    struct gguf *gguf = open_good(write_sample("sample.gguf"));
    struct tsr_error error = {0};
    uint32_t number = 77;
    float real;
    bool flag = false;
    struct gguf_string string;
    struct gguf_array array;
    assert_true(gguf_get_u32(gguf, "u8", &number, &error));
    assert_int_equal(number, 255);
    assert_true(gguf_get_u32(gguf, "i32.positive", &number, &error));
    assert_int_equal(number, 7);
    assert_true(gguf_get_f32(gguf, "f64", &real, &error));
    assert_true(real == 3.1415927f);
    assert_true(gguf_get_bool(gguf, "bool", &flag, &error));
    assert_true(flag);
    assert_true(gguf_get_string(gguf, "general.architecture", &string, &error));
    assert_int_equal(string.len, 6);
    assert_true(gguf_get_array(gguf, "shorts", GGUF_I32, &array, &error));
    assert_true(gguf_get_array(gguf, "words", GGUF_STRING, &array, &error));
    assert_false(gguf_get_u32(gguf, "absent", &number, &error));
    assert_string_equal(error.text, "");

    assert_false(gguf_get_u32(gguf, "i32", &number, &error));
    assert_non_null(strstr(error.text, "the key 'i32' is i32, not an integer from 0"));
    assert_false(gguf_get_u32(gguf, "u64", &number, &error));
    assert_false(gguf_get_u32(gguf, "f32", &number, &error));
    assert_int_equal(number, 7);
    assert_false(gguf_get_array(gguf, "shorts", GGUF_STRING, &array, &error));
    assert_non_null(strstr(error.text, "'shorts' is array of i16, not array of string"));
    assert_false(gguf_get_string(gguf, "u8", &string, NULL));
    assert_int_equal(error.code, 0);
    gguf_close(gguf);
}

static void tensors(void **state)
{
    struct gguf *gguf = open_good(write_sample("sample.gguf"));
    assert_int_equal(gguf_n_tensors(gguf), 3);
    const struct gguf_tensor *norm = gguf_find_tensor(gguf, "norm");
    assert_ptr_equal(norm, gguf_tensor_at(gguf, 0));
    assert_int_equal(norm->n_dims, 1);
    assert_int_equal(norm->dims[1], 1);
    assert_int_equal(norm->n_bytes, 20);
    assert_int_equal(norm->offset % 64, 0);
    assert_memory_equal(norm->data, ((float[]){1, 2, 3, 4, 5}), 20);

    const struct gguf_tensor *matrix = gguf_find_tensor(gguf, "matrix");
    assert_string_equal(matrix->type->name, "Q4_0");
    assert_int_equal(matrix->n_elems, 192);
    assert_int_equal(matrix->n_bytes, 6 * 18);
    assert_int_equal(matrix->offset, norm->offset + 64);

    const struct gguf_tensor *codes = gguf_find_tensor(gguf, "codes");
    assert_string_equal(codes->type->name, "IQ1_M");
    assert_int_equal(codes->n_dims, 4);
    assert_int_equal(codes->n_bytes, 6 * 56);
    assert_null(gguf_find_tensor(gguf, "nor"));
    gguf_close(gguf);
}

static void real_model(void **state)
{
    struct gguf *gguf = open_good(source_path(model));
    struct stat st;
    assert_int_equal(stat(source_path(model), &st), 0);
    assert_int_equal(gguf_file_bytes(gguf), st.st_size);
    assert_int_equal(gguf_n_tensors(gguf), 99);
    uint64_t bytes = 0;
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        assert_ptr_equal(gguf_find_tensor(gguf, tensor->name), tensor);
        bytes += tensor->n_bytes;
    }
    assert_in_range(bytes, st.st_size * 9 / 10, st.st_size);
    gguf_close(gguf);
}

/* Version 2 differs from 3 in its number only. */
static void version_2(void **state)
{
    size_t size;
    char *file = read_file(write_sample("sample.gguf"), &size);
    struct gguf *gguf;
    file[4] = 2;
    assert_int_equal(gguf_open_memory(file, size, &gguf, NULL), 0);
    assert_int_equal(gguf_version(gguf), 2);
    assert_int_equal(gguf_n_values(gguf), 19);
    assert_int_equal(gguf_n_tensors(gguf), 3);
    gguf_close(gguf);
    free(file);
}

/* Weights made for tests have about the deviation asked for, whatever the type. */
static void random_models(void **state)
{
    for (uint32_t id = 0; id < BLOCK_ID_COUNT; id++) {
        const struct block_type *type = block_type_find(id);
        if (!type || !type->dequantize)
            continue;
        enum { N = 256 * 64 };
        size_t n_bytes = N / type->n_elems * type->n_bytes;
        void *blocks = malloc(n_bytes);
        float *weights = malloc(N * sizeof *weights);
        assert_true(blocks && weights);
        uint64_t seed = 1;
        random_weights(type, blocks, n_bytes, 0.02f, &seed);
        type->dequantize(blocks, weights, N);
        double sum = 0, squares = 0;
        for (int i = 0; i < N; i++) {
            sum += (double)weights[i];
            squares += (double)weights[i] * (double)weights[i];
        }
        double sigma = sqrt(squares / N);
        if (!(sigma > 0.012 && sigma < 0.03 && fabs(sum / N) < 0.005))
            fail_msg("%s: mean %g, deviation %g", type->name, sum / N, sigma);
        free(blocks);
        free(weights);
    }
}

static void describe(void **state)
{
    struct gguf *gguf = open_good(write_sample("sample.gguf"));
    char *text;
    assert_int_equal(gguf_describe(gguf, 2, &text, NULL), 0);
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    if (!json)
        fail_msg("%s", error.text);
    int version, length;
    const char *type, *broken;
    json_t *some, *arrays, *first;
    json_int_t offset, minimum;
    assert_int_equal(json_unpack(json, "{s:i, s:{s:{s:s, s:i, s:o}, s:{s:o}, s:{s:s}, s:{s:I}}}",
                                 "version", &version, "metadata", "words", "type", &type, "length",
                                 &length, "value", &some, "nested", "value", &arrays, "not utf-8",
                                 "value", &broken, "i64", "value", &minimum),
                     0);
    assert_int_equal(version, 3);
    assert_string_equal(type, "array");
    assert_int_equal(length, 3);
    assert_int_equal(json_array_size(some), 2);
    assert_int_equal(json_array_size(arrays), 2);
    assert_true(minimum == INT64_MIN);
    assert_string_equal(broken, "a\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz");
    assert_non_null(strstr(text, "\"f32\":{\"type\":\"f32\",\"value\":1e-6}"));
    assert_non_null(strstr(text, "\"f32.nan\":{\"type\":\"f32\",\"value\":null}"));
    first = json_array_get(json_object_get(json, "tensors"), 0);
    assert_int_equal(json_unpack(first, "{s:s, s:[i], s:I}", "type", &type, "shape", &length,
                                 "offset", &offset),
                     0);
    assert_int_equal(length, 5);
    assert_true((uint64_t)offset == gguf_tensor_at(gguf, 0)->offset);
    json_decref(json);
    free(text);
    gguf_close(gguf);
}

/* ---- Split models ---------------------------------------------------------------------------- */

static void write_part(const char *name, int number, int count, const char *tensor)
{
    struct gguf_writer *w = gguf_writer_open(temp_path(name));
    gguf_writer_int(w, "split.no", GGUF_U16, number);
    gguf_writer_int(w, "split.count", GGUF_U16, count);
    gguf_writer_int(w, "split.tensors.count", GGUF_I32, 3);
    gguf_writer_tensor(w, tensor, BLOCK_F32, 1, (uint64_t[]){1}, (float[]){(float)number});
    gguf_writer_close(w);
}

/* Opening fails with one line that holds `what`. */
static void open_bad(const char *path, int code, const char *what)
{
    struct tsr_error error = {0};
    struct gguf *gguf = (void *)&error;
    int result = gguf_open(path, &gguf, &error);
    if (result != code || gguf || error.code != code || !strstr(error.text, what) ||
        strchr(error.text, '\n') || strncmp(error.text, path, strlen(path)) != 0)
        fail_msg("%s: expected %d with '%s', got %d: %s", path, code, what, result, error.text);
}

static void split_whole(void **state)
{
    write_part("m-00001-of-00003.gguf", 0, 3, "a");
    write_part("m-00002-of-00003.gguf", 1, 3, "b");
    write_part("m-00003-of-00003.gguf", 2, 3, "c");
    struct gguf *gguf = open_good(temp_path("m-00001-of-00003.gguf"));
    assert_int_equal(gguf_n_tensors(gguf), 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(gguf_tensor_at(gguf, i)->file, i);
        assert_true(*(const float *)gguf_tensor_at(gguf, i)->data == (float)i);
    }
    assert_int_equal(gguf_file_bytes(gguf) % 3, 0);
    char *text;
    assert_int_equal(gguf_describe(gguf, 0, &text, NULL), 0);
    assert_non_null(strstr(text, "\"part\":3"));
    free(text);
    gguf_close(gguf);
    open_bad(temp_path("m-00002-of-00003.gguf"), TSR_EFORMAT, "part 2 of 3");
}

static void split_broken(void **state)
{
    struct tsr_error error;
    struct gguf *gguf;
    write_part("n-00001-of-00002.gguf", 0, 2, "a");
    assert_int_equal(gguf_open(temp_path("n-00001-of-00002.gguf"), &gguf, &error), TSR_EIO);
    assert_non_null(strstr(error.text, "n-00002-of-00002.gguf: No such file"));
    write_part("n-00002-of-00002.gguf", 1, 2, "b");
    open_bad(temp_path("n-00001-of-00002.gguf"), TSR_EFORMAT, "split.tensors.count");
    write_part("n-00002-of-00002.gguf", 1, 2, "a");
    assert_int_equal(gguf_open(temp_path("n-00001-of-00002.gguf"), &gguf, &error), TSR_EFORMAT);
    assert_non_null(strstr(error.text, "the tensor 'a' is there twice"));
    write_part("n-00002-of-00002.gguf", 0, 2, "b");
    assert_int_equal(gguf_open(temp_path("n-00001-of-00002.gguf"), &gguf, &error), TSR_EFORMAT);
    assert_non_null(strstr(error.text, "belongs to another model"));
    write_part("other.gguf", 0, 2, "a");
    open_bad(temp_path("other.gguf"), TSR_EFORMAT, "must be named");
}

/* ---- Bad files ------------------------------------------------------------------------------- */

static void not_models(void **state)
{
    static const char text[] = "Once upon a time there was a file that was no model.\n";
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    char path[4096];
    snprintf(path, sizeof path, "%s", temp_path("bad"));
    open_bad(path, TSR_EIO, "No such file");
    open_bad("/tmp", TSR_EIO, "is a directory");
    open_bad("/dev/null", TSR_EIO, "not a regular file");
    assert_int_equal(mkfifo(path, 0600), 0);
    open_bad(path, TSR_EIO, "not a regular file");
    remove(path);
    write_file(path, "", 0);
    open_bad(path, TSR_EFORMAT, "is empty");
    write_file(path, text, sizeof text - 1);
    open_bad(path, TSR_EFORMAT, "not a GGUF file");
    write_file(path, lfs, sizeof lfs - 1);
    open_bad(path, TSR_EFORMAT, "git lfs pull");
    write_file(path, "GGUF\0\0\0\3\0\0\0\0\0\0\0\0", 16);
    open_bad(path, TSR_EUNSUPPORTED, "big-endian");
    write_file(path, "GGUF\1\0\0\0\0\0\0\0", 12);
    open_bad(path, TSR_EUNSUPPORTED, "version 1");
    write_file(path, "GGUF\4\0\0\0\0\0\0\0", 12);
    open_bad(path, TSR_EUNSUPPORTED, "version 4");
    write_file(path, "GGUF\3\0", 6);
    open_bad(path, TSR_EFORMAT, "offset 4: 4 more bytes are needed, 2 are left");
}

/* The sample with one field overwritten: so many bytes behind the end of the first `anchor`. */
static void damaged_fields(void **state)
{
    static const uint64_t huge = (uint64_t)1 << 63, most = UINT64_MAX, odd = 1, zero = 0;
    static const uint64_t half = UINT64_MAX / 2 + 1, far = (uint64_t)1 << 40;
    static const struct {
        const char *anchor;
        int behind, n;
        const void *bytes;
        int code;
        const char *what;
    } cases[] = {
        {"GGUF", 4, 8, &huge, TSR_EFORMAT, "9223372036854775808 tensors do not fit"},
        {"GGUF", 12, 8, &huge, TSR_EFORMAT, "offset 24: 9223372036854775808 keys do not fit"},
        {"GGUF", 20, 8, &huge, TSR_EFORMAT, "9223372036854775808 more bytes are needed"},
        {"GGUF", 20, 8, &most, TSR_EFORMAT, "more bytes are needed"},
        {"GGUF", 20, 8, &zero, TSR_EFORMAT, "the key has 0 bytes"},
        {"general.architecture", -1, 1, "", TSR_EFORMAT, "'general.architectur?' has a NUL"},
        {"general.architecture", 0, 4, "\x0d\0\0\0", TSR_EFORMAT, "value type 13 is unknown"},
        {"general.architecture", 4, 8, &half, TSR_EFORMAT, "more bytes are needed"},
        {"bool", 4, 1, "\2", TSR_EFORMAT, "a bool is 2"},
        {"words", 4, 4, "\x99\0\0\0", TSR_EFORMAT, "value type 153 is unknown"},
        {"words", 8, 8, &huge, TSR_EFORMAT, "9223372036854775808 string elements is larger"},
        {"shorts", 8, 8, &most, TSR_EFORMAT, "i16 elements is larger"},
        {"nested", 8, 8, &most, TSR_EFORMAT, "array elements is larger"},
        {"i16", -3, 3, "u16", TSR_EFORMAT, "the key 'u16' is there twice"},
        {"general.alignment", 4, 4, "\x30\0\0\0", TSR_EFORMAT, "general.alignment is not"},
        {"general.alignment", 4, 4, "\0\0\0\0", TSR_EFORMAT, "general.alignment is not"},
        {"norm", 0, 4, "\5\0\0\0", TSR_EFORMAT, "'norm' has 5 dimensions"},
        {"norm", 0, 4, "\0\0\0\0", TSR_EFORMAT, "'norm' has 0 dimensions"},
        {"norm", 4, 8, &zero, TSR_EFORMAT, "dimension 0 of tensor 'norm' is 0"},
        {"norm", 4, 8, &huge, TSR_EFORMAT, "dimension 0 of tensor 'norm'"},
        {"norm", 4, 8, &far, TSR_EFORMAT, "'norm', 4398046511104 bytes"},
        {"norm", 12, 4, "\x04\0\0\0", TSR_EUNSUPPORTED, "'norm' is of type 4, which is unknown"},
        {"norm", 12, 4, "\xff\xff\xff\xff", TSR_EUNSUPPORTED, "of type 4294967295"},
        {"norm", 12, 4, "\2\0\0\0", TSR_EFORMAT, "no multiple of the 32 of a Q4_0 block"},
        {"norm", 16, 8, &odd, TSR_EFORMAT, "not aligned to 64 bytes"},
        {"norm", 16, 8, &half, TSR_EFORMAT, "end behind the file"},
        {"norm", 16, 8, "\x40\0\0\0\0\0\0\0", TSR_EFORMAT, "overlap"},
        {"matrix", 12, 8, &most, TSR_EFORMAT, "dimension 1 of tensor 'matrix'"},
        {"codes", 36, 4, "\x1b\0\0\0", TSR_EFORMAT, "end behind the file"},
    };
    size_t size;
    char path[4096];
    char *file = read_file(write_sample("sample.gguf"), &size);
    snprintf(path, sizeof path, "%s", temp_path("damaged.gguf"));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char saved[8];
        char *anchor = memmem(file, size, cases[i].anchor, strlen(cases[i].anchor));
        assert_non_null(anchor);
        char *field = anchor + strlen(cases[i].anchor) + cases[i].behind;
        memcpy(saved, field, cases[i].n);
        memcpy(field, cases[i].bytes, cases[i].n);
        write_file(path, file, size);
        open_bad(path, cases[i].code, cases[i].what);
        memcpy(field, saved, cases[i].n);
    }
    free(file);
}

static void deep_nesting(void **state)
{
    char levels[12 * 200];
    for (int i = 0; i < 200; i++)
        memcpy(levels + 12 * i, "\x09\0\0\0\x01\0\0\0\0\0\0\0", 12);
    struct gguf_writer *w = gguf_writer_open(temp_path("deep.gguf"));
    gguf_writer_raw(w, "deep", GGUF_ARRAY, levels, sizeof levels);
    gguf_writer_close(w);
    open_bad(temp_path("deep.gguf"), TSR_EFORMAT, "nested more than 8 deep");
}

/* Whatever comes out, it is whole: one line of error, or a directory inside the file. */
static bool open_any(const void *data, size_t size)
{
    struct tsr_error error = {0};
    struct gguf *gguf;
    int code = gguf_open_memory(data, size, &gguf, &error);
    if (code) {
        assert_null(gguf);
        assert_int_equal(error.code, code);
        assert_null(strchr(error.text, '\n'));
        assert_non_null(strstr(error.text, "(memory): "));
        return false;
    }
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        assert_true(tensor->offset <= size && tensor->n_bytes <= size - tensor->offset);
    }
    gguf_close(gguf);
    return true;
}

static uint64_t header_size(const void *file, size_t size)
{
    struct gguf *gguf;
    assert_int_equal(gguf_open_memory(file, size, &gguf, NULL), 0);
    uint64_t end = gguf_tensor_at(gguf, 0)->offset;
    gguf_close(gguf);
    return end;
}

/* At every 1,000th byte; where the directory is cut, in memory of just that size, so that the
 * address sanitizer sees a read behind it. */
static void truncated(void **state)
{
    size_t size;
    char *file = read_file(source_path(model), &size);
    uint64_t header = header_size(file, size);
    for (size_t n = 0; n < size; n += 1000) {
        char *part = n < header ? malloc(n ? n : 1) : file;
        assert_non_null(part);
        if (part != file)
            memcpy(part, file, n);
        if (open_any(part, n))
            fail_msg("a file cut at byte %zu of %zu was accepted", n, size);
        if (part != file)
            free(part);
    }
    free(file);
}

static void flipped(void **state)
{
    size_t size;
    char *file = read_file(source_path(model), &size);
    uint64_t header = header_size(file, size), seed = 2;
    int refused = 0;
    for (int i = 0; i < 2000; i++) {
        char *byte = file + random_next(&seed) % header, saved = *byte;
        *byte = (char)(saved ^ (1 + random_next(&seed) % 255));
        refused += !open_any(file, size);
        *byte = saved;
    }
    assert_in_range(refused, 100, 2000);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),        cmocka_unit_test(typed),
        cmocka_unit_test(tensors),       cmocka_unit_test(real_model),
        cmocka_unit_test(version_2),     cmocka_unit_test(random_models),
        cmocka_unit_test(describe),      cmocka_unit_test(split_whole),
        cmocka_unit_test(split_broken),  cmocka_unit_test(not_models),
        cmocka_unit_test(damaged_fields), cmocka_unit_test(deep_nesting),
        cmocka_unit_test(truncated),     cmocka_unit_test(flipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
