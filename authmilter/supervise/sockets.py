"""The sockets of a generation: opened at the start, kept over reloads where they are still wanted, closed in the end.

Opening fails with StartError in an administrator's words, and then leaves nothing behind. Closing never fails.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from authmilter.errors import AuthMilterError
from authmilter.grpc_places import release, reserve
from authmilter.startup import Listener, StartError, adapt, adopted, close_listener, listen
from authmilter.supervise.settings import Generation
from authmilter.systemd import passed_sockets

if TYPE_CHECKING:
    from authmilter.config.model import Config

__all__ = ["Sockets"]


class Sockets:
    """Opens and closes; knows what is to be closed later."""

    def __init__(self) -> None:
        self._leftover: list[Listener] = []
        #: the control socket, if the service manager has handed it in
        self.control: socket.socket | None = None

    def open_milter(self, generation: Generation) -> None:
        """Open the first generation's milter sockets, or take those that the service manager hands in.

        Raises:
            StartError: one cannot be had.
        """
        try:
            for passed in passed_sockets():
                if passed.name == "control":
                    self.control = passed.sock
                elif passed.name == "grpc":
                    raise StartError(
                        "gRPC takes no sockets from a service manager: name them in `grpc.listen`"
                    )
                else:
                    generation.listeners.append(adopted(passed))
        except AuthMilterError as e:
            raise StartError(str(e)) from None
        for text in () if generation.listeners else generation.config.milter.listen:
            generation.listeners.append(listen(generation.config, text))

    def open_grpc(self, generation: Generation) -> None:
        """Reserve the first generation's gRPC sockets; as the service user, because workers bind them as that.

        Raises:
            StartError: one cannot be had.
        """
        for text in generation.config.grpc.listen:
            generation.places.append(reserve(text))

    def open_next(self, old: Generation, new: Generation) -> None:
        """Give a generation the sockets that its settings want: what `old` has open is kept.

        Raises:
            StartError: a new one cannot be opened; what was opened is closed again.
        """
        try:
            new.listeners = self._listeners(old, new.config, new.listeners)
            places = {place.text: place for place in old.places}
            for text in new.config.grpc.listen:
                new.places.append(places.get(text) or reserve(text))
        except StartError:
            self.close_other(new, old)
            raise

    def _listeners(self, old: Generation, config: Config, found: list[Listener]) -> list[Listener]:
        if any(listener.activated for listener in old.listeners):
            return list(old.listeners)
        # One whose path was removed by somebody is of no more use.
        kept = {listener.name: listener for listener in old.listeners if listener.reachable}
        for text in config.milter.listen:
            listener = kept.get(text)
            if listener is not None:
                adapt(config, listener)
            found.append(listener or listen(config, text))
        return found

    def close_other(self, closing: Generation, keeping: Generation) -> None:
        """Close the sockets of one generation that another does not have."""
        for listener in closing.listeners:
            if listener not in keeping.listeners:
                self.close(listener)
        for place in closing.places:
            if place not in keeping.places:
                release(place)

    def close(self, listener: Listener) -> None:
        """Close a listening socket for good; its path is removed once no worker listens any more."""
        listener.sock.close()
        if not listener.activated:
            self._leftover.append(listener)

    def sweep(self) -> None:
        """Remove the paths of sockets that were closed, where nobody listens any more."""
        self._leftover = [listener for listener in self._leftover if not close_listener(listener)]

    def close_all(self, generation: Generation) -> None:
        """Close everything, when all workers have ended."""
        self.sweep()
        for listener in generation.listeners:
            close_listener(listener)
        for place in generation.places:
            release(place)

    def filenos(self, generations: Iterable[Generation]) -> set[int]:
        """Return all descriptors, which a child process closes."""
        found: set[int] = set()
        for each in generations:
            found |= {listener.sock.fileno() for listener in each.listeners}
            found |= {place.reserved.fileno() for place in each.places if place.reserved is not None}
        return found
