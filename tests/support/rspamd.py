"""A private rspamd: Debian's, with its DKIM check alone, asked over HTTP; name server and folder are the test's own."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.opendkim import DkimSeen, seen
from tests.support.postfix import free_port, program, wait_until

__all__ = ["PrivateRspamd"]

_CONFIG = """
options {{
  filters = "dkim"; pidfile = "{base}/pid"; tempdir = "{base}"; disable_hyperscan = true; rrd = ""; history_file = "";
  cache_file = "{base}/cache"; url_tld = "{share}/effective_tld_names.dat"; local_addrs = []; task_timeout = 30s;
  dns {{ nameserver = ["{nameserver}:10"]; timeout = 2s; retransmits = 3; enable_dnssec = false; }}
}}
logging {{ type = "file"; filename = "{base}/log"; level = "info"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
modules {{ path = "{share}/plugins/"; }}
dkim {{ trusted_only = false; skip_multi = false; }}
milter_headers {{ use = ["authentication-results"]; skip_local = false; skip_authenticated = false; }}
"""


@dataclass
class PrivateRspamd:
    """Start with `with`; `nameserver` is `127.0.0.1:PORT`, `extra` more of rspamd's own configuration."""

    nameserver: str
    extra: str = ""

    def __enter__(self) -> Self:
        root, env = program("rspamd", "/usr/bin/rspamd")
        self.base = Path(tempfile.mkdtemp(prefix="authmilter-rspamd-", dir="/tmp"))
        self.port = free_port()
        share = root / "usr/share/rspamd"
        (self.base / "rspamd.conf").write_text(
            _CONFIG.format(base=self.base, share=share, nameserver=self.nameserver, port=self.port)
            + self.extra
        )
        places = {
            "RSPAMD_SHAREDIR": share,
            "RSPAMD_PLUGINSDIR": share / "plugins",
            "RSPAMD_RULESDIR": share / "rules",
            "RSPAMD_LUALIBDIR": share / "lualib",
            "RSPAMD_DBDIR": self.base,
            "RSPAMD_RUNDIR": self.base,
            "RSPAMD_LOGDIR": self.base,
        }
        self._process = subprocess.Popen(
            [str(root / "usr/bin/rspamd"), "-f", "-i", "-c", str(self.base / "rspamd.conf")],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "TZ": "UTC",
                **{name: str(value) for name, value in places.items()},
                **env,
            },
            stdin=subprocess.DEVNULL,
            stdout=(self.base / "output").open("wb"),
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(self._answers, 30, "rspamd to answer")
        except TimeoutError as e:
            log = self.base / "log"
            said = (self.base / "output").read_text() + (log.read_text()[-2000:] if log.exists() else "")
            self.__exit__(None, None, None)
            raise TimeoutError(f"{e}: {said}") from None
        return self

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise TimeoutError("waited in vain: rspamd ended")
        with contextlib.suppress(OSError):
            self._ask("GET", "/ping")
            return True
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    def judge(self, message: bytes) -> tuple[DkimSeen, ...]:
        """Return what it says of a message's signatures."""
        answer: dict[str, Any] = json.loads(self._ask("POST", "/checkv2", message))
        written = answer.get("milter", {}).get("add_headers", {}).get("Authentication-Results", {})
        return seen(written.get("value", "")) if isinstance(written, dict) else ()

    def symbols(self, message: bytes) -> frozenset[str]:
        """Return the names of rspamd's findings about a message."""
        answer: dict[str, Any] = json.loads(self._ask("POST", "/checkv2", message))
        return frozenset(answer.get("symbols", {}))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"IP": "192.0.2.1", "Helo": "mail.example.org", "From": "alice@example.org"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"rspamd: {answer.status}: {said[:500]!r}")
        return said
