"""A private Postfix: its own directories, ports, users of the base system; nothing of the machine's is touched.

Debian's package is downloaded and unpacked into a folder (it is not installed, so that it can live beside
Sendmail and beside a mail server of the machine's own). Needs root, as Postfix's master does.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pwd
import random
import shutil
import signal
import smtplib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = [
    "Delivered",
    "PrivatePostfix",
    "SmtpClient",
    "SmtpResult",
    "free_port",
    "library_path",
    "package_root",
    "postfix_root",
    "program",
    "smtp_answers",
    "smtp_send",
    "wait_until",
]

#: Accounts that every Debian has (base-passwd), so that none need be made.
_MAIL_OWNER, _SETGID_GROUP, _DELIVERY_USER = "uucp", "news", "games"
CACHE = Path(os.environ.get("AUTHMILTER_E2E_CACHE", str(Path(__file__).resolve().parents[2] / ".e2e")))


def package_root(*packages: str, called: str = "") -> Path:
    """Return a folder (named for them, or as `called`) with these Debian packages unpacked; downloads them once."""
    target = CACHE / (called or "-".join(packages))
    if (target / ".done").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        # apt drops to its own user for downloads, which must be able to write here
        Path(scratch).chmod(0o777)
        subprocess.run(
            ["apt-get", "download", "-qq", *packages], cwd=scratch, check=True, capture_output=True
        )
        for deb in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(deb), str(target)], check=True)
    (target / ".done").touch()
    return target


def postfix_root() -> Path:
    """Return a folder with Debian's Postfix unpacked, and the libraries that it needs and the machine lacks."""
    root = CACHE / "postfix"
    if (root / ".done").exists():
        return root
    return package_root("postfix", *_needed("postfix", "lib"), called=root.name)


def library_path(root: Path) -> str:
    """Return where the programs of an unpacked package find libraries, for LD_LIBRARY_PATH."""
    folders = [root / "usr/lib/postfix", *(root / "usr/lib").glob("*-linux-gnu*")]
    return ":".join(str(folder) for folder in folders if folder.is_dir())


def _needed(package: str, beginning: str = "") -> list[str]:
    """Return the packages with such names that would have to be installed with one, itself among them."""
    said = subprocess.run(
        ["apt-get", "install", "--simulate", "--no-install-recommends", package],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]
    return [name for name in names if name.startswith(beginning)]


def program(package: str, path: str) -> tuple[Path, dict[str, str]]:
    """Return the root folder under which a Debian package's program is, and the environment that it needs.

    Where the machine has it, that is `/`. Elsewhere the package and what it needs and the machine lacks are
    downloaded and unpacked into a folder, so that a test installs nothing.
    """
    if Path(path).exists():
        return Path("/"), {}
    target = CACHE / f"{package}-whole"
    if not (target / ".done").exists():
        package_root(*_needed(package), called=target.name)
    libraries = sorted({str(file.parent) for file in target.rglob("*.so*")})
    return target, {"LD_LIBRARY_PATH": ":".join(libraries)}


@functools.cache
def _ports() -> Iterator[int]:
    """Yield the ports of this test process, each once a round; processes that run side by side have different ones."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = list(range(15_000 + worker % 8, 32_000, 8))
    random.Random(os.getpid()).shuffle(own)
    return itertools.cycle(own)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on, another each time.

    It lies below the range that connections get theirs from, so that none takes it before somebody listens.
    """
    while True:
        port = next(_ports())
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], object], seconds: float, what: str | Callable[[], str]) -> None:
    """Wait for `condition()` to be true; fail with `what` (as it is then) after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what if isinstance(what, str) else what()}")
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class SmtpResult:
    """What the client saw: the reply after DATA (or the command that was refused), as code and text."""

    code: int
    text: str
    stage: str = "data"

    @property
    def enhanced(self) -> str:
        """The enhanced status code, or an empty text."""
        first = self.text.split(" ", 1)[0]
        return first if first.count(".") == 2 else ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivered message: the raw file as the delivery agent wrote it (LF line ends)."""

    raw: bytes

    @property
    def header(self) -> bytes:
        """The header block."""
        return self.raw.split(b"\n\n", 1)[0] + b"\n"

    def fields(self, name: str) -> list[str]:
        """The values of a field, top to bottom, unfolded."""
        lines = (
            self.header.decode("utf-8", "surrogateescape")
            .replace("\n\t", " ")
            .replace("\n ", " ")
            .split("\n")
        )
        want = name.lower() + ":"
        return [line[len(want) :].strip() for line in lines if line.lower().startswith(want)]


