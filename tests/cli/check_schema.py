"""Checks JSON values against a schema: the part of JSON Schema (draft 7) that docs/*.schema.json use.

    check_schema.py SCHEMA FILE...

A keyword that is not known here is an error, so that no rule goes unchecked.
"""
import json
import sys

TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
}
NOTES = {"$schema", "title", "description"}


def check_object(value, schema):
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield "." + name, "is missing"
    for name, item in value.items():
        if name in properties:
            for path, problem in check(item, properties[name]):
                yield "." + name + path, problem
        elif schema.get("additionalProperties") is False:
            yield "." + name, "is not in the schema"


def check_array(value, schema):
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield "", f"has {len(value)} items"
    for i, item in enumerate(value):
        for path, problem in check(item, schema.get("items", {})):
            yield f"[{i}]{path}", problem


def check(value, schema):
    known = NOTES | {"type", "enum", "minimum", "minLength", "properties", "required",
                     "additionalProperties", "items", "minItems", "maxItems"}
    for keyword in set(schema) - known:
        yield "", f"the schema's keyword {keyword} is not known to this check"
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(TYPES[name](value) for name in types):
        yield "", f"{value!r} is not of type {types}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield "", f"{value!r} is none of {schema['enum']}"
    if "minimum" in schema and TYPES["integer"](value) and value < schema["minimum"]:
        yield "", f"{value} is below {schema['minimum']}"
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield "", "is too short"
    if isinstance(value, dict):
        yield from check_object(value, schema)
    if isinstance(value, list):
        yield from check_array(value, schema)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        schema = json.load(file)
    failed = False
    for name in sys.argv[2:]:
        with open(name, encoding="utf-8") as file:
            value = json.load(file)
        for path, problem in check(value, schema):
            print(f"{name}: {path or 'the whole'}: {problem}")
            failed = True
    return failed or len(sys.argv) < 3


if __name__ == "__main__":
    sys.exit(main())
