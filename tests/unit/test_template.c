/* Chat templates: the language, construct by construct, and the renderings of real templates. */
#include "tests/support/check.h"

#include <stdlib.h>

#include <jansson.h>

#include "text/template.h"

struct template_case {
    const char *source;
    const char *variables; /* JSON; NULL: none */
    const char *expected;  /* text, or a part of the error when `fails` */
    bool fails;
};

static const struct template_case literals[] = {
    {"plain", NULL, "plain", false},
    {"", NULL, "", false},
    {"{{ 1 }} {{ 1_000 }} {{ 1.5 }} {{ 1e3 }} {{ 2.0 }}", NULL, "1 1000 1.5 1000.0 2.0", false},
    {"{{ 1e22 }} {{ 0.1 }} {{ 1.5e-7 }} {{ 0.0001 }} {{ -0.0 }} {{ 123456.789 }}", NULL,
     "1e+22 0.1 1.5e-07 0.0001 -0.0 123456.789", false},
    {"{{ 1e15 }} {{ 1e16 }} {{ 0.5 }} {{ 0.025 }}", NULL, "1000000000000000.0 1e+16 0.5 0.025",
     false},
    {"{{ true }} {{ False }} {{ none }} {{ None }}", NULL, "True False None None", false},
    {"{{ 'a' \"b\" }} {{ 'it\\'s\\n' }}|", NULL, "ab it's\n|", false},
    {"{{ '\\u4f60\\x41\\\\' }}{{ '\\d' }}", NULL,
     "\xe4\xbd\xa0"
     "A\\\\d",
     false},
    {"{{ [1, 'a', None, 2.5, [true]] }}", NULL, "[1, 'a', None, 2.5, [True]]", false},
    {"{{ (1,) }} {{ () }} {{ (1, 2) }} {{ 1, 2 }}", NULL, "(1,) () (1, 2) (1, 2)", false},
    {"{{ {'a': 1, 2: 'b'} }} {{ {} }} {{ {'a': {'b': {}}} }}", NULL,
     "{'a': 1, 2: 'b'} {} {'a': {'b': {}}}", false},
    {"{{ [\"it's\", 'a\"b', 'tab\\t', '\\\\'] }}", NULL, "[\"it's\", 'a\"b', 'tab\\t', '\\\\']",
     false},
    {"{{ x }}|{{ x.y }}", "{\"x\": {\"y\": null}}", "{'y': None}|None", false},
};

static const struct template_case operators[] = {
    {"{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 7 / 2 }} {{ 6 / 2 }}", NULL, "3 9 3.5 3.0", false},
    {"{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }}", NULL, "3 -4 1 2 -2",
     false},
    {"{{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}", NULL, "1024 0.5 64 4", false},
    {"{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ true + 1 }}", NULL, "3.0 0.5 2", false},
    {"{{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ 2 * [1] }} {{ [1] + [2] }} {{ 'a' * -1 }}|", NULL,
     "ab ababab [1, 1] [1, 2] |", false},
    {"{{ 1 ~ 'a' ~ none ~ true ~ x }}", NULL, "1aNoneTrue", false},
    {"{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 2 >= 2 }}", NULL,
     "True True False True True", false},
    {"{{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ [1] == [1] }} {{ none == false }}", NULL,
     "True True False True False", false},
    {"{{ {'a': 1} == {'a': 1.0} }} {{ (1,) == [1] }} {{ 1 != 2 }}", NULL, "True False True", false},
    {"{{ 'a' in 'cat' }} {{ 'x' not in ['x'] }} {{ 'k' in {'k': 0} }} {{ 1 in (2, 1.0) }}", NULL,
     "True False True True", false},
    {"{{ 'a' and 'b' }} {{ '' or 'c' }} {{ 0 and x.y }} {{ not 1 }} {{ not '' }}", NULL,
     "b c 0 False True", false},
    {"{{ 'y' if 1 else 'n' }}{{ 'y' if 0 else 'n' }}{{ 'y' if 0 }}|", NULL, "yn|", false},
    {"{{ 1 if 0 else 2 if 0 else 3 }} {{ -3 }} {{ +3 }} {{ - -3 }}", NULL, "3 -3 3 3", false},
    {"{{ -1 | abs }} {{ 1 + 1 is odd }} {{ not x is defined }}", NULL, "1 2 True", false},
    {"{{ '%s is %d, %.2f %05d %%' % ('x', 3, 1.5, -7) }} {{ '%s' % 'y' }}", NULL,
     "x is 3, 1.50 -0007 % y", false},
    {"{{ 9223372036854775807 + 1 }}", NULL, "line 1: integer overflow", true},
    {"{{ -9223372036854775807 - 2 }}", NULL, "integer overflow", true},
    {"{{ 3 ** 100 }}", NULL, "integer overflow", true},
    {"{{ (-9223372036854775807 - 1) // -1 }}", NULL, "integer overflow", true},
    {"{{ (-9223372036854775807 - 1) % -1 }}", NULL, "0", false},
    {"{{ 9223372036854775808 }}", NULL, "9223372036854775808 does not fit", true},
    {"{{ 1 // 0 }}", NULL, "division by zero", true},
    {"{{ 1.0 % 0 }}", NULL, "division by zero", true},
    {"{{ none + 'x' }}", NULL, "unsupported operands of '+': 'NoneType' and 'str'", true},
    {"{{ 'x' + none }}", NULL, "can only concatenate str (not \"NoneType\")", true},
    {"\n\n{{ 'x' + foo }}", NULL, "line 3: 'foo' is undefined", true},
    {"{{ 1 < 'a' }}", NULL, "'int' and 'str' cannot be ordered", true},
    {"{{ 1 in 2 }}", NULL, "cannot be searched", true},
};

