"""What all parts of the parent know: which generation serves, whether the service is up or stopping, and the log."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from authmilter.observe.journal import Log
from authmilter.supervise.settings import Generation
from authmilter.text import printable

if TYPE_CHECKING:
    from authmilter.config.model import Config

__all__ = ["State"]


@dataclass(slots=True, eq=False)
class State:
    """The service as it stands.

    Attributes:
        serving: the generation that serves (number 0, and without sockets, before the first does).
        log: where lines go.
        started: when the parent began (monotonic seconds).
        up: it has served.
        stopping: it has been told to stop.
    """

    serving: Generation
    log: Log
    started: float
    up: bool = False
    stopping: bool = False

    @property
    def config(self) -> Config:
        """The settings in use."""
        return self.serving.config

    def say(self, level: str, event: str, **fields: object) -> None:
        """Write a line; a log that cannot be written must not end the service."""
        with contextlib.suppress(Exception):
            getattr(self.log, level)(event, **fields)

    def say_bug(self, error: BaseException, where: str = "supervisor") -> None:
        """Write down an exception that nobody foresaw."""
        text = "".join(traceback.format_exception(error, limit=-8))
        self.say("error", "bug", where=where, error=type(error).__name__, traceback=printable(text, 4000))
