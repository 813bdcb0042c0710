"""`authmilter config|policy|version|status` and the exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from authmilter import documents
from authmilter.cli.output import ExitCode
from authmilter.config.load import json_schema, parse
from authmilter.config.model import Config
from authmilter.octets import chosen as octets
from authmilter.policy.facts import SCHEMA
from tests.cli.command import run

WRONG = "milter:\n  enigne: native\n  workers: 0\npolicy: enforec\n"
POLICY = "rules:\n  - id: a\n    when: {dmarc.status: fail}\n    then: reject\ndefault: accept\n"
CASES = """\
cases:
  - {name: forged, facts: {dmarc.status: fail}, expect: {disposition: reject, rule: a}}
  - {name: good, facts: {dmarc.status: pass}, expect: {disposition: accept}}
"""


# -- config ---------------------------------------------------------------------------------------------------------


def test_config_check_takes_the_defaults(tmp_path: Path) -> None:
    empty = tmp_path / "a.yaml"
    empty.write_text("")
    ran = run("config", "check", "-c", empty)
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(rf"ok {empty}: policy monitor with \d+ rules\n", ran.out)


def test_config_check_lists_every_mistake_and_leaves_with_78(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(WRONG)
    ran = run("config", "check", "-c", file)
    assert ran.code == 78
    assert ran.out == ""
    assert [c.split(": ")[0] for c in ran.complaints] == [f"{file}:2:3", f"{file}:3:12", f"{file}:4:9"]
    assert "did you mean `engine`?" in ran.complaints[0]


def test_config_check_reads_the_policy_and_the_zone_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("policy: ./p.yaml\n")
    (tmp_path / "p.yaml").write_text(
        "rules:\n  - {id: a, when: {spf.status: passs}, then: accept}\ndefault: accept\n"
    )
    ran = run("config", "check", "-c", file)
    assert ran.code == 78
    assert ran.complaints[0].startswith(f"{tmp_path}/p.yaml:2:32: ")
    file.write_text("dns: {zone: z.yaml}\n")
    ran = run("config", "check", "-c", file)
    assert (ran.code, ran.complaints) == (
        78,
        [f"{tmp_path}/z.yaml: cannot be read: No such file or directory"],
    )
    (tmp_path / "z.yaml").write_text("a.example: {TXT: [x], FOO: y}\nb.example: 5\n")
    ran = run("config", "check", "-c", file)
    assert ran.code == 78
    assert len(ran.complaints) >= 2


def test_config_check_warns_of_what_surprises(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text('grpc: {listen: ["unix:/run/authmilter/grpc.sock"], socket_mode: "0666"}\n')
    ran = run("config", "check", "-c", file)
    assert ran.code == 0
    assert "warning grpc.socket_mode lets everybody" in ran.out


def test_config_show_prints_what_is_in_effect_and_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("milter: {socket_mode: 660, drain: 90}\nlog: {level: debug}\n")
    ran = run("config", "show", "-c", file)
    assert (ran.code, ran.err) == (0, "")
    shown = documents.parse(ran.out, "show").data
    assert isinstance(shown, dict)
    assert list(shown) == list(Config.model_fields)
    assert shown["milter"] == {**Config().as_document()["milter"], "drain": "90s"}
    assert parse(ran.out, "show") == parse(file.read_text(), "file")


def test_config_schema_prints_the_schema() -> None:
    ran = run("config", "schema")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == json_schema()


def test_a_configuration_that_is_not_there_is_told() -> None:
    ran = run("config", "show", "-c", "/nonexistent/a.yaml")
    assert (ran.code, ran.complaints) == (
        78,
        ["/nonexistent/a.yaml: cannot be read: No such file or directory"],
    )


# -- policy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["monitor", "enforce", "strict"])
def test_a_shipped_policy_is_right_and_passes_its_tests_from_anywhere(name: str, tmp_path: Path) -> None:
    ran = run("policy", "check", name, cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert re.match(rf"ok {name}: \d+ rules, mode ", ran.out)
    ran = run("policy", "test", name, cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed\n", ran.out)


def test_a_shipped_policy_is_shown_as_a_file_to_begin_with(tmp_path: Path) -> None:
    shown = run("policy", "show", "enforce")
    assert shown.code == 0
    (tmp_path / "ours.yaml").write_text(shown.out)
    assert run("policy", "check", tmp_path / "ours.yaml").code == 0


def test_policy_check_lists_every_mistake(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("rules:\n  - {id: a, when: {dmrc.status: fail}, then: rejekt}\n")
    ran = run("policy", "check", file)
    assert ran.code == 78
    assert len(ran.complaints) == 3
    assert any("did you mean `dmarc.status`?" in c for c in ran.complaints)
    assert all(c.startswith(f"{file}:") for c in ran.complaints)


def test_a_policy_that_is_not_there_is_told(tmp_path: Path) -> None:
    ran = run("policy", "check", "nosuch")
    assert ran.code == 78
    assert "there is no policy `nosuch`" in ran.err
    ran = run("policy", "check", tmp_path / "absent.yaml")
    assert (ran.code, ran.complaints) == (
        78,
        [f"{tmp_path}/absent.yaml: cannot be read: No such file or directory"],
    )


def test_policy_test_runs_the_cases_beside_the_policy_or_those_named(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(POLICY)
    ran = run("policy", "test", file)
    assert (ran.code, ran.complaints) == (66, [f"{tmp_path}/p.test.yaml: there is no such file"])
    (tmp_path / "p.test.yaml").write_text(CASES)
    assert run("policy", "test", file).out == "2 passed, 0 failed\n"
    other = tmp_path / "other.yaml"
    other.write_text(CASES.replace("rule: a", "rule: b"))
    ran = run("policy", "test", file, other)
    assert ran.code == 1
    assert ran.out == "FAIL forged: rule is `a`, not `b`\n1 passed, 1 failed\n"
    other.write_text("cases:\n  - {name: x, facts: {dmarc.statu: fail}, expect: {rule: a}}\n")
    ran = run("policy", "test", file, other)
    assert ran.code == 78
    assert ran.complaints[0].startswith(f"{other}:2:23: unknown fact `dmarc.statu`")
    other.write_bytes(b"cases: \xff")
    ran = run("policy", "test", file, other)
    assert (ran.code, ran.complaints) == (78, [f"{other}:1:8: is not UTF-8 text"])


def test_policy_test_names_the_rules_that_no_case_makes_true(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "p.test.yaml").write_text(
        "cases:\n  - {name: x, facts: {dmarc.status: pass}, expect: {rule: default}}\n"
    )
    ran = run("policy", "test", tmp_path / "p.yaml")
    assert (ran.code, ran.out) == (0, "warning no case makes the rule a true\n1 passed, 0 failed\n")


def test_policy_facts_lists_every_fact() -> None:
    ran = run("policy", "facts", "--json")
    assert [f["name"] for f in json.loads(ran.out)] == list(SCHEMA)
    assert all(f["type"] and f["doc"] for f in json.loads(ran.out))
    table = run("policy", "facts")
    assert table.code == 0
    assert all(name in table.out for name in SCHEMA)


def test_policy_schema_is_a_schema() -> None:
    ran = run("policy", "schema")
    assert json.loads(ran.out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


# -- version, help, status ------------------------------------------------------------------------------------------


def test_version_names_authmilter_and_what_it_stands_on() -> None:
    ran = run("version")
    assert ran.code == 0
    assert re.match(r"authmilter \d+\.\d+\.\d+\n  pyspf \d", ran.out)
    found = json.loads(run("version", "--json").out)
    assert {"authmilter", "python", "dnspython", "cryptography", "compiled"} <= found.keys()
    assert ("octets" in found["compiled"]) is octets.COMPILED


def test_help_names_every_command_and_the_exit_codes() -> None:
    ran = run("--help")
    assert ran.code == 0
    for command in ("run", "status", "reload", "verify", "config", "policy", "version"):
        assert re.search(rf"^  {command} ", ran.out, re.MULTILINE)
    for code in ExitCode:
        if code is not ExitCode.OK:
            assert re.search(rf"\b{int(code)}\b", ran.out), f"{code!r} is not in the help"
    assert "\\b" not in ran.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "-h"),
        ("policy", "-h"),
        ("run", "-h"),
        ("verify", "-h"),
        ("config", "check", "-h"),
        ("policy", "test", "-h"),
    ],
)
def test_every_command_has_help(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: authmilter {' '.join(arguments[:-1])}")
    assert "\\b" not in ran.out


def test_status_and_reload_without_a_service_leave_with_69(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"control: {{socket: {tmp_path}/c.sock}}\n")
    for command in ("status", "reload"):
        ran = run(command, "-c", file)
        assert ran.code == 69
        assert ran.complaints == [
            f"{tmp_path}/c.sock: the service does not answer: No such file or directory"
        ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("config",  "nonsense"),
        ("config", "check", "--nonsense"),
        ("version", "extra"),
        ("policy", "show", "nosuch"),
        ("policy", "test"),
        ("verify",),
        ("verify", "a.eml", "--ip", "not-an-ip"),
        ("verify", "a.eml", "--now", "yesterday"),
        ("verify", "a.eml", "--resolver", "ns.example"),
        ("verify", "a.eml", "--resolver", "127.0.0.1", "--zone", "z.yaml"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_leaves_with_64_and_no_traceback(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert ran.code == 64
    assert ran.out == ""
    assert "Error: " in ran.err
    assert "Traceback" not in ran.err
