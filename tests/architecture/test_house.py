"""House rules that a reader of the code may rely on."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from tests.architecture.source import ROOT, Module, modules


def _definitions(
    module: Module,
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield public classes, functions and methods with their dotted names."""
    pending: list[tuple[str, list[ast.stmt]]] = [("", module.tree.body)]
    while pending:
        prefix, body = pending.pop()
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_"):
                    continue
                yield prefix + node.name, node
                if isinstance(node, ast.ClassDef):
                    pending.append((f"{prefix}{node.name}.", node.body))


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _code_files() -> Iterator[tuple[str, str]]:
    for folder in ("authmilter", "tests", "contrib"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), file.read_text("utf-8")


def test_every_module_and_everything_public_has_a_docstring() -> None:
    missing = [module.path for module in modules() if not ast.get_docstring(module.tree)]
    missing += [
        f"{module.path}:{node.lineno}: {name}"
        for module in modules()
        for name, node in _definitions(module)
        if not ast.get_docstring(node)
    ]
    assert not missing, "without a docstring: " + ", ".join(missing)


def test_every_module_says_what_it_offers_and_is_asked_for_nothing_else() -> None:
    offered: dict[str, set[str]] = {}
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and [t.id for t in node.targets if isinstance(t, ast.Name)] == [
                "__all__"
            ]:
                offered[module.name] = set(ast.literal_eval(node.value))
    silent = [
        m.path
        for m in modules()
        if m.name not in offered and not m.path.endswith(("__init__.py", "__main__.py"))
    ]
    assert not silent, "without __all__: " + ", ".join(silent)
    wrong = [
        f"{module.path}:{node.lineno}: takes {alias.name} from {node.module}, which does not offer it in __all__"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.module in offered
        for alias in node.names
        if alias.name not in offered[node.module]
        and not alias.name.isupper()
        and f"{node.module}.{alias.name}" not in offered
    ]
    assert not wrong, "\n".join(wrong)


_NOQA = re.compile(r"#\s*noqa(?P<codes>: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)*)?(?P<reason> - \S.*)?")
_IGNORE = re.compile(r"#\s*type:\s*ignore(?P<codes>\[[a-z0-9, -]+\])?(?P<reason>\s+# \S.*)?")


def test_every_exemption_names_its_rule_and_its_reason() -> None:
    wrong = []
    for path, text in _code_files():
        for line, comment in _comments(text):
            for kind in (_NOQA, _IGNORE):
                found = kind.search(comment)
                if found is not None and not (found["codes"] and found["reason"]):
                    wrong.append(f"{path}:{line}: {comment}")
    assert not wrong, "an exemption without its rule or reason:\n" + "\n".join(wrong)


def test_no_file_mentions_the_machine_it_was_written_on() -> None:
    # Put together here, so that this file does not mention them either.
    banned = ("/" + "work/", "/" + "home/", "/" + "root/", ".." + "/shared", "/" + "tmp/brief")
    wrong = []
    for folder in ("authmilter", "docs", "contrib", "policies", "proto"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.is_file() and file.suffix not in {".pyc", ".so"}:
                text = file.read_text("utf-8", "replace")
                wrong += [f"{file.relative_to(ROOT)}: {word}" for word in banned if word in text]
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text("utf-8")
        wrong += [f"{name}: {word}" for word in banned if word in text]
    assert not wrong, ", ".join(wrong)


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
    wrong = [
        f"{path}:{line}: {c}"
        for path, text in _code_files()
        for line, c in _comments(text)
        if marks.search(c)
    ]
    wrong += [
        f"{module.path}:{node.lineno}: NotImplementedError"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name) and node.id in {"NotImplementedError", "NotImplemented"}
    ]
    wrong += [
        f"{path}:{line}: {c}" for path, text in _code_files() for line, c in _comments(text) if "pragma" in c
    ]
    assert not wrong, "\n".join(wrong)


def test_no_function_changes_a_global() -> None:
    wrong = [
        f"{module.path}:{node.lineno}: global {', '.join(node.names)}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Global)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_cache_has_a_bound() -> None:
    wrong = []
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module == "functools":
                wrong += [
                    f"{module.path}:{node.lineno}: cache" for alias in node.names if alias.name == "cache"
                ]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lru_cache":
                sizes = [k.value for k in node.keywords if k.arg == "maxsize"]
                bounded = (
                    len(sizes) == 1 and isinstance(sizes[0], ast.Constant) and isinstance(sizes[0].value, int)
                )
                named = len(sizes) == 1 and isinstance(sizes[0], ast.Name)
                if not bounded and not named:
                    wrong.append(f"{module.path}:{node.lineno}: lru_cache without maxsize")
    assert not wrong, "\n".join(wrong)
