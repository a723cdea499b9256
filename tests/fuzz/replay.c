/* Runs every file of the corpus folder named on the command line through the fuzz target that this
 * is linked with, so that what a fuzzer once found is tested in every build. */
#include <dirent.h>
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void replay(const char *folder, const char *name)
{
    char path[4096];
    size_t size;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    void *file = read_file(path, &size);
    uint8_t *input = malloc(size ? size : 1); /* no byte behind it, as under libFuzzer */
    if (!input)
        err(1, "%s", path);
    memcpy(input, file, size);
    free(file);
    LLVMFuzzerTestOneInput(input, size);
    free(input);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        errx(2, "usage: %s FOLDER", argv[0]);
    struct dirent **entries;
    int n = scandir(argv[1], &entries, NULL, alphasort), n_files = 0;
    if (n < 0)
        err(1, "%s", argv[1]);
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_type != DT_DIR) {
            replay(argv[1], entries[i]->d_name);
            n_files++;
        }
        free(entries[i]);
    }
    free(entries);
    if (n_files == 0)
        errx(1, "%s: no file to replay", argv[1]);
    printf("%d files\n", n_files);
    return 0;
}
