"""From `authmilter.yaml` to `Config`: every mistake at once, each with file, line and column.

The one place that decides which file is read: `--config`, else `/etc/authmilter/authmilter.yaml`, else none
(the defaults).

It loads pydantic, so no process that stays (supervisor, worker) imports it: those have a `Loaded` from a child, as
`config/checked.py` packs it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from authmilter import documents
from authmilter.config.loaded import Loaded, read_text
from authmilter.config.model import Config, GrpcConfig
from authmilter.errors import Complaint, ConfigError
from authmilter.milter.sockets import Family, ListenSpec

__all__ = ["DEFAULT_PATH", "Loaded", "json_schema", "load", "parse", "read_text", "warnings"]

DEFAULT_PATH = Path("/etc/authmilter/authmilter.yaml")
#: Mistakes that are listed.
_MAX_COMPLAINTS = 100
#: Characters of a wrong value or key that a complaint shows.
_SHOWN = 60
#: Names that a hint lists where none is near.
_MAX_LISTED = 20


def load(path: str | Path | None = None, *, read: Callable[[Path], str] = read_text) -> Loaded:
    """Read the configuration file (see the module's text for which one) with `read`.

    Raises:
        ConfigError: the file cannot be read, or says something that cannot be; lists every mistake.
    """
    file = Path(path) if path is not None else DEFAULT_PATH
    try:
        text = read(file)
    except ConfigError as e:
        if path is None and isinstance(e.__cause__, FileNotFoundError):
            return Loaded(config=Config(), path=None, base=Path.cwd(), read=read)
        raise
    return Loaded(config=parse(text, str(file)), path=file, base=file.resolve().parent, read=read)


def parse(text: str, file: str) -> Config:
    """Read the text of a configuration file.

    Raises:
        ConfigError: with a complaint for every mistake.
    """
    complaints: list[Complaint] = []
    document = documents.parse(text, file, mistakes=complaints)
    data = document.data if document.data is not None else {}
    errors = []
    try:
        config = Config.model_validate(data)
    except ValidationError as e:
        errors = e.errors(include_url=False)[:_MAX_COMPLAINTS]
    else:
        if not complaints:
            return config
    complaints += [_complaint(document, data, error) for error in errors]
    raise ConfigError(tuple(sorted(complaints, key=lambda c: (c.span.line, c.span.column))))


def _complaint(document: documents.Document, data: documents.Data, error: Any) -> Complaint:
    """Put one of pydantic's errors into words, with the place where it stands."""
    loc = tuple(part for part in error["loc"] if isinstance(part, str | int))
    if "at" in error.get("ctx", {}):
        loc = (*loc, error["ctx"]["at"])
    path = _existing(data, loc)
    where = _written(loc)
    if error["type"] == "extra_forbidden":
        return Complaint(
            span=document.key_span(path),
            message=f"unknown setting `{where}`",
            hint=_hint(loc[:-1], str(loc[-1])),
        )
    if error["type"] == "missing":
        section = _written(loc[:-1])
        return Complaint(span=document.span(path), message=f"`{section}`: the setting `{loc[-1]}` is missing")
    given = _at(data, path) if path == loc else error.get("input")
    message, hint = _in_words(error, given)
    return Complaint(
        span=document.span(path), message=f"`{where}`: {message}" if where else message, hint=hint
    )


_TYPES = {
    "model_type": "expected settings (`name: value`)",
    "model_attributes_type": "expected settings (`name: value`)",
    "dict_type": "expected settings (`name: value`)",
    "tuple_type": "expected a list",
    "string_type": "expected a text",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a whole number",
    "int_from_float": "expected a whole number",
    "too_short": "expected at least one entry",
}
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}
#: Errors that say it all: the value is long, or a secret.
_COMPLETE = frozenset({"grpc", "token", "unknowable"})
_QUOTED = re.compile(r"'([^']*)'")


def _in_words(error: Any, given: object) -> tuple[str, str]:
    """Return what is wrong, with the value that was given, and a hint or an empty string."""
    kind, context, hint = error["type"], error.get("ctx", {}), ""
    if kind in _COMPLETE:
        return str(error["msg"]), ""
    if kind in _TYPES:
        message = _TYPES[kind]
    elif kind in _LIMITS:
        bound, key = _LIMITS[kind]
        message = f"expected {bound} {context[key]}"
    elif kind == "literal_error":
        words = _QUOTED.findall(context["expected"])
        message = "expected " + " or ".join((", ".join(words[:-1]), words[-1]))
        if "path" in error["msg"]:
            message += ", or a path (with a `/` or ending in `.yaml`)"
        close = (
            difflib.get_close_matches(given.lower()[:_SHOWN], words, n=1) if isinstance(given, str) else []
        )
        hint = f"did you mean `{close[0]}`?" if close else ""
    else:
        text = str(error["msg"]).removeprefix("Value error, ")
        message = text[:1].lower() + text[1:] if text[1:2].islower() else text
    shown = _shown(given)
    if message.startswith("expected"):
        message += f", not {shown}"
    elif shown.strip("`") not in message:
        message += f": {shown}"
    return message, hint


