/* The filters that work on lists and dicts. */
#ifndef TESSERA_TEXT_TEMPLATE_FILTERS_H
#define TESSERA_TEXT_TEMPLATE_FILTERS_H

#include "text/template/builtin.h"

extern const struct builtin list_filters[];

#endif
