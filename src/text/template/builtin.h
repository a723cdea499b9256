/* Filters, tests, methods and functions: tables of builtins, and how they are called. */
#ifndef TESSERA_TEXT_TEMPLATE_BUILTIN_H
#define TESSERA_TEXT_TEMPLATE_BUILTIN_H

#include "text/template/value.h"

enum { MAX_PARAMETERS = 4 };

struct arguments {
    const struct list *items;
    const struct dict *keywords; /* name -> value */
};

struct call {
    struct machine *m;
    struct value self; /* what is filtered or tested, or has the method; absent for functions */
    struct value argv[MAX_PARAMETERS]; /* by parameter; absent where not given */
    struct arguments args;             /* as they were given */
};

struct builtin {
    const char *name;
    const char *const *parameters; /* NULL-terminated; NULL: takes any arguments */
    size_t required;               /* how many of the parameters must be given */
    struct value (*call)(struct call *c);
};

/* NULL when there is none of that name. */
const struct builtin *filter_find(struct str name);
const struct builtin *test_find(struct str name);
const struct builtin *method_find(struct value self, struct str name);
const struct builtin *function_find(const struct machine *m, struct str name);
/* Among an array that ends with a NULL name. */
const struct builtin *builtin_find(const struct builtin *table, struct str name);

/* Checks and binds the arguments. `what` names the kind in errors: "filter". */
struct value builtin_call(struct machine *m, const char *what, const struct builtin *builtin,
                          struct value self, struct arguments args);

/* Parameter values with their type checked; the fallback where it was not given. */
bool call_bool(const struct call *c, size_t parameter, bool fallback);
int64_t call_int(const struct call *c, size_t parameter, int64_t fallback);
struct str call_str(const struct call *c, size_t parameter, const char *fallback);
/* Self as a string: other values as Python prints them. */
struct str call_text(const struct call *c);

/* clang-format off */
#define PARAMETERS(...) (const char *const[]){__VA_ARGS__, NULL}
#define NO_PARAMETERS   (const char *const[]){NULL}
#define ANY_ARGUMENTS   NULL
/* clang-format on */

#endif
