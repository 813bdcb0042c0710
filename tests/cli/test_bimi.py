"""`authmilter bimi check`: files and domains, as a user runs it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.cli.command import Ran, run
from tests.support.marks import SVG, Mark, a_bundle, pem, root

NOW = "2026-11-01T12:00:00Z"
ZONE = """
example.com: {A: [192.0.2.1]}
_dmarc.example.com: {TXT: ["v=DMARC1; p=reject"]}
default._bimi.example.com: {TXT: ["v=BIMI1; l=https://logo.example.net/l.svg; a=https://logo.example.net/m.pem"]}
no._bimi.example.com: {TXT: ["v=BIMI1; l=; a="]}
late._bimi.example.com: {TXT: SERVFAIL}
logo.example.net: {A: [127.0.0.1]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "zone.yaml").write_text(ZONE)
    (tmp_path / "roots.pem").write_bytes(pem(root().certificate))
    (tmp_path / "mark.pem").write_bytes(a_bundle())
    (tmp_path / "logo.svg").write_bytes(SVG)
    return tmp_path


def check(folder: Path, *arguments: str) -> Ran:
    return run("bimi", "check", *arguments, cwd=folder)


def found(ran: Ran) -> dict[str, dict[str, object]]:
    """Return the findings that JSON output tells, by rule."""
    told = json.loads(ran.out)
    return {f["rule"]: f for f in told["findings"]}


def test_a_good_image_is_told_rule_by_rule(folder: Path) -> None:
    ran = check(folder, "logo.svg")
    assert ran.code == 0
    assert "svg_base_profile" in ran.out
    assert "logo.svg: all is well (26 rules)" in ran.out
    assert "fail" not in ran.out


def test_a_bad_image_names_the_rule_and_the_line(folder: Path) -> None:
    (folder / "bad.svg").write_bytes(SVG.replace(b"<circle", b"<script/><circle"))
    ran = check(folder, "bad.svg")
    assert ran.code == 1
    assert "script is not allowed (line 5)" in ran.out
    assert "bad.svg: 1 of 26 rules are broken" in ran.out


def test_a_compressed_image_is_an_image(folder: Path) -> None:
    (folder / "logo.svgz").write_bytes(gzip.compress(SVG))
    ran = check(folder, "logo.svgz", "--json")
    assert ran.code == 0
    told = json.loads(ran.out)
    assert (told["kind"], told["ok"], told["title"]) == ("image", True, "Example")
    assert found(ran)["svg_gzip"]["passed"]


def test_a_good_certificate_is_told_rule_by_rule(folder: Path) -> None:
    ran = check(folder, "mark.pem", "--roots", "roots.pem", "--domain", "example.com", "--now", NOW, "--json")
    assert ran.code == 0
    told = json.loads(ran.out)
    assert told["kind"] == "certificate"
    assert told["mark_type"] == "Registered Mark"
    assert told["names"] == "example.com"
    assert len(told["findings"]) == 20
    assert all(f["passed"] for f in told["findings"])


def test_without_roots_no_certificate_holds(folder: Path) -> None:
    ran = check(folder, "mark.pem", "--now", NOW, "--json")
    assert ran.code == 1
    assert found(ran)["mark_chain"]["problem"] == "mark_no_roots"


def test_the_roots_of_the_configuration_are_used(folder: Path) -> None:
    (folder / "authmilter.yaml").write_text("bimi: {trust_roots: [roots.pem]}\n")
    ran = check(folder, "mark.pem", "--now", NOW, "-c", "authmilter.yaml")
    assert ran.code == 0


def test_roots_that_are_none_are_a_mistake_of_the_configuration(folder: Path) -> None:
    ran = check(folder, "mark.pem", "--roots", "logo.svg")
    assert ran.code == 78
    assert ran.complaints == [
        "logo.svg: no PEM certificates: " + ran.complaints[0].partition("certificates: ")[2]
    ]


@pytest.mark.parametrize(
    ("domain", "selector", "code"),
    [("example.com", "brand", 0), ("example.com", "default", 1), ("example.net", "brand", 1)],
)
def test_the_domain_and_selector_have_to_be_named(
    folder: Path, domain: str, selector: str, code: int
) -> None:
    (folder / "brand.pem").write_bytes(a_bundle(Mark(names=("brand._bimi.example.com",))))
    ran = check(
        folder, "brand.pem", "--roots", "roots.pem", "--domain", domain, "--selector", selector, "--now", NOW
    )
    assert ran.code == code


def test_a_logo_is_drawn(folder: Path) -> None:
    ran = check(folder, "logo.svg", "--render", "logo.png", "--pixels", "32")
    assert ran.code == 0
    picture = (folder / "logo.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture[16:24] == (32).to_bytes(4, "big") * 2


def test_the_logo_of_a_certificate_is_drawn(folder: Path) -> None:
    ran = check(folder, "mark.pem", "--roots", "roots.pem", "--now", NOW, "--render", "logo.png")
    assert ran.code == 0
    assert (folder / "logo.png").stat().st_size > 100


def test_an_image_that_may_not_be_shown_is_not_drawn(folder: Path) -> None:
    bad = SVG.replace(
        b"<rect", b'<image xlink:href="/etc/passwd" xmlns:xlink="http://www.w3.org/1999/xlink"/><rect'
    )
    (folder / "bad.svg").write_bytes(bad)
    ran = check(folder, "bad.svg", "--render", "bad.png")
    assert ran.code == 1
    assert ran.complaints == ["the logo is not drawn: image is not allowed"]
    assert not (folder / "bad.png").exists()


def test_a_domain_whose_server_is_inside_is_not_fetched_from(folder: Path) -> None:
    ran = check(folder, "example.com", "--zone", "zone.yaml", "--json")
    assert ran.code == 1
    rules = found(ran)
    assert rules["dmarc_policy"]["passed"]
    assert rules["bimi_record"]["passed"]
    assert rules["fetch_authority"]["problem"] == "fetch_address"
    assert json.loads(ran.out)["authority"] == "https://logo.example.net/m.pem"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("example.com", "--selector", "no"), 0),
        (("example.com", "--selector", "missing"), 1),
        (("example.com", "--selector", "late"), 69),
        (("example.org",), 1),
    ],
)
def test_a_domain_without_a_logo_says_why(folder: Path, arguments: tuple[str, ...], code: int) -> None:
    ran = check(folder, *arguments, "--zone", "zone.yaml")
    assert ran.code == code
    assert "bimi_record" in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nothing.svg",), 66, "nothing.svg: No such file"),
        (("not a domain",), 64, "neither a file nor a domain"),
        (("example.com", "--selector", "a b"), 64, "is no selector"),
        (("example.com", "--zone", "zone.yaml", "--resolver", "192.0.2.1"), 64, "not both"),
        (("example.com", "--resolver", "x y"), 64, "--resolver"),
        (("mark.pem", "--now", "today"), 64, "--now"),
        (("mark.pem", "--roots", "missing.pem"), 66, "missing.pem: No such file"),
        (("mark.pem", "--domain", "a..b"), 64, "neither a file nor a domain"),
    ],
)
def test_a_wrong_command_line_is_told(folder: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    ran = check(folder, *arguments)
    assert ran.code == code
    assert said in ran.err
