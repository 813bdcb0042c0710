"""The settings that pydantic has checked, for processes that do without it.

The supervisor and the workers stay, and use the settings; to read them is the work of a moment, done in a child
(`supervise/reading.py`). What it read travels as one text, and becomes a tree of the same names and values:
pydantic, its compiled part and the models would be 10 MB in the supervisor, of 100 MB for the whole service.

`pack` is total for what the models allow: texts, numbers, true, false, None, tuples and sections. `unpack` reads what
`pack` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from authmilter.config.loaded import Loaded
from authmilter.config.texts import reader

if TYPE_CHECKING:
    from authmilter.config.model import Config

__all__ = ["checked", "note", "pack", "unpack"]

#: Where the settings stand among the texts of files: a name that no file has.
_SETTINGS = ""


class Section:
    """A section of settings: the names and values of its model, without the model. Not to be changed."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse."""
        raise AttributeError(f"{name}: settings are not changed")

    def __eq__(self, other: object) -> bool:
        """Compare by the values."""
        return isinstance(other, Section) and vars(self) == vars(other)

    def __hash__(self) -> int:
        """Hash by the values, all of which can be."""
        return hash(tuple(sorted(vars(self).items(), key=lambda item: item[0])))

    def __repr__(self) -> str:
        """Show the names only: values may be secrets."""
        return f"Section({', '.join(vars(self))})"


def pack(config: Config) -> str:
    """Return settings, read by pydantic or unpacked, as a text: the same for the same settings."""
    return json.dumps(_plain(config), sort_keys=True)


def unpack(text: str) -> Config:
    """Return the settings that `pack` wrote, with the attributes of `Config` and none of its methods."""
    return cast("Config", json.loads(text, object_hook=_section))


def note(texts: dict[str, str], loaded: Loaded) -> None:
    """Put the settings among the texts of the files they name."""
    path = str(loaded.path) if loaded.path is not None else None
    texts[_SETTINGS] = json.dumps({"path": path, "base": str(loaded.base), "settings": pack(loaded.config)})


def checked(texts: Mapping[str, str]) -> Loaded:
    """Return the configuration that `note` put among the texts; it reads no files but these."""
    noted = json.loads(texts[_SETTINGS])
    return Loaded(
        config=unpack(noted["settings"]),
        path=Path(noted["path"]) if noted["path"] is not None else None,
        base=Path(noted["base"]),
        read=reader(texts),
    )


def _plain(value: Any) -> object:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return {name: _plain(each) for name, each in vars(value).items()}


def _section(values: dict[str, Any]) -> Section:
    return Section({n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})
