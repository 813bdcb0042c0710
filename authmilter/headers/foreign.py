"""Reading Authentication-Results fields that others wrote (RFC 8601 §2.2); the room of the `authres` package.

Two readers with two purposes. `authserv_id_of` and `fault_of` are our own and decide what is stripped as forged
(§5): small, tolerant of comments, quoting, folding and case, and independent of the library. `read` gives all results
of a field that is trusted, and leaves that to authres, with what it does wrong taken off it (tests/rooms).

How they fail: never; what cannot be read is an `Unparsable` that says why. Work is bounded: 8 KiB of value, comments
five deep, 128 `=`; each pattern is linear.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from authres.core import AuthenticationResultsHeader

__all__ = [
    "MAX_DEPTH",
    "MAX_EQUALS",
    "MAX_VALUE",
    "ForeignProperty",
    "ForeignResult",
    "ForeignResults",
    "Unparsable",
    "authserv_id_of",
    "clauses_of",
    "fault_of",
    "read",
]

#: Octets of a value that are looked at.
MAX_VALUE = 8192
#: How deep comments may be nested.
MAX_DEPTH = 5
#: How many `=` a field that is read in full may hold; authres needs time that grows with their square.
MAX_EQUALS = 128


@dataclass(frozen=True, slots=True)
class Unparsable:
    """A field that does not say what it should; `why` is in our own words."""

    why: str


@dataclass(frozen=True, slots=True)
class ForeignProperty:
    """`ptype.name=value`, names in lower case, the value without its quoting."""

    ptype: str
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignResult:
    """One resinfo: `method` and `result` in lower case, `reason` or ``, and its properties in order."""

    method: str
    result: str
    reason: str = ""
    properties: tuple[ForeignProperty, ...] = ()

    def value(self, ptype: str, name: str) -> str | None:
        """Return the first value of a property, or None; a repeated property never replaces the first."""
        for p in self.properties:
            if p.ptype == ptype and p.name == name:
                return p.value
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignResults:
    """A whole field: who wrote it (as written, unquoted) and its results, none for `none`."""

    authserv_id: str
    results: tuple[ForeignResult, ...] = ()


class _Fault(Exception):  # noqa: N818 - it never leaves this file
    """The text is not what the grammar asks for."""


# RFC 5322 §3.2.2 FWS; libmilter hands folds as bare LF, so that is one too. A CR or LF not followed by white space is none.
_FWS = re.compile(rb"(?:[ \t]|\r?\n(?=[ \t]))+")
# RFC 5322 §3.2.2 ctext, and anything over 127 (RFC 6532 §3.2)
_CTEXT = re.compile(rb"[^()\\\x00-\x08\x0a-\x1f\x7f]+")
# RFC 5322 §3.2.1 quoted-pair
_ESCAPED = re.compile(rb"\\[\t -~\x80-\xff]")
# RFC 5322 §3.2.4 quoted-string: qtext, quoted-pair, FWS
_QUOTED = re.compile(rb'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~\x80-\xff]|\r?\n(?=[ \t]))*)"')
_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_PAIR_TEXT = re.compile(r"\\(.)", re.DOTALL)
_NEWLINES = re.compile(rb"[\r\n]+")
# RFC 2045 §5.1 token, and anything over 127
_TOKEN = re.compile(rb"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~\x80-\xff]+")
_VERSION = re.compile(rb"[0-9]+")
# Anything else that may stand in a clause: specials that end nothing
_OTHER = re.compile(rb'[^"()\\;=\x00-\x20\x7f]+')


def _after_comment(data: bytes, at: int) -> int:
    """Return where the comment that begins at `at` ends; nested comments are counted, not called."""
    depth = 0
    end = len(data)
    while at < end:
        byte = data[at]
        if byte == 0x28:  # (
            depth += 1
            if depth > MAX_DEPTH:
                raise _Fault("comments nested too deep")
            at += 1
        elif byte == 0x29:  # )
            depth -= 1
            at += 1
            if depth == 0:
                return at
        else:
            match = _CTEXT.match(data, at) or _FWS.match(data, at) or _ESCAPED.match(data, at)
            if match is None:
                raise _Fault("control character or line end in a comment")
            at = match.end()
    raise _Fault("comment without end")


def _after_cfws(data: bytes, at: int) -> int:
    """Return the first place at or after `at` that is neither white space nor comment (RFC 5322 §3.2.2)."""
    end = len(data)
    while at < end:
        byte = data[at]
        if byte == 0x28:
            at = _after_comment(data, at)
        elif byte in b" \t\r\n":
            match = _FWS.match(data, at)
            if match is None:
                raise _Fault("line end that is no fold")
            at = match.end()
        else:
            break
    return at


def _head(data: bytes) -> tuple[str, int]:
    """Read `authserv-id [CFWS version]` and return the id with the place of the `;` (or the end) after it."""
    at = _after_cfws(data, 0)
    if quoted := _QUOTED.match(data, at):
        raw = _PAIR.sub(rb"\1", _NEWLINES.sub(b"", quoted.group(1)))
        at = quoted.end()
    elif token := _TOKEN.match(data, at):
        raw = token.group()
        at = token.end()
    else:
        raise _Fault("no authserv-id")
    after = _after_cfws(data, at)
    # RFC 8601 §2.2: the version stands apart from the id; none is 1.
    if after > at and (version := _VERSION.match(data, after)):
        if version.group() != b"1":
            raise _Fault("unknown version")
        after = _after_cfws(data, version.end())
    if after < len(data) and data[after] != 0x3B:
        raise _Fault("something other than a version after the authserv-id")
    try:
        return raw.decode("utf-8"), after
    except UnicodeDecodeError:
        raise _Fault("authserv-id is not UTF-8") from None


def authserv_id_of(value: bytes) -> str | Unparsable:
    """Return the authserv-id of an Authentication-Results field's `value`, unquoted, case as written.

    Comments and folds (RFC 5322 §3.2.2), a quoted id and a version after it are understood (RFC 8601 §2.2). Only
    the first `MAX_VALUE` octets are looked at. Total.
    """
    try:
        return _head(value[:MAX_VALUE])[0]
    except _Fault as fault:
        return Unparsable(str(fault))


def fault_of(value: bytes) -> Unparsable | None:
    """Return why a field's `value` is not well formed, or None.

    Looked at is the outer form: clauses between `;` that are `none` or hold an `=`, comments and quoted strings that
    end, no control characters, no line end that is no fold, at most `MAX_VALUE` octets. Total.
    """
    try:
        _outer_form(value)
    except _Fault as fault:
        return Unparsable(str(fault))
    return None


def clauses_of(value: bytes) -> tuple[bytes, ...] | Unparsable:
    """Return what stands between the `;` of a field's `value`, as written, without what comes before the first.

    For fields of which single results are wanted although others cannot be read; a `;` in a comment or a quoted
    string ends nothing. Well formed as `fault_of` asks for, or `Unparsable`. Total.
    """
    try:
        at = _outer_form(value)
        found: list[bytes] = []
        begin = at + 1
        while at < len(value):
            byte = value[at]
            if byte == 0x3B:
                if at >= begin:
                    found.append(value[begin:at])
                begin = at = at + 1
            elif byte == 0x22:
                quoted = _QUOTED.match(value, at)
                at = quoted.end() if quoted is not None else at + 1
            elif byte in b"( \t\r\n":
                at = _after_cfws(value, at)
            else:
                at += 1
        found.append(value[begin:])
    except _Fault as fault:
        return Unparsable(str(fault))
    return tuple(found)


def _outer_form(value: bytes) -> int:
    """Check the outer form (see `fault_of`) and return the place of the first `;` or the end."""
    if len(value) > MAX_VALUE:
        raise _Fault("too long")
    head_end = at = _head(value)[1]
    end = len(value)
    equals = total = 0
    text = b""
    while at < end:
        byte = value[at]
        if byte == 0x3B:  # ;
            _check_clause(text, equals)
            equals, text = 0, b""
            at += 1
        elif byte == 0x3D:  # =
            equals += 1
            total += 1
            at += 1
        elif byte == 0x22:  # "
            quoted = _QUOTED.match(value, at)
            if quoted is None:
                raise _Fault("quoted string without end")
            text = b'"'
            at = quoted.end()
        elif byte in b"( \t\r\n":
            at = _after_cfws(value, at)
        else:
            other = _OTHER.match(value, at)
            if other is None:
                raise _Fault("stray character")
            # only `none` matters, and only where it stands alone
            text = b'"' if text else other.group()[:8]
            at = other.end()
    _check_clause(text, equals)
    if total > MAX_EQUALS:
        raise _Fault("too many results")
    return head_end


def _check_clause(text: bytes, equals: int) -> None:
    if not equals and text and text.lower() != b"none":
        raise _Fault("a clause that is no result")


class _Collector:
    """Stands where authres has its table of result classes, and keeps what was read as it was read."""

    def result(  # noqa: PLR0917 - the shape authres calls
        self,
        method: str,
        version: str | None,
        result: str,
        result_comment: object,  # noqa: ARG002 - as above
        reason: str | None,
        reason_comment: object,  # noqa: ARG002 - as above
        properties: list[Any],
    ) -> tuple[str, str | None, str, str, list[Any]]:
        """Return the parts of one resinfo."""
        return method.lower(), version, result.lower(), reason or "", properties


class _Reader(AuthenticationResultsHeader):  # type: ignore[misc]  # authres is typed nowhere
    """authres, with the reading of a quoted value put right."""

    def _parse_pvalue(self) -> str | None:
        """Read a pvalue (RFC 8601 §2.2).

        The library forgets a quoted value that another property follows, and leaves the backslashes in it.
        """
        self._parse_rfc5322_cfws()
        if not self._parse_text.startswith('"'):
            return super()._parse_pvalue()  # type: ignore[no-any-return]  # as above
        quoted: str = self._parse_rfc5322_quoted_string()
        if not self._parse_pattern("@"):
            return _PAIR_TEXT.sub(r"\1", quoted)
        domain = self._parse_rfc5322_dot_atom()
        return f'"{quoted}"@{domain}' if domain else None


def read(value: bytes) -> ForeignResults | Unparsable:
    """Read a whole Authentication-Results field that somebody we trust wrote.

    Args:
        value: the field's value as in the message, folds included.

    Returns:
        Its authserv-id and results, or why not. Results of a version other than 1 and properties of unknown types are
        left out (RFC 8601 §2.2, §2.3). Values with non-ASCII text are beyond the library: such a field is
        `Unparsable`. Total.
    """
    try:
        at = _outer_form(value)
        authserv_id = _head(value)[0]
    except _Fault as fault:
        return Unparsable(str(fault))
    # authres knows neither a quoted authserv-id nor a `;` at the end: it gets a plain id and no such `;`.
    clauses = _NEWLINES.sub(b"", value[at:]).rstrip(b"; \t").decode("ascii", "replace")
    if not clauses:
        return ForeignResults(authserv_id=authserv_id)
    reader = _Reader(_Collector())
    reader._parse_text = "x" + clauses  # noqa: SLF001 - its parse_value would make the stock class, not this one
    try:
        reader._parse()  # noqa: SLF001 - as above
    except Exception as e:  # noqa: BLE001 - authres raises its own SyntaxError, and whatever its recursion meets
        return Unparsable(f"authres: {type(e).__name__}")
    return ForeignResults(
        authserv_id=authserv_id,
        results=tuple(_result(r) for r in reader.results if isinstance(r, tuple) and r[1] in {None, "1"}),
    )


def _result(parts: tuple[str, str | None, str, str, list[Any]]) -> ForeignResult:
    method, _, result, reason, properties = parts
    return ForeignResult(
        method=method,
        result=result,
        reason=_PAIR_TEXT.sub(r"\1", reason),
        properties=tuple(_property(p) for p in properties),
    )


def _property(found: Any) -> ForeignProperty:
    return ForeignProperty(str(found.type), str(found.name), str(found.value))