static const struct template_case lookups[] = {
    {"{{ x.a }}{{ x['a'] }}{{ x.b }}{{ x['b'] }}|", "{\"x\": {\"a\": 1}}", "11|", false},
    {"{{ x[0] }} {{ x[-1] }} {{ x[9] }}| {{ x.1 }}", "{\"x\": [1, 2, 3]}", "1 3 | 2", false},
    {"{{ x[::-1] }} {{ x[1:] }} {{ x[:-1] }} {{ x[::2] }} {{ x[5:] }} {{ x[-2:] }}",
     "{\"x\": [1, 2, 3]}", "[3, 2, 1] [2, 3] [1, 2] [1, 3] [] [2, 3]", false},
    {"{{ x[2:0:-1] }} {{ x[:] }} {{ x[-99:99] }} {{ x[:1:-1] }}", "{\"x\": [1, 2, 3]}",
     "[3, 2] [1, 2, 3] [1, 2, 3] [3]", false},
    {"{{ x[1] }} {{ x[::-1] }} {{ x[1:3] }} {{ x | length }}", "{\"x\": \"aéb你\"}", "é 你béa éb 4",
     false},
    {"{{ (1, 2, 3)[1:] }} {{ 'abc'[-1] }}", NULL, "(2, 3) c", false},
    {"{{ x.y.z }}", "{\"x\": {}}", "'y' is undefined, so it has no 'z'", true},
    {"{{ x['y'][0] }}", "{\"x\": {}}", "'y' is undefined", true},
    {"{{ foo.bar() }}", NULL, "'foo' is undefined", true},
    {"{{ foo() }}", NULL, "unknown function 'foo'", true},
    {"{{ 'a'.swapcase() }}", NULL, "'str' has no method 'swapcase'", true},
    {"{{ x() }}", "{\"x\": 1}", "'int' object is not callable", true},
    {"{{ [1][::0] }}", NULL, "slice step cannot be zero", true},
    {"{{ [1]['a':] }}", NULL, "slice indices must be integers", true},
    {"{{ {[1]: 2} }}", NULL, "cannot be the key of a dict", true},
};

