/* Reader of GGUF v2 and v3 files: metadata and the directory of tensors, data memory-mapped.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 * Every length, count, offset and product is checked against the file before it is used. Names,
 * shapes and types are not trusted to match any model: that is the model stage's work.
 */
#ifndef TESSERA_GGUF_H
#define TESSERA_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kernels/kernel.h"

enum { GGUF_MAX_DIMS = 4 };

enum gguf_value_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
    GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64,
};

/* Not terminated; points into the mapped file. */
struct gguf_string {
    const char *data;
    size_t len;
};

/* Strings of an array of strings are indexed once, on opening: `strings[i]`. Numbers stay in the
 * file, unaligned: read them with gguf_array_*. */
struct gguf_array {
    enum gguf_value_type type;         /* of the elements */
    uint64_t count;
    const void *data;                  /* fixed-size elements, unaligned, in the file */
    const struct gguf_string *strings; /* for GGUF_STRING */
    const struct gguf_array *arrays;   /* for GGUF_ARRAY: nested */
};

struct gguf_value {
    struct gguf_string key;
    enum gguf_value_type type;
    union {
        uint64_t u; /* unsigned kinds and bool */
        int64_t i;
        double f;
        struct gguf_string string;
        struct gguf_array array;
    };
};

struct gguf_tensor {
    char *name;                    /* terminated; unique; no NUL inside */
    const struct block_type *type; /* never NULL: an unknown type is refused on opening */
    int n_dims;                    /* 1 .. GGUF_MAX_DIMS */
    uint64_t dims[GGUF_MAX_DIMS];  /* dims[0] runs fastest; 1 past n_dims; each at least 1 */
    uint64_t n_elems;
    uint64_t n_bytes;
    int file;                      /* which file of a split model */
    uint64_t offset;               /* of the data, in that file */
    const void *data;              /* mapped, n_bytes readable */
};

struct gguf; /* opaque; immutable after opening, any number of threads may read it */

/* Opens a file, or all files of a split model given its first (NAME-00001-of-00003.gguf).
 * Errors: TSR_EIO, TSR_EFORMAT, TSR_EUNSUPPORTED, TSR_ENOMEM, with "FILE: offset N: what".
 * The files stay mapped until gguf_close and must not be cut short meanwhile: reading pages that
 * are gone is a SIGBUS, as with every mapping. */
int gguf_open(const char *path, struct gguf **gguf, struct tsr_error *error);
/* The same from memory, which must stay as it is until gguf_close. Split models need gguf_open. */
int gguf_open_memory(const void *data, size_t size, struct gguf **gguf, struct tsr_error *error);
void gguf_close(struct gguf *gguf);

const char *gguf_path(const struct gguf *gguf); /* of the (first) file */
uint32_t gguf_version(const struct gguf *gguf);
uint64_t gguf_file_bytes(const struct gguf *gguf); /* of all files */

/* What tells a file from another one, or from itself before it was changed. */
struct gguf_identity {
    uint64_t device, inode, size;
    int64_t seconds, nanoseconds; /* of the last change */
};
size_t gguf_n_files(const struct gguf *gguf);
/* Of file i of a split model, as it was when it was opened; zeros for gguf_open_memory. */
struct gguf_identity gguf_identity_at(const struct gguf *gguf, size_t i);

size_t gguf_n_values(const struct gguf *gguf);
const struct gguf_value *gguf_value_at(const struct gguf *gguf, size_t index);
size_t gguf_n_tensors(const struct gguf *gguf);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t index);

/* NULL where there is none. Constant time on average. */
const struct gguf_value *gguf_find(const struct gguf *gguf, const char *key);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name);

/* Typed reading with conversion between the integer kinds (and F32/F64). Return false, leaving *out
 * alone, where the key is absent; where it has another type or does not fit, false too, with
 * `error` set to a line naming file, key and both types (error->code is otherwise left alone). */
bool gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *out, struct tsr_error *error);
bool gguf_get_f32(const struct gguf *gguf, const char *key, float *out, struct tsr_error *error);
bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *out, struct tsr_error *error);
bool gguf_get_string(const struct gguf *gguf, const char *key, struct gguf_string *out,
                     struct tsr_error *error);
/* An array whose elements are of `type`, or of any integer kind where type is GGUF_I32. */
bool gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_value_type type,
                    struct gguf_array *out, struct tsr_error *error);

/* Element i of an array of integers or floats (of any width). */
int64_t gguf_array_int(const struct gguf_array *array, uint64_t i);
double gguf_array_float(const struct gguf_array *array, uint64_t i);

/* The JSON of tsr_file_describe (tessera.h). `*json` is owned by the caller: free(). Bytes that are
 * not UTF-8 are replaced, floats that JSON cannot hold are null. */
int gguf_describe(const struct gguf *gguf, size_t max_array, char **json, struct tsr_error *error);

/* Text of a file as part of a one-line message: printable ASCII, cut where it is long. */
struct gguf_printable {
    char text[68];
};
struct gguf_printable gguf_printable(const char *data, size_t len);

#endif
