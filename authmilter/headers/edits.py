"""The changes a verdict makes to a header block: forged fields out, our fields in, tags, Subject, hold.

A plan is data; doors apply it in the order it is listed, each edit on the result of the one before it:

1. `DeleteHeader`, from the bottom of the message up, so that `nth`, counted by name as the message was received,
   is still right when its turn comes;
2. `ChangeHeader` of the Subject (no Subject is ever deleted, so its `nth` is right too);
3. `InsertHeader`, all `at=0`, the bottom-most first: inserting them one after another on top leaves, top down,
   Authentication-Results, Received-SPF, BIMI fields, the tags in the order the policy lists them;
4. `Quarantine`.

What is taken for forged (RFC 8601 §5): an Authentication-Results field that claims an authserv-id of ours (the
configured one, a sibling, the MTA's own name), whatever its case, quoting, comments, folds, version, dot at its end,
U-label or full-width spelling; one whose authserv-id cannot be read at all; one whose rest cannot be read and that
holds an id of ours anywhere; and any beyond the 64th. Ids are compared whole, never by their beginning. Others' fields
stay, ARC fields always.

By origin: `trusted_hop` keeps everything it brings back, and gets a field of ours only if something was checked;
`submission` and `internal` lose forged fields, our own tag names and BIMI fields; `internet` and `trusted_relay` also
lose what the settings list. A trusted relay's Authentication-Results with our id is removed too: the message
is judged again here, and the relay may have let a stranger's field through.

How it fails: it does not; `plan` is total.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from authmilter import grammar
from authmilter.bimi.result import BimiResult
from authmilter.evidence import Evidence
from authmilter.headers import bimi, foreign
from authmilter.headers.foreign import Unparsable
from authmilter.headers.results import authentication_results_text, received_spf
from authmilter.headers.settings import HeaderSettings, Removal
from authmilter.mail import Mail, Origin
from authmilter.makers import maker
from authmilter.message import DefectKind, Header
from authmilter.names import Domain
from authmilter.spf.result import SpfStatus
from authmilter.verdict import (
    ChangeHeader,
    Decision,
    DeleteHeader,
    Disposition,
    Edit,
    InsertHeader,
    Quarantine,
    SubjectPrefix,
    TagHeader,
)

__all__ = ["HeaderSettings", "OwnIds", "Plan", "applied", "claims_us", "own_ids", "plan", "with_prefix"]

_AUTHENTICATION_RESULTS = b"authentication-results"
_WSP = b" \t\r\n"
_NO_FTEXT = bytes(o for o in range(256) if not 33 <= o <= 126)  # RFC 5322 §3.6.8
# Members that are asked for in every message.
_TRUSTED_HOP = Origin.TRUSTED_HOP
_QUARANTINE = Disposition.QUARANTINE

#: The message does not go on, so nothing in it is changed.
_NOT_DELIVERED = frozenset({Disposition.REJECT, Disposition.TEMPFAIL, Disposition.DISCARD})
#: Where an SPF result is not worth a Received-SPF field of its own beside MAIL FROM's.
_NO_HELO = frozenset({SpfStatus.NONE, SpfStatus.INTERNAL_ERROR})

#: Characters of a text that are normalized as a whole: sorting combining marks takes the square of their number.
#: Longer texts are taken character by character, which misses composed letters only; no name is that long.
_MAX_COMPOSED = 300
#: Characters of a domain name, its dot at the end included (RFC 1035 §2.3.4).
_MAX_DOMAIN = 254

#: Authentication-Results fields that are looked into; further ones go unread (no honest message has so many).
_MAX_EXAMINED = 64

#: Columns of a header line (RFC 5322 §2.1.1), and the octets of a word at which it is cut.
_COLUMNS = 77
_MAX_WORD = 900
#: Octets of a tag's value that are written.
_MAX_TAG = 4000
#: Octets of a hold reason: Postfix logs it in one line.
_MAX_REASON = 200
#: Characters of a Subject's prefix: encoded, with a few `Re:` before it, it is found again in what is looked at.
_MAX_PREFIX = 60
#: Octets of a Subject that are looked at for a prefix; only its beginning counts.
_MAX_SUBJECT = 998


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The edits in the order they are to be applied, and our Authentication-Results value as it is (or, for a
    message that is not delivered, would have been) written; empty where there is none."""

    edits: tuple[Edit, ...]
    authentication_results: str


_make_insert = maker(InsertHeader)
_make_plan = maker(Plan)


