"""A private OpenDKIM: Debian's, as a milter on a unix socket, with a configuration and name server of the test's own.

It is the second opinion on what we sign (`judge`, or a Postfix that has it as its milter), and on what its own
KeyTable and SigningTable say (`signs`).
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.milter.client import Client, IllegalReply, Outcome, deliver
from tests.support.postfix import program, wait_until

__all__ = ["AUTHSERV_ID", "DkimSeen", "PrivateOpenDkim", "seen"]

AUTHSERV_ID = "opendkim.recv.example"
#: Nobody: all mail is from elsewhere, and is verified; or everybody, and it is signed.
_NOBODY, _EVERYBODY = "192.0.2.255", "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class DkimSeen:
    """What an Authentication-Results field says of one signature; what it does not say is empty."""

    result: str
    domain: str = ""
    selector: str = ""
    algorithm: str = ""


def seen(results: str) -> tuple[DkimSeen, ...]:
    """Return what an Authentication-Results value says of DKIM, in its order."""
    found = []
    for part in re.sub(r"\([^()]*\)", "", results).split(";")[1:]:
        result = re.match(r"\s*dkim=(\w+)", part)
        if result is not None:
            said = dict(re.findall(r"header\.(\w)=(\S+)", part))
            found.append(DkimSeen(result.group(1), said.get("d", ""), said.get("s", ""), said.get("a", "")))
    return tuple(found)


@dataclass
class PrivateOpenDkim:
    """Start with `with`.

    Args:
        nameserver: `127.0.0.1:PORT`.
        signing: sign all mail, instead of verifying it.
        settings: further settings of opendkim.conf(5); `{base}` is its folder.
        files: files to put into its folder, by name (the same `{base}` in them).
    """

    nameserver: str
    signing: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        root, env = program("opendkim", "/usr/sbin/opendkim")
        self.base = Path(tempfile.mkdtemp(prefix="authmilter-opendkim-", dir="/tmp"))
        self.base.chmod(0o755)
        for name, text in self.files.items():
            path = self.base / name
            path.write_text(text.replace("{base}", str(self.base)))
            path.chmod(0o600)
        host, _, port = self.nameserver.rpartition(":")
        (self.base / "unbound.conf").write_text(
            'server:\n do-not-query-localhost: no\n module-config: "iterator"\n'
            f'forward-zone:\n name: "."\n forward-addr: {host}@{port}\n'
        )
        settings = {
            "Syslog": "no",
            "Background": "no",
            "Mode": "s" if self.signing else "v",
            "Socket": f"local:{self.base}/socket",
            "UMask": "000",
            "AuthservID": AUTHSERV_ID,
            "InternalHosts": _EVERYBODY if self.signing else _NOBODY,
            "ResolverConfiguration": f"{self.base}/unbound.conf",
            "RequireSafeKeys": "no",  # the folder is below one that everybody may write to
            **self.settings,
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        (self.base / "opendkim.conf").write_text(text.replace("{base}", str(self.base)))
        self._process = subprocess.Popen(
            [str(root / "usr/sbin/opendkim"), "-f", "-x", str(self.base / "opendkim.conf")],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC", **env},
            stdin=subprocess.DEVNULL,
            stdout=(self.base / "output").open("wb"),
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(self._listens, 20, "OpenDKIM to listen")
        except TimeoutError as e:
            said = (self.base / "output").read_text()
            self.__exit__(None, None, None)
            raise TimeoutError(f"{e}: {said}") from None
        return self

    def _listens(self) -> bool:
        if self._process.poll() is not None:
            raise TimeoutError("waited in vain: OpenDKIM ended")
        return (self.base / "socket").is_socket()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # SIGTERM takes it five seconds, and it keeps nothing that could be lost
        self._process.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def for_postfix(self) -> str:
        """Where it listens, as Postfix writes it."""
        return f"unix:{self.base}/socket"

    def judge(self, message: bytes) -> tuple[DkimSeen, ...]:
        """Return what it says of a message (CRLF line ends), as a mail server would ask it."""
        return tuple(
            one
            for name, value in self._outcome(message).headers
            if name.lower() == b"authentication-results" and AUTHSERV_ID.encode() in value
            for one in seen(value.decode("ascii"))
        )

    def signs(self, message: bytes) -> tuple[DkimSeen, ...]:
        """Return the signatures it puts on a message, as `signed`; in the order of the header block."""
        found = []
        try:
            outcome = self._outcome(message)
        except IllegalReply as e:
            # it takes no more interest in mail that it does not sign
            if not str(e).startswith("a"):
                raise
            return ()
        for name, value in outcome.headers:
            if name.lower() == b"dkim-signature":
                tags = dict(re.findall(r"\b([dsa])=([^;\s]+)", value.decode("ascii")))
                found.append(DkimSeen("signed", tags["d"], tags["s"], tags["a"]))
        return tuple(found)

    def _outcome(self, message: bytes) -> Outcome:
        outcome = asyncio.run(deliver(self.for_postfix, message, Client()))
        if outcome.final != "accept":
            raise RuntimeError(f"OpenDKIM says {outcome.final}: {outcome.reply}")
        return outcome
