"""The JSON Schema takes what the loader takes, and refuses the plainest mistakes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from authmilter import documents
from authmilter.policy import loader, shipped
from authmilter.policy.facts import SCHEMA
from authmilter.policy.schema import json_schema

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def valid(schema: dict[str, Any], data: object, root: dict[str, Any]) -> bool:
    """A validator for the keywords that we use (JSON Schema 2020-12); an unknown keyword fails."""
    if "$ref" in schema:
        return valid(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], data, root)
    return all(_KEYWORDS[keyword](wanted, data, schema, root) for keyword, wanted in schema.items())


def _is(wanted: str, data: object) -> bool:
    return isinstance(data, _TYPES[wanted]) and (wanted != "integer" or not isinstance(data, bool))


def _properties(wanted: dict[str, Any], data: object, _schema: object, root: dict[str, Any]) -> bool:
    return not isinstance(data, dict) or all(
        valid(wanted[k], v, root) for k, v in data.items() if k in wanted
    )


def _additional(wanted: Any, data: object, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    if not isinstance(data, dict):
        return True
    rest = [v for k, v in data.items() if k not in schema.get("properties", {})]
    return not rest if wanted is False else all(valid(wanted, v, root) for v in rest)


_KEYWORDS: dict[str, Any] = {
    "$schema": lambda *_: True,
    "$defs": lambda *_: True,
    "title": lambda *_: True,
    "description": lambda *_: True,
    "type": lambda w, d, *_: any(_is(t, d) for t in ([w] if isinstance(w, str) else w)),
    "enum": lambda w, d, *_: any(d == e and type(d) is type(e) for e in w),
    "const": lambda w, d, *_: d == w and type(d) is type(w),
    "anyOf": lambda w, d, _s, root: any(valid(s, d, root) for s in w),
    "items": lambda w, d, _s, root: not isinstance(d, list) or all(valid(w, i, root) for i in d),
    "minItems": lambda w, d, *_: not isinstance(d, list) or len(d) >= w,
    "minProperties": lambda w, d, *_: not isinstance(d, dict) or len(d) >= w,
    "required": lambda w, d, *_: not isinstance(d, dict) or set(w) <= set(d),
    "properties": _properties,
    "additionalProperties": _additional,
    "pattern": lambda w, d, *_: not isinstance(d, str) or re.search(w, d) is not None,
    "minLength": lambda w, d, *_: not isinstance(d, str) or len(d) >= w,
    "maxLength": lambda w, d, *_: not isinstance(d, str) or len(d) <= w,
    "minimum": lambda w, d, *_: not isinstance(d, int) or d >= w,
    "maximum": lambda w, d, *_: not isinstance(d, int) or d <= w,
}


def accepts(text: str) -> bool:
    schema = json_schema()
    return valid(schema, documents.parse(text, "p.yaml").data, schema)


@pytest.mark.parametrize("name", shipped.NAMES)
def test_the_shipped_policies_fit(name: str) -> None:
    assert accepts(shipped.shipped_text(name))


GOOD = """\
version: 1
name: mine
description: any text
mode: monitor
on_mixed: most-severe
quarantine_by: header
would_have_header: X-Would
lists: {a: [192.0.2.1], b: {file: b.txt}}
rules:
  - id: r
    mode: enforce
    because: so
    override: other
    tag: [{header: {name: X-A, value: b}}, {subject_prefix: "[x] "}]
    when:
      any: [{tls: true}, {not: {client.ip: {in_list: a}}}]
      spf.status: {not: [pass, none]}
      rcpt.count: {above: 1, at_most: 5}
      dkim.pass_domains: {any: {at_or_below: x.example}, none: [y.example], count: {below: 3}}
      dkim.problems: {present: false}
      mail_from.domain: ["*.x.example"]
    then: {tempfail: {code: 421, enhanced: 4.7.1, text: no}}
  - {id: s, when: always, then: {quarantine: {by: header, header: X-Q, value: q}}}
  - {id: t, when: {message.size: 5}, then: {discard: ~}}
default: {then: accept, because: x, tag: {subject_prefix: y}}
"""


def test_all_that_the_language_has_fits() -> None:
    assert loader.load(GOOD, "p.yaml", read_list=lambda _: "").name == "mine"
    assert accepts(GOOD)
    assert accepts("default: reject")


@pytest.mark.parametrize(
    "text",
    [
        "rules: []",
        "default: refuse",
        "default: accept\nmode: on",
        "default: accept\nrulse: []",
        "default: accept\nrules: [{id: a, when: {spf.status: passs}, then: accept}]",
        "default: accept\nrules: [{id: a, when: {spf.statsu: pass}, then: accept}]",
        "default: accept\nrules: [{id: a, when: {}, then: accept}]",
        "default: accept\nrules: [{id: a, when: {tls: yes}, then: accept}]",
        "default: accept\nrules: [{id: a, when: {rcpt.count: {above: many}}, then: accept}]",
        "default: accept\nrules: [{id: a, when: {dkim.statuses: {in_list: x}}, then: accept}]",
        "default: accept\nrules: [{id: A, when: always, then: accept}]",
        "default: accept\nrules: [{when: always, then: accept}]",
        "default: accept\nrules: [{id: a, when: always}]",
        "default: accept\nrules: [{id: a, when: always, then: {reject: {code: 250}}}]",
        "default: accept\nrules: [{id: a, when: always, then: {reject: {enhanced: '5.7'}}}]",
        "default: accept\nrules: [{id: a, when: always, then: {reject: ~, discard: ~}}]",
        "default: accept\nrules: [{id: a, when: always, then: {accept: {code: 550}}}]",
        "default: accept\nrules: [{id: a, when: always, then: accept, tag: {}}]",
        "default: accept\nlists: {a: 1}",
    ],
)
def test_plain_mistakes_do_not_fit(text: str) -> None:
    assert not accepts(text)


def test_the_schema_is_plain_data_and_describes_every_fact() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    described = schema["$defs"]["condition"]["properties"]
    assert [n for n in described if n not in {"any", "all", "not"}] == list(SCHEMA)
    assert described["spf.status"]["description"] == SCHEMA["spf.status"].doc
