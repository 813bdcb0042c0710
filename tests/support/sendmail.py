"""A private Sendmail: its own directories and port; nothing of the machine's is touched.

Debian's packages are downloaded and unpacked into a folder, the configuration is made with their own m4 files.
Needs root. Mail for `recv.example` is written to files as it would be handed to a local mailer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.postfix import (
    Delivered,
    SmtpResult,
    free_port,
    package_root,
    smtp_answers,
    smtp_send,
    wait_until,
)

__all__ = ["PrivateSendmail"]

_PACKAGES = ("sendmail-bin", "sendmail-cf", "sendmail-base", "libwrap0", "m4", "libsigsegv2", "liblockfile1")

_MC = """divert(-1)
divert(0)dnl
VERSIONID(`authmilter tests')
OSTYPE(`linux')dnl
define(`confPID_FILE', `{base}/sendmail.pid')dnl
define(`QUEUE_DIR', `{base}/queue')dnl
define(`STATUS_FILE', `{base}/statistics')dnl
define(`ALIAS_FILE', `')dnl
define(`HELP_FILE', `{base}/helpfile')dnl
define(`confDOMAIN_NAME', `mx.recv.example')dnl
define(`confDEF_USER_ID', `games:games')dnl
define(`confRUN_AS_USER', `root')dnl
define(`confDONT_BLAME_SENDMAIL', `GroupWritableDirPathSafe,AssumeSafeChown,GroupWritableIncludeFileSafe')dnl
define(`confMAX_DAEMON_CHILDREN', `300')dnl
define(`confCONNECTION_RATE_THROTTLE', `0')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confREFUSE_LA', `1000')dnl
FEATURE(`no_default_msa')dnl
define(`confSERVICE_SWITCH_FILE', `{base}/service.switch')dnl
define(`confBIND_OPTS', `-DNSRCH -DEFNAMES')dnl
define(`confTO_RESOLVER_RETRANS', `1s')dnl
define(`confTO_RESOLVER_RETRY', `1')dnl
define(`confTO_IDENT', `0s')dnl
define(`confDELIVERY_MODE', `background')dnl
define(`confMILTER_MACROS_CONNECT', `j, _, {{daemon_name}}, {{if_name}}, {{if_addr}}, {{client_addr}}')dnl
define(`confLOG_LEVEL', `9')dnl
LOCAL_DOMAIN(`recv.example')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`accept_unqualified_senders')dnl
DAEMON_OPTIONS(`Port={port}, Addr=127.0.0.1, Name=MTA')dnl
DAEMON_OPTIONS(`Port={submission_port}, Addr=127.0.0.1, Name=ORIGINATING')dnl
INPUT_MAIL_FILTER(`authmilter', `S={milter}, F=T, T=C:10s;S:30s;R:30s;E:2m')dnl
{features}MAILER(`smtp')dnl
MAILER_DEFINITIONS
{mailers}Mfile, P=/bin/sh, F=ln8u, T=DNS/RFC822/X-Unix, A=sh {base}/deliver $u
Mlocal, P=/bin/false, F=lsn, T=DNS/RFC822/X-Unix, A=false
Mprog, P=/bin/false, F=lsn, T=X-Unix/X-Unix/X-Unix, A=false
LOCAL_RULE_0
{rules}R$+ < @ recv.example . > $*	$#file $@ recv.example $: $1 @ recv.example
"""


@dataclass
class PrivateSendmail:
    """Start with `with`; `milter` is Sendmail's form (`inet:8891@127.0.0.1`, `unix:/path`).

    `features`, `mailers` and `rules` (of LOCAL_RULE_0) are further lines of its m4 file, each with its line end.
    """

    milter: str
    port: int = 0
    submission_port: int = 0
    features: str = ""
    mailers: str = ""
    rules: str = ""

    def __enter__(self) -> Self:
        self.root = package_root(*_PACKAGES)
        self.base = Path(tempfile.mkdtemp(prefix="authmilter-sendmail-", dir="/tmp"))
        self.base.chmod(0o755)
        self.port, self.submission_port = free_port(), free_port()
        for name in ("queue", "mail"):
            (self.base / name).mkdir(mode=0o700)
        shutil.chown(self.base / "mail", "games", "games")
        (self.base / "mail").chmod(0o777)
        (self.base / "helpfile").touch()
        (self.base / "service.switch").write_text("hosts files\naliases files\npasswd files\n")
        (self.base / "deliver").write_text(
            f'cat > "{self.base}/mail/.$$" && mv "{self.base}/mail/.$$" "{self.base}/mail/$$.$(date +%s%N)"\n'
        )
        cf = self.root / "usr/share/sendmail/cf"
        libs = ":".join(sorted({str(f.parent) for f in self.root.rglob("*.so.*")}))
        self._env = {"LD_LIBRARY_PATH": libs, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC"}
        text = _MC.format(
            base=self.base, port=self.port, submission_port=self.submission_port, milter=self.milter,
            features=self.features, mailers=self.mailers, rules=self.rules,
        )  # fmt: skip
        made = subprocess.run(
            [str(self.root / "usr/bin/m4"), f"-D_CF_DIR_={cf}/", str(cf / "m4/cf.m4"), "-"],
            input=text.encode(), capture_output=True, check=True, env=self._env,
        )  # fmt: skip
        (self.base / "sendmail.cf").write_bytes(made.stdout)
        (self.base / "submit").mkdir()
        binary = self.root / "usr/libexec/sendmail/sendmail"
        binary.chmod(0o755)  # with its set-group-id bit the loader would not look into our folder
        # Sendmail sleeps for a minute at start where the machine's name has no dot: it gets names of its own.
        # The addresses that tests come from have names too: it defers what it cannot look up.
        names = [f"127.0.0.{n} client{n}.example" for n in range(2, 40)]
        (self.base / "hosts").write_text("\n".join(["127.0.0.1 mx.recv.example localhost", *names, ""]))
        start = (
            f"hostname mx.recv.example && mount --bind {self.base}/hosts /etc/hosts && "
            f"exec {binary} -bD -q1h -C{self.base}/sendmail.cf"
        )
        self._process = subprocess.Popen(
            ["unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", start],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=(self.base / "stderr").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until(self._answers, 20, "Sendmail to answer")
        except TimeoutError as e:
            said = (self.base / "stderr").read_text()
            self.__exit__(None, None, None)
            raise TimeoutError(f"{e}: {said}") from None
        return self

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise TimeoutError("waited in vain: Sendmail ended")
        return smtp_answers(self.port)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    def send(self, message: bytes, *, mail_from: str = "a@sender.example", rcpt_to: tuple[str, ...] = ("user@recv.example",),
             helo: str = "mail.sender.example", port: int | None = None, mail_options: tuple[str, ...] = (), source: str = "127.0.0.1",
             timeout: float = 90) -> SmtpResult:  # fmt: skip
        """Send one message from the loopback address `source`; returns what the client saw."""
        return smtp_send(
            port or self.port, message, mail_from=mail_from, rcpt_to=rcpt_to, helo=helo, mail_options=mail_options,
            source=source, timeout=timeout,
        )  # fmt: skip

    def delivered(self, count: int = 1, seconds: float = 30) -> list[Delivered]:
        """Wait for `count` delivered messages, and take them out of the mailbox (oldest first)."""
        wait_until(lambda: len(self._mails()) >= count, seconds, f"{count} deliveries")
        found = []
        for file in sorted(self._mails(), key=lambda f: f.stat().st_mtime_ns):
            found.append(Delivered(file.read_bytes()))
            file.unlink()
        return found

    def nothing_delivered(self) -> bool:
        """True if the mailbox is empty and nothing is in the queue."""
        return not self._mails() and not self.queued()

    def queued(self) -> dict[str, str]:
        """The control files of what is in the queue (qf, or hf where it is quarantined): name -> content."""
        found = {}
        for file in (self.base / "queue").iterdir():
            if file.name.startswith(("qf", "hf")):
                with contextlib.suppress(FileNotFoundError):
                    found[file.name] = file.read_text("utf-8", "replace")
        return found

    def _mails(self) -> list[Path]:
        return [f for f in (self.base / "mail").iterdir() if not f.name.startswith(".")]
