/* What the kernel says of this process. */
#ifndef TESSERA_BENCH_PROCESS_H
#define TESSERA_BENCH_PROCESS_H

#include <stdint.h>

/* A size of /proc/self/status (proc_pid_status(5)) in bytes: "VmHWM", "RssAnon". 0 where it is not
 * told. */
uint64_t process_bytes(const char *name);

#endif