static const struct template_case statements[] = {
    {"{% if a %}A{% elif b %}B{% else %}C{% endif %}", "{\"a\": 1}", "A", false},
    {"{% if a %}A{% elif b %}B{% else %}C{% endif %}", "{\"b\": 1}", "B", false},
    {"{% if a %}A{% elif b %}B{% else %}C{% endif %}", NULL, "C", false},
    {"{% if a %}A{% elif b %}B{% endif %}|", NULL, "|", false},
    {"{% if a %}A{% else %}{% if b %}B{% endif %}C{% endif %}", "{\"b\": 1}", "BC", false},
    {"{% for i in [1, 2, 3] %}{{ i }},{% endfor %}", NULL, "1,2,3,", false},
    {"{% for i in [] %}{{ i }}{% else %}none{% endfor %}", NULL, "none", false},
    {"{% for i in x %}{{ i }}{% else %}empty{% endfor %}", NULL, "empty", false},
    {"{% for k in x %}{{ k }}{% endfor %}", "{\"x\": {\"a\": 1, \"b\": 2}}", "ab", false},
    {"{% for k, v in x.items() %}{{ k }}={{ v }};{% endfor %}", "{\"x\": {\"a\": 1, \"b\": 2}}",
     "a=1;b=2;", false},
    {"{% for c in 'aé' %}<{{ c }}>{% endfor %}", NULL, "<a><é>", false},
    {"{% for i in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}"
     "{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
     NULL, "1032TrueFalse3 2121FalseFalse3 3210FalseTrue3 ", false},
    {"{% for i in 'abc' %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('x', 'y') }} "
     "{% endfor %}",
     NULL, "bx acy bx ", false},
    {"{% for i in range(9) if i is odd %}{{ i }}{{ loop.length }} {% endfor %}", NULL,
     "14 34 54 74 ", false},
    {"{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}"
     "{% endif %}{{ i }}{% endfor %}",
     NULL, "013", false},
    {"{% for i in [1, 2] %}{% for j in 'ab' %}{{ loop.index }}{{ i }}{{ j }} {% endfor %}"
     "{{ loop.index }}{% endfor %}",
     NULL, "11a 21b 112a 22b 2", false},
    {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", NULL, "21",
     false},
    {"{% for i in [1, 2] %}{{ y }}{% set y = i %}{% endfor %}|", NULL, "|", false},
    {"{% if 1 %}{% set x = 2 %}{% endif %}{{ x }}", NULL, "2", false},
    {"{% set a, b = 1, 2 %}{{ b }}{{ a }}{% set (c, d) = [3, 4] %}{{ c }}{{ d }}", NULL, "2134",
     false},
    {"{% set x %}a{{ 1 }}{% endset %}[{{ x }}]", NULL, "[a1]", false},
    {"{% set x | upper | trim %} a {% endset %}[{{ x }}]", NULL, "[A]", false},
    {"{% set ns = namespace(a=1, b=2) %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}"
     "{{ ns.a }}{{ ns.b }}{{ ns.c }}",
     NULL, "42", false},
    {"{% macro m(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}"
     "{{ m() }}",
     NULL, "1-2;1-3;5-4;-2;", false},
    {"{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", NULL,
     "3210", false},
    {"{% macro m(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) m('a') %}{{ y }}!{% endcall %}",
     NULL, "<a!>", false},
    {"{% filter upper | replace('A', 'b') %}a{{ 'c' }}{% endfilter %}", NULL, "bC", false},
    {"{% raw %}{{ x }}{% if %}{% endraw %}|", NULL, "{{ x }}{% if %}|", false},
    {"a{%- raw -%} b {%- endraw -%} c", NULL, "abc", false},
    {"{% generation %}{{ 1 }}{% endgeneration %}", NULL, "1", false},
    {"{% set l = [1] %}{% do l.append(2) %}{{ l }}{% set _ = l.pop(0) %}{{ l }}", NULL, "[1, 2][2]",
     false},
    {"{# comment {{ x }} #}a{#- b -#} c", NULL, "ac", false},
    {"{% for i in [1, 2] %}a", NULL, "line 1: a block has no {% endfor %}", true},
    {"{% if x %}a\n{% endfor %}", NULL, "line 2: unknown statement {% endfor %}", true},
    {"\n{% include 'x' %}", NULL, "line 2: unknown statement {% include %}", true},
    {"{% break %}", NULL, "'break' outside of a loop", true},
    {"{% for a, b in [[1]] %}{% endfor %}", NULL, "1 values for 2 names", true},
    {"{% for i in 3 %}{% endfor %}", NULL, "'int' object is not iterable", true},
    {"{% set x.y = 1 %}", "{\"x\": {}}", "only of a namespace", true},
    {"{% macro m() %}{% endmacro %}{{ m(1) }}", NULL, "does not take these arguments", true},
    {"{{ 1", NULL, "a tag {{ does not end", true},
    {"{{ 'a }}", NULL, "does not end", true},
    {"{# a", NULL, "a comment {# does not end", true},
    {"{{ 1 $ 2 }}", NULL, "unexpected character '$'", true},
    {"{{ 1 2 }}", NULL, "unexpected '2'", true},
    {"{{ }}", NULL, "unexpected '}}' where a value should be", true},
    {"{% raw %}a", NULL, "no {% endraw %}", true},
};