def _shown(value: object) -> str:
    """Return a value as a complaint shows it: in one line, printable, short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, dict):
        return "settings"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, str | int | float):
        text = "".join(c if c.isprintable() else "?" for c in str(value)[: _SHOWN + 1])
        return f"`{text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}`"
    return "this"


def _written(loc: tuple[str | int, ...]) -> str:
    """Return a place in the settings as people write it: `trusted_hops[0].networks[1]`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return _shown(text)[1:-1] if text else ""


def _at(data: documents.Data, path: documents.Path) -> documents.Data:
    """Return the value at a path that leads there."""
    node = data
    for part in path:
        node = _below(node, part)
    return node


def _below(node: documents.Data, part: str | int) -> documents.Data:
    """Return one entry of a mapping or list.

    Raises:
        LookupError: there is none.
    """
    if isinstance(node, dict) and isinstance(part, str):
        return node[part]
    if isinstance(node, list) and isinstance(part, int):
        return node[part]
    raise LookupError(part)


def _existing(data: documents.Data, loc: tuple[str | int, ...]) -> documents.Path:
    """Return as much of the error's path as stands in the document (pydantic may add steps of its own)."""
    path: list[str | int] = []
    node = data
    for part in loc:
        try:
            node = _below(node, part)
        except LookupError:
            break
        path.append(part)
    return tuple(path)


def _hint(section: tuple[str | int, ...], name: str) -> str:
    """Return what a setting of an unknown name was probably meant to be."""
    name = name[:_SHOWN]
    model = _model_at(section)
    known = list(model.model_fields) if model is not None else []
    near = difflib.get_close_matches(name.lower(), known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    elsewhere = [full for last, full in _settings() if name.lower() in {last, full}]
    if elsewhere:
        outer, _, last = elsewhere[0].partition(".")
        return f"write `{last}:` in the section `{outer}:`"
    return "known: " + ", ".join(sorted(known)) if 0 < len(known) <= _MAX_LISTED else ""


def _settings() -> Iterator[tuple[str, str]]:
    """Yield the last name and the full name of every setting within a section."""
    for section, field in Config.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            for name in inner.model_fields:
                yield name, f"{section}.{name}"


def _model_at(path: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model of the section at `path`."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        inner = field.annotation if field is not None else None
        for candidate in (inner, *getattr(inner, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
                break
        else:
            return None
    return model


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file (for editors: completion and checks while typing)."""
    schema = Config.model_json_schema(mode="validation")
    defaults = Config().as_document()
    for name, entry in schema["properties"].items():
        reference = entry.get("$ref")
        if reference is None:
            continue
        section = schema["$defs"][reference.rpartition("/")[2]]
        for setting, inner in section["properties"].items():
            inner["default"] = defaults[name][setting]  # as one writes it: "0660", not 432
        entry.clear()
        # An empty section is its defaults.
        entry.update(description=section["description"], anyOf=[{"$ref": reference}, {"type": "null"}])
    for part in (schema, *schema["$defs"].values()):
        for entry in part["properties"].values():
            entry.pop("title", None)  # the name again, in capitals
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "authmilter.yaml"}


def warnings(config: Config) -> tuple[str, ...]:
    """Return what works but will surprise."""
    found: list[str] = []
    milter = config.milter
    found += _grpc_warnings(config.grpc)
    if milter.engine == "libmilter" and milter.body_cap is not None:
        found.append("milter.body_cap is ignored by `engine: libmilter`")
    if milter.engine == "libmilter" and milter.workers is not None:
        found.append("milter.workers is ignored by `engine: libmilter`: it has one process for each listener")
    specs = [ListenSpec.parse(text) for text in milter.listen]
    if milter.socket_mode & 0o002 and any(spec.family is Family.UNIX for spec in specs):
        found.append("milter.socket_mode lets everybody on this machine speak to the milter's socket")
    found += [
        f"milter.listen: {spec} takes connections from other machines, and a milter asks nobody who he is"
        for spec in specs
        if spec.family is not Family.UNIX and not _is_private(spec.host)
    ]
    found += [
        f"internal.networks: {text} is everybody: no mail will be judged"
        for text in config.internal.networks
        if ip_network(text).prefixlen == 0
    ]
    if config.bimi.enabled and not config.bimi.trust_roots:
        found.append(
            "bimi.enabled without bimi.trust_roots: no mark certificate holds, and a record that names one has no logo"
        )
    if config.limits.checks > config.limits.message:
        found.append("limits.checks is longer than limits.message, which ends everything")
    return tuple(found)


def _grpc_warnings(grpc: GrpcConfig) -> list[str]:
    if not grpc.listen:
        return []
    found = [
        f"grpc.identities: everybody on this machine may {' and '.join(powers)} as `{identity.name}`: give it tokens instead of the peers `loopback`"
        for identity in grpc.identities
        if "loopback" in identity.peers and (powers := [p for p in identity.permissions if p != "verify"])
    ]
    if grpc.socket_mode & 0o002 and any(text.startswith("unix:") for text in grpc.listen):
        found.append("grpc.socket_mode lets everybody on this machine speak to the gRPC socket")
    if grpc.plaintext_on_public_addresses != "no" and not grpc.certificate:
        found.append("grpc.plaintext_on_public_addresses: mail and tokens can be read on the way")
    return found


def _is_private(host: str) -> bool:
    """True of an address that only this machine or a network of our own can reach; of a name nobody knows."""
    try:
        address = ip_address(host)
    except ValueError:
        return True
    return address.is_private and not address.is_unspecified
