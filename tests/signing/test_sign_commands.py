"""`authmilter sign` and `authmilter keys`: what they print, and how they leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from authmilter.cli.keys import keys
from authmilter.cli.sign import sign
from authmilter.dkim import key as records
from authmilter.dkim.crypto import load_signing_key
from authmilter.dkim.result import DkimStatus
from tests.support.dkim_keys import dkimpy_verifies, judge
from tests.support.signing import signing_key

MAIL = b"From: Alice <alice@example.com>\nSubject: hello\nDate: d\nMessage-ID: <1@example.com>\n\nbody\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with an empty configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("", "utf-8")
    (tmp_path / "mail.eml").write_bytes(MAIL)
    return tmp_path


def generated(*more: str) -> list[dict[str, object]]:
    ran = CliRunner().invoke(keys, ["generate", "example.com", "--bits", "1024", "--json", *more])
    assert ran.exit_code == 0, ran.output
    return [json.loads(line) for line in ran.stdout.splitlines()]


def signed(*more: str, mail: bytes | None = None) -> Result:
    made = generated()
    options = [w for k in made for w in ("--selector", str(k["selector"]), "--key", str(k["file"]))]
    name = "-" if mail is not None else "mail.eml"
    return CliRunner().invoke(sign, [name, "--domain", "example.com", *options, *more], input=mail)


def zone(made: list[dict[str, object]]) -> dict[str, object]:
    return {str(k["name"]): {"TXT": [k["record"]]} for k in made}


def test_generated_keys_are_written_for_their_owner_only_and_printed_to_be_published(place: Path) -> None:
    rsa, ed25519 = generated()
    assert (rsa["type"], rsa["bits"], ed25519["type"], ed25519["bits"]) == ("rsa", 1024, "ed25519", 256)
    for made in (rsa, ed25519):
        file = place / str(made["file"])
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.name == f"example.com.{made['selector']}.pem"
        key = load_signing_key(file.read_bytes())
        assert key.record == made["record"] == "".join(made["strings"])  # type: ignore[arg-type]  # a list in JSON
        assert records.parse(key.record.encode()).problem is None
        assert (
            made["zone_line"]
            == f"{made['name']}. IN TXT ( "
            + " ".join(
                f'"{s}"'
                for s in made["strings"]  # type: ignore[attr-defined]  # as above
            )
            + " )"
        )


def test_a_key_is_never_written_over(place: Path) -> None:
    before = generated()
    contents = {p: p.read_bytes() for p in place.glob("*.pem")}
    ran = CliRunner().invoke(keys, ["generate", "example.com"])
    assert ran.exit_code == 65
    assert "never written over" in ran.stderr
    assert {p: p.read_bytes() for p in place.glob("*.pem")} == contents
    assert len(before) == 2


def test_people_are_shown_three_forms_of_a_record(place: Path) -> None:
    ran = CliRunner().invoke(
        keys, ["generate", "example.com", "--selector-template", "S{year}{kind}", "--type", "rsa"]
    )
    assert ran.exit_code == 0
    (file,) = place.glob("example.com.s2*rsa.pem")
    record = load_signing_key(file.read_bytes()).record
    assert record in ran.stdout.splitlines()
    assert f'"{record[:255]}"' in ran.stdout.splitlines()
    assert f'"{record[255:]}"' in ran.stdout.splitlines()
    assert f'IN TXT ( "{record[:255]}" "{record[255:]}" )' in ran.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--selector-template", "one"],
        ["--selector-template", "{what}-{kind}"],
        ["--selector-template", "a..{kind}"],
    ],
)
def test_a_template_must_give_each_key_a_selector(place: Path, options: list[str]) -> None:
    ran = CliRunner().invoke(keys, ["generate", "example.com", *options])
    assert ran.exit_code == 2  # click's own; the command's main makes 64 of it
    assert not list(place.glob("*.pem"))


@pytest.mark.usefixtures("place")
def test_a_signed_message_verifies_and_keeps_its_line_ends() -> None:
    made = generated()
    options = [w for k in made for w in ("--selector", str(k["selector"]), "--key", str(k["file"]))]
    for mail in (MAIL, MAIL.replace(b"\n", b"\r\n")):
        ran = CliRunner().invoke(sign, ["-", "--domain", "example.com", *options], input=mail)
        assert ran.exit_code == 0, ran.output
        assert ran.stdout_bytes.endswith(mail)
        assert (b"\r\n" in ran.stdout_bytes) == (b"\r\n" in mail)
        wire = ran.stdout_bytes if b"\r\n" in mail else ran.stdout_bytes.replace(b"\n", b"\r\n")
        assert [r.status for r in judge(wire, zone(made))] == [DkimStatus.PASS] * 2
        assert dkimpy_verifies(wire, zone(made), 0)


def test_the_help_shows_its_examples_a_line_each() -> None:
    shown = CliRunner().invoke(sign, ["--help"]).stdout
    assert "\\b" not in shown
    assert "\n  authmilter sign mail.eml --from-config\n" in shown


@pytest.mark.usefixtures("place")
def test_only_the_header_is_printed_on_request() -> None:
    ran = signed("--header", "--expire", "3600")
    assert ran.exit_code == 0
    assert ran.stdout_bytes.count(b"DKIM-Signature: v=1; a=") == 2
    assert ran.stdout_bytes.count(b" x=") == 2
    assert b"From:" not in ran.stdout_bytes


@pytest.mark.usefixtures("place")
def test_what_is_not_signed_is_told() -> None:
    ran = signed(mail=b"From: a@example.com, b@example.com\n\nx\n")
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert "not signed: several_authors" in ran.stderr


@pytest.mark.usefixtures("place")
def test_what_may_break_a_signature_is_told_with_its_cure() -> None:
    ran = signed("--header", mail=b"From: a@example.com\n\n\xff\n")
    assert ran.exit_code == 0
    assert "1024 bits" in ran.stderr.splitlines()[0]
    assert [line.split(":")[1].strip() for line in ran.stderr.splitlines()[1:]] == [
        "eight_bit",
        "no_date",
        "no_message_id",
    ]
    assert "disable_mime_output_conversion" in ran.stderr


@pytest.mark.usefixtures("place")
def test_wrong_command_lines() -> None:
    runner = CliRunner()
    assert (
        runner.invoke(sign, ["mail.eml", "--domain", "x", "--selector", "s", "--key", "gone"]).exit_code == 65
    )
    made = generated("--type", "ed25519")
    key = str(made[0]["file"])
    for options, code in (
        (["mail.eml", "--domain", "example.com", "--selector", "s"], 2),
        (["mail.eml", "--domain", "a..b", "--selector", "s", "--key", key], 2),
        (["mail.eml", "--domain", "example.com", "--selector", "s!", "--key", key], 2),
        (["mail.eml", "--domain", "example.com", "--selector", "s", "--selector", "t", "--key", key], 2),
        (["gone.eml", "--domain", "example.com", "--selector", "s", "--key", key], 66),
        # what would be passed over in silence
        (["mail.eml", "--from-config", "--domain", "example.com"], 2),
        (["mail.eml", "--from-config", "--expire", "60"], 2),
        (["mail.eml", "--domain", "example.com", "--selector", "s", "--key", key, "--login", "alice"], 2),
        (["mail.eml", "--from-config", "--explain", "--header"], 2),
        (["mail.eml", "--from-config", "--json"], 2),
    ):
        assert runner.invoke(sign, options).exit_code == code, options


# ----- keys check -----------------------------------------------------------------------------------------------


def checked(*options: str) -> tuple[int, list[dict[str, object]]]:
    ran = CliRunner().invoke(keys, ["check", "-c", "c.yaml", "--zone", "zone.json", "--json", *options])
    return ran.exit_code, [json.loads(line) for line in ran.stdout.splitlines()]


def test_every_key_of_a_table_is_checked(place: Path) -> None:
    made = generated()
    (place / "table").write_text(
        "".join(f"example.com {k['selector']} {k['file']}\n" for k in made)
        + f"*.example.net {made[0]['selector']} {made[0]['file']}\n",
        "utf-8",
    )
    (place / "zone.json").write_text(json.dumps(zone(made)), "utf-8")
    code, told = checked("--table", "table")
    assert code == 1
    assert [(t["domain"], t["state"]) for t in told] == [
        ("example.com", "published"),
        ("example.com", "published"),
        ("example.net", "missing"),
    ]
    published = {**zone(made), f"{made[0]['selector']}._domainkey.example.net": "TIMEOUT"}
    (place / "zone.json").write_text(json.dumps(published), "utf-8")
    assert checked("--table", "table")[0] == 69
    published[f"{made[0]['selector']}._domainkey.example.net"] = {"TXT": [made[0]["record"]]}
    (place / "zone.json").write_text(json.dumps(published), "utf-8")
    assert checked("--table", "table")[0] == 0


def test_a_record_in_strings_and_behind_an_alias_is_found(place: Path) -> None:
    made = generated("--type", "rsa", "--bits", "4096")[0]
    options = ("--domain", "example.com", "--selector", str(made["selector"]), "--key", str(made["file"]))
    assert isinstance(made["strings"], list)
    assert len(made["strings"]) > 2
    alias = {made["name"]: {"CNAME": "keys.example.net"}}
    for node, code, state in (
        ({"TXT": [made["strings"]]}, 0, "published"),
        ({"TXT": [made["strings"][:-1]]}, 1, "unusable"),
        ({"TXT": [[made["strings"][0], " ", *made["strings"][1:]]]}, 0, "published"),
        ({"TXT": ["v=DKIM1; p="]}, 1, "revoked"),
        ({"TXT": [made["strings"], "v=DKIM1; p="]}, 1, "unusable"),
    ):
        (place / "zone.json").write_text(json.dumps({**alias, "keys.example.net": node}), "utf-8")
        found, told = checked(*options)
        assert (found, told[0]["state"]) == (code, state), node
        assert set(told[0]) == {
            "name", "domain", "selector", "type", "bits", "state", "detail", "testing", "line",
        }  # fmt: skip


def test_one_key_and_opendkims_tables_are_checked(place: Path) -> None:
    (place / "k.pem").write_bytes(signing_key().pem())
    (place / "k.pem").chmod(0o600)
    (place / "zone.json").write_text(
        json.dumps({"s1._domainkey.example.com": {"TXT": [signing_key().record]}}), "utf-8"
    )
    assert checked("--domain", "example.com", "--selector", "s1", "--key", "k.pem")[0] == 0
    (place / "KeyTable").write_text("k example.com:s1:./k.pem\n", "utf-8")
    (place / "SigningTable").write_text("*@example.com k\n", "utf-8")
    code, told = checked("--key-table", "KeyTable", "--signing-table", "refile:SigningTable")
    assert (code, [t["state"] for t in told]) == (0, ["published"])
    shown = CliRunner().invoke(
        keys,
        [
            "check",
            "-c",
            "c.yaml",
            "--zone",
            "zone.json",
            "--domain",
            "example.com",
            "--selector",
            "s2",
            "--key",
            "k.pem",
        ],
    )
    assert shown.exit_code == 1
    assert "missing" in shown.stdout
    assert "s2._domainkey.example.com" in shown.stdout


@pytest.mark.usefixtures("place")
def test_check_wants_to_know_what() -> None:
    runner = CliRunner()
    for options in (
        [],
        ["--domain", "x"],
        ["--key-table", "x"],
        ["--key-table", "db:x", "--signing-table", "y"],
    ):
        assert runner.invoke(keys, ["check", *options]).exit_code == 2, options
    gone = ["check", "--domain", "example.com", "--selector", "s", "--key", "gone"]
    assert runner.invoke(keys, gone).exit_code == 65
    assert runner.invoke(keys, ["check", "--table", "gone"]).exit_code == 78
