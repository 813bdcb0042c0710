"""Whose connection it is: numbers that several workers write, seen by each."""

from __future__ import annotations

import random

import pytest

from authmilter.milter.seats import PATIENCE, Board, Seat


def _seats(count: int) -> tuple[Board, list[Seat]]:
    board = Board(count)
    seats = [Seat(board, number) for number in range(count)]
    for seat in seats:
        seat.accept(True)
    return board, seats


def _open(seat: Seat, count: int) -> None:
    for _ in range(count):
        seat.opened()


def test_who_is_alone_takes_everything() -> None:
    board, (seat,) = _seats(1)
    _open(seat, 1000)
    assert seat.may_take(1.0)
    assert (board.sessions(0), board.taken(0)) == (1000, 1000)
    seat.closed()
    assert (board.sessions(0), board.taken(0)) == (999, 1000)


def test_the_one_with_fewer_goes_first() -> None:
    _, (one, other) = _seats(2)
    assert one.may_take(1.0)
    one.opened()
    assert not one.may_take(1.0)
    assert other.may_take(1.0)
    other.opened()
    assert one.may_take(1.0)
    assert other.may_take(1.0)


def test_of_idle_workers_the_first_goes() -> None:
    _, seats = _seats(3)
    for _ in range(4):
        assert [seat.may_take(1.0) for seat in seats] == [True, False, False]
        seats[0].opened()
        assert [seat.may_take(1.0) for seat in seats] == [False, True, False]
        seats[0].closed()
    seats[0].accept(False)
    assert [seat.may_take(1.0) for seat in seats[1:]] == [True, False]


def test_who_is_in_reserve_and_when_it_is_needed() -> None:
    _, seats = _seats(3)

    def reserve() -> list[bool]:
        return [seat.in_reserve for seat in seats]

    def needed() -> list[bool]:
        return [seat.needed for seat in seats]

    assert (reserve(), needed()) == ([False, True, True], [False, False, False])
    seats[0].opened()
    assert needed() == [False, False, False], "its session may be about to end"
    seats[0].opened()
    assert needed() == [False, True, False], "the second goes before the third, and is idle"
    seats[1].accept(False)
    assert needed() == [False, True, True]
    seats[1].accept(True)
    seats[2].opened()
    assert reserve() == [False, True, False]
    seats[0].accept(False)
    assert reserve() == [False, False, False], "nobody accepts before the second"


@pytest.mark.parametrize(
    ("mine", "theirs", "first"), [(7, 6, False), (8, 7, True), (9, 7, False), (24, 21, True), (24, 20, False)]
)
def test_an_eighth_more_is_no_reason_to_wait(*, mine: int, theirs: int, first: bool) -> None:
    _, (one, other) = _seats(2)
    _open(one, mine)
    _open(other, theirs)
    assert one.may_take(1.0) == first


def test_who_does_not_accept_is_not_waited_for() -> None:
    board, (one, other) = _seats(2)
    one.opened()
    other.accept(False)
    assert one.may_take(1.0)
    assert board.sessions(1) == 0
    other.accept(True)
    assert not one.may_take(1.0)
    board.clear(1)
    assert one.may_take(2.0)


def test_who_does_not_move_is_waited_for_once() -> None:
    _, (one, stuck) = _seats(2)
    one.opened()
    assert not one.may_take(1.0)
    assert not one.may_take(1.0 + 0.4 * PATIENCE)
    assert not one.may_take(1.0 + 0.8 * PATIENCE)
    assert one.may_take(1.0 + 1.2 * PATIENCE)
    one.opened()
    assert one.may_take(1.9), "it has still not moved"
    assert not one.may_take(3.0), "it may be back"
    assert one.may_take(3.0 + 1.1 * PATIENCE)
    stuck.opened()
    assert not one.may_take(3.1), "it is back"


def test_another_connection_is_waited_with_anew() -> None:
    _, (one, _other) = _seats(2)
    one.opened()
    for now in (1.0, 2.0, 3.0):
        assert not one.may_take(now)
        one.nobody_waits()


def test_a_seat_that_is_taken_over_goes_on() -> None:
    board, (one, other) = _seats(2)
    for seat in (one, other):
        seat.opened()
        seat.closed()
    board.clear(1)
    new = Seat(board, 1)
    new.accept(True)
    assert one.may_take(1.0), "they are equals"
    new.opened()
    new.closed()
    assert not new.may_take(1.0)
    assert board.taken(1) == 2


def test_who_moves_but_is_still_before_us_is_waited_for() -> None:
    _, (one, other) = _seats(2)
    _open(one, 5)
    assert not one.may_take(1.0)
    assert not one.may_take(1.0 + 0.4 * PATIENCE)
    other.opened()
    assert not one.may_take(1.0 + 0.8 * PATIENCE)
    assert not one.may_take(1.0 + 1.2 * PATIENCE)


@pytest.mark.parametrize("workers", [2, 4, 7])
@pytest.mark.parametrize("sessions", [16, 100])
def test_whoever_looks_first_the_load_is_even(workers: int, sessions: int) -> None:
    chance = random.Random(workers * sessions)
    board, seats = _seats(workers)
    for _ in range(sessions):
        while not (looking := chance.choice(seats)).may_take(0.0):
            pass
        looking.opened()
    found = [board.sessions(number) for number in range(workers)]
    assert sum(found) == sessions
    assert max(found) <= max(1.3 * sessions / workers, -(-sessions // workers))
