"""Who may import whom: the table of ARCHITECTURE.md, section Layers, enforced."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.architecture.source import ROOT, Module, matches, modules


@dataclass(frozen=True)
class Layer:
    """A group of modules (`*` stands within one step of a name) and the layers it may import besides itself."""

    name: str
    members: tuple[str, ...]
    may_import: tuple[str, ...]
    why: str


CHECKS = ("spf", "dkim", "arc", "dmarc", "iprev", "bimi")
DOORS = ("milter", "rpc", "cli", "service", "library")

# The first layer that lists a module has it.
LAYERS = (
    Layer(
        "vocabulary",
        (
            "deadline", "errors", "evidence", "grammar", "idn", "mail", "mailboxes", "makers", "message", "names", "text",
            "verdict", "verdict_json", "dns.answer", "bimi.evidence", "bimi.findings", "*.result", "octets.*",
        ),
        (),
        "values, frozen, without I/O; idn is the room of idna",
    ),
    Layer("documents", ("documents",), ("vocabulary",), "text to plain data; the room of pyyaml"),
    Layer("resumed", ("resumed",), (), "a coroutine begun by hand, for the doors that drive the engine so"),
    Layer("ports", ("ports",), ("vocabulary",), "the ways to the outside world, as protocols"),
    Layer(
        "written",
        ("milter.sockets", "dns.servers", "headers.settings", "dmarc.settings", "bimi.settings", "arc.settings", "spf.limits", "rpc.settings", "rpc.tls_files"),
        ("vocabulary",),
        "the written form of a setting, beside the part that obeys it: the configuration checks with it, "
        "the part works with it",
    ),
    Layer("dns", ("dns.*",), ("vocabulary", "ports", "written"), "answers from the network, a cache or a zone"),
    Layer("spf", ("spf.*",), ("vocabulary", "ports", "written"), "a check knows no other check"),
    Layer("dkim", ("dkim.*",), ("vocabulary", "ports", "written"), "a check knows no other check"),
    Layer("dmarc", ("dmarc.*",), ("vocabulary", "ports", "written"), "takes results of SPF and DKIM, not the checks"),
    Layer(
        "evidence",
        (
            "bimi.der", "bimi.fetch", "bimi.folder", "bimi.gzipped", "bimi.logotype", "bimi.store", "bimi.svg", "bimi.vmc",
        ),
        ("vocabulary", "ports", "written"),
        "what BIMI records name, fetched and checked off the message's path; the check sees it as `bimi.evidence`",
    ),
    Layer("bimi", ("bimi.check", "bimi.eligibility", "bimi.record"), ("vocabulary", "ports", "written"), "takes results of DMARC, not the check"),
    Layer("iprev", ("iprev.*",), ("vocabulary", "ports", "written"), "a check knows no other check"),
    Layer(
        "inspection",
        ("bimi.inspect",),
        ("vocabulary", "ports", "written", "dns", "evidence", "bimi", "dmarc"),
        "a domain's logo for a person who asks: the check and the documents, waited for",
    ),
    Layer("headers", ("headers.*",), ("vocabulary", "written"), "text in, text out"),
    Layer(
        "arc",
        ("arc.*",),
        ("vocabulary", "ports", "written", "dkim", "headers"),
        "the one check that works with another's parts: DKIM's keys, canonical forms and cryptography; reads others'"
        " results with headers.foreign",
    ),
    Layer("policy", ("policy.*",), ("vocabulary", "documents"), "pure: no ports, no DNS, no clock"),
    Layer("observe", ("observe.*",), ("vocabulary", "ports"), "implements a port"),
    Layer("origins", ("origins",), ("vocabulary",), "where a mail comes from, of the session alone"),
    Layer(
        "signing",
        ("signing.*",),
        ("vocabulary", "ports", "written", "dkim", "origins"),
        "which outbound mail is signed with which keys; makes its signatures with dkim.sign",
    ),
    Layer(
        "engine",
        ("engine", "pipeline", "memory", "questions"),
        ("vocabulary", "ports", "dns", "headers", "policy", "origins", "signing", "written", *CHECKS),
        "the one road",
    ),
    Layer("config", ("config.*",), ("vocabulary", "documents", "written"), "settings, before anything is built of them"),
    Layer(
        "runtime",
        ("runtime",),
        (
            "vocabulary", "documents", "ports", "written", "dns", "headers", "policy", "observe", "origins", "signing",
            "engine", "config", "evidence", *CHECKS,
        ),
        "the composition root: the only one that knows everything below the doors",
    ),
    Layer(
        "milter",
        ("milter.*",),
        ("resumed", "vocabulary", "written"),
        "a door: the wire and its sessions; what judges is handed in",
    ),
    Layer(
        "rpc",
        ("rpc.*",),
        ("resumed", "vocabulary", "ports", "written", "dns", "origins", "engine", "runtime"),
        "a door: gRPC; the room of grpcio and protobuf",
    ),
    Layer(
        "client",
        ("client", "remote.*"),
        ("vocabulary", "rpc"),
        "asks the gRPC door, from anywhere; shares its messages and the One JSON",
    ),
    Layer(
        "service",
        (
            "supervisor", "supervise.*", "worker", "link", "grpc_role", "grpc_places", "control", "startup", "systemd",
        ),
        ("vocabulary", "ports", "written", "milter", "rpc", "observe", "config", "engine", "runtime"),
        "the processes; a worker serves the milter door, or gRPC's",
    ),
    Layer(
        "library",
        ("library",),
        ("vocabulary", "ports", "dns", "config", "engine", "runtime"),
        "a door: the public functions that `import authmilter` gives",
    ),
    Layer(
        "cli",
        ("cli.*", "__main__"),
        (
            "vocabulary", "documents", "ports", "written", "dns", "policy", "observe", "signing", "engine", "config",
            "runtime", "evidence", "inspection",
            "service", "client",
        ),
        "a door: the command line, which also starts the service",
    ),
)  # fmt: skip

BY_NAME = {layer.name: layer for layer in LAYERS}


def layer_of(module: str) -> Layer:
    """Return the layer that a module belongs to."""
    for layer in LAYERS:
        if any(matches(module, f"authmilter.{member}") for member in layer.members):
            return layer
    pytest.fail(f"{module} belongs to no layer: name it in tests/architecture/test_layers.py")


def is_package(module: Module) -> bool:
    """True of `__init__` files: names of folders."""
    return module.path.endswith("/__init__.py")


def test_every_module_keeps_to_its_layer() -> None:
    wrong = []
    for module in modules():
        if is_package(module):
            continue
        layer = layer_of(module.name)
        for item in module.own_imports:
            if item.name == module.name:
                continue
            other = layer_of(item.name)
            if other is not layer and other.name not in layer.may_import:
                wrong.append(
                    f"{module.path}:{item.line}: {layer.name} imports {item.name} ({other.name}); "
                    f"it may import {', '.join(layer.may_import) or 'nothing of ours'}"
                )
    assert not wrong, "\n".join(wrong)


def test_the_layers_have_an_order() -> None:
    for position, layer in enumerate(LAYERS):
        above = {later.name for later in LAYERS[position:]}
        assert not above & set(layer.may_import), f"{layer.name} may import a layer at or above its own"


def test_the_layers_name_only_what_exists() -> None:
    for layer in LAYERS:
        assert set(layer.may_import) <= set(BY_NAME)
        for member in layer.members:
            found = [m for m in modules() if not is_package(m) and matches(m.name, f"authmilter.{member}")]
            assert found, f"layer {layer.name} lists {member}, which does not exist"


def test_the_layers_allow_no_more_than_is_used() -> None:
    used: dict[str, set[str]] = {layer.name: set() for layer in LAYERS}
    for module in modules():
        if not is_package(module):
            used[layer_of(module.name).name] |= {layer_of(item.name).name for item in module.own_imports}
    # May be used by design, whether or not it is today: what lies lowest, and any check's settings by the root.
    by_design = {"vocabulary", "ports", "written"}
    for layer in LAYERS:
        spare = set(layer.may_import) - used[layer.name] - by_design
        if layer.name == "runtime":
            spare -= {*CHECKS}
        assert not spare, f"{layer.name} may import {', '.join(sorted(spare))} and does not: narrow the table"


def test_nothing_below_imports_a_door() -> None:
    allowed = {("service", "milter"), ("service", "rpc"), ("client", "rpc"), ("cli", "service")}
    for layer in LAYERS:
        for door in set(layer.may_import) & set(DOORS):
            assert (layer.name, door) in allowed, f"{layer.name} may import the door {door}"


def test_doors_import_no_check() -> None:
    for door in DOORS:
        assert not set(BY_NAME[door].may_import) & {*CHECKS, "headers"}, door


def test_checks_and_policy_know_each_other_by_results_only() -> None:
    # ARC is made of DKIM's signatures and of Authentication-Results: the one that works with others' parts.
    works_with = {"arc": {"dkim", "headers"}}
    for name in (*CHECKS, "headers", "policy"):
        others = set(BY_NAME[name].may_import) & {*CHECKS, "headers", "policy", "dns"}
        assert others <= works_with.get(name, set()), name


def test_a_packages_init_holds_a_docstring_and_nothing_else() -> None:
    for module in modules():
        if is_package(module) and module.name != "authmilter":
            body = module.tree.body
            only = (
                len(body) == 1
                and isinstance(body[0], ast.Expr)
                and ast.get_docstring(module.tree) is not None
            )
            assert only, f"{module.path} must hold a docstring and nothing else"


@pytest.mark.parametrize(
    ("imported", "libraries"),
    [
        ("authmilter", frozenset()),
        ("authmilter.evidence", {"idna"}),
        ("authmilter.verdict_json", {"idna"}),
        ("authmilter.ports", frozenset()),
        ("authmilter.policy.decide", {"idna", "yaml"}),
        ("authmilter.policy.loader", {"idna", "yaml"}),
        ("authmilter.headers.edits", {"idna", "authres"}),
        ("authmilter.iprev.check", {"idna"}),
        ("authmilter.milter.native", {"idna"}),
        ("authmilter.cli.main", {"click", "rich"}),
    ],
)
def test_an_import_drags_in_no_further_library(imported: str, libraries: frozenset[str]) -> None:
    watched = (
        "spf", "dkim", "cryptography", "authres", "milter", "Milter", "dns", "yaml", "idna", "publicsuffixlist",
        "uvloop", "pydantic", "click", "rich", "structlog", "grpc", "httpx", "lxml",
    )  # fmt: skip
    code = f"import sys, {imported}\nprint(*(n for n in {watched!r} if n in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(ran.stdout.split()) <= libraries


def test_the_service_loads_gpl_code_only_for_its_engine() -> None:
    code = "import sys, authmilter.supervisor, authmilter.worker, authmilter.cli.run\nprint('milter' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "False"


def test_the_parent_of_all_processes_loads_no_grpc() -> None:
    code = (
        "import sys, authmilter.supervisor, authmilter.worker, authmilter.cli.run\n"
        "authmilter.worker.preload()\n"
        "print(*(n for n in ('grpc', 'google.protobuf') if n in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == ""
