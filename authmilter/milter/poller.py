"""Many descriptors watched as one: an epoll of our own, which the event loop watches as a single descriptor.

Most MTAs open a connection for each message, and a loop's own transport costs each of them as much as a quarter of its
message: objects and callbacks for what a milter does not need (it reads, answers, and is closed), and a turn of the loop
for each step. Here a turn of the loop hands all connections that can go on to their owners, each by a plain call.

How it fails: not at all; what an owner raises is the loop's to report, and the others have their turn in the next one.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

__all__ = ["NOTHING", "READ", "WRITE", "Poller"]

#: Tell when something can be read, or the other side has gone.
READ = select.EPOLLIN
#: Tell when something can be written, or the other side has gone.
WRITE = select.EPOLLOUT
#: Tell nothing, for now.
NOTHING = 0
#: How many descriptors are served in one turn of the loop, before the loop's other work has its turn.
_MOST = 64


class Poller:
    """The descriptors of one owner's connections.

    Args:
        loop: the loop in whose turns they are served.

    Raises:
        OSError: no descriptor is left.
    """

    __slots__ = ("_epoll", "_loop", "_owners")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._owners: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._turn)

    def watch(self, descriptor: int, ready: Callable[[], None], what: int = READ) -> None:
        """Call `ready` in every turn of the loop in which `descriptor` can go on.

        It may be called without need, so reading and writing must not block.

        Raises:
            OSError: it cannot be watched.
        """
        self._epoll.register(descriptor, what)
        self._owners[descriptor] = ready

    def change(self, descriptor: int, what: int) -> None:
        """Watch for something else."""
        self._epoll.modify(descriptor, what)

    def unwatch(self, descriptor: int) -> None:
        """Watch a descriptor no more."""
        if self._owners.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor no more that is about to be closed, and that no other process has: the kernel forgets it."""
        self._owners.pop(descriptor, None)

    def close(self) -> None:
        """Watch nothing any more. Idempotent."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._owners.clear()

    def _turn(self) -> None:
        owners = self._owners
        for descriptor, _what in self._epoll.poll(0, _MOST):
            # One that was closed in this turn has no owner; its number may be a new one's, who then finds nothing.
            ready = owners.get(descriptor)
            if ready is not None:
                ready()
