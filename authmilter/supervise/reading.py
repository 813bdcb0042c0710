"""Reading the configuration, in a short-lived child: the parent never holds what only workers need (keys, lists).

What the child answers is plain data; `failure` makes an exception of it again. How it fails: the answer has `error`,
in an administrator's words, also where the child met something that nobody foresaw.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from authmilter import runtime, worker
from authmilter.config import load as config_load
from authmilter.config.texts import recorder
from authmilter.errors import AuthMilterError, Complaint, ConfigError, PolicyError, Span
from authmilter.startup import StartError, become

__all__ = ["CHECK_SECONDS", "failure", "read_into"]

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
    answer = _read(config_path, first=first)
    with os.fdopen(pipe, "wb") as out:
        out.write(json.dumps(answer).encode())
    return 0


def _read(config_path: str | None, *, first: bool) -> dict[str, object]:
    try:
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
        path = str(loaded.path) if loaded.path is not None else None
    except (ConfigError, PolicyError) as e:
        kind = "policy" if isinstance(e, PolicyError) else "config"
        complaints = [[c.span.file, c.span.line, c.span.column, c.message, c.hint] for c in e.complaints]
        return {"error": str(e), "kind": kind, "complaints": complaints}
    except AuthMilterError as e:
        return {"error": str(e)}
    except Exception as e:  # noqa: BLE001 - the child's outermost line; the parent logs it and goes on
        return {"error": f"internal error: {type(e).__name__}: {e}"}
    return {"digest": built.digest, "path": path, "texts": texts, "warnings": warnings}


def failure(answer: dict[str, Any]) -> AuthMilterError:
    """Return as an exception what a child answered."""
    if "complaints" not in answer:
        return StartError(str(answer["error"]))
    complaints = tuple(
        Complaint(span=Span(file=file, line=line, column=column), message=message, hint=hint)
        for file, line, column, message, hint in answer["complaints"]
    )
    return PolicyError(complaints) if answer["kind"] == "policy" else ConfigError(complaints)
