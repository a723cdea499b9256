/* Writes a GGUF file of a named shape with random weights, the same that `tessera bench --shape`
 * makes in memory:
 *
 *     tessera-make-model [--hole] SHAPE:TYPE[,LAYERS] FILE
 *
 * With --hole the weights are a hole in the file, for programs that read the directory only. */
#include <stdio.h>
#include <string.h>

#include "bench/shape.h"

int main(int argc, char **argv)
{
    struct shape_model model;
    struct tsr_error error;
    bool hole = argc > 1 && strcmp(argv[1], "--hole") == 0;
    argv += hole;
    argc -= hole;
    if (argc != 3) {
        fprintf(stderr, "usage: tessera-make-model [--hole] SHAPE:TYPE[,LAYERS] FILE\n");
        return 2;
    }
    if (shape_parse(argv[1], &model, &error)) {
        fprintf(stderr, "tessera-make-model: %s\n", error.text);
        return 2;
    }
    shape_write(&model, argv[2], hole);
    return 0;
}