static const struct template_case white_space[] = {
    {"a\n", NULL, "a", false},
    {"a\n\n", NULL, "a\n", false},
    {"a\r\nb\rc", NULL, "a\nb\nc", false},
    {"a  {%- if 1 -%}  b  {%- endif -%}  c", NULL, "abc", false},
    {"a {{- 1 -}} b", NULL, "a1b", false},
    {"{% if 1 %}\na\n{% endif %}\nb", NULL, "a\nb", false},
    {"  {% if 1 %}\n  a\n  {% endif %}\nb", NULL, "  a\nb", false},
    {"x  {% if 1 %}a{% endif %}  \n", NULL, "x  a  ", false},
    {"  {%+ if 1 %}a{% endif +%}\nb", NULL, "  a\nb", false},
    {"  {{ 1 }}\n{{ 2 }}\n", NULL, "  1\n2", false},
    {"  {# c #}\na", NULL, "a", false},
    {"a\n\n  {%- set x = 1 %}\n\nb", NULL, "a\nb", false},
    {"{% if 1 %}\n    {% if 1 %}\nq\n    {% endif %}\n{% endif %}", NULL, "q\n", false},
};

static const struct template_case filters[] = {
    {"[{{ ' a ' | trim }}] {{ 'xaxx' | trim('x') }}", NULL, "[a] a", false},
    {"{{ 'aé' | upper }} {{ 'AÉ' | lower }} {{ 'ab cd' | title }} {{ 'aB' | capitalize }}", NULL,
     "AÉ aé Ab Cd Ab", false},
    {"{{ [1, 2] | length }} {{ {'a': 1} | count }} {{ x | length }}", NULL, "2 1 0", false},
    {"{{ [1, 'a', none] | join(', ') }} {{ [1, 2] | join }} {{ x | join(',', attribute='a') }}",
     "{\"x\": [{\"a\": 1}, {\"a\": 2}]}", "1, a, None 12 1,2", false},
    {"{{ x | default('d') }} {{ '' | default('d') }}|{{ '' | d('e', true) }} {{ none | d(1) }}",
     NULL, "d |e None", false},
    {"{{ [1, 2] | first }} {{ [1, 2] | last }} {{ [] | first }}|", NULL, "1 2 |", false},
    {"{{ 'aaa' | replace('a', 'b') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'ab' | replace('', "
     "'-') }}",
     NULL, "bbb bba -a-b-", false},
    {"{{ x | tojson }}", "{\"x\": {\"a\": [1, 2.5, null, true], \"b\": \"é<'\\\"\\n\\u0001/\"}}",
     "{\"a\": [1, 2.5, null, true], \"b\": \"é<'\\\"\\n\\u0001/\"}", false},
    {"{{ x | tojson(indent=2) }}", "{\"x\": {\"a\": [1, {}], \"b\": []}}",
     "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}", false},
    {"{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", NULL,
     "{\"a\":2,\"b\":1}", false},
    {"{{ 'é😀' | tojson(ensure_ascii=true) }}", NULL, "\"\\u00e9\\ud83d\\ude00\"", false},
    {"{{ x | tojson }}", NULL, "'x' is undefined and cannot be written as JSON", true},
    {"{{ '12' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ 3.9 | int }} {{ '3.9' | int }}", NULL,
     "12 0 5 3 3", false},
    {"{{ '1.5' | float }} {{ 2 | float }} {{ 'x' | float }}", NULL, "1.5 2.0 0.0", false},
    {"{{ 1 | string + 'a' }} {{ [1] | string }} {{ 'ab' | list }} {{ {'k': 1} | list }}", NULL,
     "1a [1] ['a', 'b'] ['k']", false},
    {"{{ x | map(attribute='a.b') | list }} {{ ['a'] | map('upper') | join }}",
     "{\"x\": [{\"a\": {\"b\": 1}}]}", "[1] A", false},
    {"{{ x | map(attribute='a', default=0) | list }}", "{\"x\": [{}, {\"a\": 1}]}", "[0, 1]",
     false},
    {"{{ range(6) | select('odd') | list }} {{ [0, 1] | select | list }} "
     "{{ range(6) | reject('divisibleby', 3) | list }}",
     NULL, "[1, 3, 5] [1] [1, 2, 4, 5]", false},
    {"{{ x | selectattr('r', 'equalto', 'u') | map(attribute='c') | list }} "
     "{{ x | rejectattr('r', '==', 'u') | list | length }} {{ x | selectattr('z') | list }}",
     "{\"x\": [{\"r\": \"u\", \"c\": 1}, {\"r\": \"a\", \"c\": 2}]}", "[1] 1 []", false},
    {"{{ [1, 2] | reverse | list }} {{ 'ab' | reverse }}", NULL, "[2, 1] ba", false},
    {"{{ [3, 1, 2] | sort }} {{ ['b', 'A'] | sort }} {{ [1, 2] | sort(reverse=true) }} "
     "{{ ['b', 'A', 'a'] | sort(case_sensitive=true) }}",
     NULL, "[1, 2, 3] ['A', 'b'] [2, 1] ['A', 'a', 'b']", false},
    {"{{ x | sort(attribute='n') | map(attribute='n') | list }}",
     "{\"x\": [{\"n\": 2}, {\"n\": 1}]}", "[1, 2]", false},
    {"{{ [1, 2, 1] | unique | list }} {{ ['a', 'A'] | unique | list }}", NULL, "[1, 2] ['a']",
     false},
    {"{% for k, v in x | items %}{{ k }}{{ v }}{% endfor %} {{ x | dictsort }}",
     "{\"x\": {\"b\": 1, \"a\": 2}}", "b1a2 [('a', 2), ('b', 1)]", false},
    {"{{ 'a\\nb\\n\\nc' | indent(2) }}|{{ 'a\\nb' | indent(1, true) }}", NULL,
     "a\n  b\n\n  c| a\n b", false},
    {"{{ -1.5 | abs }} {{ 2.5 | round }} {{ 1.234 | round(2) }} {{ 1.2 | round(method='ceil') }}",
     NULL, "1.5 2.0 1.23 2.0", false},
    {"{{ [1, 2] | sum }} {{ [1, 2] | min }} {{ [1, 2] | max }} {{ x | sum(attribute='a') }}",
     "{\"x\": [{\"a\": 1.5}]}", "3 1 2 1.5", false},
    {"{{ '<a&\"' | e }} {{ '<' | safe }} {{ '%s-%s' | format(1, 'b') }}", NULL,
     "&lt;a&amp;&#34; < 1-b", false},
    {"{{ 1 | frobnicate }}", NULL, "unknown filter 'frobnicate'", true},
    {"{% if 0 %}{{ 1 | frobnicate }}{% endif %}ok", NULL, "ok", false},
    {"{{ [1] | map('frob') }}", NULL, "unknown filter 'frob'", true},
    {"{{ 'a' | trim(zap=1) }}", NULL, "filter 'trim' has no parameter 'zap'", true},
    {"{{ 'a' | replace('a') }}", NULL, "needs its argument 'new'", true},
    {"{{ 'a' | upper(1) }}", NULL, "takes at most 0 arguments", true},
    {"{{ 1 | first }}", NULL, "'int' object is not iterable", true},
};

