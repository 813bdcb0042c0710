"""`--explain` of `sign` and `verify`: which line decided the direction, the signing, and why there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from authmilter.dkim.crypto import KeyKind
from authmilter.dkim.sign import CURES, Risk
from tests.cli.command import run
from tests.support.scenarios import a_message
from tests.support.signing import signing_key

CONFIG = """
internal: {networks: [10.99.0.0/16]}
submission: {daemon_names: [OUT]}
signing:
  domains:
    - {domain: good.example, selector: s1, key: rsa.pem}
    - {domain: good.example, selector: e1, key: ed.pem}
    - {domain: '*.deep.example', selector: e1, key: ed.pem}
  senders:
    - {users: ['*'], authors: ['{login}']}
    - {networks: [10.99.0.0/16], authors: ['*.deep.example', deep.example]}
"""
USER = a_message("User <user@good.example>")
LOGIN = ("--login", "user@good.example")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explain")
    for name, kind in (("rsa.pem", KeyKind.RSA), ("ed.pem", KeyKind.ED25519)):
        (path / name).write_bytes(signing_key(kind).pem())
        (path / name).chmod(0o600)
    (path / "c.yaml").write_text(CONFIG)
    (path / "none.yaml").write_text("")
    (path / "zone.json").write_text("{}")
    return path


def _sign(folder: Path, message: bytes, *options: str, code: int = 0, config: str = "c.yaml") -> str:
    ran = run("sign", "-", "--from-config", "-c", config, *options, "--explain", stdin=message, cwd=folder)
    assert (ran.code, ran.err) == (code, ""), ran
    return ran.out


def _data(folder: Path, message: bytes, *options: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_sign(folder, message, *options, "--json", code=code))
    return found


def test_sign_tells_the_direction_the_author_and_both_lines(folder: Path) -> None:
    assert _sign(folder, USER, *LOGIN).splitlines() == [
        "direction: submission (submission.authenticated: the session is authenticated)",
        "author: user@good.example",
        "sender: signing.senders[0]",
        "signing: signed as good.example/s1, good.example/e1 (decided by signing.domains[0]: good.example s1)",
    ]


def test_sign_tells_the_same_as_json(folder: Path) -> None:
    assert _data(folder, USER, *LOGIN) == {
        "origin": "submission",
        "origin_because": "submission.authenticated: the session is authenticated",
        "author": "user@good.example",
        "action": "sign",
        "signed": ["good.example/s1", "good.example/e1"],
        "line": "signing.domains[0]: good.example s1",
        "reason": "",
        "detail": "",
        "sender_line": "signing.senders[0]",
        "risks": {},
    }


@pytest.mark.parametrize(
    ("options", "origin", "because"),
    [
        ((), "submission", "the command line"),
        (("--ip", "10.99.1.2"), "internal", "internal.networks: 10.99.0.0/16"),
        (("--daemon-name", "OUT"), "submission", "submission.daemon_names: OUT"),
        (("--ip", "192.0.2.1"), "internet", "no other line fits"),
    ],
)
def test_the_session_decides_the_direction(
    folder: Path, options: tuple[str, ...], origin: str, because: str
) -> None:
    told = _data(folder, USER, *options, code=1)
    assert (told["origin"], told["origin_because"]) == (origin, because)


@pytest.mark.parametrize(
    ("message", "options", "reason", "line"),
    [
        (USER, ("--ip", "192.0.2.1"), "not_outbound", "signing.origins: internet is not among them"),
        (USER, ("--login", "eve@good.example"), "sender_not_allowed", "signing.senders[0]"),
        (USER, ("--ip", "10.99.1.2"), "sender_not_allowed", "signing.senders[1]"),
        (USER, ("--daemon-name", "OUT"), "sender_not_allowed", "signing.senders: no line fits the session"),
        (a_message("a@other.example"), LOGIN, "no_key", "signing: no line is for other.example"),
        (a_message("a@good.example, b@good.example"), LOGIN, "several_authors", "From"),
        (b"From: x@a@b\r\n\r\n", LOGIN, "malformed_from", "From"),
        (b"Subject: s\r\n\r\n", LOGIN, "no_author", "From"),
    ],
)
def test_sign_tells_why_a_message_is_not_signed(
    folder: Path, message: bytes, options: tuple[str, ...], reason: str, line: str
) -> None:
    told = _data(folder, message, *options, code=1)
    assert (told["action"], told["signed"], told["reason"], told["line"]) == (
        "pass-unsigned",
        [],
        reason,
        line,
    )
    text = _sign(folder, message, *options, code=1)
    assert f"signing: not signed: {reason}" in text
    assert f"(decided by {line})" in text


def test_a_bounce_tells_the_parent_s_line(folder: Path) -> None:
    told = _data(folder, a_message("MAILER-DAEMON@mx1.deep.example"), "--ip", "10.99.1.2")
    assert told["signed"] == ["deep.example/e1"]
    assert told["line"] == "signing.domains[2]: *.deep.example e1"
    assert told["sender_line"] == "signing.senders[1]"


@pytest.mark.parametrize("on_unsafe_body", ["sign-and-warn", "tempfail", "pass-unsigned"])
def test_sign_tells_risks_with_their_cures(folder: Path, on_unsafe_body: str) -> None:
    (folder / "unsafe.yaml").write_text(CONFIG + f"  on_unsafe_body: {on_unsafe_body}\n")
    unsafe = USER + b"x" * 1000 + b"\xff\r\n"
    signs = on_unsafe_body == "sign-and-warn"
    text = _sign(folder, unsafe, *LOGIN, code=0 if signs else 1, config="unsafe.yaml")
    for risk in (Risk.LONG_LINE, Risk.EIGHT_BIT):
        assert f"  risk {risk}: {CURES[risk]}" in text
    assert ("signing: signed as" in text) == signs
    assert (f"not signed: unsafe_body: {on_unsafe_body} by on_unsafe_body" in text) == (not signs)
    assert ("action: tempfail" in text) == (on_unsafe_body == "tempfail")


def test_json_goes_with_explain_only_and_addresses_have_to_be_some(folder: Path) -> None:
    for options in (("--json",), ("--ip", "nowhere")):
        ran = run("sign", "-", "--from-config", "-c", "c.yaml", *options, stdin=USER, cwd=folder)
        assert ran.code == 64, ran


def test_the_session_decides_for_signing_too_without_explain(folder: Path) -> None:
    ran = run("sign", "-", "--from-config", "-c", "c.yaml", "--ip", "192.0.2.1", stdin=USER, cwd=folder)
    assert ran.code == 1
    assert "not signed: not_outbound" in ran.err


# -- verify -------------------------------------------------------------------------------------------------------------


def _verify(folder: Path, *options: str, config: str = "c.yaml") -> str:
    ran = run("verify", "-", "-c", config, "--zone", "zone.json", *options, stdin=USER, cwd=folder)
    assert (ran.code, ran.err) == (0, ""), ran
    return ran.out


def test_verify_explains_direction_decision_and_signing(folder: Path) -> None:
    lines = _verify(folder, *LOGIN, "--ip", "192.0.2.1", "--explain").splitlines()
    assert lines[0] == "direction: submission (submission.authenticated: the session is authenticated)"
    assert lines[1].startswith("decision: accept by rule ")
    assert lines[-1] == (
        "signing: signed as good.example/s1, good.example/e1 (decided by signing.domains[0]: good.example s1)"
    )


def test_verify_explains_why_mail_is_not_signed(folder: Path) -> None:
    inbound = _verify(folder, "--ip", "192.0.2.1", "--explain").splitlines()
    assert inbound[0] == "direction: internet (no other line fits)"
    assert (
        inbound[-1]
        == "signing: not signed: not_outbound (decided by signing.origins: internet is not among them)"
    )
    forged = _verify(folder, "--login", "eve@good.example", "--explain").splitlines()
    assert forged[-1] == (
        "signing: not signed: sender_not_allowed: the session may not write as good.example "
        "(decided by signing.senders[0])"
    )
    assert _verify(folder, "--explain", config="none.yaml").splitlines()[-1] == "signing: not configured"


def test_the_table_and_the_json_tell_it_too(folder: Path) -> None:
    table = _verify(folder, *LOGIN)
    assert "origin submission (submission.authenticated" in table
    assert "signing: signed as good.example/s1, good.example/e1 (decided by signing.domains[0]" in table
    told = json.loads(_verify(folder, "--daemon-name", "OUT", "--json"))
    assert (told["origin"], told["origin_because"]) == ("submission", "submission.daemon_names: OUT")
    assert told["signing"]["reason"] == "sender_not_allowed"
    assert told["signing"]["line"] == "signing.senders: no line fits the session"


def test_a_batch_line_names_login_and_daemon(folder: Path) -> None:
    cases = [{"id": 1, "login": "user@good.example"}, {"id": 2, "daemon_name": "OUT"}, {"id": 3}]
    (folder / "mail.eml").write_bytes(USER)
    ran = run(
        "verify", "mail.eml", "-c", "c.yaml", "--zone", "zone.json", "--ip", "192.0.2.1", "--batch", "-",
        stdin="".join(json.dumps(case) + "\n" for case in cases).encode(), cwd=folder,
    )  # fmt: skip
    origins = [json.loads(line)["verdict"]["origin"] for line in ran.out.splitlines()]
    assert origins == ["submission", "submission", "internet"]
