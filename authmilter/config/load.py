"""From `authmilter.yaml` to `Config`: every mistake at once, each with file, line and column.

The one place that decides which file is read: `--config`, else `/etc/authmilter/authmilter.yaml`, else none
(the defaults).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from authmilter import documents
from authmilter.config.model import Config
from authmilter.errors import Complaint, ConfigError, Span

__all__ = ["DEFAULT_PATH", "Loaded", "json_schema", "load", "parse", "read_text", "warnings"]

DEFAULT_PATH = Path("/etc/authmilter/authmilter.yaml")
_MAX_OCTETS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration and where it came from: `path` None means the defaults; relative paths start at `base`."""

    config: Config
    path: Path | None
    base: Path

    def resolve(self, name: str) -> Path:
        """Return the path that a setting names, relative to the configuration file."""
        return self.base / name


def load(path: str | Path | None = None) -> Loaded:
    """Read the configuration file (see the module's text for which one).

    Raises:
        ConfigError: the file cannot be read, or says something that cannot be; lists every mistake.
    """
    if path is None and not DEFAULT_PATH.exists():
        return Loaded(config=Config(), path=None, base=Path.cwd())
    file = Path(path) if path is not None else DEFAULT_PATH
    return Loaded(config=parse(read_text(file), str(file)), path=file, base=file.resolve().parent)


def read_text(file: Path) -> str:
    """Return the text of a small UTF-8 file; raise ConfigError in an administrator's words."""
    try:
        data = file.read_bytes()
    except OSError as e:
        raise ConfigError(
            (Complaint(span=Span(file=str(file)), message=f"cannot be read: {e.strerror}"),)
        ) from e
    if len(data) > _MAX_OCTETS:
        raise ConfigError((Complaint(span=Span(file=str(file)), message="is larger than 1 MiB"),))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data[: e.start].count(b"\n") + 1
        span = Span(file=str(file), line=line, column=1)
        raise ConfigError((Complaint(span=span, message="is not UTF-8 text"),)) from e


def parse(text: str, file: str) -> Config:
    """Read the text of a configuration file.

    Raises:
        ConfigError: with a complaint for every mistake.
    """
    document = documents.parse(text, file)
    data = document.data if document.data is not None else {}
    try:
        return Config.model_validate(data)
    except ValidationError as e:
        raise ConfigError(tuple(_complaint(document, data, error) for error in e.errors())) from None


def _complaint(document: documents.Document, data: object, error: Any) -> Complaint:
    loc = tuple(part for part in error["loc"] if isinstance(part, str | int))
    path = _existing(data, loc)
    kind = error["type"]
    where = ".".join(str(p) for p in loc) or "the file"
    if kind == "extra_forbidden":
        known = _keys_at(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "known: " + ", ".join(sorted(known))
        return Complaint(span=document.key_span(path), message=f"unknown setting `{where}`", hint=hint)
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    shown = f", not `{given}`" if isinstance(given, str | int | float | bool) else ""
    return Complaint(
        span=document.span(path), message=f"`{where}`: {message[:1].lower()}{message[1:]}{shown}"
    )


def _existing(data: object, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return as much of the error's path as stands in the document (pydantic adds steps of its own)."""
    path: list[str | int] = []
    node = data
    for part in loc:
        if (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        ):
            node = node[part]  # type: ignore[index]  # checked on the line above
            path.append(part)
        else:
            break
    return tuple(path)


def _keys_at(path: tuple[str | int, ...]) -> list[str]:
    """Return the names of the settings that may stand at `path`."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return []
        inner = field.annotation
        for candidate in (inner, *getattr(inner, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
                break
        else:
            return []
    return list(model.model_fields)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file (for editors: completion and checks while typing)."""
    schema = Config.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "authmilter.yaml"
    return schema


def warnings(config: Config) -> tuple[str, ...]:
    """Return what works but will surprise."""
    found: list[str] = []
    if config.grpc.listen:
        found.append("grpc.listen is set, but this version has no gRPC service yet: it is ignored")
    if config.milter.engine == "libmilter" and config.milter.body_cap is not None:
        found.append("milter.body_cap is ignored by `engine: libmilter`")
    return tuple(found)
