"""The package's source as data: modules, their syntax trees, and what each imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

__all__ = ["PACKAGE", "ROOT", "Import", "Module", "matches", "modules"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "authmilter"


@dataclass(frozen=True)
class Import:
    """One import: the module or name that is asked for, and the line."""

    name: str
    line: int

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Module:
    """One file: `name` as Python knows it, `path` as people write it."""

    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def own_imports(self) -> tuple[Import, ...]:
        """Imports of our own modules, each as a module's full name, wherever in the file they stand."""
        known = _module_names()
        found = []
        for item in _imports(self):
            if item.top != "authmilter":
                continue
            if item.name.endswith("_pb2"):
                continue  # generated, and not among the modules
            if item.name.startswith(("authmilter.octets._compiled", "authmilter._makers")):
                continue  # written in C: what octets/python.py and makers.py, which are among them, say
            # `from authmilter.dns import answer` names a module, `from authmilter.dns.answer import Found` a name in one
            name = item.name if item.name in known else item.name.rpartition(".")[0]
            assert name in known, f"{self.path}:{item.line}: imports {item.name}, which does not exist"
            found.append(Import(name, item.line))
        return tuple(found)

    @property
    def third_party(self) -> tuple[Import, ...]:
        """Imports from neither the standard library nor this package."""
        return tuple(
            i for i in _imports(self) if i.top not in sys.stdlib_module_names and i.top != "authmilter"
        )

    @property
    def standard(self) -> tuple[Import, ...]:
        """Imports from the standard library."""
        return tuple(i for i in _imports(self) if i.top in sys.stdlib_module_names)


def _imports(module: Module) -> Iterator[Import]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: imports are written in full"
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno)


@lru_cache(maxsize=1)
def modules() -> tuple[Module, ...]:
    """Return every module of the package."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(ROOT)
        if path.name.endswith("_pb2.py"):
            continue  # generated; the name of its package's `__init__` is enough to be imported
        parts = path.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = file.read_text("utf-8")
        found.append(Module(name, path.as_posix(), text, ast.parse(text, str(path))))
    return tuple(found)


@lru_cache(maxsize=1)
def _module_names() -> frozenset[str]:
    return frozenset(m.name for m in modules())


def matches(name: str, pattern: str) -> bool:
    """True if a dotted name or path fits a pattern; `*` stands for anything within one step."""
    wanted, given = pattern.replace("/", ".").split("."), name.replace("/", ".").split(".")
    return len(wanted) == len(given) and all(map(fnmatchcase, given, wanted))