def plan(mail: Mail, evidence: Evidence, decision: Decision, settings: HeaderSettings) -> Plan:
    """Return what is to be changed in the header block of `mail`. Total.

    Messages that are rejected, deferred or discarded are not changed.
    """
    # RFC 8601 §2.5: our name is the configured one, else the MTA's own.
    own_id = settings.authserv_id or _mta_name(mail)
    text = ""
    if mail.origin is not _TRUSTED_HOP or evidence != _NOTHING:
        text = authentication_results_text(own_id, evidence, mail, settings, decision.disposition)
    if decision.disposition in _NOT_DELIVERED:
        return _make_plan(edits=(), authentication_results=text)
    edits: list[Edit] = [*_deletions(mail, decision, settings, own_id)]
    inserts: list[InsertHeader] = []
    if text:
        inserts.append(_make_insert(at=0, name=b"Authentication-Results", value=text.encode()))
    if settings.received_spf:
        inserts.extend(_received_spf(mail, evidence, settings, own_id))
    if evidence.bimi is not None:
        inserts.extend(_bimi_fields(evidence.bimi, settings))
    if decision.tags:
        _tags(edits, inserts, mail, decision)
    edits += reversed(inserts)
    if decision.disposition is _QUARANTINE and decision.quarantine_reason:
        edits.append(Quarantine(reason=_printable(decision.quarantine_reason, _MAX_REASON)))
    return _make_plan(edits=tuple(edits), authentication_results=text)


def applied(headers: Iterable[Header], edits: Iterable[Edit]) -> list[tuple[bytes, bytes]]:
    """Return the names and values of a header block as the edits of a plan leave it (their order: see the module).

    A value that is written gets the space after its colon. Linear in the fields and edits.
    """
    fields: list[tuple[bytes, bytes] | None] = [(h.name, h.value) for h in headers]
    places: dict[bytes, list[int]] = {}
    for at, field in enumerate(fields):
        if field is not None:
            places.setdefault(field[0].rstrip(_WSP).lower(), []).append(at)
    inserted: list[tuple[bytes, bytes]] = []
    for edit in edits:
        if isinstance(edit, InsertHeader):
            inserted.append((edit.name, b" " + edit.value))
        elif isinstance(edit, DeleteHeader | ChangeHeader):
            # Deletions go from the bottom up, so that all are counted as the message was received.
            named = places.get(edit.name.lower(), [])
            if edit.nth <= len(named):
                at = named[edit.nth - 1]
                fields[at] = (edit.name, b" " + edit.value) if isinstance(edit, ChangeHeader) else None
    inserted.reverse()
    return [*inserted, *(field for field in fields if field is not None)]


_NOTHING = Evidence()


def _mta_name(mail: Mail) -> str:
    local = mail.session.local_name
    return local.ascii if local is not None else "localhost"


# -- what is removed ---------------------------------------------------------------------------------------------


def _deletions(
    mail: Mail, decision: Decision, settings: HeaderSettings, own_id: str
) -> Sequence[DeleteHeader]:
    """Return a DeleteHeader for each field that goes, bottom-most first."""
    origin, message = mail.origin, mail.message
    going = settings.removals[origin]
    if decision.tags:
        # A tag that is written now replaces those of its name that came in.
        going = going.also(
            *[t.name for t in decision.tags if isinstance(t, TagHeader) and _writable_name(t.name)]
        )
    # A name with an octet that no name may have: what a lenient reader makes of it goes by the same rule, unread.
    odd = bool(message.defects) and any(d.kind is DefectKind.FIELD_NAME for d in message.defects)
    index = message.by_name
    # Most mail has no field of a name that is removed, and few Authentication-Results, or none.
    if odd or going.may_cover_one_of(index.keys()):
        looked_at = message.headers
    elif "authentication-results" in index:
        looked_at = index["authentication-results"]
    else:
        return ()
    trusted = origin is _TRUSTED_HOP
    ids: OwnIds | None = None
    # Authentication-Results fields may stay, so they are counted; of the other names every field goes or none.
    counts: dict[bytes, int] = {}
    deletes: list[DeleteHeader] = []
    exact, prefixes = going.exact, going.prefixes
    for header in looked_at:
        name = header.name
        if name[-1:] in _WSP:
            name = name.rstrip(_WSP)  # RFC 5322 §4.5: obsolete syntax allows white space before the colon
        key = name.lower()
        if key == _AUTHENTICATION_RESULTS:
            nth = counts[key] = counts.get(key, 0) + 1
            if not trusted:
                ids = ids or own_ids(own_id, settings.siblings, mail.session.local_name)
                if nth > _MAX_EXAMINED or claims_us(header.value, ids):
                    deletes.append(DeleteHeader(name=name, nth=nth))
        elif ((key in exact or key.startswith(prefixes)) and going.covers(key)) or (
            odd and not trusted and _may_read_as(key, going)
        ):
            nth = counts[key] = counts.get(key, 0) + 1
            deletes.append(DeleteHeader(name=name, nth=nth))
    deletes.reverse()
    return deletes