static const struct template_case tests[] = {
    {"{{ x is defined }} {{ x is undefined }} {{ x is not defined }}", NULL, "False True True",
     false},
    {"{{ none is none }} {{ 'a' is string }} {{ 1 is number }} {{ 1 is integer }} "
     "{{ true is integer }} {{ 1.0 is float }}",
     NULL, "True True True True False True", false},
    {"{{ true is boolean }} {{ true is true }} {{ 1 is true }} {{ false is false }}", NULL,
     "True True False True", false},
    {"{{ {} is mapping }} {{ [] is sequence }} {{ 'a' is iterable }} {{ 1 is iterable }} "
     "{{ range is callable }}",
     NULL, "True True True False True", false},
    {"{{ 2 is even }} {{ 2 is odd }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }}", NULL,
     "True False True False", false},
    {"{{ 1 is eq 1 }} {{ 1 is equalto 2 }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 2 is ge(2) }} "
     "{{ 1 is in [1] }}",
     NULL, "True False True True True True", false},
    {"{{ 1 if x is defined else 2 }} {{ x is defined and y }}", NULL, "2 False", false},
    {"{{ 1 is frob }}", NULL, "unknown test 'frob'", true},
};

static const struct template_case methods[] = {
    {"[{{ ' a '.strip() }}{{ ' a '.lstrip() }}{{ ' a '.rstrip() }}{{ 'xyax'.strip('xy') }}]", NULL,
     "[aa  aa]", false},
    {"{{ 'a,b,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ ' a  b '.split() }} "
     "{{ 'a b c'.split(none, 1) }}",
     NULL, "['a', 'b', 'c'] ['a', 'b,c'] ['a', 'b'] ['a', 'b c']", false},
    {"{{ 'a,b,c'.rsplit(',', 1) }} {{ ''.split(',') }} {{ ''.split() }}", NULL,
     "['a,b', 'c'] [''] []", false},
    {"{{ 'a</t>b'.split('</t>')[-1] }} {{ 'a\\nb\\r\\nc\\n'.splitlines() }}", NULL,
     "b ['a', 'b', 'c']", false},
    {"{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('x') }} {{ 'abc'.startswith(('x', 'a')) }}",
     NULL, "True False True", false},
    {"{{ 'a'.upper() }} {{ 'A'.lower() }} {{ 'a b'.title() }} {{ 'ab'.capitalize() }}", NULL,
     "A a A B Ab", false},
    {"{{ 'aba'.replace('a', 'x') }} {{ 'éb'.find('b') }} {{ 'a'.find('z') }} {{ 'aaa'.count('a') "
     "}}",
     NULL, "xbx 1 -1 3", false},
    {"{{ ', '.join(['a', 'b']) }} {{ '{} {x} {{}}'.format(1, x=2) }} {{ '12'.isdigit() }}", NULL,
     "a, b 1 2 {} True", false},
    {"{{ x.get('a') }} {{ x.get('b') }} {{ x.get('b', 3) }}", "{\"x\": {\"a\": 1}}", "1 None 3",
     false},
    {"{{ x.keys() | list }} {{ x.values() | list }} {{ x.items() | list }}", "{\"x\": {\"a\": 1}}",
     "['a'] [1] [('a', 1)]", false},
    {"{{ [1, 2].index(2) }} {{ [1, 1].count(1) }}", NULL, "1 2", false},
    {"{{ ','.join([1]) }}", NULL, "item 0 is 'int', not a string", true},
    {"{{ [].pop() }}", NULL, "pop() outside of a list", true},
    {"{{ 'a'.split('') }}", NULL, "empty separator", true},
};

