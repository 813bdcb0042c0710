"""Reading the configuration, in a short-lived child: the parent never holds what only workers need (keys, lists).

Nor does it load what only reading needs: pydantic is imported here, in the child. At the start there are two children.
The first, a `Look`, reads the settings while the parent loads what workers need, which takes as long; the second
builds everything as a worker would, and need not load pydantic again.

What a child answers is plain data; `failure` makes an exception of it again. How it fails: the answer has `error`,
in an administrator's words, also where the child met something that nobody foresaw.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from authmilter.config.checked import checked, note
from authmilter.config.loaded import Loaded
from authmilter.config.texts import recorder
from authmilter.errors import AuthMilterError, Complaint, ConfigError, PolicyError, Span
from authmilter.startup import StartError, become

__all__ = ["CHECK_SECONDS", "Look", "Seen", "failure", "look", "read_into"]

#: How long it may take.
CHECK_SECONDS = 60


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The settings alone: nothing was built of them. `texts` has the text of their file, `warnings` what will surprise."""

    loaded: Loaded
    texts: dict[str, str]
    warnings: tuple[str, ...]


class Look:
    """A child that reads the settings alone, beside what its parent does until it asks for them.

    Args:
        config_path: the configuration file.
        leave: called in the child; returns the descriptors it should close.

    Raises:
        StartError: no process can be started.
    """

    def __init__(self, config_path: str | None, leave: Callable[[], Iterable[int]]) -> None:
        try:
            self._pipe, write = os.pipe()
            self._pid = os.fork()
        except OSError as e:
            raise StartError(f"cannot start a process: {e.strerror}") from None
        if self._pid == 0:
            try:
                signal.alarm(CHECK_SECONDS)
                for fd in {*leave(), self._pipe}:
                    os.close(fd)
                _write(write, _answer(lambda: _look(config_path)))
            finally:
                os._exit(0)
        os.close(write)

    def seen(self) -> Seen:
        """Return what it saw, once.

        Raises:
            ConfigError: the file cannot be used; lists every mistake.
            StartError: the child died.
        """
        with os.fdopen(self._pipe, "rb") as source:
            data = source.read()
        os.waitpid(self._pid, 0)
        if not data:
            raise StartError("the child that read the configuration died")
        answer = json.loads(data)
        if "error" in answer:
            raise failure(answer)
        return Seen(checked(answer["texts"]), answer["texts"], tuple(answer["warnings"]))


def look(config_path: str | None) -> Loaded:
    """Return the settings alone, read in a child that is waited for.

    Args:
        config_path: the configuration file.

    Raises:
        ConfigError: the file cannot be used; lists every mistake.
        StartError: no process can be started, or it died.
    """
    return Look(config_path, tuple).seen().loaded


def read_into(pipe: int, config_path: str | None, *, seen: Seen | None) -> int:
    """Read and build everything, as a worker would, and write what came of it into a pipe; returns the exit code.

    Args:
        pipe: the descriptor to write to, which is closed.
        config_path: the configuration file.
        seen: what a `Look` saw before the service has begun; then become the service user first, as the service will
            once its sockets are open.
    """
    signal.alarm(CHECK_SECONDS)  # in case the parent has gone
    _write(pipe, _answer(lambda: _read(config_path, seen)))
    return 0


def _write(pipe: int, answer: dict[str, object]) -> None:
    with os.fdopen(pipe, "wb") as out:
        out.write(json.dumps(answer).encode())


def _look(config_path: str | None) -> dict[str, object]:
    from authmilter.config import load as config_load  # noqa: PLC0415 - see above

    texts: dict[str, str] = {}
    loaded = config_load.load(config_path, read=recorder(texts))
    note(texts, loaded)
    return {"texts": texts, "warnings": config_load.warnings(loaded.config)}


def _read(config_path: str | None, seen: Seen | None) -> dict[str, object]:
    from authmilter import runtime, worker  # noqa: PLC0415 - a `Look` needs none of it

    texts: dict[str, str] = {}
    if seen is not None:
        become(seen.loaded.config)
    loaded, surprises = _settings(config_path, seen, recorder(texts))
    worker.check_engine(loaded.config.milter.engine)
    if loaded.config.grpc.listen:
        worker.check_grpc()
        runtime.grpc_settings(loaded)
    built = runtime.build(loaded)
    signing = built.signing.warnings if built.signing is not None else ()
    warnings = [*surprises, *(str(w) for w in built.policy.warnings), *signing]
    note(texts, loaded)
    return {"digest": built.digest, "texts": texts, "warnings": warnings}


def _settings(
    config_path: str | None, seen: Seen | None, read: Callable[[Path], str]
) -> tuple[Loaded, tuple[str, ...]]:
    """Return the settings as the file has them now, read by the user we are now, and what will surprise."""
    if seen is not None:
        path = seen.loaded.path
        if path is None or read(path) == seen.texts[str(path)]:
            return replace(seen.loaded, read=read), seen.warnings
    from authmilter.config import load as config_load  # noqa: PLC0415 - loads pydantic

    loaded = config_load.load(config_path, read=read)
    return loaded, config_load.warnings(loaded.config)


def _answer(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Return what `work` returns, or why it could not."""
    try:
        return work()
    except (ConfigError, PolicyError) as e:
        kind = "policy" if isinstance(e, PolicyError) else "config"
        complaints = [[c.span.file, c.span.line, c.span.column, c.message, c.hint] for c in e.complaints]
        return {"error": str(e), "kind": kind, "complaints": complaints}
    except AuthMilterError as e:
        return {"error": str(e)}
    except Exception as e:  # noqa: BLE001 - the child's outermost line; the parent logs it and goes on
        return {"error": f"internal error: {type(e).__name__}: {e}"}


def failure(answer: dict[str, Any]) -> AuthMilterError:
    """Return as an exception what a child answered."""
    if "complaints" not in answer:
        return StartError(str(answer["error"]))
    complaints = tuple(
        Complaint(span=Span(file=file, line=line, column=column), message=message, hint=hint)
        for file, line, column, message, hint in answer["complaints"]
    )
    return PolicyError(complaints) if answer["kind"] == "policy" else ConfigError(complaints)
