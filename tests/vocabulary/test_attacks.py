"""Published spoofing attacks on the From field and the envelope: each is refused, or read the one right way.

L is the imitated domain, A the attacker's. Row numbers are those of the project's list of attacks; the sources are
"Composition Kills" (USENIX Security 2020), espoofer, and "Weak Links in Authentication Chains" (USENIX Security 2021).
"""

from __future__ import annotations

import pytest

from authmilter.message import MAX_FIELDS, AuthorProblem, DefectKind, Message
from authmilter.names import Address, Domain, Malformed, NullPath, parse_reverse_path

L = "legitimate.com"
A = "attack.com"

NONE = AuthorProblem.NO_AUTHOR
REPEATED = AuthorProblem.REPEATED_FROM
MALFORMED = AuthorProblem.MALFORMED_FROM
SEVERAL = AuthorProblem.SEVERAL_AUTHOR_DOMAINS

WITHOUT_AUTHOR: list[tuple[str, bytes, AuthorProblem, int]] = [
    ("10 two From, attacker first", b"From: first@attack.com\r\nFrom: admin@legitimate.com", REPEATED, 2),
    ("11 two From, victim first", b"From: admin@legitimate.com\r\nFrom: first@attack.com", REPEATED, 2),
    ("12 leading space", b" From: first@attack.com\r\nFrom: admin@legitimate.com", REPEATED, 2),
    ("12 leading space, alone", b" From: admin@legitimate.com", MALFORMED, 1),
    ("12 second leading line", b" x\r\n\tFROM : first@attack.com\r\nFrom: admin@legitimate.com", REPEATED, 2),
    ("13 space before colon", b"From: first@attack.com\r\nFrom : admin@legitimate.com", REPEATED, 2),
    ("13 space before colon, alone", b"From : admin@legitimate.com", MALFORMED, 1),
    ("13 tab before colon, any case", b"fRoM\t: admin@legitimate.com\r\nFrom: a@attack.com", REPEATED, 2),
    ("14 folded name", b"From\r\n : first@attack.com\r\nFrom: admin@legitimate.com", REPEATED, 2),
    ("14 folded name, bare LF", b"From\n : first@attack.com\r\nFrom: admin@legitimate.com", REPEATED, 2),
    ("14 name folded twice", b"From\r\n \r\n\t: a@attack.com\r\nFrom: admin@legitimate.com", REPEATED, 2),
    (
        "15 hidden From and Sender",
        b"From\r\n : first@attack.com\r\nSender: admin@legitimate.com",
        MALFORMED,
        1,
    ),
    ("15 Sender alone", b"Sender: admin@legitimate.com", NONE, 0),
    ("15 Resent-From alone", b"Resent-From: admin@legitimate.com", NONE, 0),
    (
        "16 several authors",
        b"From: <first@attack.com>, <admin@legitimate.com>\r\nSender: s@sender.legitimate.com",
        SEVERAL,
        1,
    ),
    (
        "17 encoded address",
        b"From: =?utf-8?B?PGFkbWluQGxlZ2l0aW1hdGUuY29tPg==?=,<second@attack.com>",
        MALFORMED,
        1,
    ),
    ("19 quoted pair between", b"From: <admin@legitimate.com>\\,<second@attack.com>", MALFORMED, 1),
    ("20 bare and angle", b"From: admin@legitimate.com,<second@attack.com>", SEVERAL, 1),
    ("21 angle then bare", b"From: <any@attack.com>admin@legitimate.com", MALFORMED, 1),
    ("21 bare then angle", b"From: admin@legitimate.com <any@attack.com>", MALFORMED, 1),
    ("22 empty From", b"From:", NONE, 1),
    ("22 From of white space", b"From: \r\n\t", NONE, 1),
    ("22 no From", b"Subject: x", NONE, 0),
    ("22 empty group", b"From: undisclosed:;", NONE, 1),
    ("23 raw octet", b"From: admin@legitimate.com\xff@attack.com", MALFORMED, 1),
    ("23 NUL", b"From: admin@legitimate.com\x00@attack.com", MALFORMED, 1),
    ("23 NUL behind", b"From: admin@legitimate.com\x00", MALFORMED, 1),
    ("29 zero-width space in the domain", "From: admin@legitimate.com\u200b".encode(), MALFORMED, 1),
    ("29 zero-width space in the local part", "From: ad\u200bmin@legitimate.com".encode(), MALFORMED, 1),
    ("29 U+FFFF", "From: admin@legiti\uffffmate.com".encode(), MALFORMED, 1),
    ("30 direction override", "From: \u202emoc.etamitigel@\u202dadmin".encode(), MALFORMED, 1),
    ("a From behind a bare CR", b"X-Y: z\rFrom: admin@legitimate.com\r\nFrom: a@attack.com", REPEATED, 2),
    ("a From behind a bare CR, alone", b"X-Y: z\rFrom: admin@legitimate.com", MALFORMED, 1),
    ("a name with NUL", b"From\x00: admin@legitimate.com\r\nFrom: a@attack.com", REPEATED, 2),
    ("a name with a no-break space", b"From\xa0: admin@legitimate.com\r\nFrom: a@attack.com", REPEATED, 2),
    (
        "a From below a line that ends the header elsewhere",
        b"To: x\r\njunk\r\nFrom: a@attack.com",
        MALFORMED,
        1,
    ),
    ("a From continuing such a line", b"junk\r\n From: l@legitimate.com\r\nFrom: a@attack.com", REPEATED, 2),
    ("an address literal", b"From: admin@[192.0.2.1]", MALFORMED, 1),
]


