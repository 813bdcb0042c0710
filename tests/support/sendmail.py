"""A private Sendmail: its own directories and port; nothing of the machine's is touched.

Debian's packages are downloaded and unpacked into a folder, the configuration is made with their own m4 files.
Needs root. Mail for `recv.example` is written to files as it would be handed to a local mailer.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

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
define(`confCW_FILE', `{base}/local-host-names')dnl
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
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`accept_unqualified_senders')dnl
DAEMON_OPTIONS(`Port={port}, Addr=127.0.0.1, Name=MTA')dnl
DAEMON_OPTIONS(`Port={submission_port}, Addr=127.0.0.1, Name=ORIGINATING')dnl
INPUT_MAIL_FILTER(`authmilter', `S={milter}, F=T, T=C:10s;S:30s;R:30s;E:2m')dnl
MAILER_DEFINITIONS
Mlocal, P=/bin/sh, F=lsDFMAw5:/|@qSPfhn9, S=EnvFromL/HdrFromL, R=EnvToL/HdrToL, T=DNS/RFC822/X-Unix,
 A=sh {base}/deliver
Mprog, P=/bin/sh, F=lsDFMoqeu9, S=EnvFromL/HdrFromL, R=EnvToL/HdrToL, D=/, T=X-Unix/X-Unix/X-Unix, A=sh -c $u
MAILER(`smtp')dnl
"""


@dataclass
class PrivateSendmail:
    """Start with `with`; `milter` is Sendmail's form (`inet:8891@127.0.0.1`, `unix:/path`)."""

    milter: str
    port: int = 0
    submission_port: int = 0

    def __enter__(self) -> PrivateSendmail:
        self.root = package_root(*_PACKAGES)
        self.base = Path(tempfile.mkdtemp(prefix="authmilter-sendmail-", dir="/tmp"))
        self.base.chmod(0o755)
        self.port, self.submission_port = free_port(), free_port()
        for name in ("queue", "mail"):
            (self.base / name).mkdir(mode=0o700)
        shutil.chown(self.base / "mail", "games", "games")
        (self.base / "mail").chmod(0o777)
        (self.base / "local-host-names").write_text("recv.example\n")
        (self.base / "helpfile").touch()
        (self.base / "service.switch").write_text("hosts files\naliases files\npasswd files\n")
        (self.base / "deliver").write_text(
            f'cat > "{self.base}/mail/.$$" && mv "{self.base}/mail/.$$" "{self.base}/mail/$$"\n'
        )
        cf = self.root / "usr/share/sendmail/cf"
        libs = ":".join(sorted({str(f.parent) for f in self.root.rglob("*.so.*")}))
        self._env = {"LD_LIBRARY_PATH": libs, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC"}
        text = _MC.format(
            base=self.base, port=self.port, submission_port=self.submission_port, milter=self.milter
        )
        made = subprocess.run(
            [str(self.root / "usr/bin/m4"), f"-D_CF_DIR_={cf}/", str(cf / "m4/cf.m4"), "-"],
            input=text.encode(), capture_output=True, check=True, env=self._env,
        )  # fmt: skip
        (self.base / "sendmail.cf").write_bytes(made.stdout)
        (self.base / "submit").mkdir()
        binary = self.root / "usr/libexec/sendmail/sendmail"
        binary.chmod(0o755)  # with its set-group-id bit the loader would not look into our folder
        # Sendmail sleeps for a minute at start where the machine's name has no dot: it gets names of its own.
        (self.base / "hosts").write_text("127.0.0.1 mx.recv.example localhost\n")
        start = (
            f"hostname mx.recv.example && mount --bind {self.base}/hosts /etc/hosts && "
            f"exec {binary} -bD -q1h -C{self.base}/sendmail.cf"
        )
        self._process = subprocess.Popen(
            ["unshare", "--uts", "--mount", "sh", "-c", start],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.base / "stderr").open("wb"),
            start_new_session=True,
        )
        try:
            wait_until(lambda: smtp_answers(self.port), 6, "Sendmail to answer")
        except TimeoutError as e:
            said = (self.base / "stderr").read_text()
            self.__exit__(None, None, None)
            raise TimeoutError(f"{e}: {said}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        folder = self.base / "mail"

        def files() -> list[Path]:
            return [f for f in folder.iterdir() if not f.name.startswith(".")]

        wait_until(lambda: len(files()) >= count, seconds, f"{count} deliveries")
        found = []
        for file in sorted(files(), key=lambda f: f.stat().st_mtime_ns):
            found.append(Delivered(file.read_bytes()))
            file.unlink()
        return found
