"""One owner for each library and for each way to the outside: the tables of ARCHITECTURE.md, section Rooms."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.architecture.source import ROOT, Import, Module, matches, modules


@dataclass(frozen=True)
class Room:
    """A third-party name, what installs it, the files (within authmilter/) that may import it, and why those."""

    library: str
    distribution: str
    files: tuple[str, ...]
    why: str


ROOMS = (
    Room("spf", "pyspf", ("spf/_pyspf.py",), "its globals, prints and foreign exceptions end there"),
    Room(
        "dkim",
        "dkimpy",
        (),
        "the oracle of the tests only: it verifies a body it is given whole, and none is kept",
    ),
    Room(
        "cryptography",
        "cryptography",
        ("dkim/crypto.py", "bimi/vmc.py"),
        "two primitives, RSA and Ed25519, and the files of their keys; the certificates of logos",
    ),
    Room("httpx", "httpx", ("bimi/fetch.py",), "fetches what strangers name, with every step looked at"),
    Room("lxml", "lxml", ("bimi/svg.py",), "strangers' XML: no document type, entity or network, and bounds"),
    Room(
        "resvg_py", "resvg_py", ("cli/bimi.py",), "draws a logo that was checked, where somebody asks for it"
    ),
    Room("authres", "authres", ("headers/foreign.py",), "it reads strangers' results and never writes"),
    Room(
        "milter",
        "pymilter",
        ("milter/_pymilter.py",),
        "GPL, and one milter per process: loaded by its engine only",
    ),
    Room(
        "Milter", "pymilter", (), "pymilter's Python layer, whose factory is a global: the C module is used"
    ),
    Room(
        "dns",
        "dnspython",
        ("spf/_pyspf.py",),
        "pyspf imports its resolver, which is not loaded; messages and sockets are ours",
    ),
    Room(
        "yaml", "pyyaml", ("documents.py",), "one reader with spans, limits and no surprises for every file"
    ),
    Room(
        "idna", "idna", ("idn.py",), "IDNA 2008; Python's own codec is IDNA 2003 and drops zero-width spaces"
    ),
    Room("publicsuffixlist", "publicsuffixlist", ("dmarc/psl.py",), "loaded once, its version in the trace"),
    Room(
        "pydantic",
        "pydantic",
        ("config/load.py", "config/model.py"),
        "the model, and the words for its errors",
    ),
    Room(
        "pydantic_core",
        "pydantic",
        ("config/model.py",),
        "an error of a kind of our own, with the place it is at",
    ),
    Room("uvloop", "uvloop", ("worker.py",), "only where an event loop is started"),
    Room(
        "grpc",
        "grpcio",
        (
            "rpc/auth.py",
            "rpc/certificates.py",
            "rpc/public.py",
            "rpc/refusal.py",
            "rpc/server.py",
            "rpc/servicer.py",
            "remote/blocking.py",
            "remote/errors.py",
            "remote/waiting.py",
        ),
        "calls, connections and status codes, at the door that has them and in its client",
    ),
    Room(
        "google",
        "protobuf",
        (
            "rpc/codec.py",
            "rpc/methods.py",
            "rpc/public.py",
            "rpc/refusal.py",
            "rpc/servicer.py",
            "remote/blocking.py",
            "remote/errors.py",
            "remote/requests.py",
            "remote/waiting.py",
        ),
        "messages, at the same door and in its client; its `google.rpc` is of googleapis-common-protos",
    ),
    Room(
        "googleapis_common_protos",
        "googleapis-common-protos",
        (),
        "only its files in `google.rpc` are used, which share the name above",
    ),
    Room(
        "grpc_health",
        "grpcio-health-checking",
        ("rpc/public.py", "remote/blocking.py", "remote/waiting.py"),
        "the standard health service, and who asks it",
    ),
    Room("grpc_reflection", "grpcio-reflection", ("rpc/public.py",), "the standard reflection service"),
    Room("structlog", "structlog", ("observe/journal.py",), "the one place that writes lines"),
    Room("click", "click", ("cli/*.py",), "the command line door, a file for each command"),
    Room("rich", "rich", ("cli/*.py",), "tables for people, at the same door"),
)


@dataclass(frozen=True)
class Ability:
    """A way to reach outside a function's arguments: names that give it, and the files that may, with the reason.

    `names` are modules, or functions written as they are called (`datetime.now`, `.read_bytes`).
    """

    what: str
    names: tuple[str, ...]
    files: dict[str, str]


ABILITIES = (
    Ability(
        "the wall clock",
        ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
        {"runtime.py": "hands the engine its clock", "observe/journal.py": "says when a line was written"},
    ),
    Ability(
        "the monotonic clock",
        ("time",),
        {
            "deadline.py": "the one that everybody else is given",
            "supervisor.py": "the service's age, and seconds that were slept through",
            "supervise/loop.py": "what is to be done at which time",
            "supervise/crew.py": "the age of workers, and pauses before the next one",
            "supervise/changes.py": "how long a start or reload may take",
            "control.py": "the patience with clients of the control socket",
        },
    ),
    Ability("sleeping", ("time.sleep", "asyncio.sleep"), {}),
    Ability("predictable randomness", ("random", "uuid"), {}),
    Ability(
        "unpredictable randomness",
        ("secrets", "os.urandom"),
        {
            "runtime.py": "message ids",
            "dns/transport.py": "query ids and source ports (RFC 5452)",
            "bimi/folder.py": "names of files that are not whole yet",
            "cli/grpc.py": "bearer tokens",
        },
    ),
    Ability(
        "sockets",
        ("socket", "socketserver", "ssl", "http", "urllib.request", "smtplib"),
        {
            "dns/transport.py": "asks name servers",
            "bimi/fetch.py": "the authorities of TLS",
            "milter/sockets.py": "opens the listening sockets",
            "milter/native.py": "accepts connections",
            "milter/_pymilter.py": "names of address families",
            "supervise/crew.py": "the channels to the workers",
            "supervise/member.py": "the channel to one",
            "supervise/loop.py": "wakes itself when a signal comes",
            "supervise/sockets.py": "the sockets that are handed in",
            "supervise/desk.py": "the control socket",
            "link.py": "the channel to the supervisor",
            "worker.py": "the channel to the supervisor, and milter connections",
            "grpc_role.py": "the channel to the supervisor",
            "grpc_places.py": "reserves ports",
            "cli/run.py": "asks the control socket",
            "runtime.py": "our own host name",
            "control.py": "the control socket",
            "startup.py": "the listening sockets it opens or is given",
            "systemd.py": "the sockets that are handed in, and the one to notify",
            "cli/verify.py": "our own host name",
            "rpc/tls_files.py": "asks OpenSSL whether a certificate and a key belong together",
        },
    ),
    Ability(
        "files",
        (
            "open", "os.open", "io.open", "tempfile", "shutil", "glob", ".open", ".read_text", ".read_bytes",
            ".write_text", ".write_bytes", ".unlink", ".mkdir", ".touch", ".rename", ".iterdir",
        ),
        {
            "config/loaded.py": "the configuration file and what it names",
            "rpc/certificates.py": "certificates and keys, again when they change",
            "cli/verify.py": "batches",
            "cli/given.py": "messages",
            "remote/settings.py": "certificates and keys that a program names",
            "cli/sign.py": "messages",
            "signing/keys.py": "private keys, with their permissions",
            "signing/rotation.py": "the state of keys in rotation",
            "bimi/folder.py": "fetched documents, shared by the workers",
            "cli/bimi.py": "images and certificates to look at, and the picture that is drawn",
            "policy/shipped.py": "package data: the shipped policies",
            "dns/resolv_conf.py": "the system's name servers",
            "dmarc/psl.py": "package data: the list that publicsuffixlist carries",
            "milter/sockets.py": "paths of unix sockets",
            "startup.py": "the folder of unix sockets",
            "milter/_pymilter.py": "opens libmilter's socket and sets its mode",
            "grpc_places.py": "paths of unix sockets, and the links to them",
        },
    ),
    Ability(
        "the environment",
        ("os.environ", "os.getenv"),
        {
            "systemd.py": "LISTEN_FDS, NOTIFY_SOCKET and WATCHDOG_USEC",
            "makers.py": "AUTHMILTER_PURE: as octets/chosen.py",
            "octets/chosen.py": "AUTHMILTER_PURE: Python's functions, not the compiled ones",
        },
    ),
    Ability(
        "processes",
        ("os.fork", "os.kill", "signal", "multiprocessing", "concurrent.futures.process"),
        {
            "supervisor.py": "obeys signals",
            "supervise/loop.py": "notes signals",
            "supervise/crew.py": "starts and ends workers",
            "supervise/changes.py": "starts the child that reads the configuration",
            "supervise/reading.py": "ends itself where it takes too long",
            "grpc_role.py": "its signals, where it runs alone",
            "worker.py": "its signals, where it runs alone",
            "cli/run.py": "a reload before anything is loaded has nothing to do",
        },
    ),
    Ability("running other programs", ("subprocess", "os.system", "os.popen", "os.execv", "pty"), {}),
    Ability(
        "threads",
        ("threading", "_thread", "asyncio.to_thread", "concurrent.futures", ".run_in_executor"),
        {
            "milter/_pymilter.py": "libmilter owns the main thread, verifications have a loop beside it",
            "observe/lines.py": "who reads the log may stall, and the loop not",
            "spf/_pyspf.py": "a module that is loaded late is loaded once",
            "worker.py": "with libmilter the supervisor's word is heard in a thread",
            "link.py": "sessions go on while settings are built",
            "grpc_role.py": "the same, where it runs alone",
            "signing/keys.py": "many key files are read at the same time",
            "cli/verify.py": "reads the next line of a batch while verdicts are under way",
            "bimi/store.py": "chains, images and files, off the loop",
            "remote/blocking.py": "gRPC's own threads send what a waiting program streams",
        },
    ),
    Ability(
        "standard streams",
        ("print", "input", "sys.stdout", "sys.stderr", "sys.stdin"),
        {
            "observe/journal.py": "the log's default place",
            "worker.py": "the same, for lines in batches",
            "cli/output.py": "closes a broken pipe",
            "cli/verify.py": "a batch from standard input",
            "cli/given.py": "a message from standard input",
            "cli/sign.py": "a message from standard input, its octets to standard output",
            "policy/reference.py": "a filter that writes the manual's table",
        },
    ),
    Ability("other logs", ("logging", "warnings", "syslog"), {}),
    Ability("code from data", ("eval", "exec", "compile", "pickle", "marshal", "shelve", "ctypes"), {}),
    Ability(
        "imports by a computed name",
        ("__import__", "importlib.import_module"),
        {
            "cli/main.py": "commands are loaded when they are named",
            "__init__.py": "public names are loaded when they are used",
        },
    ),
)  # fmt: skip


def _file(module: Module) -> str:
    return module.path.removeprefix("authmilter/")


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.library)
def test_a_library_is_imported_from_its_room_only(room: Room) -> None:
    wrong = [
        f"{module.path}:{item.line}: imports {item.name}; only {' and '.join(room.files) or 'tests'} may: {room.why}"
        for module in modules()
        for item in module.third_party
        if item.top == room.library and not any(matches(_file(module), file) for file in room.files)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.library)
def test_a_room_is_used(room: Room) -> None:
    for file in room.files:
        users = [m for m in modules() if matches(_file(m), file)]
        assert any(item.top == room.library for m in users for item in m.third_party), (
            f"{file} does not import {room.library}: take it out of the table"
        )


def test_every_library_has_a_room() -> None:
    known = {room.library for room in ROOMS}
    homeless = [
        f"{m.path}:{i.line}: {i.name}" for m in modules() for i in m.third_party if i.top not in known
    ]
    assert not homeless, "give it a room in tests/architecture/test_rooms.py: " + ", ".join(homeless)


def test_every_library_with_a_room_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {_distribution(text) for text in project["dependencies"]}
    optional = {_distribution(text) for texts in project["optional-dependencies"].values() for text in texts}
    for room in ROOMS:
        # resvg_py draws a picture where somebody asks for one; all else does without
        if room.files and room.distribution not in {"pymilter", "resvg_py"}:
            assert room.distribution in declared, (
                f"{room.library} is imported, {room.distribution} is not declared"
            )
    assert "pymilter" in optional, "GPL code is an extra"
    assert "pymilter" not in declared, "GPL code is an extra, never required"
    assert declared | optional <= {room.distribution for room in ROOMS}, "a dependency without a room"


def _distribution(requirement: str) -> str:
    name = requirement
    for mark in "<>=!~[; ":
        name = name.partition(mark)[0]
    return name.lower()


@pytest.mark.parametrize("ability", ABILITIES, ids=lambda ability: ability.what)
def test_the_outside_is_reached_from_the_listed_files_only(ability: Ability) -> None:
    wrong = [
        f"{module.path}:{use.line}: `{use.name}` ({ability.what}) is for "
        f"{', '.join(ability.files) or 'no file at all'}: make it a parameter"
        for module in modules()
        if _file(module) not in ability.files
        for use in _uses(module)
        if _gives(use.name, ability)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("ability", ABILITIES, ids=lambda ability: ability.what)
def test_the_listed_files_use_what_they_are_listed_for(ability: Ability) -> None:
    by_file = {_file(module): module for module in modules()}
    for file in ability.files:
        assert file in by_file, f"{file} does not exist: take it out of the table ({ability.what})"
        assert any(_gives(use.name, ability) for use in _uses(by_file[file])), (
            f"{file} does not use {ability.what}: take it out of the table"
        )


def _gives(used: str, ability: Ability) -> bool:
    if used.startswith("authmilter."):
        return False
    return any(
        used.endswith(name) if name.startswith(".") else used == name or used.startswith(f"{name}.")
        for name in ability.names
    )


def _uses(module: Module) -> Iterator[Import]:
    """Yield every import of the standard library and every name or attribute, in full where it can be told."""
    aliases: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                aliases[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    yield from module.standard
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            yield Import(_full(node, aliases), node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = aliases.get(node.func.id, node.func.id)
            yield Import(name, node.lineno)


def _full(node: ast.Attribute, aliases: dict[str, str]) -> str:
    """Return `time.monotonic` for an attribute of an imported module, `.monotonic` for one of anything else."""
    steps = [node.attr]
    inner: ast.expr = node.value
    while isinstance(inner, ast.Attribute):
        steps.append(inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name) and inner.id in aliases:
        full = ".".join([aliases[inner.id], *reversed(steps)])
        # `from datetime import datetime` and `import datetime` give the same name
        return full.removeprefix("datetime.") if full.startswith("datetime.date") else full
    return "." + steps[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import time\ntime.time()", "the wall clock"),
        ("import time as t\nt.time_ns()", "the wall clock"),
        ("from time import time\ntime()", "the wall clock"),
        ("from datetime import datetime\ndatetime.now()", "the wall clock"),
        ("from datetime import datetime as moment\nmoment.now()", "the wall clock"),
        ("import datetime\ndatetime.datetime.utcnow()", "the wall clock"),
        ("from time import monotonic", "the monotonic clock"),
        ("import random", "predictable randomness"),
        ("import socket", "sockets"),
        ("def f():\n    import socket", "sockets"),
        ("from urllib import request", "sockets"),
        ("open('x')", "files"),
        ("from pathlib import Path\nPath('x').read_text()", "files"),
        ("from pathlib import Path\nwith Path('x').open() as f: pass", "files"),
        ("import os\nos.environ['x']", "the environment"),
        ("import os\nos.fork()", "processes"),
        ("import subprocess", "running other programs"),
        ("print('x')", "standard streams"),
        ("__import__('x')", "imports by a computed name"),
        ("import importlib\nimportlib.import_module('x')", "imports by a computed name"),
    ],
)
def test_a_use_of_the_outside_is_seen(text: str, what: str) -> None:
    module = Module("authmilter.x", "authmilter/x.py", text, ast.parse(text))
    ability = next(a for a in ABILITIES if a.what == what)
    assert any(_gives(use.name, ability) for use in _uses(module))


@pytest.mark.parametrize(
    "text",
    [
        "from datetime import datetime\ndatetime.fromisoformat('x')",
        "from pathlib import Path\nPath('x').suffix",
        "def f(now):\n    return now.time()",
        "from urllib.parse import quote\nquote('x')",
        "import os\nos.path.join('a', 'b')",
        "def f(console):\n    console.print('x')",
        "from authmilter.config.load import read_text\nread_text('x')",
    ],
)
def test_what_reaches_nowhere_is_left_alone(text: str) -> None:
    module = Module("authmilter.x", "authmilter/x.py", text, ast.parse(text))
    seen = [a.what for a in ABILITIES for use in _uses(module) if _gives(use.name, a)]
    assert seen == []
