"""The policies that come with authmilter: `monitor`, `enforce` and `strict`, as package data."""

from __future__ import annotations

from importlib import resources

from authmilter.errors import Complaint, PolicyError, Span
from authmilter.policy.notes import near, shown

__all__ = ["NAMES", "is_path", "shipped_tests", "shipped_text"]

#: The words that may stand for a policy.
NAMES = ("monitor", "enforce", "strict")


def is_path(setting: str) -> bool:
    """Return whether a `policy` setting names a file (it has a `/` or ends in .yaml or .yml), not a shipped policy."""
    return "/" in setting or setting.endswith((".yaml", ".yml"))


def shipped_text(name: str) -> str:
    """Return the text of the shipped policy `name`.

    Raises:
        PolicyError: there is none of that name.
    """
    return _text(name, f"{name}.yaml")


def shipped_tests(name: str) -> str:
    """Return the text of the tests of the shipped policy `name`.

    Raises:
        PolicyError: there is none of that name.
    """
    return _text(name, f"{name}.test.yaml")


def _text(name: str, file: str) -> str:
    if name not in NAMES:
        hint = near(name, NAMES) + " A path has a `/` or ends in `.yaml`."
        message = f"there is no policy {shown(name)}"
        raise PolicyError((Complaint(span=Span(file="policy"), message=message, hint=hint),))
    return resources.files("authmilter").joinpath("shipped", file).read_text("utf-8")
