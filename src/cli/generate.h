/* The loop that draws tokens and hands out their text; shared by run and chat. */
#ifndef TESSERA_CLI_GENERATE_H
#define TESSERA_CLI_GENERATE_H

#include "cli/options.h"

struct text_buffer {
    char *bytes;
    size_t len, capacity;
};

enum stop_reason { STOP_END, STOP_LIMIT, STOP_CONTEXT, STOP_INTERRUPTED, STOP_FAILED };

struct generation {
    tsr_engine *engine;
    tsr_session *session;
    struct tsr_sampling sampling;
    int limit;             /* tokens at most; -1: no limit */
    bool ignore_end;       /* go on after end tokens */
    bool print;            /* write the text to standard output as it comes */
    enum stop_reason stop; /* why it ended */
    int code;              /* tsr_code of STOP_FAILED */
    int32_t *ids;          /* what was drawn, without the end token; free: generation_free */
    size_t n_ids, capacity;
    struct text_buffer text; /* the text of the ids */
};

/* Sampling settings as the flags say, with a new seed where none was given. */
struct tsr_sampling sampling_from(const struct options *options);

/* Makes the session hold ids[0..n), then draws. The outcome is in `stop`. */
void generate(struct generation *generation, const int32_t *ids, size_t n);

const char *stop_name(enum stop_reason stop);
void generation_free(struct generation *generation);

#endif