static const struct template_case functions[] = {
    {"{{ range(3) | list }} {{ range(1, 4) | list }} {{ range(5, 0, -2) | list }}", NULL,
     "[0, 1, 2] [1, 2, 3] [5, 3, 1]", false},
    {"{{ dict(a=1, b='x') }} {{ dict({'a': 1}, b=2) }}", NULL,
     "{'a': 1, 'b': 'x'} {'a': 1, 'b': 2}", false},
    {"\n{{ raise_exception('Only user and assistant roles!') }}", NULL,
     "chat template, line 2: Only user and assistant roles!", true},
    {"{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}no{% endif %}", NULL, "no",
     false},
    {"{{ strftime_now('%d %b %Y') }}", "{\"now\": 86400}", "02 Jan 1970", false},
    {"{{ strftime_now('%Y') }}", NULL, "unknown function 'strftime_now'", true},
    {"{{ x }}", "{\"x\": \"{{ 1 }}{% if %}\"}", "{{ 1 }}{% if %}", false},
};

/* What chat templates of several families do, in templates of our own. */
static const struct template_case idioms[] = {
    {"{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content'] | trim -%}"
     "{%- set messages = messages[1:] -%}{%- endif -%}<{{ system }}>{{ messages | length }}",
     "{\"messages\": [{\"role\": \"system\", \"content\": \" s \"}, {\"role\": \"user\"}]}", "<s>1",
     false},
    {"{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
     "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}",
     "{\"messages\": [{\"role\": \"assistant\"}]}", "roles must alternate", true},
    {"{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
     "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% elif c['type'] == 'image' %}"
     "<image>{% endif %}{% endfor %}{% endif %};{% endfor %}",
     "{\"messages\": [{\"content\": \"a\"}, {\"content\": [{\"type\": \"text\", \"text\": \"b\"}, "
     "{\"type\": \"image\"}]}]}",
     "a;b<image>;", false},
    {"{% for t in tools %}{{ t.function | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}",
     "{\"tools\": [{\"function\": {\"name\": \"f\"}}, {\"function\": {\"name\": \"g\"}}]}",
     "{\"name\": \"f\"}, {\"name\": \"g\"}", false},
    {"{%- macro type(p) -%}{%- if p.type == 'array' -%}{{ type(p['items']) }}[]"
     "{%- elif p.enum -%}{{ p.enum | map('tojson') | join(' | ') }}{%- else -%}{{ p.type }}"
     "{%- endif -%}{%- endmacro -%}{% for n, p in params | dictsort %}{{ n }}: {{ type(p) }}\n"
     "{% endfor %}",
     "{\"params\": {\"b\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}}, "
     "\"a\": {\"enum\": [\"x\", \"y\"]}}}",
     "a: \"x\" | \"y\"\nb: string[]\n", false},
    {"{{ messages | selectattr('role', 'equalto', 'user') | list | last | attr }}",
     "{\"messages\": []}", "unknown filter 'attr'", true},
    {"{% set ns = namespace(found=false) %}{% for m in messages %}{% if 'tool_calls' in m and "
     "m.tool_calls is iterable and m.tool_calls | length == 1 %}{% set ns.found = true %}"
     "{% endif %}{% endfor %}{{ ns.found }}",
     "{\"messages\": [{\"tool_calls\": [1]}]}", "True", false},
    {"{{ '<think>' in c and c.split('</think>')[0].split('<think>')[-1].strip('\\n') }}",
     "{\"c\": \"<think>\\nwhy\\n</think>because\"}", "why", false},
};

