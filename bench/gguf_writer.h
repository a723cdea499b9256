/* Writes GGUF files for measurements and tests: metadata and tensors in the order of the calls.
 * Anything that fails ends the program with one line.
 *
 *     struct gguf_writer *w = gguf_writer_open(path);
 *     gguf_writer_string(w, "general.architecture", "llama");
 *     gguf_writer_int(w, "llama.block_count", GGUF_U32, 2);
 *     gguf_writer_tensor(w, "output.weight", BLOCK_Q4_0, 2, (uint64_t[]){64, 512}, NULL);
 *     gguf_writer_close(w);
 */
#ifndef TESSERA_BENCH_GGUF_WRITER_H
#define TESSERA_BENCH_GGUF_WRITER_H

#include "gguf/gguf.h"
#include <tessera/tessera.h>

struct gguf_writer;

struct gguf_writer *gguf_writer_open(const char *path);
/* The same into a file that is open for reading and writing and stays open; `path` is for messages.
 */
struct gguf_writer *gguf_writer_open_fd(int fd, const char *path);
/* Pads the data of each tensor to so many bytes and writes general.alignment; 32 without it. Call
 * before the first tensor. */
void gguf_writer_alignment(struct gguf_writer *writer, uint32_t alignment);
/* Any integer kind, or GGUF_BOOL. */
void gguf_writer_int(struct gguf_writer *writer, const char *key, enum gguf_value_type type,
                     int64_t value);
void gguf_writer_f32(struct gguf_writer *writer, const char *key, float value);
void gguf_writer_string(struct gguf_writer *writer, const char *key, const char *value);
void gguf_writer_strings(struct gguf_writer *writer, const char *key, const char *const *values,
                         size_t n);
/* An array of numbers: n elements of `type` at `values`. */
void gguf_writer_array(struct gguf_writer *writer, const char *key, enum gguf_value_type type,
                       const void *values, size_t n);
/* Any value, given as the bytes of the file. */
void gguf_writer_raw(struct gguf_writer *writer, const char *key, enum gguf_value_type type,
                     const void *bytes, size_t n_bytes);
/* `data` must stay until gguf_writer_close. NULL: random weights, see random_weights.h, that depend
 * on the tensor's name only. */
void gguf_writer_tensor(struct gguf_writer *writer, const char *name, enum block_id type,
                        int n_dims, const uint64_t *dims, const void *data);
/* The deviation of the random weights of the last tensor; 0.02 without it. */
void gguf_writer_deviation(struct gguf_writer *writer, float sigma);
/* The data of all tensors become a hole: zeros that take no room on the disk. */
void gguf_writer_hole(struct gguf_writer *writer);
/* Size of the file as it would be closed now. */
uint64_t gguf_writer_bytes(const struct gguf_writer *writer);
/* Called now and then while random weights are made, with bytes; false stops. */
void gguf_writer_progress(struct gguf_writer *writer, tsr_progress_fn *progress, void *user);
/* Writes the file. False where it was stopped. */
bool gguf_writer_close(struct gguf_writer *writer);

#endif
