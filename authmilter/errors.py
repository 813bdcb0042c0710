"""The short exception tree.

Three kinds of trouble never mix. *Facts about the mail* (a bad signature, no record, a DNS timeout) are
values: a status and a problem. *Operational* trouble (a wrong configuration, an unreadable key) is an
`AuthMilterError`, raised at start-up or at a door. Anything else is a *bug*, caught only where the
engine guards a method and at each door's outermost line.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AuthMilterError",
    "Complaint",
    "ConfigError",
    "DecodeError",
    "InvalidName",
    "KeyMaterialError",
    "PolicyError",
    "Span",
    "StoreError",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A place in a text file: `file`, and `line` and `column` counted from 1 (0 where unknown)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One mistake in a text file: where it is, what it is, and a `hint` at the cure (or an empty string)."""

    span: Span
    message: str
    hint: str = ""

    def __str__(self) -> str:
        tail = f" ({self.hint})" if self.hint else ""
        return f"{self.span}: {self.message}{tail}"


class AuthMilterError(Exception):
    """Operational trouble: something an administrator can put right."""


class _ComplaintsError(AuthMilterError):
    """An error that lists every mistake of a file at once; `complaints` is never empty."""

    def __init__(self, complaints: tuple[Complaint, ...]) -> None:
        super().__init__("\n".join(str(c) for c in complaints))
        self.complaints = complaints


class ConfigError(_ComplaintsError):
    """The configuration cannot be used."""


class PolicyError(_ComplaintsError):
    """A policy cannot be used."""


class DecodeError(AuthMilterError):
    """A request at a door (command line, gRPC) is not a mail in our model."""


class KeyMaterialError(AuthMilterError):
    """A private key cannot be used: unreadable, of a wrong kind, too short, or open to others.

    The message is our own words; it never holds any of the key.
    """


class StoreError(AuthMilterError):
    """What we keep in a file (the state of keys) cannot be read or written, or does not allow the step asked for.

    Args:
        message: why, in our words.
        span: the place in the file, if there is one; it stands before the message.
    """

    def __init__(self, message: str, *, span: Span | None = None) -> None:
        super().__init__(message if span is None else f"{span}: {message}")
        self.message = message
        self.span = span


class InvalidName(ValueError):  # noqa: N818 - named for the fact it states, as the values it rejects are
    """A text is not the name it should be (domain, address); the message says why."""
