#include "bench/process.h"

#include <stdio.h>
#include <string.h>

uint64_t process_bytes(const char *name)
{
    char line[256];
    unsigned long long kib = 0;
    size_t length = strlen(name);
    FILE *file = fopen("/proc/self/status", "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, name, length) && sscanf(line + length, ": %llu", &kib) == 1)
            break;
    fclose(file);
    return kib << 10;
}
