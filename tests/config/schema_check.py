"""As much of JSON Schema 2020-12 as our schemas use; a word it does not know is an error, not a pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["faults"]

_KINDS: dict[str, Callable[[object], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "null": lambda v: v is None,
}
_SAYS_NOTHING = frozenset({"$schema", "$defs", "title", "description", "default"})


def faults(
    value: object, schema: dict[str, Any], root: dict[str, Any] | None = None, at: str = ""
) -> list[str]:
    """Return what is wrong with `value` by `schema`, each with its place."""
    whole = schema if root is None else root
    found: list[str] = []
    for word, wanted in schema.items():
        if word in _SAYS_NOTHING:
            continue
        if word == "$ref":
            found += faults(value, whole["$defs"][wanted.removeprefix("#/$defs/")], whole, at)
        elif word == "anyOf":
            if all(faults(value, option, whole, at) for option in wanted):
                found.append(f"{at}: {value!r} is none of what it may be")
        elif word == "type":
            if not _KINDS[wanted](value):
                found.append(f"{at}: {value!r} is no {wanted}")
        elif word == "enum":
            if value not in wanted:
                found.append(f"{at}: {value!r} is none of {wanted}")
        elif word == "properties":
            if isinstance(value, dict):
                for name in value.keys() & wanted.keys():
                    found += faults(value[name], wanted[name], whole, f"{at}.{name}")
        elif word == "additionalProperties":
            assert wanted is False
            if isinstance(value, dict):
                found += [f"{at}: unknown {name}" for name in value.keys() - schema["properties"].keys()]
        elif word == "required":
            if isinstance(value, dict):
                found += [f"{at}: {name} is missing" for name in wanted if name not in value]
        elif word == "items":
            if isinstance(value, list):
                for position, item in enumerate(value):
                    found += faults(item, wanted, whole, f"{at}[{position}]")
        elif word in {"minimum", "maximum"}:
            if isinstance(value, int | float) and (value < wanted if word == "minimum" else value > wanted):
                found.append(f"{at}: {value} is beyond its {word} {wanted}")
        elif word == "minItems":
            if isinstance(value, list) and len(value) < wanted:
                found.append(f"{at}: too few entries")
        elif word == "pattern":
            if isinstance(value, str) and not re.search(wanted, value):
                found.append(f"{at}: {value!r} does not fit {wanted}")
        else:
            raise AssertionError(f"the schema says `{word}`, which this checker does not know")
    return found
