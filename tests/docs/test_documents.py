"""What the documents say is so: links lead somewhere, commands exist, examples run, snippets are taken."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from authmilter.cli.main import cli
from authmilter.cli.output import ExitCode
from authmilter.config.load import parse, warnings
from authmilter.config.model import Config
from tests.support.postfix import PrivatePostfix, library_path, package_root, postfix_root
from tests.support.scenarios import SCENARIOS, zone
from tests.support.sendmail import _PACKAGES as SENDMAIL
from tests.support.service import Service

ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib"
OPERATING = ROOT / "docs" / "operating.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Yield every `authmilter ...` in a code block or line of the documents and of what contrib/ holds."""
    files = [*DOCUMENTS, *sorted(f for f in CONTRIB.rglob("*") if f.is_file() and f.suffix != ".py")]
    for file in files:
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            found = re.findall(r"`(authmilter [a-z][^`]*)`", line)
            found += re.findall(r"^(?: {4,}|#  +|ExecStart=|ExecReload=)(?:\S*/)?(authmilter [a-z].*)", line)
            for text in found:
                words = shlex.split(re.split(r" +#|  +|[|>]| && ", text)[0], comments=True)
                yield f"{file.relative_to(ROOT)}:{number}", words[1:]


COMMANDS = list(_commands())


def test_the_documents_name_many_commands() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=[f"{p} {' '.join(w)[:40]}" for p, w in COMMANDS])
def test_a_command_that_is_named_exists_with_its_options(place: str, words: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli, info_name="authmilter")
    rest = [w for w in words if w not in {"...", "NAME"}]
    if "|" in " ".join(words) and len(rest) == 2:  # `config check|show|schema`
        for alternative in rest[1].split("|"):
            test_a_command_that_is_named_exists_with_its_options(place, [rest[0], alternative])
        return
    while isinstance(command, click.Group) and rest:
        name = rest.pop(0)
        below = command.get_command(context, name)
        assert below is not None, f"{place}: there is no command {name}"
        command = below
    known = {option for parameter in command.params for option in parameter.opts}
    for word in rest:
        if word.startswith("-") and word != "-":
            assert word in known | {"-h", "--help"}, f"{place}: {command.name} has no option {word}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    named = set(re.findall(r"`((?:contrib|docs|tests|policies|proto)/[\w./*-]+?)`", text))
    # within the package, as ARCHITECTURE.md and CONTRIBUTING.md write it
    inner = set(re.findall(r"`([a-z]+/[\w]+\.py|[a-z_]+\.py)`", text))
    missing = [n for n in named if not list(ROOT.glob(n.rstrip("/") or n))]
    missing += [n for n in inner if not (ROOT / "authmilter" / n).exists() and not (ROOT / n).exists()]
    assert missing == []


def test_the_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        named = set(re.findall(r"^ {4}make ([a-z-]+)", text, re.MULTILINE)) | set(
            re.findall(r"`make ([a-z-]+)`", text)
        )
        assert named <= targets, f"{document.name}: {named - targets}"


# -- examples -------------------------------------------------------------------------------------------------------


def test_the_library_example_prints_what_the_readme_says() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    ran = subprocess.run(
        [sys.executable, "-c", code[1]], capture_output=True, text=True, check=True, cwd=ROOT
    )
    printed = ran.stdout.splitlines()
    assert printed == ["reject dmarc-reject", "fail"]
    assert f"It prints `{printed[0]}` and `{printed[1]}`." in text


