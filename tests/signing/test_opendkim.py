"""OpenDKIM's tables mean here what opendkim.conf(5) says they mean."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.dkim.crypto import KeyKind
from authmilter.errors import ConfigError
from authmilter.names import Address
from authmilter.signing.keys import KeyRing, KeySource, load
from authmilter.signing.opendkim import OpenDkimTable, _matches, read_tables, table_path
from tests.support.signing import signing_key

ED = signing_key(KeyKind.ED25519)


def table(keys: str, signing: str, *, regular: bool = False, multiple: bool = False) -> OpenDkimTable:
    tables = read_tables(keys, signing, regular=regular, multiple=multiple)
    return OpenDkimTable.of(tables, KeyRing(keys=dict.fromkeys(tables.sources, ED)))


def names(asked: OpenDkimTable, author: str) -> list[str]:
    match = asked.find(Address.parse(author))
    return [] if match is None else [e.question.name for e in match.entries]


KEYS = """# name    value
one   example.com:one:/keys/one
two   example.net:two:/keys/two
own   %:own:/keys/own
"""


def test_the_first_pattern_of_a_refile_decides() -> None:
    asked = table(
        KEYS,
        "boss@example.com two\n*@example.com one\n*@*.example.com own\n*-news@* two\n",
        regular=True,
    )
    assert names(asked, "boss@example.com") == ["two._domainkey.example.net"]
    assert names(asked, "BOSS@Example.COM") == ["two._domainkey.example.net"]
    assert names(asked, "a@example.com") == ["one._domainkey.example.com"]
    assert names(asked, "a-news@example.com") == ["one._domainkey.example.com"]
    assert names(asked, "a@x.example.com") == ["own._domainkey.x.example.com"]
    assert names(asked, "a-news@other.example") == ["two._domainkey.example.net"]
    assert names(asked, "a@other.example") == []
    match = asked.find(Address.parse("a@example.com"))
    assert match is not None
    assert match.line == "SigningTable:2: *@example.com"


def test_all_patterns_count_with_multiple_signatures() -> None:
    asked = table(
        KEYS,
        "*@* two\n*@example.com one\na@example.com two\n*@example.com own\n",
        regular=True,
        multiple=True,
    )
    assert names(asked, "a@example.com") == [
        "two._domainkey.example.net",
        "one._domainkey.example.com",
        "own._domainkey.example.com",
    ]


def test_a_plain_file_is_asked_from_the_particular_to_the_general() -> None:
    lines = {
        "a@x.example.com": "k1", "x.example.com": "k2", "a@.example.com": "k3", "a@.com": "k4",
        ".example.com": "k5", ".com": "k6", "a@*": "k7", "*": "k8",
    }  # fmt: skip
    keys = "".join(f"{k} example.com:{k}:/keys/{k}\n" for k in lines.values())
    remaining = list(lines.items())
    while remaining:
        asked = table(keys, "".join(f"{p} {k}\n" for p, k in reversed(remaining)))
        assert names(asked, "a@x.example.com") == [f"{remaining[0][1]}._domainkey.example.com"]
        remaining.pop(0)


def test_a_percent_sign_is_the_authors_domain() -> None:
    keys = "example.com %:s1:/keys/%/s1\nexample.net %:s1:/keys/%/s1\n"
    tables = read_tables(keys, "*@* %\n", regular=True)
    assert tables.sources == (KeySource(path="/keys/example.com/s1"), KeySource(path="/keys/example.net/s1"))
    asked = OpenDkimTable.of(tables, KeyRing(keys=dict.fromkeys(tables.sources, ED)))
    assert names(asked, "a@example.com") == ["s1._domainkey.example.com"]
    assert names(asked, "a@example.net") == ["s1._domainkey.example.net"]
    assert names(asked, "a@example.org") == []
    assert [e.question.name for _, e in asked.listed] == [
        "s1._domainkey.example.com",
        "s1._domainkey.example.net",
    ]
    fixed = read_tables("k %:s1:/keys/%\n", "example.com k\n")
    assert fixed.sources == (KeySource(path="/keys/example.com"),)


def test_a_bounce_is_signed_by_the_longest_parent() -> None:
    asked = table(KEYS, "*@example.com one\n*@example.net two\n", regular=True)
    assert names(asked, "MAILER-DAEMON@mx.example.com") == ["one._domainkey.example.com"]
    assert names(asked, "a@mx.example.com") == []


def test_a_key_may_stand_in_the_table() -> None:
    rsa = signing_key(KeyKind.RSA)
    pem = rsa.pem().decode().replace("\n", "\\n")
    der = base64.b64encode(base64.b64decode("".join(rsa.pem().decode().splitlines()[1:-1]))).decode()
    for text in (pem, der):
        tables = read_tables(f"k example.com:s1:{text}\n", "example.com k\n")
        ring = load(tables.sources)
        assert ring.problems == ()
        match = OpenDkimTable.of(tables, ring).find(Address.parse("a@example.com"))
        assert match is not None
        assert match.entries[0].key.public == rsa.public
        assert text not in repr(tables)


def test_every_mistake_is_told_at_once() -> None:
    keys = "one\ntwo example.com:s1\nthree a..b:s1:/k\nfour example.com:S 1:/k\none2 %:s1:/k\none2 %:s1:/k\npath %:s:/%\n"
    signing = "alone\n*@example.com missing\n*x@example.com one2\n* path\n* %\nx.example one2 i@example.com\n"
    with pytest.raises(ConfigError) as caught:
        read_tables(keys, signing)
    told = [(c.span.file, c.span.line) for c in caught.value.complaints]
    assert told == [("KeyTable", n) for n in (1, 2, 3, 4, 6)] + [("SigningTable", n) for n in (1, 2, 3, 4, 5)]
    good = read_tables("k example.com:s1:/k\n", "example.com k i@example.com\n")
    assert good.warnings == ("SigningTable:1: the identity is passed over: i= is not written",)
    with pytest.raises(ConfigError, match="SigningTable:1:1: /k: the key was not loaded"):
        OpenDkimTable.of(good, KeyRing(keys={}))


def test_settings_name_text_files_only() -> None:
    assert table_path("/etc/opendkim/KeyTable") == ("/etc/opendkim/KeyTable", False)
    assert table_path("file:/etc/t") == ("/etc/t", False)
    assert table_path("refile:/etc/t") == ("/etc/t", True)
    for other in ("ldap:x", "db:/etc/t.db", "refile:", "dsn:mysql://x"):
        with pytest.raises(ValueError, match="only file: and refile:"):
            table_path(other)


@given(st.lists(st.text("ab", max_size=3), min_size=2, max_size=5), st.text("ab", max_size=12))
def test_a_star_stands_for_any_characters(parts: list[str], text: str) -> None:
    reach = {0} if text.startswith(parts[0]) else set()
    reach = {len(parts[0])} if reach else set()
    for part in parts[1:]:
        reach = {
            i + len(part) for start in reach for i in range(start, len(text) + 1) if text.startswith(part, i)
        }
    assert _matches(tuple(parts), text) == (len(text) in reach)
