"""One worker, as its parent knows it."""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field

from authmilter.supervise.settings import Post, Role

__all__ = ["Member"]

#: A worker that left a connection untaken for so long gets no further ones.
_SLOW = 2.0


@dataclass(slots=True, eq=False)
class Member:
    """One child. `drain` is how long its sessions may go on once it is to end. `sessions` is what it says; `pending` is what it was handed and has not said it took, by number."""

    pid: int
    post: Post
    generation: int
    channel: socket.socket
    drain: float
    started: float
    ready: bool = False
    draining: bool = False
    full: bool = False
    sessions: int = 0
    given: int = 0
    pending: dict[int, tuple[float, socket.socket, str]] = field(default_factory=dict)
    outbox: deque[bytes] = field(default_factory=deque)
    digest: str = ""
    ended: tuple[int, int] = (0, 0)
    silent: int = 0
    trouble: str = ""
    counters: dict[str, float] = field(default_factory=dict)

    @property
    def role(self) -> Role:
        """What it is there for."""
        return self.post.role

    @property
    def load(self) -> int:
        """How many sessions it has, as far as we know."""
        return self.sessions + len(self.pending)

    def takes(self, now: float, most: int) -> bool:
        """Say whether it can be handed a connection."""
        if not self.ready or self.draining or self.full or self.outbox or self.load >= most:
            return False
        return not self.pending or now - next(iter(self.pending.values()))[0] < _SLOW

    def filenos(self) -> set[int]:
        """Return the descriptors that the parent holds for it."""
        return {self.channel.fileno()} | {sock.fileno() for _, sock, _ in self.pending.values()}
