/* tessera cpu: what this machine has, what will be used, and why not more. */
#include "cli/commands.h"
#include "cli/common.h"

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static void print_machine(const json_t *machine)
{
    output_format("%s (%s), %lld cores\n", text_of(machine, "model"), text_of(machine, "vendor"),
                  (long long)json_integer_value(json_object_get(machine, "cores")));
    size_t i;
    json_t *node, *feature, *nodes = json_object_get(machine, "nodes");
    json_array_foreach(nodes, i, node)
    {
        if (json_array_size(nodes) > 1)
            output_format("  node %lld: %lld threads, %lld MiB, %lld available\n",
                          (long long)json_integer_value(json_object_get(node, "node")),
                          (long long)json_integer_value(json_object_get(node, "threads")),
                          (long long)json_integer_value(json_object_get(node, "memory")) >> 20,
                          (long long)json_integer_value(json_object_get(node, "available")) >> 20);
    }
    output_format("instruction set in use: %s\n", text_of(machine, "isa"));
    json_array_foreach(json_object_get(machine, "features"), i, feature)
    {
        const char *reason = text_of(feature, "reason");
        output_format("  %-16s %s%s%s\n", text_of(feature, "name"),
                      json_is_true(json_object_get(feature, "present")) ? "yes" : "no",
                      *reason ? ": " : "", reason);
    }
}

int command_cpu(const struct options *options)
{
    struct tsr_settings settings = settings_from(options);
    struct tsr_error error = {0};
    char *text;
    int code = tsr_cpu_describe(&settings, &text, &error);
    if (code < 0)
        return fail(options->command, "%s", error.text[0] ? error.text : tsr_strerror(code));
    if (options->json) {
        output_format("%s\n", text);
        tsr_free(text);
        return EXIT_DONE;
    }
    json_t *machine = json_loads(text, 0, NULL);
    tsr_free(text);
    if (!machine)
        return fail(options->command, "out of memory");
    print_machine(machine);
    json_decref(machine);
    return EXIT_DONE;
}
