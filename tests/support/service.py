"""The real service as a child process, with a configuration of its own in a folder of its own."""

from __future__ import annotations

import functools
import json
import os
import pwd
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from authmilter.observe.lines import GATHER
from tests.support.postfix import free_port, wait_until

__all__ = ["ROOT", "Service", "python_of"]

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def python_of(uid: int) -> tuple[str, dict[str, str]]:
    """Return a Python that a user may run, and its environment: ours, or the system's of our version with our packages."""
    system = "/usr/bin/python{}.{}".format(*sys.version_info)
    packages = {"PYTHONPATH": os.pathsep.join([str(ROOT), *site.getsitepackages()])}
    for python, env in ((sys.executable, {}), (system, packages)):
        command = [python, "-c", "import authmilter, uvloop, cryptography"]
        try:
            subprocess.run(
                command,
                user=uid,
                cwd="/" if env else str(ROOT),
                env={**os.environ, **env},
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return python, env
    if os.environ.get("CI") == "true":
        pytest.fail(f"user {uid} can run no Python {sys.version} here")
    pytest.skip(f"user {uid} can run no Python {sys.version} here")


@dataclass
class Service:
    """Start with `with`. `zone` answers DNS; `settings` are merged over the defaults below.

    Args:
        zone: the DNS as data.
        policy: a shipped word or the text of a policy.
        engine: native or libmilter.
        unix: listen on a unix socket instead of TCP.
        workers: worker processes.
        settings: further settings, merged section by section.
        user: run as this user (the test must be root), else as who we are.
        wrapper: words before the command; `pass_fds`: descriptors it gets; `options`: words after it.
        env: more environment.
        becomes: the user that it becomes by itself, who must be able to run its Python.
    """

    zone: dict[str, object]
    policy: str = "enforce"
    engine: str = "native"
    unix: bool = False
    workers: int = 2
    settings: dict[str, Any] = field(default_factory=dict)
    user: str | None = None
    wrapper: tuple[str, ...] = ()
    pass_fds: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    becomes: str | None = None

    def __enter__(self) -> Self:
        self.base = Path(tempfile.mkdtemp(prefix="authmilter-service-", dir="/tmp"))
        self.base.chmod(0o755)
        self.port = free_port()
        self.socket = self.base / "milter.sock"
        self.control = self.base / "control.sock"
        self.log_file = self.base / "log.jsonl"
        self.config = self.base / "authmilter.yaml"
        self.write_zone(self.zone)
        self.write_config()
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def listen(self) -> str:
        """Where it listens, in our own form."""
        return f"unix:{self.socket}" if self.unix else f"inet:{self.port}@127.0.0.1"

    @property
    def for_postfix(self) -> str:
        """The same for Postfix."""
        return f"unix:{self.socket}" if self.unix else f"inet:127.0.0.1:{self.port}"

    def write_zone(self, zone: dict[str, object]) -> None:
        """Put the zone down (a reload reads it)."""
        (self.base / "zone.json").write_text(json.dumps(zone))

    def write_config(self, **changes: Any) -> None:
        """Put the configuration down; `changes` go over `settings` (a reload reads it)."""
        policy = self.policy
        if "\n" in policy:
            (self.base / "policy.yaml").write_text(policy)
            policy = "./policy.yaml"
        config: dict[str, Any] = {
            "authserv_id": "mx.recv.example",
            "milter": {
                "listen": [self.listen],
                "engine": self.engine,
                "workers": self.workers,
                "socket_mode": "0666",
                "drain": "3s",
            },
            "dns": {"zone": "zone.json"},
            "internal": {"networks": ["10.99.0.0/16"]},
            "policy": policy,
            "control": {"socket": str(self.control)},
        }
        for name, value in {**self.settings, **changes}.items():
            if isinstance(value, dict) and isinstance(config.get(name), dict):
                config[name] = {**config[name], **value}
            else:
                config[name] = value
        self.config.write_text(json.dumps(config))

    def start(self, *, wait: bool = True, extra_env: dict[str, str] | None = None) -> None:
        """Start the process, and wait until every worker is ready."""
        env = {**os.environ, **self.env, **(extra_env or {})}
        python, uid, gid = sys.executable, None, None
        if self.becomes is not None:
            python, more = python_of(pwd.getpwnam(self.becomes).pw_uid)
            env |= more
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            uid, gid = entry.pw_uid, entry.pw_gid
            for path in (self.base, *self.base.iterdir()):
                os.chown(path, uid, gid, follow_symlinks=False)
            python, more = python_of(uid)
            env |= more
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, python, "-m", "authmilter", "run", "-c", str(self.config), *self.options],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=env,
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
                pass_fds=self.pass_fds,
                cwd=str(ROOT),
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = 20) -> None:
        """Wait until the service answers and every worker is ready."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the service ended with {self.process.returncode}:\n{self.log_text()}")
            try:
                workers = self.ask("status")["workers"]
            except OSError:
                return False
            return bool(workers) and all(w["ready"] for w in workers)

        wait_until(ready, seconds, "the service")

    def stop(self) -> int:
        """Stop it as a service manager would; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def ask(self, command: str) -> dict[str, Any]:
        """Say something on the control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(30)
            sock.connect(str(self.control))
            sock.sendall(json.dumps({"command": command}).encode() + b"\n")
            data = b""
            while not data.endswith(b"\n"):
                piece = sock.recv(65536)
                if not piece:
                    break
                data += piece
        answer: dict[str, Any] = json.loads(data)
        return answer

    def log_text(self) -> str:
        """Everything it wrote."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def log_lines(self, event: str = "message") -> list[dict[str, Any]]:
        """Its log lines of one kind; those of messages are written in batches, so it waits until no more come."""
        text, before = self.log_text(), None
        while event == "message" and text != before:
            time.sleep(2 * GATHER)
            before, text = text, self.log_text()
        found = []
        for line in text.splitlines():
            if line.startswith("{"):
                item = json.loads(line)
                if item.get("event") == event:
                    found.append(item)
        return found