def _may_read_as(key: bytes, going: Removal) -> bool:
    """True if a lenient reader may take a field of this ill-formed name for one that is removed."""
    bare = key.translate(None, _NO_FTEXT)
    return bare == _AUTHENTICATION_RESULTS or going.covers(bare)


@dataclass(frozen=True, slots=True)
class OwnIds:
    """The authserv-ids that are ours, in the form they are compared in, and the domains all names below are."""

    whole: frozenset[str]
    below: tuple[str, ...]
    #: what to look for in a field that cannot be read
    anywhere: tuple[str, ...]


@lru_cache(maxsize=64)
def own_ids(own_id: str, siblings: tuple[str, ...], local_name: Domain | None) -> OwnIds:
    """Return what is ours: `own_id`, the siblings (`*.NAME`: all names below it) and the MTA's own name."""
    names = [own_id, *siblings]
    if local_name is not None:
        names.append(local_name.ascii)
    whole: set[str] = set()
    below: set[str] = set()
    anywhere: set[str] = set()
    for name in names:
        bare = name.removeprefix("*.")
        if bare == name:
            whole |= _forms(bare)
        else:
            below |= {f".{form}" for form in _forms(bare)}
        anywhere |= _forms(bare)
        domain = Domain.maybe(bare)
        if domain is not None:
            anywhere.add(domain.unicode)
    return OwnIds(frozenset(whole), tuple(sorted(below)), tuple(sorted(anywhere)))


#: What no consumer may be trusted to see: white space, quoting, and characters that are not displayed.
_UNSEEN = re.compile(
    r"[\s\"\\\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]+"
)
#: The same among the octets of US-ASCII, which need no expression to be taken out.
_UNSEEN_OCTETS = bytes(octet for octet in range(128) if _UNSEEN.fullmatch(chr(octet)))
#: RFC 3490 §3.1: characters that IDNA 2003 takes for a dot
_DOTS = re.compile("[\u3002\uff0e\uff61]")


def _plain(text: str) -> str:
    """Return text as the most generous reader might compare it: no white space, quoting or hidden characters, all
    dots dots, compatibility forms (full-width letters) and case folded."""
    if not text.isascii():
        text = _DOTS.sub(".", text)
        if len(text) <= _MAX_COMPOSED:
            text = unicodedata.normalize("NFKC", text).casefold()
        else:
            text = "".join(unicodedata.normalize("NFKC", c) for c in text).casefold()
    return _UNSEEN.sub("", text).lower()


def _forms(authserv_id: str) -> frozenset[str]:
    """As `_worked_out_forms`; the same few hosts' fields come again and again."""
    return _kept_forms(authserv_id) if len(authserv_id) <= _MAX_DOMAIN else _worked_out_forms(authserv_id)


def _worked_out_forms(authserv_id: str) -> frozenset[str]:
    """Return the spellings an id is compared by: folded, and as A-labels (RFC 8601 §5 after RFC 5890)."""
    plain = _plain(authserv_id).strip(".")
    forms = {plain}
    # Folding turns some letters into others that IDNA 2008 keeps apart (sharp s): both readings count.
    for text in (plain,) if plain == authserv_id else (plain, authserv_id):
        domain = Domain.maybe(text) if len(text) <= _MAX_DOMAIN else None
        if domain is not None:
            forms.add(domain.ascii)
    return frozenset(forms)


_kept_forms = lru_cache(maxsize=512)(_worked_out_forms)


def claims_us(value: bytes, ids: OwnIds) -> bool:
    """True if an Authentication-Results field with this `value` has to go (RFC 8601 §5; see the module's text)."""
    found = foreign.authserv_id_of(value)
    if isinstance(found, Unparsable):
        return True
    forms = _forms(found)
    if not ids.whole.isdisjoint(forms) or any(f.endswith(ids.below) for f in forms):
        return True
    if value.isascii():
        everything = value.translate(None, _UNSEEN_OCTETS).lower().decode("ascii")
    elif len(value) <= foreign.MAX_VALUE:
        everything = _plain(value.decode("utf-8", "replace"))
    else:
        # It is faulty by its length; folding it would cost too much.
        everything = _UNSEEN.sub("", value.decode("utf-8", "replace").lower())
    return any(i in everything for i in ids.anywhere) and foreign.fault_of(value) is not None


