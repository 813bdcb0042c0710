"""Reading the configuration, in a short-lived child: the parent never holds what only workers need (keys, lists).

Nor does it load what only reading needs: pydantic is imported here, in the child.

What the child answers is plain data; `failure` makes an exception of it again. How it fails: the answer has `error`,
in an administrator's words, also where the child met something that nobody foresaw.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

from authmilter import runtime, worker
from authmilter.config.checked import checked, note
from authmilter.config.loaded import Loaded
from authmilter.config.texts import recorder
from authmilter.errors import AuthMilterError, Complaint, ConfigError, PolicyError, Span
from authmilter.startup import StartError, become

__all__ = ["CHECK_SECONDS", "failure", "look", "read_into"]

#: How long it may take.
CHECK_SECONDS = 60


def read_into(pipe: int, config_path: str | None, *, first: bool) -> int:
    """Read and build everything, as a worker would, and write what came of it into a pipe; returns the exit code.

    Args:
        pipe: the descriptor to write to, which is closed.
        config_path: the configuration file.
        first: become the service user before, as the service will once its sockets are open.
    """
    signal.alarm(CHECK_SECONDS)  # in case the parent has gone
    _write(pipe, _answer(lambda: _read(config_path, first=first)))
    return 0


def look(config_path: str | None, leave: Callable[[], Iterable[int]]) -> Loaded:
    """Return the settings alone, read in a child that is waited for: nothing is built of them.

    Args:
        config_path: the configuration file.
        leave: called in the child; returns the descriptors it should close.

    Raises:
        ConfigError: the file cannot be used; lists every mistake.
        StartError: no process can be started, or it died.
    """
    try:
        read, write = os.pipe()
        pid = os.fork()
    except OSError as e:
        raise StartError(f"cannot start a process: {e.strerror}") from None
    if pid == 0:
        try:
            signal.alarm(CHECK_SECONDS)
            for fd in {*leave(), read}:
                os.close(fd)
            _write(write, _answer(lambda: _look(config_path)))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as source:
        data = source.read()
    os.waitpid(pid, 0)
    if not data:
        raise StartError("the child that read the configuration died")
    answer = json.loads(data)
    if "error" in answer:
        raise failure(answer)
    return checked(answer["texts"])


def _write(pipe: int, answer: dict[str, object]) -> None:
    with os.fdopen(pipe, "wb") as out:
        out.write(json.dumps(answer).encode())


def _look(config_path: str | None) -> dict[str, object]:
    from authmilter.config import load as config_load  # noqa: PLC0415 - see above

    texts: dict[str, str] = {}
    note(texts, config_load.load(config_path, read=recorder(texts)))
    return {"texts": texts}


def _read(config_path: str | None, *, first: bool) -> dict[str, object]:
    from authmilter.config import load as config_load  # noqa: PLC0415 - see above

    if first:
        become(config_load.load(config_path).config)
    texts: dict[str, str] = {}
    loaded = config_load.load(config_path, read=recorder(texts))
    worker.check_engine(loaded.config.milter.engine)
    if loaded.config.grpc.listen:
        worker.check_grpc()
        runtime.grpc_settings(loaded)
    built = runtime.build(loaded)
    signing = built.signing.warnings if built.signing is not None else ()
    warnings = [*config_load.warnings(loaded.config), *(str(w) for w in built.policy.warnings), *signing]
    note(texts, loaded)
    return {"digest": built.digest, "texts": texts, "warnings": warnings}


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