static void check_case(const struct template_case *c)
{
    struct tsr_error error = {0};
    json_t *variables = json_loads(c->variables ? c->variables : "{}", 0, NULL);
    char *text;
    size_t len;
    assert_non_null(variables);
    int code = template_render(c->source, strlen(c->source), variables, &text, &len, &error);
    const char *got = code ? error.text : text;
    bool right = c->fails ? code == TSR_ETEMPLATE && !text && strstr(got, c->expected)
                          : code == TSR_OK && len == strlen(text) && !strcmp(got, c->expected);
    if (!right)
        fail_msg("template: %s\nexpected: %s\ngot:      %s", c->source, c->expected, got);
    free(text);
    json_decref(variables);
}

#define TABLE_TEST(table)                                                                          \
    static void test_##table(void **state)                                                         \
    {                                                                                              \
        for (size_t i = 0; i < sizeof table / sizeof *table; i++)                                  \
            check_case(&table[i]);                                                                 \
    }

TABLE_TEST(literals)
TABLE_TEST(operators)
TABLE_TEST(lookups)
TABLE_TEST(statements)
TABLE_TEST(white_space)
TABLE_TEST(filters)
TABLE_TEST(tests)
TABLE_TEST(methods)
TABLE_TEST(functions)
TABLE_TEST(idioms)