def _configs() -> list[str]:
    return re.findall(r"<!-- config -->\n```yaml\n(.*?)```", OPERATING.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", _configs())
def test_a_configuration_in_the_manual_is_right_and_surprises_nobody(text: str) -> None:
    config = parse(text, "operating.md")
    assert config != Config()
    assert warnings(config) == ()


def test_the_configurations_of_the_manual_are_found() -> None:
    assert len(_configs()) == 4


def test_the_manual_lists_every_exit_code() -> None:
    table = OPERATING.read_text("utf-8").partition("## Exit codes")[2]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == {
        int(c) for c in ExitCode
    }


def test_the_manual_tells_the_defaults_as_they_are() -> None:
    text = OPERATING.read_text("utf-8")
    defaults = Config().as_document()
    told = re.findall(r"`([a-z]+)\.([a-z_]+)` (\d+[a-zA-Z]*(?: s| h| m)?)", text)
    assert len(told) >= 7
    for section, name, value in told:
        assert str(defaults[section][name]) == value.replace(" ", ""), f"{section}.{name}"


def test_the_log_line_in_the_manual_is_explained() -> None:
    text = OPERATING.read_text("utf-8")
    shown = set(re.findall(r'"([a-z_]+)":', text.partition("## The log")[2].partition("| key |")[0]))
    table = text.partition("| key |")[2].partition("`internal_error`")[0]
    plain = {
        "listener",
        "client",
        "helo",
        "mail_from",
        "recipients",
        "size",
        "event",
        "level",
        "timestamp",
        "policy",
    }
    unexplained = {key for key in shown - plain if f"`{key}`" not in table}
    assert unexplained <= {"dmarc_policy"}


def test_the_version_of_the_changelog_is_that_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


# -- contrib --------------------------------------------------------------------------------------------------------


def _unit(name: str) -> list[tuple[str, str]]:
    lines = (CONTRIB / "systemd" / name).read_text("utf-8").splitlines()
    return [(k, v) for k, _, v in (line.partition("=") for line in lines if re.match(r"[A-Z]\w+=", line))]


def test_the_systemd_units_fit_the_service(tmp_path: Path) -> None:
    service = dict(_unit("authmilter.service"))
    config = Config()
    assert service["Type"] == "notify"
    assert config.control.socket == f"/run/{service['RuntimeDirectory']}/control.sock"
    assert int(service["TimeoutStopSec"]) > config.milter.drain
    assert set(service["RestartPreventExitStatus"].split()) == {
        str(int(ExitCode.USAGE)),
        str(int(ExitCode.CONFIG)),
    }
    socket = dict(_unit("authmilter.socket"))
    assert (
        parse(f'milter: {{listen: ["inet:{socket["ListenStream"]}"]}}', "unit").milter.listen
        == config.milter.listen
    )
    if shutil.which("systemd-analyze") is None:
        return
    for name in ("authmilter.service", "authmilter.socket"):
        text = (CONTRIB / "systemd" / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("/opt/authmilter/bin/authmilter", "/bin/true"))
    units = [str(tmp_path / "authmilter.service"), str(tmp_path / "authmilter.socket")]
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    ours = [line for line in ran.stderr.splitlines() if "authmilter" in line]
    assert (ran.returncode, ours) == (0, [])


def _main_cf() -> dict[str, str]:
    text = (CONTRIB / "postfix" / "main.cf.snippet").read_text("utf-8")
    return dict(re.findall(r"^([a-z_]+) = (.*)$", text, re.MULTILINE))


def test_the_postfix_lines_are_the_same_everywhere() -> None:
    short = [
        "smtpd_milters = { inet:127.0.0.1:8891, default_action=tempfail }",
        "non_smtpd_milters = $smtpd_milters",
    ]
    for document in (ROOT / "README.md", OPERATING):
        assert all(f"    {line}\n" in document.read_text("utf-8") for line in short), document.name
    assert _main_cf()["non_smtpd_milters"] == "$smtpd_milters"
    assert "inet:127.0.0.1:8891" in _main_cf()["smtpd_milters"]
    assert "default_action=tempfail" in _main_cf()["smtpd_milters"]


@pytest.mark.e2e
def test_the_postfix_snippet_works_in_postfix() -> None:
    with Service(zone=zone(), policy="enforce", workers=1) as service:
        lines = {k: v.replace("127.0.0.1:8891", f"127.0.0.1:{service.port}") for k, v in _main_cf().items()}
        with PrivatePostfix(milter="", extra=lines) as postfix:
            for scenario in SCENARIOS[:2]:
                result = postfix.send(
                    scenario.message,
                    mail_from=scenario.mail_from,
                    client_ip=scenario.client_ip,
                    helo=scenario.helo,
                )
                assert result.code == scenario.code
            service.stop()
            result = postfix.send(SCENARIOS[0].message)
            assert (result.code, result.text) == (451, "4.7.1 Service unavailable - try again later")
            assert "warning: unused parameter" not in postfix.log()


@pytest.mark.e2e
def test_the_master_snippet_is_taken_by_postfix(tmp_path: Path) -> None:
    root = postfix_root()
    (tmp_path / "main.cf").write_text(
        "compatibility_level = 3.6\n" + (CONTRIB / "postfix/main.cf.snippet").read_text()
    )
    shutil.copy(CONTRIB / "postfix" / "master.cf.snippet", tmp_path / "master.cf")
    for option, wanted in (
        ("-n", "smtpd_milters = "),
        ("-P", "submission/inet/milter_macro_daemon_name = ORIGINATING"),
    ):
        ran = subprocess.run(
            [str(root / "usr/sbin/postconf"), "-c", str(tmp_path), option],
            env={"LD_LIBRARY_PATH": library_path(root)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert wanted in ran.stdout
        assert ran.stderr == ""


@pytest.mark.e2e
@pytest.mark.slow
def test_the_sendmail_snippet_makes_a_configuration(tmp_path: Path) -> None:
    root = package_root(*SENDMAIL)
    cf = root / "usr/share/sendmail/cf"
    snippet = (CONTRIB / "sendmail" / "snippet.mc").read_text("utf-8")
    (tmp_path / "sendmail.mc").write_text(f"divert(0)dnl\nOSTYPE(`linux')dnl\n{snippet}MAILER(`smtp')dnl\n")
    ran = subprocess.run(
        [str(root / "usr/bin/m4"), f"-D_CF_DIR_={cf}/", str(cf / "m4/cf.m4"), str(tmp_path / "sendmail.mc")],
        env={"LD_LIBRARY_PATH": library_path(root)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stderr == ""
    assert "O InputMailFilters=authmilter\n" in ran.stdout
    assert "Xauthmilter, S=inet:8891@127.0.0.1, F=T, T=C:10s;S:30s;R:30s;E:2m\n" in ran.stdout