@pytest.mark.parametrize(
    ("block", "problem", "fields"),
    [row[1:] for row in WITHOUT_AUTHOR],
    ids=[row[0] for row in WITHOUT_AUTHOR],
)
def test_a_forged_from_gives_no_author_domain(block: bytes, problem: AuthorProblem, fields: int) -> None:
    message, _ = Message.parse(block + b"\r\n\r\nFrom: body@legitimate.com\r\n")
    assert message.authors.problem is problem
    assert message.authors.fields == fields
    assert message.authors.domain is None
    assert message.authors.detail


WITH_AUTHOR: list[tuple[str, bytes, str]] = [
    ("18 source route", b"From: <@attack.com,@any.com:admin@legitimate.com>", L),
    ("24 encoded display name", b"From: =?utf-8?Q?admin=40legitimate.com?= <x@attack.com>", A),
    ("24 encoded word left open", b"From: =?utf-8?Q?admin=40legitimate.com <x@attack.com>", A),
    (
        "24 split encoded words",
        b"From: =?utf-8?B?YWRtaW4=?=\r\n =?utf-8?B?QGxlZ2l0aW1hdGUuY29t?= <x@attack.com>",
        A,
    ),
    ("28 homograph", b"From: admin@xn--80aa1cn6g67a.com", "xn--80aa1cn6g67a.com"),
    ("28 homograph as U-label", "From: admin@\u0430\u0440\u0440le.com".encode(), "xn--le-6kc8da.com"),
    ("51 display name with an address", b'From: "admin@legitimate.com" <x@attack.com>', A),
    ("51 comment with an address", b"From: (<admin@legitimate.com>) x@attack.com", A),
    ("52 hyphen", b"From: u@my-bank.com", "my-bank.com"),
]


@pytest.mark.parametrize(
    ("block", "domain"), [row[1:] for row in WITH_AUTHOR], ids=[row[0] for row in WITH_AUTHOR]
)
def test_a_disguised_from_is_read_the_one_right_way(block: bytes, domain: str) -> None:
    message, _ = Message.parse(block + b"\r\n\r\n")
    assert message.authors.problem is None
    assert message.authors.domain == Domain(domain)


def test_sender_and_resent_from_are_no_authors() -> None:
    block = b"Sender: a@legitimate.com\r\nResent-From: b@legitimate.com\r\nFrom: c@attack.com\r\n\r\n"
    authors = Message.parse(block)[0].authors
    assert authors.addresses == (Address("c", Domain(A)),)


def test_rows_12_to_14_name_their_defects() -> None:
    leading, _ = Message.parse(b" From: a@attack.com\r\nFrom: b@legitimate.com\r\n\r\n")
    spaced, _ = Message.parse(b"From : a@attack.com\r\n\r\n")
    folded, _ = Message.parse(b"From\r\n : a@attack.com\r\n\r\n")
    assert DefectKind.LEADING_CONTINUATION in {d.kind for d in leading.defects}
    assert {(d.kind, d.field) for d in spaced.defects} == {(DefectKind.SPACE_BEFORE_COLON, "from")}
    assert {(d.kind, d.field) for d in folded.defects} == {(DefectKind.SPACE_BEFORE_COLON, "from")}


def test_a_second_from_beyond_a_limit_cannot_pass() -> None:
    many = b"From: a@attack.com\r\n" + b"X: y\r\n" * MAX_FIELDS + b"From: admin@legitimate.com\r\n\r\n"
    large = b"From: a@attack.com\r\nX: " + b"y" * (1 << 20) + b"\r\nFrom: admin@legitimate.com\r\n\r\n"
    for block, kind in ((many, DefectKind.TOO_MANY_FIELDS), (large, DefectKind.TOO_LARGE)):
        message, body = Message.parse(block)
        assert kind in {d.kind for d in message.defects}
        assert message.authors.problem is MALFORMED
        assert body == len(block)


REVERSE_PATHS: list[tuple[str, str, object]] = [
    ("2 parenthesis", "<(any@legitimate.com>", Malformed),
    ("3 null reverse-path", "<>", NullPath),
    ("3 not the null reverse-path", "< >", Malformed),
    ("5 quote in a domain", "any@legitimate.com'a.attack.com", Malformed),
    ("6 parenthesis in a domain", "any@legitimate.com(.attack.com", Malformed),
    ("7 parenthesis in a domain", "<any@legitimate.com(a.attack.com>", Malformed),
    ("8 two at signs", "<any@legitimate.com'@any.attack.com>", Malformed),
    ("9 source route", "<@legitimate.com,@any.com:'any@attack.com>", Address("'any", Domain(A))),
]


@pytest.mark.parametrize(
    ("raw", "expected"), [row[1:] for row in REVERSE_PATHS], ids=[row[0] for row in REVERSE_PATHS]
)
def test_a_forged_reverse_path_never_names_the_victim(raw: str, expected: object) -> None:
    path = parse_reverse_path(raw)
    if isinstance(expected, type):
        assert isinstance(path, expected)
    else:
        assert path == expected
    assert not (isinstance(path, Address) and path.domain == Domain(L))
