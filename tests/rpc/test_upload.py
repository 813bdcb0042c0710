"""A message in pieces is the same message, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from authmilter.message import MAX_HEADER_OCTETS, DefectKind, Message, normalize_line_endings
from authmilter.rpc.upload import MessageFeed

MODEST = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


class _Taken:
    """What takes a message, and keeps it."""

    def __init__(self) -> None:
        self.message: Message | None = None
        self.octets = b""
        self.pieces = 0

    def headers(self, message: Message) -> bool:
        assert self.message is None
        self.message = message
        return True

    def body(self, chunk: bytes) -> bool:
        assert self.message is not None
        assert chunk
        self.octets += chunk
        self.pieces += 1
        return True


def _fed(raw: bytes, cuts: list[int]) -> _Taken:
    taken = _Taken()
    feed = MessageFeed(taken)
    at = 0
    for cut in sorted({min(c, len(raw)) for c in cuts}):
        feed.feed(raw[at:cut])
        at = cut
    feed.feed(raw[at:])
    feed.end()
    return taken


_raw = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"From: a@example.com", b"X:", b" folded", b"body", b"\0", b"\xff"]
    ),
    max_size=14,
).map(b"".join)


@MODEST
@given(_raw, st.lists(st.integers(0, 80), max_size=8))
@example(b"\r\nbody", [1])
@example(b"\nbody", [0])
@example(b"A: b\r\n\r\n", [5, 6, 7])
@example(b"A: b\n\nx\r", [8])
def test_any_cut_gives_what_the_whole_gives(raw: bytes, cuts: list[int]) -> None:
    whole, cut = _fed(raw, []), _fed(raw, cuts)
    assert cut.message == whole.message
    assert cut.octets == whole.octets


@MODEST
@given(_raw, st.lists(st.integers(0, 80), max_size=8))
def test_crlf_and_lf_messages_are_read_as_when_sent_whole(raw: bytes, cuts: list[int]) -> None:
    head = raw[: Message.parse(raw)[1]]
    taken = _fed(raw, cuts)
    if b"\r\n" in raw and b"\r\n" not in head:
        return  # LF in the header block, CRLF in the body: sent whole, it is left as it is
    sent = normalize_line_endings(raw)
    message, start = Message.parse(sent)
    assert taken.message == message
    assert taken.octets == sent[start:]


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"])
def test_a_header_block_over_the_limit_is_cut_and_its_end_is_still_found(end: bytes) -> None:
    line = b"X-Long: " + b"y" * 990 + (b"\r\n" if b"\r" in end else b"\n")
    count = MAX_HEADER_OCTETS // len(line) + 500
    raw = b"From: a@example.com" + line[-2:].lstrip(b"y") + line * count + end[len(end) // 2 :] + b"the body"
    taken = _fed(raw, list(range(0, len(raw), 60_001)))
    assert taken.octets == b"the body"
    assert taken.message is not None
    assert DefectKind.TOO_LARGE in {d.kind for d in taken.message.defects}
    assert taken.message == Message.parse(normalize_line_endings(raw))[0]


def test_a_body_is_passed_on_as_it_comes() -> None:
    taken = _Taken()
    feed = MessageFeed(taken)
    feed.feed(b"A: b\r\n\r\n")
    for count in range(1, 100):
        feed.feed(b"z" * 1000)
        assert taken.pieces == count
    feed.end()