static const struct template_case hostile[] = {
    {"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", NULL,
     "uses more than 256 MiB", true},
    {"{% set s = 'ab' * 4000000 %}{% for i in range(99999) %}{{ 'zz' in s }}{% endfor %}", NULL,
     "does not come to an end", true},
    {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", NULL, "nested deeper", true},
    {"{% set l = [1] %}{% do l.append(l) %}{{ l }}", NULL, "nested deeper", true},
    {"{% set l = [1] %}{% do l.append(l) %}{{ l == l | list }}", NULL, "nested deeper", true},
    {"{{ 'aaaaaaaaaaaaaaaa' * 999999999 }}", NULL, "the text is longer than", true},
    {"{{ [0] * 999999999 }}", NULL, "memory", true},
    {"{{ range(100001) }}", NULL, "range() of more than", true},
    {"{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}"
     "{% set ns.s = ns.s + ns.s %}{% endfor %}",
     NULL, "MiB", true},
    {"{% set ns = namespace(l=[]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}"
     "{% endfor %}{{ ns.l | tojson | length }}",
     NULL, "chat template", true},
};

TABLE_TEST(hostile)

/* One construct repeated: each must end in a depth error, not in a stack overflow. */
static void test_deep_nesting(void **state)
{
    static const char *const openings[] = {
        "(", "[", "[{}, ", "-", "not ", "1+", "1 if 0 else ", "a.b[", "1 and ", "f("};
    enum { REPEATS = 50000 };
    json_t *variables = json_object();
    for (size_t i = 0; i < sizeof openings / sizeof *openings; i++) {
        struct tsr_error error = {0};
        size_t one = strlen(openings[i]), len = 3;
        char *source = malloc(REPEATS * one + 16), *text;
        assert_non_null(source);
        memcpy(source, "{{ ", 3);
        for (size_t j = 0; j < REPEATS; j++, len += one)
            memcpy(source + len, openings[i], one);
        memcpy(source + len, "1 }}", 4);
        assert_int_equal(template_render(source, len + 4, variables, &text, &len, &error),
                         TSR_ETEMPLATE);
        if (!strstr(error.text, "nested deeper"))
            fail_msg("%s: %s", openings[i], error.text);
        free(source);
    }
    json_decref(variables);
}

/* A rendering as transformers' apply_chat_template makes it. */
static void check_golden(const json_t *model, const json_t *golden, size_t number)
{
    json_t *variables = json_object();
    const char *const names[] = {"messages", "add_generation_prompt"};
    for (size_t i = 0; i < 2; i++)
        json_object_set(variables, names[i], json_object_get(golden, names[i]));
    json_object_set(variables, "bos_token", json_object_get(model, "bos_token"));
    json_object_set(variables, "eos_token", json_object_get(model, "eos_token"));
    json_t *more = json_object_get(golden, "variables");
    if (more)
        json_object_update(variables, more);
    const char *source = json_string_value(json_object_get(model, "template"));
    const char *expected = json_string_value(json_object_get(golden, "rendered"));
    struct tsr_error error = {0};
    char *text;
    size_t len;
    assert_non_null(source);
    assert_non_null(expected);
    if (template_render(source, strlen(source), variables, &text, &len, &error))
        fail_msg("case %zu: %s", number, error.text);
    assert_string_equal(text, expected);
    free(text);
    json_decref(variables);
}

static void check_goldens(const char *path, size_t at_least)
{
    size_t size, i;
    char *bytes = read_file(path, &size);
    json_t *all = json_loadb(bytes, size, 0, NULL), *golden;
    assert_non_null(all);
    const json_t *models = json_object_get(all, "templates");
    const json_t *cases = json_object_get(all, "cases");
    assert_true(json_array_size(cases) >= at_least);
    json_array_foreach(cases, i, golden)
    {
        const char *name = json_string_value(json_object_get(golden, "template"));
        check_golden(json_object_get(models, name), golden, i);
    }
    json_decref(all);
    free(bytes);
}

static void test_qwen3_goldens(void **state)
{
    check_goldens(source_path("tests/data/templates/qwen3.json"), 13);
}

static void test_all_goldens(void **state)
{
    const char *path = shared_path("fixtures/templates/templates.json");
    if (!path)
        skip();
    check_goldens(path, 41);
}

int main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(test_literals),      cmocka_unit_test(test_operators),
        cmocka_unit_test(test_lookups),       cmocka_unit_test(test_statements),
        cmocka_unit_test(test_white_space),   cmocka_unit_test(test_filters),
        cmocka_unit_test(test_tests),         cmocka_unit_test(test_methods),
        cmocka_unit_test(test_functions),     cmocka_unit_test(test_idioms),
        cmocka_unit_test(test_hostile),       cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_qwen3_goldens), cmocka_unit_test(test_all_goldens),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
