"""`authmilter verify`: one message as a table or JSON, many as a batch in which no line ends the run."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import run
from tests.support.dkim_keys import ed25519_key, sign
from tests.support.scenarios import SCENARIOS, Scenario, zone

MESSAGE = b"From: Ann <ann@good.example>\nTo: bob@recv.example\nSubject: hello\n\nHello.\n"
SOME_ZONE = {
    "good.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"], "A": ["192.0.2.10"]},
    "_dmarc.good.example": {"TXT": ["v=DMARC1; p=reject"]},
}
OPTIONS = ("--helo", "mail.good.example", "--mail-from", "ann@good.example", "--rcpt", "bob@recv.example")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify")
    (path / "mail.eml").write_bytes(MESSAGE)
    (path / "zone.json").write_text(json.dumps(SOME_ZONE))
    (path / "zone.yaml").write_text(
        "good.example: {TXT: ['v=spf1 ip4:192.0.2.0/24 -all'], A: 192.0.2.10}\n"
        "_dmarc.good.example: {TXT: v=DMARC1; p=reject}\n"
    )
    return path


def _verify(folder: Path, *arguments: str, stdin: bytes = b"", ip: str = "192.0.2.10") -> Any:
    ran = run(
        "verify", *OPTIONS, "--ip", ip, "--zone", folder / "zone.json", *arguments, stdin=stdin, cwd=folder
    )
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out) if "--json" in arguments else ran.out


# -- one message ----------------------------------------------------------------------------------------------------


def test_the_table_shows_each_method_the_decision_and_the_reasons(folder: Path) -> None:
    shown = _verify(folder, "mail.eml", "--policy", "enforce")
    for piece in (
        "origin internet",
        "spf mailfrom",
        "dkim",
        "no signature",
        "dmarc",
        "aligned: spf",
        "dmarc asked _dmarc.good.example",
        "decision: accept by rule default of policy enforce",
        "Authentication-Results: ",
        "spf=pass smtp.mailfrom=good.example",
        "DNS questions",
    ):
        assert piece in shown, piece


def test_the_table_shows_the_reply_of_a_rejection_and_the_rules_passed_over(folder: Path) -> None:
    shown = _verify(folder, "mail.eml", "--policy", "enforce", ip="203.0.113.9")
    assert "decision: reject by rule dmarc-reject of policy enforce" in shown
    assert "reply: 550 5.7.26 " in shown
    assert "passed over role-accounts: " in shown


def test_monitor_shows_what_it_would_have_done(folder: Path) -> None:
    shown = _verify(folder, "mail.eml", ip="203.0.113.9")
    assert "decision: accept by rule " in shown
    assert "would have: reject by rule dmarc-reject with 550 5.7.26" in shown


def test_the_json_has_the_names_of_the_verdict(folder: Path) -> None:
    verdict = _verify(folder, "mail.eml", "--json", "--policy", "enforce", ip="203.0.113.9")
    evidence, decision = verdict["evidence"], verdict["decision"]
    assert evidence["spf"]["status"] == "fail"
    assert evidence["spf_helo"]["status"] == "none"
    assert evidence["iprev"]["status"] == "permerror"
    assert evidence["dkim"] == []
    assert evidence["dmarc"]["status"] == "fail"
    assert evidence["dmarc"]["author"] == "good.example"
    assert evidence["dmarc"]["record_at"] == "good.example"
    assert evidence["dmarc"]["policy"] == "reject"
    assert evidence["dmarc"]["aligned"] == []
    assert evidence["dmarc"]["queries"][0]["name"] == "_dmarc.good.example"
    assert decision["disposition"] == "reject"
    assert decision["rule"] == "dmarc-reject"
    assert decision["because"]
    assert decision["reply"]["code"] == 550
    assert decision["reply"]["enhanced"] == "5.7.26"
    assert "good.example" in decision["reply"]["text"]
    assert decision["passed_over"]
    assert verdict["authentication_results"].count("dmarc=fail") == 1
    assert {step["method"] for step in verdict["trace"]} == {"iprev", "spf_helo", "spf", "dkim", "dmarc"}
    assert isinstance(verdict["edits"], list)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.name for s in SCENARIOS])
def test_the_corpus_is_judged_as_it_should_be(scenario: Scenario, tmp_path: Path) -> None:
    if scenario.login is not None:
        # The command line judges; it has no authenticated sessions.
        assert scenario.spf is None
        return
    (tmp_path / "zone.json").write_text(json.dumps(zone()))
    ran = run(
        "verify", "-", "--json", "--policy", "enforce", "--zone", tmp_path / "zone.json", "--ip", scenario.client_ip,
        "--helo", scenario.helo, "--mail-from", scenario.mail_from, "--rcpt", scenario.rcpt_to[0], stdin=scenario.message,
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    verdict = json.loads(ran.out)
    assert verdict["evidence"]["spf"]["status"] == scenario.spf
    assert verdict["evidence"]["dmarc"]["status"] == scenario.dmarc
    if scenario.dkim is not None:
        assert sorted(d["status"] for d in verdict["evidence"]["dkim"]) == sorted(scenario.dkim)
    assert verdict["decision"].get("reply", {"code": 250})["code"] == scenario.code


def test_a_message_comes_from_a_file_or_from_standard_input_with_any_line_ends(folder: Path) -> None:
    from_file = _verify(folder, "mail.eml", "--json")
    from_stdin = _verify(folder, "-", "--json", stdin=MESSAGE.replace(b"\n", b"\r\n"))
    assert from_file["evidence"] == from_stdin["evidence"]


def test_a_zone_is_json_or_yaml(folder: Path) -> None:
    ran = run(
        "verify", "mail.eml", "--json", *OPTIONS, "--ip", "192.0.2.10", "--zone", "zone.yaml", cwd=folder
    )
    assert json.loads(ran.out)["evidence"] == _verify(folder, "mail.eml", "--json")["evidence"]


def test_without_a_client_spf_and_iprev_are_not_asked(folder: Path) -> None:
    ran = run("verify", "mail.eml", "--json", "--zone", "zone.json", cwd=folder)
    evidence = json.loads(ran.out)["evidence"]
    assert "spf" not in evidence
    assert "iprev" not in evidence
    assert evidence["dmarc"]["status"] == "fail"


def test_old_mail_is_judged_as_of_its_time(tmp_path: Path) -> None:
    key = ed25519_key()
    signed = sign(
        MESSAGE.replace(b"\n", b"\r\n"),
        key,
        domain="good.example",
        names=("from",),
        tags={"t": "1000", "x": "5000"},
    )
    (tmp_path / "m.eml").write_bytes(signed)
    (tmp_path / "zone.json").write_text(json.dumps({"s1._domainkey.good.example": {"TXT": [key.record]}}))
    found = []
    for now in ("1970-01-01T00:30:00Z", "1970-01-01T02:30:00+01:00", "2026-11-22T00:00:00Z", "1970-01-01"):
        ran = run("verify", "m.eml", "--json", "--zone", "zone.json", "--now", now, cwd=tmp_path)
        dkim = json.loads(ran.out)["evidence"]["dkim"][0]
        found.append((dkim["status"], dkim.get("problem")))
    assert found == [("pass", None), ("fail", "expired"), ("fail", "expired"), ("permerror", "times")]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n",
        b"\0",
        b"no header",
        b"From: <",
        b"\xff" * 1000,
        b"From: a@b\r\n" * 2000,
        b" leading\n\nbody",
    ],
)
def test_any_bytes_get_a_verdict(folder: Path, message: bytes) -> None:
    verdict = _verify(folder, "-", "--json", stdin=message)
    assert verdict["decision"]["disposition"]
    assert not any(step.get("bug") for step in verdict["trace"])


@pytest.mark.parametrize("name", ["absent.eml", "."])
def test_a_message_that_cannot_be_read_leaves_with_66(folder: Path, name: str) -> None:
    ran = run("verify", name, cwd=folder)
    assert ran.code == 66
    assert ran.complaints[0].startswith(f"{name}: ")
    ran = run("verify", "--batch", "absent.jsonl", cwd=folder)
    assert (ran.code, ran.complaints) == (66, ["absent.jsonl: No such file or directory"])


def test_a_zone_or_policy_that_is_wrong_leaves_with_78(folder: Path) -> None:
    assert run("verify", "mail.eml", "--zone", "absent.json", cwd=folder).code == 78
    assert run("verify", "mail.eml", "--zone", "mail.eml", cwd=folder).code == 78
    assert run("verify", "mail.eml", "--policy", "nosuch", cwd=folder).code == 78


def test_a_name_that_is_no_file_leaves_with_65_or_is_refused(folder: Path) -> None:
    ran = run("verify", "x" * 5000, cwd=folder)
    assert (ran.code, "Traceback" in ran.err) == (66, False)


# -- many -----------------------------------------------------------------------------------------------------------


def _batch(folder: Path, lines: list[object], *arguments: str) -> list[dict[str, Any]]:
    text = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )
    ran = run("verify", "--batch", "-", "--zone", "zone.json", *OPTIONS, *arguments, stdin=text, cwd=folder)
    assert (ran.code, ran.err) == (0, "")
    return [json.loads(line) for line in ran.out.splitlines()]


def test_a_batch_answers_every_line_in_order(folder: Path) -> None:
    encoded = base64.b64encode(MESSAGE).decode()
    lines: list[object] = [
        {"id": n, "message_base64": encoded, "client_ip": "192.0.2.10" if n % 3 else "203.0.113.9"}
        for n in range(100)
    ]
    answers = _batch(folder, lines)
    assert [a["id"] for a in answers] == list(range(100))
    assert [a["verdict"]["evidence"]["spf"]["status"] for a in answers] == [
        "pass" if n % 3 else "fail" for n in range(100)
    ]


BAD_LINES: list[tuple[object, str]] = [
    (b"", "the line is not JSON"),
    (b"   ", "the line is not JSON"),
    (b"not json", "the line is not JSON"),
    (b"\xff\xfe\x00", "the line is not JSON"),
    (b"[" * 100_000, "the line is not JSON"),
    (b'{"id": ' + b"9" * 10_000 + b"}", "the line is not JSON"),
    (b'{"id": "a"', "the line is not JSON"),
    ([], "the line is not a JSON object"),
    (None, "the line is not a JSON object"),
    ({"id": "x"}, "give `path` or `message_base64`"),
    ({"id": "x", "path": "mail.eml", "message_base64": ""}, "give `path` or `message_base64`"),
    ({"id": ["x"], "path": "mail.eml"}, "`id` must be a text or a whole number"),
    ({"id": "x", "pathh": "mail.eml"}, "give `path` or `message_base64`"),
    ({"id": "x", "path": "absent.eml"}, "absent.eml: No such file or directory"),
    ({"id": "x", "path": "."}, ".: Is a directory"),
    ({"id": "x", "path": "a\0b"}, "`a\\x00b` is no file name"),
    ({"id": "x", "path": 5}, "`path` must be a text"),
    ({"id": "x", "message_base64": "%%%"}, "`message_base64` is not base64"),
    ({"id": "x", "message_base64": "é"}, "`message_base64` is not base64"),
    ({"id": "x", "path": "mail.eml", "client_ip": "300.1.1.1"}, "`300.1.1.1` is no IP address"),
    ({"id": "x", "path": "mail.eml", "client_ip": 5}, "`client_ip` must be a text"),
    ({"id": "x", "path": "mail.eml", "rcpt_to": "bob@recv.example"}, "`rcpt_to` must be a list of texts"),
    ({"id": "x", "path": "mail.eml", "rcpt_to": [1]}, "`rcpt_to` must be a list of texts"),
    (
        {"id": "x", "path": "mail.eml", "now": "yesterday"},
        "`yesterday` is no time such as 2026-11-22T10:00:00Z",
    ),
    ({"id": "x", "path": "mail.eml", "zone": []}, "`zone` must be an object"),
    ({"id": "x", "path": "mail.eml", "zone": {"a.example": {"FOO": "x"}}}, "this is not a zone:"),
    ({"id": "x", "path": "mail.eml", "zone": {"a.example": {"TXT": [5]}}}, "this is not a zone:"),
    ({"id": "x", "path": "mail.eml", "zone": {"": {"TXT": ["x"]}}}, "this is not a zone:"),
]


def test_a_bad_line_gets_its_error_and_the_run_goes_on(folder: Path) -> None:
    good = {"id": "good", "path": "mail.eml", "client_ip": "192.0.2.10"}
    answers = _batch(folder, [line for bad, _ in BAD_LINES for line in (bad, good)])
    assert len(answers) == 2 * len(BAD_LINES)
    for (bad, wanted), answer, after in zip(BAD_LINES, answers[::2], answers[1::2], strict=True):
        assert answer.keys() == {"id", "error"}, bad
        assert answer["error"].startswith(wanted), bad
        has_id = isinstance(bad, dict) and isinstance(bad.get("id"), str)
        assert answer["id"] == ("x" if has_id else None)
        assert after["id"] == "good"
        assert after["verdict"]["evidence"]["spf"]["status"] == "pass"


ODD_LINES: list[dict[str, object]] = [
    {"client_ip": "", "helo": "", "mail_from": ""},
    {"client_ip": "::ffff:192.0.2.10", "helo": "[192.0.2.10]", "mail_from": "<>"},
    {"client_ip": "2001:db8::1", "helo": "\u202e\0\ud800", "mail_from": "<\ud800@\0>"},
    {"helo": "x" * 10_000, "mail_from": "x" * 10_000, "rcpt_to": ["x" * 10_000] * 100},
    {"rcpt_to": [""] * 5000},
    {"now": "0001-01-01T00:00:00+23:59"},
    {"now": "9999-12-31T23:59:59-23:59"},
    {"now": "2026-11-22"},
    {"zone": {}},
    {"zone": {"good.example": "TIMEOUT", "_dmarc.good.example": "SERVFAIL"}},
    {"zone": {"good.example": {"CNAME": "good.example"}}},
    {"message_base64": ""},
]


def test_odd_values_are_judged_and_break_nothing(folder: Path) -> None:
    lines: list[object] = [{"id": n, "path": "mail.eml", **odd} for n, odd in enumerate(ODD_LINES)]
    lines[-1] = {"id": len(ODD_LINES) - 1, **ODD_LINES[-1]}
    answers = _batch(folder, lines)
    assert [a["id"] for a in answers] == list(range(len(ODD_LINES)))
    for answer in answers:
        assert "verdict" in answer, answer
        assert not any(step.get("bug") for step in answer["verdict"]["trace"]), ODD_LINES[answer["id"]]


def test_what_a_line_does_not_say_is_taken_from_the_options(folder: Path) -> None:
    bare: dict[str, object] = {"id": "bare", "path": "mail.eml"}
    nothing = {"client_ip": None, "helo": None, "mail_from": None, "rcpt_to": None, "zone": None, "now": None}
    own = {"client_ip": "203.0.113.9", "mail_from": "x@other.example"}
    answers = _batch(folder, [bare, {**bare, **nothing}, {**bare, **own}], "--ip", "192.0.2.10")
    assert [a["verdict"]["evidence"]["spf"]["status"] for a in answers] == ["pass", "pass", "none"]
    assert answers[0]["verdict"]["evidence"] == answers[1]["verdict"]["evidence"]


def test_each_line_may_bring_its_own_zone(folder: Path) -> None:
    ip = "203.0.113.9"
    ours = {**SOME_ZONE, "good.example": {"TXT": [f"v=spf1 ip4:{ip} -all"]}}
    line = {"id": 1, "path": "mail.eml", "client_ip": ip}
    answers = _batch(
        folder,
        [
            line,
            {**line, "zone": ours},
            line,
            {**line, "zone": {}},
            {**line, "zone": {"good.example": "TIMEOUT"}},
        ],
    )
    found = [a["verdict"]["evidence"] for a in answers]
    assert [e["spf"]["status"] for e in found] == ["fail", "pass", "fail", "none", "temperror"]
    assert [e["dmarc"]["status"] for e in found] == ["fail", "pass", "fail", "none", "none"]


def test_a_batch_from_a_file_without_a_last_line_end(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_text('{"id": 1, "path": "mail.eml"}\n{"id": 2, "path": "mail.eml"}')
    ran = run("verify", "--batch", file, "--zone", "zone.json", cwd=folder)
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == [1, 2]
    file.write_text("")
    ran = run("verify", "--batch", file, "--zone", "zone.json", cwd=folder)
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_line_is_answered_before_the_next_one_is_asked(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "authmilter", "verify", "--batch", "-", "--zone", str(folder / "zone.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for n in range(3):
            line = {"id": n, "message_base64": base64.b64encode(MESSAGE).decode()}
            process.stdin.write(json.dumps(line).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == n
        process.stdin.close()
        assert process.wait(20) == 0


def test_whoever_stops_reading_gets_no_traceback(folder: Path) -> None:
    line = json.dumps({"id": 1, "path": str(folder / "mail.eml")}).encode() + b"\n"
    (folder / "many.jsonl").write_bytes(line * 2000)
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "authmilter",
            "verify",
            "--batch",
            str(folder / "many.jsonl"),
            "--zone",
            str(folder / "zone.json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["id"] == 1
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


def test_a_line_without_a_message_has_the_one_given_and_other_keys_are_the_callers_own(folder: Path) -> None:
    lines = b'{"id": 1, "expect": {"spf": "none"}}\n{"path": "mail.eml"}\n'
    shown = _verify(folder, "mail.eml", "--batch", "-", stdin=lines)
    first, second = (json.loads(line) for line in shown.splitlines())
    assert first["verdict"]["decision"] == second["verdict"]["decision"]
    assert first["id"] == 1
