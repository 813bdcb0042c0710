"""Lines written in batches: whole, in order, none lost at the end; a reader that stalls costs lines, never a mail."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable

from authmilter.dns.zone import ZoneResolver
from authmilter.observe.counters import Counters
from authmilter.observe.journal import LogJournal, LogSettings, make_log
from authmilter.observe.lines import LineWriter
from tests.observe.test_journal import ZONE, judge, judged_line


class Later:
    """What a loop would call later, called when the test says so."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        assert 0 < seconds < 1
        self.due.append(call)

    def pass_by(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


class Stream(io.StringIO):
    """A stream that counts writes, can stall, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.free = threading.Event()
        self.free.set()
        self.wrote = threading.Event()
        self.broken = False

    def write(self, text: str) -> int:
        self.free.wait(10)
        if self.broken:
            raise OSError("no space left on device")
        self.writes.append(text)
        self.wrote.set()
        return len(text)


def test_the_first_line_is_written_at_once_and_those_of_the_next_moment_together_whole_and_in_order() -> None:
    stream, later, lost = Stream(), Later(), list[int]()
    writer = LineWriter(stream, later, lost.append)
    writer.put("first\n")
    assert stream.wrote.wait(10)
    for number in range(10):
        writer.put(f"{number}\n")
    assert len(later.due) == 1
    assert stream.writes == ["first\n"]
    later.pass_by()  # what was gathered is handed over, and another moment begins
    assert len(later.due) == 1
    later.pass_by()  # nothing came: the next line is written at once again
    assert not later.due
    writer.put("last\n")
    writer.close()
    assert stream.writes == ["first\n", "".join(f"{n}\n" for n in range(10)), "last\n"]
    assert not lost


def test_many_lines_do_not_wait_for_the_moment_to_pass() -> None:
    stream, later = Stream(), Later()
    writer = LineWriter(stream, later, lambda _: None)
    for number in range(501):
        writer.put(f"{number}\n")
    writer._to_write.put(None)
    writer._thread.join(10)
    assert [text.count("\n") for text in stream.writes] == [1, 500]


def test_a_reader_that_stalls_costs_lines_and_they_are_counted() -> None:
    stream, later, lost = Stream(), Later(), list[int]()
    stream.free.clear()
    writer = LineWriter(stream, later, lost.append)
    for number in range(60_000):
        writer.put(f"{number}\n")
    assert 30_000 < sum(lost) < 45_000
    stream.free.set()
    writer.close()
    assert sum(lost) + "".join(stream.writes).count("\n") == 60_000
    assert "".join(stream.writes).startswith("0\n1\n2\n")


def test_what_cannot_be_written_is_counted() -> None:
    stream, later, lost = Stream(), Later(), list[int]()
    stream.broken = True
    writer = LineWriter(stream, later, lost.append)
    writer.put("a\n")
    writer.put("b\n")
    writer.close()
    assert sum(lost) == 2


def test_a_journal_writes_the_same_line_through_it() -> None:
    settings = LogSettings()
    plain = judged_line(settings=settings)
    stream, out = io.StringIO(), io.StringIO()
    journal = LogJournal(make_log(settings, out), settings, Counters())
    writer = LineWriter(stream, Later(), lambda _: None)
    journal.write_through(writer)
    judge(journal, ZoneResolver(ZONE))
    writer.close()
    assert not out.getvalue()
    assert stream.getvalue().endswith("}\n")
    batched = json.loads(stream.getvalue())
    different = {"id", "timestamp", "elapsed_ms", "reply"}  # (the reply repeats the id)
    assert list(batched) == list(plain)
    assert {k: v for k, v in batched.items() if k not in different} == {
        k: v for k, v in plain.items() if k not in different
    }
    assert len(batched["timestamp"]) == len(plain["timestamp"])


def test_a_level_above_info_writes_no_line_of_a_message() -> None:
    settings = LogSettings(level="warning")
    stream, out = io.StringIO(), io.StringIO()
    journal = LogJournal(make_log(settings, out), settings)
    writer = LineWriter(stream, Later(), lambda _: None)
    journal.write_through(writer)
    judge(journal, ZoneResolver(ZONE))
    writer.close()
    assert not stream.getvalue()
    assert journal.counters.snapshot()["messages"] == 1
