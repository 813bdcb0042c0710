"""A coroutine's first step by hand, the rest as anybody's: for work that mostly needs not wait.

`answer.send(None)` either ends it (`StopIteration` has what it returns), without a task; or it gives what it waits for,
and `resumed` goes on from there. Python 3.12 and later make tasks of real coroutines only, which this is.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

__all__ = ["resumed"]

T = TypeVar("T")


class _Rest(Generic[T]):
    """What is left of a coroutine that waits for something; can be awaited once."""

    __slots__ = ("_started", "_waits_for")

    def __init__(self, started: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._started = started
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, T]:
        started, waits_for = self._started, self._waits_for
        while True:
            try:
                sent = yield waits_for
            except BaseException as e:  # noqa: BLE001 - all of it, cancellation too, belongs to the coroutine
                error: BaseException | None = e
            else:
                error = None
            try:
                waits_for = started.send(sent) if error is None else started.throw(error)
            except StopIteration as done:
                result: T = done.value
                return result


async def resumed(started: Coroutine[Any, Any, T], waits_for: Any) -> T:
    """Go on with a coroutine that was started by hand, and return what it returns; cancelling reaches it.

    Args:
        started: the coroutine.
        waits_for: what its last step gave.

    Raises:
        Exception: what it raises.
    """
    return await _Rest(started, waits_for)