# -- what is written ---------------------------------------------------------------------------------------------


def _received_spf(
    mail: Mail, evidence: Evidence, settings: HeaderSettings, own_id: str
) -> Iterable[InsertHeader]:
    """RFC 7208 §9.1: one field for each identity, MAIL FROM's on top."""
    receiver = settings.receiver or own_id
    helo = evidence.spf_helo
    for result in (evidence.spf, helo if helo is not None and helo.status not in _NO_HELO else None):
        value = received_spf(result, mail, settings, receiver) if result is not None else None
        if value is not None:
            yield _make_insert(at=0, name=b"Received-SPF", value=value)


def _bimi_fields(result: BimiResult, settings: HeaderSettings) -> Iterable[InsertHeader]:
    """BIMI draft -12 §7.9 to §7.11: what a mail reader shows a logo by, on a pass only."""
    for name, value in (
        (b"BIMI-Location", bimi.location(result)),
        (b"BIMI-Indicator", bimi.indicator(result, settings)),
        (b"BIMI-Logo-Preference", bimi.preference(result)),
    ):
        if value is not None:
            yield _make_insert(at=0, name=name, value=value)


def _tags(edits: list[Edit], inserts: list[InsertHeader], mail: Mail, decision: Decision) -> None:
    """Append the decision's tags: fields to `inserts` in their order, the Subject as one change or insert."""
    utf8 = mail.envelope.smtputf8
    subjects = mail.message.fields("subject")
    subject = subjects[0] if subjects else None
    value = subject.value if subject is not None else b""
    changed = False
    prefixes = tuple(t.prefix for t in decision.tags if isinstance(t, SubjectPrefix))
    # The first prefix listed is to stand first, so it is put in front last.
    for prefix in reversed(prefixes):
        prefixed = with_prefix(value, prefix, utf8=utf8, among=prefixes)
        if prefixed is not None:
            value, changed = prefixed, True
    for tag in decision.tags:
        if isinstance(tag, TagHeader) and _writable_name(tag.name):
            field = _unstructured(tag.name, tag.value, utf8)
            inserts.append(_make_insert(at=0, name=tag.name.encode("ascii"), value=field))
    if changed and subject is not None:
        edits.append(ChangeHeader(name=subject.name.rstrip(_WSP), nth=1, value=value))
    elif changed:
        inserts.append(_make_insert(at=0, name=b"Subject", value=value))


def _writable_name(name: str) -> bool:
    """A name that we write: no `*`, which stands for the rest of a name where names are removed."""
    if not name.isascii() or len(name) > _COLUMNS or "*" in name:
        return False
    return grammar.FIELD_NAME.fullmatch(name.encode("ascii")) is not None


