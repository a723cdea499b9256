/* tessera: the command line. Written on the public API only. */
#include <locale.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"

#define OPTS_TEXT (OPT(MODEL) | OPT(FILE) | OPT(JSON) | OPT(NO_SPECIAL) | OPTS_COMMON)

static const struct command commands[] = {
    {"run", "", "continue a text",
     "Standard output holds the generated text only. Without -p and -f the prompt is read from\n"
     "standard input; the newline that ends a file or standard input is dropped.\n"
     "With --json: {\"text\", \"ids\", \"prompt_ids\", \"stop\", \"seed\", \"timings\"}; \"stop\" "
     "is end,\n"
     "limit, context or interrupted. Ctrl-C stops; what was written so far stays.\n",
     OPTS_TEXT | OPT(PROMPT) | OPT(NO_BOS) | OPT(N_PREDICT) | OPTS_SESSION | OPTS_LOAD |
         OPTS_SAMPLING | OPT(PROMPT_CACHE),
     command_run},
    {"chat", "", "talk with a model, by its own chat template",
     "On a terminal: a line ending in \\ goes on in the next, Ctrl-C stops the answer, Ctrl-D or\n"
     "/exit leaves, /clear starts a new conversation, /help lists this. Otherwise each line of\n"
     "standard input is one message.\n",
     OPT(MODEL) | OPT(SYSTEM) | OPT(TEMPLATE) | OPT(VAR) | OPT(N_PREDICT) | OPTS_SESSION |
         OPTS_LOAD | OPTS_SAMPLING | OPTS_COMMON,
     command_chat},
    {"tokenize", "", "the token ids of a text",
     "On one line, separated by spaces; with --json: {\"ids\"}. The text is taken as it is.\n"
     "Special tokens in it count as such unless --no-special.\n",
     OPTS_TEXT | OPT(PROMPT) | OPT(NO_BOS), command_tokenize},
    {"detokenize", "[ID...]", "the text of token ids",
     "Ids come from the command line, -f or standard input. No newline is added.\n"
     "With --json: {\"text\"}.\n",
     OPTS_TEXT, command_detokenize},
    {"template", "", "render a chat prompt", "",
     OPT(MODEL) | OPT(MESSAGES) | OPT(GENERATION_PROMPT) | OPT(TEMPLATE) | OPT(VAR) | OPTS_COMMON,
     command_template},
    {"bench", "", "speed of prompts and generation beside the machine's limits",
     "Lists are separated by commas; every combination is measured. Percentages are of roofs\n"
     "measured in the same process: generation of streaming read (weights of a token times\n"
     "tokens per second), prompts of bf16 tile instructions alone and of packed tiles from L2.\n"
     "Shapes: qwen3-30b-a3b, qwen3-235b-a22b, qwen3-8b, llama-3.1-8b, mixtral-8x7b,\n"
     "deepseek-v2-lite, tiny-moe, tiny-mla;\n"
     "types: q4_0, q4_k_m, q6_k, q8_0, bf16 and the other block types.\n",
     OPT(MODEL) | OPTS_BENCH | OPTS_COMMON, command_bench},
    {"calibrate", "", "the fastest numbers of threads, and of rows for tiles",
     "Measures them on this machine with this model and prints what it found; '*' is what it chose.\n"
     "-o writes the choice for --calibration of other commands; '-o -' prints it instead.\n",
     OPT(MODEL) | OPT(SHAPE) | OPT(SECONDS) | OPT(OUTPUT) |
         (OPTS_MACHINE & ~(OPT(THREADS) | OPT(THREADS_BATCH))) |
         (OPTS_LOAD & ~OPT(CALIBRATION)) | OPTS_COMMON,
     command_calibrate},
    {"perplexity", "", "how well a model predicts a text, and how far it is from another",
     "The text of -f or standard input is cut into chunks of -c tokens (default 512), each is\n"
     "evaluated by itself, and the second half of it counts, as in llama-perplexity. To compare two\n"
     "models of one vocabulary: with the first --kl-divergence-base FILE, with the second also\n"
     "--kl-divergence; the file may be one of llama-perplexity's, too.\n",
     OPT(MODEL) | OPT(FILE) | OPT(JSON) | OPT(CHUNKS) | OPT(KL_BASE) | OPT(KL_DIVERGENCE) |
         OPTS_SESSION | OPTS_LOAD | OPTS_COMMON,
     command_perplexity},
    {"logits", "", "the logits of every position",
     "Reads raw little-endian int32 ids, writes float32 [ids, vocabulary]. -b sets how many are\n"
     "evaluated at once.\n",
     OPT(MODEL) | OPT(TOKENS) | OPT(OUTPUT) | OPTS_SESSION | OPTS_LOAD | OPTS_COMMON, command_logits},
    {"plan", "", "where every tensor would go, and the memory it takes",
     "Reads no weights. With -v a row for each tensor with its pool, kernel and reasons.\n",
     OPT(MODEL) | OPT(JSON) | OPTS_SESSION | OPTS_COMMON, command_plan},
    {"inspect", "[FILE]", "metadata and tensors of a GGUF file", "Long arrays are cut unless -v.\n",
     OPT(MODEL) | OPT(JSON) | OPTS_COMMON, command_inspect},
    {"cpu", "", "what this machine has and what will be used", "",
     OPT(ISA) | OPT(AMX) | OPT(EMULATE_TILES) | OPT(JSON) | OPTS_COMMON, command_cpu},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static int print_help(void)
{
    output_format("usage: tessera COMMAND [flags]\n\nRuns GGUF language models on CPUs.\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        output_format("  %-12s%s\n", commands[i].name, commands[i].summary);
    output_format("\n'tessera COMMAND --help' lists a command's flags; 'tessera --version' says "
                  "which version this is.\n"
                  "Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n");
    return EXIT_DONE;
}

static int print_command_help(const struct command *command)
{
    output_format("usage: tessera %s [flags]%s%s\n\n%s\n", command->name,
                  command->operands[0] ? " " : "", command->operands, command->summary);
    output_format("%s%s\n", command->details[0] ? "\n" : "", command->details);
    options_print(command);
    return EXIT_DONE;
}

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct options options;
    if (!options_parse(command, argc, argv, &options))
        return EXIT_USAGE;
    if (options.help)
        return print_command_help(command);
    progress_setup(options.quiet);
    return command->run(&options);
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        note("tessera: which command? (see 'tessera --help')");
        return EXIT_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
        const struct command *command = argc > 2 ? find_command(argv[2]) : NULL;
        if (command)
            return print_command_help(command);
        if (argc == 2 || word[0] == '-')
            return print_help();
        word = argv[2]; /* of which there is no help */
    }
    if (!strcmp(word, "--version") || !strcmp(word, "version")) {
        output_format("tessera %s\n", tsr_version());
        return EXIT_DONE;
    }
    const struct command *command = find_command(word);
    if (!command) {
        note("tessera: unknown %s %s (see 'tessera --help')", word[0] == '-' ? "flag" : "command",
             word);
        return EXIT_USAGE;
    }
    return run_command(command, argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    output_setup();
    setlocale(LC_CTYPE, ""); /* for line editing; numbers stay in the C locale */
    return output_finish(dispatch(argc, argv));
}
