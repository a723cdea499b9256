/* Files that tests read and write. Failures end the program: a test cannot go on without them. */
#ifndef TESSERA_TESTS_FILES_H
#define TESSERA_TESTS_FILES_H

#include <stdbool.h>
#include <stddef.h>

/* Path of a file of the source tree ("models/x.gguf"); static storage, overwritten by the second
 * call after this one. */
const char *source_path(const char *name);

/* Path below the golden data that is not ours to publish ("fixtures/stories260K.gguf"): in
 * $TSR_SHARED or beside the source tree. NULL where it is absent: the test is to skip. Storage as
 * source_path. */
const char *shared_path(const char *name);

/* A whole file and one zero byte behind it; free(). `size` may be NULL. */
void *read_file(const char *path, size_t *size);
void *read_test_data(const char *name, size_t *size); /* below tests/data */

void write_file(const char *path, const void *data, size_t size);

/* Writes root/dir/name, in a folder that is made where it is missing. */
void write_text_below(const char *root, const char *dir, const char *name, const char *text);

/* Path of a file in a temporary folder of this process, which is removed with what is in it when
 * the process exits. Storage as source_path. */
const char *temp_path(const char *name);

#endif
