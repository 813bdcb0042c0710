r"""The one JSON form of a verdict: the log line, `authmilter verify --json` and the gRPC codec's test all show this.

It cannot drift from the results: one walker turns any of our frozen values into plain data by its declared fields, so
a field that is added appears by itself.

* names are the fields' names, in snake case; a private field (`_index`) is not shown;
* None is absent: the key is left out;
* a closed list's value is its word, the RFC's where there is one;
* names, addresses and IP addresses are text (domains as A-labels); times are ISO 8601;
* a logo is left out, its digest stays (`svg_sha256`); octets are text: UTF-8, with what is not as `\xNN`; so are lone surrogates;
* an edit and a tag carry `op`, the name of their kind (`insert_header`, `delete_header`, `subject_prefix`).

With a mail, `mail` holds its session, envelope, body facts, defects and authors; its header fields are left out: they
are the message, not facts about it.

How it fails: it does not, for values of these types; what is neither data nor one of ours is shown as its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, get_args

from authmilter.bimi.evidence import Indicator
from authmilter.mail import Mail
from authmilter.message import Message
from authmilter.names import Address, AddressLiteral, Domain, LocalPart, Malformed, NullPath
from authmilter.text import as_unicode
from authmilter.verdict import Edit, Tag, Verdict

__all__ = ["verdict_to_dict", "verdict_to_json"]

#: Kinds that are text in JSON, though they are values with fields or methods of their own.
_AS_TEXT = (Address, AddressLiteral, LocalPart, Malformed, NullPath, IPv4Address, IPv6Address)
#: Kinds of which a reader has to know which one it is.
_KINDS = (*get_args(Edit), *get_args(Tag))
#: Fields that are not shown, by the kind that has them.
_LEFT_OUT: dict[type, frozenset[str]] = {
    Message: frozenset({"headers"}),
    Indicator: frozenset({"svg"}),
}
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def verdict_to_dict(verdict: Verdict, mail: Mail | None = None) -> dict[str, object]:
    """Return a verdict, and where given the mail it is about, as data that `json` can write (see the module)."""
    out: dict[str, object] = {}
    _writer(Verdict)(verdict, out)
    if mail is not None:
        about: dict[str, object] = {}
        _writer(Mail)(mail, about)
        out["mail"] = about
    return out


def verdict_to_json(verdict: Verdict, mail: Mail | None = None) -> str:
    """Return `verdict_to_dict` as one line of US-ASCII JSON, without spaces."""
    return json.dumps(verdict_to_dict(verdict, mail), separators=(",", ":"))


def _plain(value: Any) -> object:
    """Return any value as data of JSON."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else as_unicode(value)
    if kind is bool or kind is int or kind is float:
        return value
    if kind is tuple or kind is list:
        return [_plain(v) for v in value]
    return None if value is None else _converter(kind)(value)


def _make_converter(kind: type) -> Callable[[object], object]:
    """Return the function that makes plain data of values of this kind."""
    if issubclass(kind, Enum):
        return _enum
    if kind is Domain:
        return _domain
    if issubclass(kind, bytes):
        return _octets
    if issubclass(kind, datetime):
        return _time
    if issubclass(kind, frozenset | set):
        return _set
    if is_dataclass(kind) and kind not in _AS_TEXT:
        return _dict_of(kind)
    return _other


# Annotated as what it is: a cached function's own type says nothing of types as arguments.
_converter: Callable[[type], Callable[[object], object]] = lru_cache(maxsize=256)(_make_converter)


@lru_cache(maxsize=256)
def _writer(kind: type) -> Callable[[object, dict[str, object]], None]:
    """Return the function that writes a value's fields into a dict."""
    left_out = _LEFT_OUT.get(kind, frozenset())
    names = tuple(f.name for f in fields(kind) if f.name[0] != "_" and f.name not in left_out)

    def write(value: object, out: dict[str, object]) -> None:
        for name in names:
            item = getattr(value, name)
            if item is not None:
                out[name] = _plain(item)

    return write


def _dict_of(kind: type) -> Callable[[object], object]:
    write = _writer(kind)
    op = _CAPITAL.sub("_", kind.__name__).lower() if kind in _KINDS else None

    def convert(value: object) -> dict[str, object]:
        out: dict[str, object] = {} if op is None else {"op": op}
        write(value, out)
        return out

    return convert


def _enum(value: object) -> object:
    assert isinstance(value, Enum)  # by kind
    return value.value


def _domain(value: object) -> object:
    assert isinstance(value, Domain)  # by kind
    return as_unicode(value.ascii)


def _octets(value: object) -> object:
    assert isinstance(value, bytes)  # by kind
    return value.decode("utf-8", "backslashreplace")


def _time(value: object) -> object:
    assert isinstance(value, datetime)  # by kind
    return value.isoformat()


def _set(value: object) -> object:
    assert isinstance(value, frozenset | set)  # by kind
    return sorted((_plain(v) for v in value), key=str)


def _other(value: object) -> object:
    return as_unicode(str(value))
