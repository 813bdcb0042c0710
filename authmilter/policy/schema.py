"""The JSON Schema of a policy file, so that editors complete facts, words and actions while one types.

It is made of the same tables that the loader reads. It is looser than the loader: whether a pattern is a domain, an
id is unique or a code goes with its enhanced code, only the loader says.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from authmilter.policy.conditions import OPERATORS, list_operators
from authmilter.policy.exceptions import EXCEPTION_KEYS, PROOFS
from authmilter.policy.facts import SCHEMA, Fact, Kind
from authmilter.policy.loader import ACTION_KEYS, DEFAULT_KEYS, POLICY_KEYS, RULE_KEYS
from authmilter.policy.rules import ActionKind, Mode, OnMixed, QuarantineBy
from authmilter.verdict import OverrideReason

__all__ = ["json_schema"]

_Schema = dict[str, Any]

_TEXT: _Schema = {"type": "string", "minLength": 1}
_CONDITION: _Schema = {"$ref": "#/$defs/condition"}


def json_schema() -> _Schema:
    """Return the schema (JSON Schema 2020-12) as plain data."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "authmilter policy",
        "type": "object",
        "required": ["default"],
        "additionalProperties": False,
        "properties": {key: _POLICY[key] for key in POLICY_KEYS},
        "$defs": {"condition": _condition(), "action": _action(), "tag": _tag(), "rule": _rule()},
    }


def _words(kind: type[StrEnum]) -> _Schema:
    return {"enum": [str(member) for member in kind]}


def _one_or_more(schema: _Schema) -> list[_Schema]:
    return [schema, {"type": "array", "items": schema, "minItems": 1}]


def _object(properties: _Schema, **more: object) -> _Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}


_EXCEPTION_PARTS: _Schema = {
    "author": _TEXT,
    "forwarder": _TEXT,
    "proven_by": {"anyOf": _one_or_more({"enum": list(PROOFS)})},
    "owner": {**_TEXT, "maxLength": 200},
    "reason": {**_TEXT, "maxLength": 200},
    "expires": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
}
_EXCEPTION: _Schema = _object(
    {key: _EXCEPTION_PARTS[key] for key in EXCEPTION_KEYS},
    required=[key for key in EXCEPTION_KEYS if key != "proven_by"],
)

_POLICY: _Schema = {
    "version": {"const": 1},
    "name": _TEXT,
    "description": {"type": "string"},
    "mode": _words(Mode),
    "on_mixed": _words(OnMixed),
    "quarantine_by": _words(QuarantineBy),
    "would_have_header": _TEXT,
    "lists": {
        "type": "object",
        "additionalProperties": {
            "anyOf": [{"type": "array", "items": _TEXT}, _object({"file": _TEXT}, required=["file"])]
        },
    },
    "exceptions": {"type": ["array", "null"], "items": _EXCEPTION},
    "rules": {"type": ["array", "null"], "items": {"$ref": "#/$defs/rule"}},
    "default": {
        "anyOf": [
            {"$ref": "#/$defs/action"},
            _object(
                {
                    key: {
                        "then": {"$ref": "#/$defs/action"},
                        "tag": {"$ref": "#/$defs/tag"},
                        "because": _TEXT,
                    }[key]
                    for key in DEFAULT_KEYS
                },
                required=["then"],
            ),
        ]
    },
}


def _rule() -> _Schema:
    parts: _Schema = {
        "id": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$", "maxLength": 64},
        "when": {"anyOf": [{"const": "always"}, _CONDITION]},
        "then": {"$ref": "#/$defs/action"},
        "tag": {"$ref": "#/$defs/tag"},
        "override": _words(OverrideReason),
        "because": {"type": "string", "minLength": 1, "maxLength": 300},
        "mode": _words(Mode),
    }
    return _object({key: parts[key] for key in RULE_KEYS}, required=["id", "when", "then"])


def _action() -> _Schema:
    options: _Schema = {
        "code": {"type": "integer", "minimum": 400, "maximum": 559},
        "enhanced": {"type": "string", "pattern": "^[45]\\.[0-9]{1,3}\\.[0-9]{1,3}$"},
        "text": _TEXT,
        "by": _words(QuarantineBy),
        "header": _TEXT,
        "value": _TEXT,
    }
    forms: list[_Schema] = [_words(ActionKind)]
    for kind in ActionKind:
        inner = _object({key: options[key] for key in ACTION_KEYS[kind]})
        forms.append(_object({str(kind): {"anyOf": [inner, {"type": "null"}]}}, required=[str(kind)]))
    return {"anyOf": forms}


def _tag() -> _Schema:
    header = _object({"name": _TEXT, "value": _TEXT}, required=["name", "value"])
    tag = _object({"header": header, "subject_prefix": {**_TEXT, "maxLength": 60}}, minProperties=1)
    return {"anyOf": [tag, {"type": "array", "items": tag}]}


def _condition() -> _Schema:
    properties: _Schema = {name: {"description": f.doc, "anyOf": _wanted(f)} for name, f in SCHEMA.items()}
    several = {"type": "array", "items": _CONDITION, "minItems": 1}
    properties |= {"all": several, "any": several, "not": _CONDITION}
    return _object(properties, minProperties=1)


def _wanted(fact: Fact) -> list[_Schema]:
    """Return the forms of what may be wanted of a fact."""
    if not fact.many:
        return _single(fact)
    single: _Schema = {"anyOf": _single(fact)}
    parts: _Schema = {
        "any": single,
        "all": single,
        "none": single,
        "in_list": _TEXT,
        "at_or_below": {"anyOf": _one_or_more(_TEXT)},
        "count": {"anyOf": _single(SCHEMA["rcpt.count"])},
        "present": {"type": "boolean"},
    }
    forms = _one_or_more(_value(fact))
    return [*forms, _object({op: parts[op] for op in list_operators(fact)}, minProperties=1)]


def _single(fact: Fact) -> list[_Schema]:
    value = _value(fact)
    parts: _Schema = {
        "not": {"anyOf": _one_or_more(value)},
        "present": {"type": "boolean"},
        "in_list": _TEXT,
        "not_in_list": _TEXT,
        "at_or_below": {"anyOf": _one_or_more(_TEXT)},
        **{op: {"type": "integer"} for op in ("above", "at_least", "below", "at_most")},
    }
    forms = [value] if fact.kind is Kind.BOOL else _one_or_more(value)
    return [*forms, _object({op: parts[op] for op in OPERATORS[fact.kind]}, minProperties=1)]


def _value(fact: Fact) -> _Schema:
    if fact.kind is Kind.WORD:
        return {"enum": list(fact.words)}
    return {"type": {Kind.BOOL: "boolean", Kind.INT: "integer"}.get(fact.kind, "string")}
