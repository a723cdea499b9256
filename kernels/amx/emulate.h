/* AMX in software: a handler of SIGILL that decodes and executes LDTILECFG, STTILECFG, TILERELEASE,
 * TILEZERO, TILELOADD, TILELOADDT1, TILESTORED, TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD and TDPBF16PS,
 * so that code with tile instructions runs (slowly) on any x86-64 with AVX2. Each thread has tiles
 * of its own, from its LDTILECFG to its TILERELEASE.
 *
 * Faults are the hardware's: a bad configuration gives SIGSEGV (#GP), an instruction that the
 * configuration does not allow SIGILL (#UD). Other causes of SIGILL go to the handler that was
 * installed before. The signal disposition is the one thing in the library that belongs to the
 * whole process; it is only touched where the user asks for emulation.
 *
 * Instructions that follow each other without others between them are executed in one trap. */
#ifndef TESSERA_AMX_EMULATE_H
#define TESSERA_AMX_EMULATE_H

/* Installs the handler, or counts one more user of it. 0, or -1 with errno set. */
int tile_emulator_install(void);

/* The counterpart: the last user's call puts the previous handler back and frees the tiles. No
 * thread may be using tiles. */
void tile_emulator_uninstall(void);

#endif
