"""The mailboxes of a From field: RFC 5322 §3.4 with its obsolete forms (§4.4), groups and UTF-8 (RFC 6854, RFC 6532).

What: groups, nested comments, quoted strings, quoted pairs, source routes, comments and white space around every
dot. An encoded word is an atom like any other: nothing is decoded, so that no address hides in one.

Promise: an answer or a complaint, never a guess. Text that the grammar does not allow is not repaired; text that
readers are known to read differently (control characters, octets that are not UTF-8) is refused even where the
grammar would let it pass. Linear time, and bounded by the constants below.

Fails: never. A complaint is our own words, without a stranger's.
"""

from __future__ import annotations

from dataclasses import dataclass

from authmilter import grammar
from authmilter.errors import InvalidName
from authmilter.makers import maker
from authmilter.names import Address, Domain, is_local_part

__all__ = ["MAX_COMMENT_DEPTH", "MAX_MAILBOXES", "MAX_VALUE_OCTETS", "Mailboxes", "read_mailboxes"]

#: The longest field value that is read. A hundred authors with their names fit three times.
MAX_VALUE_OCTETS = 32 * 1024

#: The most mailboxes that are read from one field.
MAX_MAILBOXES = 100

#: How deep comments may nest; nobody writes more than two.
MAX_COMMENT_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Mailboxes:
    """The mailboxes of a field value in order, and `complaint`: why the value is not well-formed, or empty.

    With a complaint, `addresses` are those that were read before the place it is about was met.
    """

    addresses: tuple[Address, ...] = ()
    complaint: str = ""


_make_address = maker(Address)
_make_mailboxes = maker(Mailboxes)


def read_mailboxes(value: bytes) -> Mailboxes:
    """Read a From field's value (all after the colon, folds included). Total."""
    if len(value) > MAX_VALUE_OCTETS:
        return Mailboxes((), "the field is too long")
    simple = grammar.SIMPLE_FROM.fullmatch(value)
    if simple is not None:
        # (the last group is a domain, whichever form it is)
        last = simple.lastindex or 0
        local, domain = simple.group(last - 1, last)
        parsed = Domain.maybe(domain.decode("ascii"))
        if parsed is not None:
            return _make_mailboxes((_make_address(local.decode("ascii"), parsed),))
    return _read_by_grammar(value)


class _Unreadable(Exception):  # noqa: N818 - how the parser below leaves the grammar, not an error of the program
    """The text is not what RFC 5322 §3.4 allows; the message says why, in our words."""


def _read_by_grammar(value: bytes) -> Mailboxes:
    """Read any value; `read_mailboxes` answers the same, sooner."""
    addresses: list[Address] = []
    try:
        _address_list(_Reader(_text_of(value)), addresses)
    except _Unreadable as e:
        return Mailboxes(tuple(addresses), str(e))
    return Mailboxes(tuple(addresses))


def _text_of(value: bytes) -> str:
    """Return the value unfolded and as text, or refuse octets that have no business in it."""
    try:
        text = grammar.FOLD.sub(b"", value).decode("utf-8")  # RFC 5322 §2.2.3; RFC 6532 §3.2
    except UnicodeDecodeError:
        raise _Unreadable("an octet is not part of UTF-8") from None
    if grammar.CONTROL.search(text):
        raise _Unreadable("a control character")
    return text


#: The kind of what stands after the last token.
_END = "end"


class _Reader:
    """One token at a time: `kind` is `atom`, `quoted`, `literal`, `end` or the special character itself.

    Comments and white space (CFWS, RFC 5322 §3.2.2) are passed over: between tokens they mean nothing.
    """

    __slots__ = ("_at", "_source", "kind", "text")

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self.kind = ""
        self.text = ""
        self.step()

    def step(self) -> None:
        """Go to the next token, or raise `_Unreadable` where none begins."""
        while self._at < len(self._source):
            token = grammar.ADDRESS_TOKEN.match(self._source, self._at)
            if token is None:
                raise _Unreadable(
                    "a character that cannot stand there, or quotes or brackets that do not close"
                )
            self._at = token.end()
            self.text = token.group()
            kind = token.lastgroup or ""
            if kind == "space":
                continue
            if self.text == "(":
                self._pass_comment()
                continue
            self.kind = self.text if kind == "special" else kind
            return
        self.kind = _END
        self.text = ""

    def _pass_comment(self) -> None:
        # RFC 5322 §3.2.2   comment = "(" *([FWS] ccontent) [FWS] ")" ; ccontent = ctext / quoted-pair / comment
        depth = 1
        while depth:
            edge = grammar.COMMENT_EDGE.search(self._source, self._at)
            if edge is None:
                raise _Unreadable("a comment does not close")
            self._at = edge.end()
            if edge.group() == "(":
                depth += 1
                if depth > MAX_COMMENT_DEPTH:
                    raise _Unreadable("comments nest too deep")
            elif edge.group() == ")":
                depth -= 1


