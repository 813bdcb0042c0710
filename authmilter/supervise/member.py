"""One worker, as its parent knows it."""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field

from authmilter.milter.seats import Board
from authmilter.supervise.settings import Post, Role

__all__ = ["Member"]


@dataclass(slots=True, eq=False)
class Member:
    """One child. `drain` is how long its sessions may go on once it is to end. `begun`: it was told to accept connections, and has not said that it has stopped; `accepts`: it says that it does. `sessions` is what it says of itself; with a `board`, which the native engine's have, what stands there counts."""

    pid: int
    post: Post
    generation: int
    channel: socket.socket
    drain: float
    started: float
    ready: bool = False
    draining: bool = False
    begun: bool = False
    accepts: bool = False
    board: Board | None = None
    seat: int = 0
    taken_before: int = 0
    sessions: int = 0
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
        """How many sessions it has."""
        return self.sessions if self.board is None else self.board.sessions(self.seat)

    @property
    def serves(self) -> bool:
        """False of one that is starting."""
        return self.ready and (self.board is None or self.accepts or self.draining)

    @property
    def taken(self) -> int:
        """How many connections it has accepted, where we know that."""
        return 0 if self.board is None else self.board.taken(self.seat) - self.taken_before
