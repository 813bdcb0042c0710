"""The Received field of a relay of ours: whose address it names, in each mail server's form, and whose it never does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.headers.received import RelayedClient, relayed_client
from authmilter.names import Domain

BY = (Domain.parse("backup.recv.example"),)
CLIENT, LIE = "203.0.113.66", "192.0.2.10"


def _read(field: str) -> RelayedClient | None:
    return relayed_client(f" {field} with ESMTP id 1; Sun, 22 Nov 2026 12:00:00 +0000".encode(), BY)


@pytest.mark.parametrize(
    ("field", "helo"),
    [
        (f"from mail.a.example (unknown [{CLIENT}])\r\n\tby backup.recv.example (Postfix)", "mail.a.example"),
        (f"from mail.a.example (mail.a.example [{CLIENT}])\r\n\tby Backup.Recv.Example (Postfix)", "mail.a.example"),
        (f"from [{LIE}] (unknown [{CLIENT}])\r\n\tby backup.recv.example (Postfix)", f"[{LIE}]"),
        (f"from mail.a.example ([{CLIENT}])\r\n\tby backup.recv.example (8.17.1/8.17.1)", "mail.a.example"),
        (f"from mail.a.example (IDENT:[{LIE}]@mail.a.example [{CLIENT}])\r\n\tby backup.recv.example (8.17.1/8.17.1)", "mail.a.example"),
        (f"from mail.a.example ([{CLIENT}] helo=other.example)\r\n\tby backup.recv.example", "other.example"),
        (f"from mail.a.example ([{CLIENT}]:25025 helo=[{LIE}])\r\n\tby backup.recv.example", f"[{LIE}]"),
        (f"from [{CLIENT}] (helo=[{LIE}])\r\n\tby backup.recv.example", f"[{LIE}]"),
        (f"from [{CLIENT}]:4711 (port=4711 helo=[{LIE}])\r\n\tby backup.recv.example", f"[{LIE}]"),
        (f"from [{CLIENT}] (ident=[{LIE}] helo=mail.a.example)\r\n\tby backup.recv.example", "mail.a.example"),
        (f"from [{CLIENT}] (helo=mail.a.example ident=x [{LIE}])\r\n\tby backup.recv.example", "mail.a.example"),
    ],
)  # fmt: skip
def test_the_address_is_the_one_the_relay_saw(field: str, helo: str) -> None:
    found = _read(field)
    assert found is not None
    assert (str(found.ip), str(found.helo)) == (CLIENT, helo)


@pytest.mark.parametrize("literal", ["2001:db8::1", "IPv6:2001:db8::1"])
def test_ipv6(literal: str) -> None:
    found = _read(f"from mail.a.example (unknown [{literal}]) by backup.recv.example (Postfix)")
    assert found is not None
    assert str(found.ip) == "2001:db8::1"


@pytest.mark.parametrize(
    "field",
    [
        f"from mail.a.example (unknown [{LIE}]) by elsewhere.example",
        f"from mail.a.example (unknown [{LIE}]) by backup.recv.example.evil.example",
        f"from mail.a.example by backup.recv.example (unknown [{LIE}])",
        f"from mail.a.example (helo=[{LIE}]) by backup.recv.example",
        f"from mail.a.example (IDENT:x[{LIE}] mail.a.example) by backup.recv.example",
        f"from mail.a.example (mail.a.example [{CLIENT}] (may be forged)) by backup.recv.example",
        "from mail.a.example (unknown [999.1.1.1]) by backup.recv.example",
        "from mail.a.example (unknown []) by backup.recv.example",
        "by backup.recv.example",
        "",
    ],
)
def test_what_is_not_sure_names_nobody(field: str) -> None:
    assert _read(field) is None


@given(st.binary(max_size=300) | st.text(alphabet="from by([])=helo.:1 ", max_size=200).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_octets_give_an_answer(value: bytes) -> None:
    found = relayed_client(value, BY)
    assert found is None or isinstance(found, RelayedClient)