def _address_list(reader: _Reader, found: list[Address]) -> None:
    """Read the whole text into `found`.

    RFC 6854 §2.1   from = "From:" (mailbox-list / address-list) CRLF
    RFC 5322 §3.4   address = mailbox / group ; mailbox = name-addr / addr-spec ;
                    group = display-name ":" [group-list] ";" [CFWS]
    RFC 5322 §4.4   obs-mbox-list, obs-addr-list, obs-group-list: elements may be empty
    """
    in_group = False
    while True:
        words = _words(reader)
        if reader.kind == ":":
            if in_group or not _is_phrase(words):
                raise _Unreadable("a colon outside a group's name")
            in_group = True
            reader.step()
            continue
        if reader.kind in {"<", "@"}:
            if len(found) == MAX_MAILBOXES:
                raise _Unreadable("too many mailboxes")
            found.append(_name_addr(words, reader) if reader.kind == "<" else _addr_spec(words, reader))
        elif words:
            raise _Unreadable("words without an address")
        if reader.kind == ";" and in_group:
            in_group = False
            reader.step()
        if reader.kind == ",":
            reader.step()
        elif reader.kind == _END and not in_group:
            return
        else:
            raise _Unreadable(
                "a group does not close" if reader.kind == _END else "no comma after an address"
            )


_Word = tuple[str, str]


def _words(reader: _Reader) -> list[_Word]:
    """Read atoms, quoted strings and dots: a phrase or a local part, which of the two is not known yet."""
    words: list[_Word] = []
    while reader.kind in {"atom", "quoted", "."}:
        words.append((reader.kind, reader.text))
        reader.step()
    return words


def _is_phrase(words: list[_Word]) -> bool:
    # RFC 5322 §4.1   obs-phrase = word *(word / "." / CFWS)
    return bool(words) and words[0][0] != "."


def _name_addr(words: list[_Word], reader: _Reader) -> Address:
    # RFC 5322 §3.4   name-addr = [display-name] angle-addr ; angle-addr = [CFWS] "<" addr-spec ">" [CFWS]
    if words and not _is_phrase(words):
        raise _Unreadable("a display name begins with a dot")
    reader.step()
    if reader.kind in {"@", ","}:
        _pass_route(reader)
    address = _addr_spec(_words(reader), reader)
    if reader.kind != ">":
        raise _Unreadable("no closing angle bracket after an address")
    reader.step()
    return address


def _pass_route(reader: _Reader) -> None:
    # RFC 5322 §4.4   obs-route = obs-domain-list ":"
    #                 obs-domain-list = *(CFWS / ",") "@" domain *("," [CFWS] ["@" domain])
    # "obs-route SHOULD be ignored": the mailbox after it is the address.
    domains = 0
    while True:
        commas = _pass_commas(reader)
        if reader.kind != "@" or (domains and not commas):
            break
        reader.step()
        if reader.kind == "literal":
            reader.step()
        elif not _dotted(reader):
            raise _Unreadable("an ill-formed source route")
        domains += 1
    if not domains or reader.kind != ":":
        raise _Unreadable("an ill-formed source route")
    reader.step()


def _pass_commas(reader: _Reader) -> bool:
    any_seen = reader.kind == ","
    while reader.kind == ",":
        reader.step()
    return any_seen


def _addr_spec(words: list[_Word], reader: _Reader) -> Address:
    # RFC 5322 §3.4.1   addr-spec = local-part "@" domain
    local = _local_part(words)
    if reader.kind != "@":
        raise _Unreadable("no @ in an address")
    reader.step()
    if reader.kind == "literal":
        # No domain, hence no Author Domain (RFC 9989 §5.3.1), although the grammar allows it.
        raise _Unreadable("an address literal in place of a domain")
    try:
        return Address(local, Domain.parse(_dotted(reader)))
    except InvalidName as e:
        raise _Unreadable(str(e)) from None


def _local_part(words: list[_Word]) -> str:
    # RFC 5322 §4.4   obs-local-part = word *("." word): two dots in a row, or one at an end, are no local part
    if len(words) % 2 == 0 or any((kind == ".") != (i % 2 == 1) for i, (kind, _) in enumerate(words)):
        raise _Unreadable("an ill-formed local part")
    local = "".join(
        grammar.QUOTED_PAIR.sub(r"\1", text[1:-1]) if kind == "quoted" else text for kind, text in words
    )
    if not is_local_part(local):
        raise _Unreadable("a character in a local part does not show")
    return local


def _dotted(reader: _Reader) -> str:
    """Read a domain's text: RFC 5322 §4.4   obs-domain = atom *("." atom), and one dot at its end.

    That last dot is not of the grammar; RFC 9989 §5.3.1 has it taken off before domains are compared. Dots in a wrong
    place are left for `Domain.parse` to refuse; two atoms without a dot between are not one domain and end it.
    """
    parts: list[str] = []
    before = "."
    while reader.kind in {"atom", "."} and (reader.kind, before) != ("atom", "atom"):
        parts.append(reader.text)
        before = reader.kind
        reader.step()
    return "".join(parts)