def _printable(text: str, most: int) -> str:
    """Return text as one line of printable US-ASCII, other characters as `?`."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:most]).strip()


def _one_line(text: str) -> str:
    """Return text with everything that is not displayed as a space; runs of spaces are kept."""
    return (
        text.strip() if text.isprintable() else "".join([c if c.isprintable() else " " for c in text]).strip()
    )


def _unstructured(name: str, text: str, utf8: bool) -> bytes:  # noqa: FBT001 - two places, both by position
    """Return text as the value of an unstructured field (RFC 5322 §3.2.5), folded, no line over 998 octets.

    Non-ASCII text stands as UTF-8 in an internationalised message (RFC 6532 §3.2), else as encoded words (RFC 2047).
    """
    text = _one_line(text[:_MAX_TAG])
    if not text.isascii() and not utf8:
        return b"\r\n ".join(_encoded_words(text))
    room = _COLUMNS - len(name) - 2
    if len(text) <= room and text.isascii():
        return text.encode("ascii")
    lines: list[bytes] = []
    line = b""
    for word in text.split():
        for start in range(0, len(word), _MAX_WORD // 4):
            part = word[start : start + _MAX_WORD // 4].encode()  # at most 900 octets of UTF-8
            if line and len(line) + 1 + len(part) > room:
                lines.append(line)
                line, room = part, _COLUMNS - 1
            else:
                line = line + b" " + part if line else part
    lines.append(line)
    return b"\r\n ".join(lines)


def _encoded_words(text: str) -> list[bytes]:
    """RFC 2047 §2: base64 words of UTF-8, none over 75 octets and none breaking a character."""
    words: list[bytes] = []
    chunk = b""
    for char in text:
        octets = char.encode("utf-8", "replace")
        if len(chunk) + len(octets) > 45:
            words.append(b"=?utf-8?B?" + b64encode(chunk) + b"?=")
            chunk = b""
        chunk += octets
    words.append(b"=?utf-8?B?" + b64encode(chunk) + b"?=")
    return words


# -- the Subject ---------------------------------------------------------------------------------------------------

_UNFOLD = re.compile(rb"\r?\n(?=[ \t])")
# What a value that is written must not hold: controls but for tab, and CR or LF outside a fold
_UNWRITABLE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n[ \t])|(?<!\r)\n|\n(?![ \t])")
# `Re:`, `Fwd:`, `AW[2]:` before the prefix: the answer to a message that was tagged is not tagged twice.
_REPLY = re.compile(r"(?:[A-Za-z]{2,5}(?:\[[0-9]{1,3}\])?: *){0,8}")
# RFC 2047 §2 encoded-word (RFC 2231 §5 language), at most 75 octets
_ENCODED = re.compile(r"=\?([A-Za-z0-9_-]{1,20})(?:\*[A-Za-z0-9-]{1,20})?\?([QqBb])\?([!->@-~]{0,75})\?=")
_BETWEEN_ENCODED = re.compile(r"(?<=\?=)[ \t]+(?==\?)")
#: The charsets looked into; any other, which a mail client may not know, leaves the word as it stands.
_CHARSETS = frozenset({"utf-8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252"})


def with_prefix(
    value: bytes, prefix: str, *, utf8: bool = False, among: tuple[str, ...] = ()
) -> bytes | None:
    """Return a Subject's `value` with `prefix` before its text, or None if it is there already (or empty).

    The old text, encoded words and folds included, is kept byte for byte; only control characters and line ends that
    are no folds, which no field can carry, become spaces. The prefix counts as there if the text,
    unfolded and decoded, begins with it, `Re:` and the like and the prefixes `among` which it stands aside. A non-ASCII prefix is written as encoded words
    (RFC 2047) unless the message is an internationalised one (`utf8`); at most 60 characters of it are. No leading
    space; total.
    """
    prefix = _clean_prefix(prefix)
    if not prefix:
        return None
    old = _UNWRITABLE.sub(b" ", value).strip(_WSP)
    start = _UNFOLD.sub(b"", old[:_MAX_SUBJECT]).decode("utf-8", "replace")
    if start.startswith(prefix) or _begins(_decoded(start), prefix, tuple(map(_clean_prefix, among))):
        return None
    encoded_follows = old.startswith(b"=?")
    if prefix.isascii() or utf8:
        front = prefix.encode("utf-8", "replace")
    else:
        # RFC 2047 §6.2: the space between two encoded words is not displayed, so it goes into ours.
        front = b"\r\n ".join(_encoded_words(prefix + " " if encoded_follows else prefix))
    if not old:
        return front
    first_line = old.partition(b"\n")[0]
    last_line = front.rpartition(b"\n")[2]
    # RFC 5322 §2.1.1: 78 columns, `Subject: ` included
    fits = len(b"Subject: ") + len(last_line) + 1 + len(first_line) <= _COLUMNS
    return front + (b" " if fits else b"\r\n ") + old


def _clean_prefix(prefix: str) -> str:
    return _one_line(prefix)[:_MAX_PREFIX].rstrip()


def _begins(shown: str, prefix: str, among: tuple[str, ...]) -> bool:
    """True if a text begins with `prefix`, other prefixes and reply marks aside."""
    for _ in range(len(among) + 1):
        if shown.startswith(prefix):
            return True
        shown = _REPLY.sub("", shown, count=1)
        if shown.startswith(prefix):
            return True
        other = next((p for p in among if p and shown.startswith(p)), None)
        if other is None:
            return False
        shown = shown[len(other) :].lstrip()
    return False


def _decoded(text: str) -> str:
    """Return text with its encoded words decoded, for comparing only. Total."""
    if "=?" not in text:
        return text
    return _ENCODED.sub(_decode_word, _BETWEEN_ENCODED.sub("", text))


def _decode_word(match: re.Match[str]) -> str:
    charset, encoding, octets = match.groups()
    if charset.lower() not in _CHARSETS:
        return match.group()
    try:
        raw = binascii.a2b_base64(octets) if encoding in "Bb" else binascii.a2b_qp(octets, header=True)
    except ValueError:
        return match.group()
    return raw.decode(charset, "replace")
