"""Makers of values: a frozen dataclass is made as by its class, in an eighth of the time, where a compiler was.

A message makes some thirty values. Python sets each field of a frozen one by a call, behind a dictionary of the keyword
arguments, which was a tenth of a message's time; `_makers.c` puts the values where the class's slots are. What comes
of it is the same object of the same class, as frozen as before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, cast

__all__ = ["COMPILED", "maker"]

T = TypeVar("T")

_made: Callable[[type, tuple[str, ...], dict[str, Any]], Any] | None = None
# the same variable as for octets/chosen.py
if not os.environ.get("AUTHMILTER_PURE"):
    try:
        from authmilter._makers import Maker
    except ImportError:  # it is optional: no compiler when this was installed
        pass
    else:
        _made = Maker

#: Whether the compiled ones are in use.
COMPILED = _made is not None


def maker(kind: type[T]) -> type[T]:
    """Return what is called as the class `kind` is, and returns what it does.

    Args:
        kind: a dataclass with slots of its own, without `__post_init__`, and with plain defaults.

    Raises:
        TypeError: it is none.
    """
    # dataclasses.fields takes any type; what is none is refused there
    known = fields(cast("Any", kind))
    if hasattr(kind, "__post_init__") or any(field.default_factory is not MISSING for field in known):
        raise TypeError(f"{kind.__name__} does something when it is made")
    if not all(field.name in kind.__dict__.get("__slots__", ()) for field in known):
        raise TypeError(f"{kind.__name__} has no slots of its own for all its fields")
    if _made is None:
        return kind
    defaults = {field.name: field.default for field in known if field.default is not MISSING}
    return cast("type[T]", _made(kind, tuple([field.name for field in known]), defaults))