@dataclass
class PrivatePostfix:
    """Start with `with`; gives an SMTP port, a submission port and a Maildir.

    Args:
        milter: Postfix's own form (`inet:127.0.0.1:8891`, `unix:/path`).
        extra: further main.cf settings, name -> value.
        services: further master.cf lines.
    """

    milter: str
    extra: dict[str, str] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    hostname: str = "mx.recv.example"
    port: int = 0
    submission_port: int = 0

    def __enter__(self) -> Self:
        self.root = postfix_root()
        self.base = Path(tempfile.mkdtemp(prefix="authmilter-postfix-", dir="/tmp"))
        self.base.chmod(0o755)
        self.port = self.port or free_port()
        self.submission_port = self.submission_port or free_port()
        self._write()
        self._env = {
            "MAIL_CONFIG": str(self.base / "etc"),
            "LD_LIBRARY_PATH": library_path(self.root),
            "PATH": f"{self.root}/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TZ": "UTC",
        }
        self._master = subprocess.Popen(
            [str(self.root / "usr/lib/postfix/sbin/master"), "-c", str(self.base / "etc"), "-d"],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.base / "master.err").open("wb"),
        )
        try:
            wait_until(lambda: smtp_answers(self.port), 20, "Postfix to answer")
        except TimeoutError as e:
            said = f"{e}\n{self.log()}\n{(self.base / 'master.err').read_text()}"
            self.__exit__(None, None, None)
            raise TimeoutError(said) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._master.send_signal(signal.SIGTERM)
        try:
            self._master.wait(10)
        except subprocess.TimeoutExpired:
            self._master.kill()
            self._master.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    def _write(self) -> None:
        base, lib = self.base, self.root / "usr/lib/postfix"
        owner = pwd.getpwnam(_MAIL_OWNER)
        delivery = pwd.getpwnam(_DELIVERY_USER)
        for name in ("etc", "queue", "data", "mail"):
            (base / name).mkdir()
        os.chown(base / "data", owner.pw_uid, -1)
        os.chown(base / "mail", delivery.pw_uid, delivery.pw_gid)
        queue = base / "queue"
        for name in (
            "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
            "saved", "trace", "maildrop", "public",
        ):  # fmt: skip
            (queue / name).mkdir()
            os.chown(queue / name, owner.pw_uid, -1)
        (queue / "pid").mkdir()
        (base / "maillog").touch()
        os.chown(base / "maillog", owner.pw_uid, -1)
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": str(queue),
            "command_directory": str(self.root / "usr/sbin"),
            "daemon_directory": str(lib / "sbin"),
            "data_directory": str(base / "data"),
            "shlib_directory": str(lib),
            "meta_directory": str(self.root / "etc/postfix"),
            "mail_owner": _MAIL_OWNER,
            "setgid_group": _SETGID_GROUP,
            "default_privs": "nobody",
            "import_environment": "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LD_LIBRARY_PATH",
            "export_environment": "TZ MAIL_CONFIG LD_LIBRARY_PATH",
            "maillog_file": str(base / "maillog"),
            "maillog_file_prefixes": "/tmp, /var",
            "myhostname": self.hostname,
            "mydomain": self.hostname.split(".", 1)[-1],
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "all",
            "alias_maps": "",
            "local_recipient_maps": "",
            "virtual_mailbox_domains": "recv.example",
            "virtual_mailbox_base": str(base / "mail"),
            "virtual_mailbox_maps": "static:inbox/",
            "virtual_uid_maps": f"static:{delivery.pw_uid}",
            "virtual_gid_maps": f"static:{delivery.pw_gid}",
            "virtual_minimum_uid": "1",
            "virtual_mailbox_limit": "0",
            "mailbox_size_limit": "0",
            "message_size_limit": "0",
            "relayhost": "",
            "default_transport": "error:no delivery to elsewhere",
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
            "smtpd_recipient_restrictions": "reject_unauth_destination",
            "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_client_connection_rate_limit": "0",
            "smtpd_peername_lookup": "no",
            "smtputf8_autodetect_classes": "all",
            # XCLIENT clients would count as local, and get the header fields that they lack
            "local_header_rewrite_clients": "",
            "disable_dns_lookups": "yes",
            "biff": "no",
            "default_process_limit": "250",
            "smtpd_milters": self.milter,
            "non_smtpd_milters": self.milter,
            "milter_default_action": "tempfail",
            "milter_protocol": "6",
            "milter_connect_timeout": "10s",
            "milter_command_timeout": "20s",
            "milter_content_timeout": "60s",
        }
        settings.update(self.extra)
        (base / "etc/main.cf").write_text("".join(f"{k} = {v}\n" for k, v in settings.items()))
        lines = [
            f"127.0.0.1:{self.port} inet n - n - 250 smtpd",
            f"127.0.0.1:{self.submission_port} inet n - n - - smtpd -o milter_macro_daemon_name=ORIGINATING",
            "pickup unix n - n 60 1 pickup",
            "cleanup unix n - n - 0 cleanup",
            "qmgr unix n - n 300 1 qmgr",
            "rewrite unix - - n - - trivial-rewrite",
            "bounce unix - - n - 0 bounce",
            "defer unix - - n - 0 bounce",
            "trace unix - - n - 0 bounce",
            "flush unix n - n 1000? 0 flush",
            "proxymap unix - - n - - proxymap",
            "smtp unix - - n - - smtp",
            "error unix - - n - - error",
            "retry unix - - n - - error",
            "discard unix - - n - - discard",
            "virtual unix - n n - - virtual",
            "anvil unix - - n - 1 anvil",
            "scache unix - - n - 1 scache",
            "tlsmgr unix - - n 1000? 1 tlsmgr",
            "postlog unix-dgram n - n - 1 postlogd",
            *self.services,
        ]
        (base / "etc/master.cf").write_text("\n".join(lines) + "\n")

    # -- using it ------------------------------------------------------------------------------------------

    def log(self) -> str:
        """Postfix's log so far."""
        return (self.base / "maillog").read_text("utf-8", "replace")

    def send(
        self,
        message: bytes,
        *,
        mail_from: str = "a@sender.example",
        rcpt_to: tuple[str, ...] = ("user@recv.example",),
        client_ip: str | None = "192.0.2.1",
        helo: str = "mail.sender.example",
        login: str | None = None,
        port: int | None = None,
        mail_options: tuple[str, ...] = (),
        timeout: float = 90,
    ) -> SmtpResult:
        """Send one message as if from `client_ip` (None: as 127.0.0.1 itself) and return what the client saw.

        `message` has CRLF line ends and is sent as it is (dots are stuffed).
        """
        return smtp_send(
            port or self.port,
            message,
            mail_from=mail_from,
            rcpt_to=rcpt_to,
            client_ip=client_ip,
            helo=helo,
            login=login,
            mail_options=mail_options,
            timeout=timeout,
        )

    def mailbox(self) -> int:
        """How many messages are in the mailbox."""
        new = self.base / "mail/inbox/new"
        return len(list(new.iterdir())) if new.is_dir() else 0

    def delivered(self, count: int = 1, seconds: float = 20) -> list[Delivered]:
        """Wait for `count` delivered messages, and take all out of the mailbox (oldest first)."""
        new = self.base / "mail/inbox/new"
        wait_until(
            lambda: self.mailbox() >= count, seconds, lambda: f"{count} deliveries\n{self.log()[-3000:]}"
        )
        found = []
        for file in sorted(new.iterdir(), key=lambda f: f.stat().st_mtime_ns):
            found.append(Delivered(file.read_bytes()))
            file.unlink()
        return found

    def nothing_delivered(self) -> bool:
        """True if the mailbox is empty and no mail is on its way."""
        return not self.queued("incoming", "active", "deferred") and not self.mailbox()

    def queued(self, *queues: str) -> list[str]:
        """The queue ids in these queues (incoming, active, deferred, hold, maildrop; none named: all)."""
        names = queues or ("incoming", "active", "deferred", "hold", "maildrop")
        return [f.name for q in names for f in (self.base / "queue" / q).rglob("*") if f.is_file()]

    def held(self) -> int:
        """How many messages are in the hold queue."""
        return len(self.queued("hold"))

    def command(self, name: str, *arguments: str, given: bytes = b"") -> str:
        """Run one of Postfix's commands (sendmail, postqueue, postsuper) on this instance; returns what it says.

        Raises:
            RuntimeError: it failed; with what it said.
        """
        done = subprocess.run(
            [str(self.root / "usr/sbin" / name), *arguments],
            env=self._env,
            input=given,
            capture_output=True,
            check=False,
        )
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        if done.returncode:
            raise RuntimeError(f"{name}: {done.returncode}: {said}")
        return said


