"""Reading the settings at the start: first beside the imports, then by the service user, without pydantic if it can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.architecture.source import ROOT

_CODE = """
import json, sys
from pathlib import Path
from authmilter.supervise import reading
path, later = Path(sys.argv[1]), sys.argv[2]
seen = reading.Look(str(path), tuple).seen()
if later:
    path.write_text(later)
else:
    path.touch()
answer = reading._answer(lambda: reading._read(str(path), seen))
print(json.dumps({"pydantic": "pydantic" in sys.modules, **answer}))
"""


def read(path: Path, later: str = "") -> dict[str, object]:
    """Look at the settings, put other ones in their place if any are given, and read them for use."""
    ran = subprocess.run(
        [sys.executable, "-c", _CODE, str(path), later], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def _policy(found: dict[str, object]) -> object:
    texts = found["texts"]
    assert isinstance(texts, dict)
    return json.loads(json.loads(texts[""])["settings"])["policy"]


def test_settings_that_have_not_changed_are_used_as_they_were_seen(tmp_path: Path) -> None:
    path = tmp_path / "authmilter.yaml"
    path.write_text("policy: strict\nlimits: {checks: 30s}\ndns: {nameservers: ['127.0.0.1:53']}\n")
    found = read(path)
    assert found["pydantic"] is False
    assert _policy(found) == "strict"
    texts, warnings = found["texts"], found["warnings"]
    assert isinstance(texts, dict)
    assert isinstance(warnings, list)
    assert texts[str(path)] == path.read_text()
    assert any("limits.checks is longer" in each for each in warnings)


def test_settings_that_have_changed_meanwhile_are_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "authmilter.yaml"
    path.write_text("policy: strict\nlimits: {checks: 30s}\ndns: {nameservers: ['127.0.0.1:53']}\n")
    found = read(path, "policy: enforce\ndns: {nameservers: ['127.0.0.1:53']}\n")
    assert found["pydantic"] is True
    assert _policy(found) == "enforce"
    assert found["warnings"] == []
    wrong = read(path, "dns: {nameservers: ['127.0.0.1:53']}\nnothing: 1\n")
    complaints = wrong["complaints"]
    assert isinstance(complaints, list)
    assert [each[:4] for each in complaints] == [[str(path), 2, 1, "unknown setting `nothing`"]]
