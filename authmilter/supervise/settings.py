"""What a generation of workers works by: settings with the texts they were read from, and who is to do what.

Values, without I/O.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from authmilter.config.loaded import Loaded
from authmilter.grpc_places import Place
from authmilter.link import PIECE
from authmilter.milter.seats import Board
from authmilter.startup import Listener

if TYPE_CHECKING:
    from authmilter.config.model import Config

__all__ = ["Generation", "Post", "Role", "Settings", "in_pieces", "same_processes"]

#: Octets of the texts in one message to a worker.
_PIECE_SIZE = 48 * 1024


class Role(StrEnum):
    """What a worker is there for."""

    MILTER = "milter"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """The configuration, and the texts of all files it names; `digest` names what a worker builds of them."""

    loaded: Loaded
    texts: dict[str, str]
    digest: str

    @property
    def config(self) -> Config:
        """The configuration alone."""
        return self.loaded.config

    def messages(self) -> Iterable[bytes]:
        """Yield what tells a worker to use these settings."""
        yield from in_pieces(self.texts)
        yield json.dumps({"reload": self.digest}).encode()


@dataclass(frozen=True, slots=True)
class Post:
    """A place for one worker: its role, its number in it, and the sockets that are its alone.

    `listeners` are what a milter worker accepts on, all of them or, with libmilter, one; `places` are those of a gRPC
    worker.
    """

    role: Role
    number: int
    listeners: tuple[Listener, ...] = ()
    places: tuple[Place, ...] = ()


@dataclass(slots=True, eq=False)
class Generation:
    """Workers that were started for the same processes; a swap gives them new settings.

    `board` says what each worker of the native engine has; it is made before the first is forked.
    """

    number: int
    settings: Settings
    listeners: list[Listener] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        # Twice as many seats as workers: one that is replaced keeps its own until its sessions have ended.
        self.board = Board(2 * (self.config.milter.workers or _processors()))

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.settings.config

    @property
    def native(self) -> bool:
        """True if the workers share the listening sockets; libmilter's have one each."""
        return self.config.milter.engine == "native"

    @property
    def names(self) -> list[str]:
        """Where it listens, for people."""
        return [*(listener.name for listener in self.listeners), *(place.name for place in self.places)]

    def posts(self) -> list[Post]:
        """Return which workers there are to be."""
        if self.native:
            shared = tuple(self.listeners)
            found = [Post(Role.MILTER, number, shared) for number in range(self.board.seats // 2)]
        else:  # one process has one libmilter, and that has one socket
            found = [Post(Role.MILTER, number, (listener,)) for number, listener in enumerate(self.listeners)]
        # Workers share a port of TCP; a unix socket has one worker (a second server would take it from the first).
        ports = [place for place in self.places if place.reserved is not None]
        paths = [place for place in self.places if place.reserved is None]
        if self.places:
            workers = self.config.grpc.workers
            count = workers if ports else min(workers, len(paths))
            found += [
                Post(Role.GRPC, number, places=(*ports, *paths[number::count])) for number in range(count)
            ]
        return found


def in_pieces(data: object) -> Iterable[bytes]:
    """Yield data as the messages that a worker puts together again (the channel carries none that is large)."""
    packed = json.dumps(data).encode()
    for at in range(0, len(packed), _PIECE_SIZE):
        yield PIECE + packed[at : at + _PIECE_SIZE]


def same_processes(old: Config, new: Config) -> bool:
    """True if the new settings can be swapped into the running workers."""
    fixed = ("milter", "grpc", "user", "group", "log", "control")
    return all(getattr(old, name) == getattr(new, name) for name in fixed)


def _processors() -> int:
    """Return how many processors we may use: in a container often fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