class SmtpClient:
    """One SMTP session, command by command; ends with QUIT.

    Args:
        port: of 127.0.0.1.
        source: the loopback address to come from.
        timeout: seconds for each reply.
    """

    def __init__(self, port: int, *, source: str = "127.0.0.1", timeout: float = 90) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout, (source, 0))
        self._wire = self.socket.makefile("rwb")
        self.greeting = self._reply("connect")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.say("QUIT")
        with contextlib.suppress(OSError):
            self._wire.close()
        self.socket.close()

    def say(self, line: str, stage: str = "") -> SmtpResult:
        """Say one command and return the reply; code 0 if the connection is closed."""
        stage = stage or line.split(" ", 1)[0].split(":", 1)[0].lower()
        try:
            self.write(line.encode("utf-8", "surrogateescape") + b"\r\n")
            return self._reply(stage)
        except ConnectionError:
            return SmtpResult(0, "connection closed", stage)

    def hello(self, helo: str, *, client_ip: str | None = None, login: str | None = None) -> SmtpResult:
        """Say EHLO, as somebody else with `client_ip` or `login` (these need XCLIENT)."""
        if client_ip is not None or login is not None:
            addr = f" ADDR={client_ip} NAME=[UNAVAILABLE]" if client_ip is not None else ""
            who = f" LOGIN={login}" if login is not None else ""
            for line in ("EHLO xclient", f"XCLIENT{addr}{who}"):
                said = self.say(line)
                if said.code >= 400 or said.code == 0:
                    return said
        return self.say(f"EHLO {helo}", "helo")

    def envelope(
        self, mail_from: str, rcpt_to: tuple[str, ...], mail_options: tuple[str, ...] = ()
    ) -> SmtpResult:
        """Say MAIL and RCPT; the first refusal, or the last reply."""
        path = mail_from if mail_from.startswith("<") else f"<{mail_from}>"
        options = "".join(f" {o}" for o in mail_options)
        said = self.say(f"MAIL FROM:{path}{options}", "mail")
        for rcpt in rcpt_to:
            if not 200 <= said.code < 400:
                break
            said = self.say(f"RCPT TO:<{rcpt}>", "rcpt")
        return said

    def data(self, message: bytes) -> SmtpResult:
        """Say DATA and the message (dots are stuffed), and return the last reply."""
        said = self.say("DATA", "data-command")
        if said.code != 354:
            return said
        self.write(smtplib._quote_periods(message))  # type: ignore[attr-defined]  # the library's own stuffing
        return self.end(complete=message.endswith(b"\r\n"))

    def write(self, octets: bytes) -> None:
        """Send octets as they are."""
        self._wire.write(octets)
        self._wire.flush()

    def end(self, *, complete: bool = True) -> SmtpResult:
        """End the message; `complete` if its last line is."""
        self.write(b".\r\n" if complete else b"\r\n.\r\n")
        return self._reply("data")

    def message(
        self,
        message: bytes,
        *,
        mail_from: str,
        rcpt_to: tuple[str, ...] = ("user@recv.example",),
        mail_options: tuple[str, ...] = (),
    ) -> SmtpResult:
        """Say one whole message, and return the first refusal or the last reply."""
        said = self.envelope(mail_from, rcpt_to, mail_options)
        return self.data(message) if 200 <= said.code < 400 else said

    def vanish(self) -> None:
        """Close the connection without a word."""
        self.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._wire.close()
        self.socket.close()

    def _reply(self, stage: str) -> SmtpResult:
        lines = []
        while True:
            line = self._wire.readline()
            if not line:
                return SmtpResult(0, "connection closed", stage)
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            lines.append(text[4:])
            if text[3:4] != "-":
                return SmtpResult(int(text[:3]), "\n".join(lines), stage)


def smtp_send(
    port: int,
    message: bytes,
    *,
    mail_from: str,
    rcpt_to: tuple[str, ...],
    helo: str,
    client_ip: str | None = None,
    login: str | None = None,
    mail_options: tuple[str, ...] = (),
    source: str = "127.0.0.1",
    timeout: float = 90,
) -> SmtpResult:
    """Send one message over SMTP and return what the client saw; `client_ip` and `login` need XCLIENT."""
    with SmtpClient(port, source=source, timeout=timeout) as client:
        if client.greeting.code != 220:
            return client.greeting
        said = client.hello(helo, client_ip=client_ip, login=login)
        if said.code != 250:
            return said
        return client.message(message, mail_from=mail_from, rcpt_to=rcpt_to, mail_options=mail_options)


def smtp_answers(port: int) -> bool:
    """True if a mail server greets there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            return sock.recv(3) == b"220"
    except OSError:
        return False
