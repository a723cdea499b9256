/* The commands; the table in main.c says which flags each takes. */
#ifndef TESSERA_CLI_COMMANDS_H
#define TESSERA_CLI_COMMANDS_H

struct options;

/* Each returns an exit status, after one line on standard error where it is not EXIT_DONE. */
int command_run(const struct options *options);
int command_chat(const struct options *options);
int command_tokenize(const struct options *options);
int command_detokenize(const struct options *options);
int command_template(const struct options *options);
int command_bench(const struct options *options);
int command_calibrate(const struct options *options);
int command_perplexity(const struct options *options);
int command_logits(const struct options *options);
int command_plan(const struct options *options);
int command_inspect(const struct options *options);
int command_cpu(const struct options *options);

#endif
