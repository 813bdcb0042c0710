"""SVG Tiny PS: one good image, and each fault with its own rule."""

from __future__ import annotations

import gzip
import hashlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.bimi.svg import (
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_READ,
    MAX_SVG,
    SvgReport,
    check_svg,
)
from tests.support.marks import SVG

OPEN = b'<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 100 100">'


def an_image(inside: bytes = b"", *, root: bytes = OPEN, title: bytes = b"<title>Example</title>") -> bytes:
    return root + title + inside + b"</svg>"


def with_root(attribute: bytes) -> bytes:
    return an_image(root=OPEN.replace(b" viewBox", b" " + attribute + b" viewBox"))


def with_xlink(inside: bytes) -> bytes:
    return an_image(
        inside, root=OPEN.replace(b" version", b' xmlns:xlink="http://www.w3.org/1999/xlink" version')
    )


def broken(report: SvgReport) -> set[str]:
    return {f.rule for f in report.findings if not f.passed}


def test_a_good_image_holds_in_every_rule() -> None:
    report = check_svg(SVG)
    assert report.failure is None
    assert all(f.passed for f in report.findings)
    assert len(report.findings) == 26
    assert report.svg == SVG
    assert report.sha256 == hashlib.sha256(SVG).hexdigest()
    assert report.title == "Example"


def test_a_compressed_image_is_the_same() -> None:
    report = check_svg(gzip.compress(SVG))
    assert report.failure is None
    assert len(report.findings) == 27
    assert report.svg == SVG
    assert report.sha256 == hashlib.sha256(SVG).hexdigest()


RICH = with_xlink(
    b'<desc>A logo</desc><metadata>made by hand</metadata><!-- a comment -->'
    b'<defs><linearGradient id="a" gradientUnits="userSpaceOnUse" x1="0" y1="0" x2="1" y2="1">'
    b'<stop offset="0" stop-color="#fff"/><stop offset="1" stop-color="red"/></linearGradient>'
    b'<radialGradient id="b" cx="1" cy="1" r="1"/><solidColor id="c" solid-color="red"/></defs>'
    b'<g id="all" transform="scale(2)" fill="url(#a)" stroke="url(#c)"><path id="p" d="M0 0L1 1z" fill-rule="evenodd"/>'
    b'<ellipse cx="1" cy="2" rx="1" ry="2"/><line x1="0" y1="0" x2="1" y2="1"/><polyline points="0 0 1 1"/>'
    b'<polygon points="0 0 1 1 0 1"/></g><use xlink:href="#p" x="1" y="2"/>'
    b'<text x="1" y="1" xml:space="preserve" font-family="serif">Example</text><textArea width="1" height="1">x</textArea>'
)  # fmt: skip


def test_what_the_profile_allows_is_allowed() -> None:
    assert broken(check_svg(RICH)) == set()


# -- (the document, the rule that it breaks) -----------------------------------------------------------------------------

BILLION = b'<!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
FAULTS = {
    "too large": (an_image(b"<desc>" + b"x" * MAX_SVG + b"</desc>"), "svg_size"),
    "far too large": (an_image(b"x" * MAX_READ), "svg_size"),
    "damaged gzip": (gzip.compress(SVG)[:-4], "svg_gzip"),
    "something behind the gzip": (gzip.compress(SVG) + b"x", "svg_gzip"),
    "a gzip bomb": (gzip.compress(bytes(50_000_000)), "svg_gzip"),
    "UTF-16": (SVG.decode().replace("UTF-8", "UTF-16").encode("utf-16"), "svg_encoding"),
    "Latin-1": (SVG.replace(b"UTF-8", b"ISO-8859-1"), "svg_encoding"),
    "UTF-7": (b'<?xml version="1.0" encoding="UTF-7"?>' + an_image(), "svg_encoding"),
    "not UTF-8": (an_image(title=b"<title>\xff</title>"), "svg_encoding"),
    "a document type": (b"<!DOCTYPE svg>" + an_image(), "svg_doctype"),
    "a document type elsewhere": (
        b'<!DOCTYPE svg SYSTEM "file:///etc/passwd">' + an_image(),
        "svg_doctype",
    ),
    "an entity bomb": (BILLION + an_image(title=b"<title>&b;</title>"), "svg_doctype"),
    "an entity of a file": (
        b'<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + an_image(title=b"<title>&a;</title>"),
        "svg_doctype",
    ),
    "not XML": (b"GIF89a", "svg_xml"),
    "empty": (b"", "svg_xml"),
    "cut": (SVG[:-9], "svg_xml"),
    "an unknown entity": (an_image(title=b"<title>&nbsp;</title>"), "svg_xml"),
    "two roots": (SVG + b"<svg/>", "svg_xml"),
    "deep": (an_image(b"<g>" * MAX_DEPTH + b"</g>" * MAX_DEPTH), "svg_limits"),
    "very deep": (an_image(b"<g>" * 3000 + b"</g>" * 3000), "svg_xml"),
    "many elements": (an_image(b"<g/>" * MAX_ELEMENTS), "svg_limits"),
    "many attributes": (
        an_image(b"<g " + b" ".join(b'a%d=""' % n for n in range(MAX_ATTRIBUTES + 1)) + b"/>"),
        "svg_limits",
    ),
    "another root": (b"<html/>", "svg_root"),
    "without a namespace": (an_image(root=OPEN.replace(b' xmlns="http://www.w3.org/2000/svg"', b"")), "svg_root"),
    "without a version": (an_image(root=OPEN.replace(b' version="1.2"', b"")), "svg_version"),
    "version 1.1": (an_image(root=OPEN.replace(b"1.2", b"1.1")), "svg_version"),
    "without a profile": (an_image(root=OPEN.replace(b' baseProfile="tiny-ps"', b"")), "svg_base_profile"),
    "profile tiny": (an_image(root=OPEN.replace(b"tiny-ps", b"tiny")), "svg_base_profile"),
    "x at the root": (with_root(b'x="0"'), "svg_root_position"),
    "y at the root": (with_root(b'y="0px"'), "svg_root_position"),
    "zoomAndPan": (with_root(b'zoomAndPan="magnify"'), "svg_root_values"),
    "snapshotTime": (with_root(b'snapshotTime="1"'), "svg_root_values"),
    "external resources": (with_root(b'externalResourcesRequired="true"'), "svg_root_values"),
    "preserveAspectRatio": (with_root(b'preserveAspectRatio="xMinYMin slice"'), "svg_root_values"),
    "no title": (an_image(title=b""), "svg_title"),
    "an empty title": (an_image(title=b"<title> \n</title>"), "svg_title"),
    "two titles": (an_image(b"<title>Again</title>"), "svg_title"),
    "the title in a group": (an_image(b"<g><title>Example</title></g>", title=b""), "svg_title"),
    "a script": (an_image(b"<script>alert(1)</script>"), "svg_script"),
    "an event handler": (an_image(b'<rect onload="alert(1)" width="1" height="1"/>'), "svg_script"),
    "an event handler in capitals": (an_image(b'<rect ONLOAD="alert(1)"/>'), "svg_script"),
    "animate": (an_image(b'<rect><animate attributeName="x"/></rect>'), "svg_animation"),
    "animateTransform": (an_image(b"<animateTransform/>"), "svg_animation"),
    "animateMotion": (an_image(b"<animateMotion/>"), "svg_animation"),
    "set": (an_image(b"<set/>"), "svg_animation"),
    "an image": (with_xlink(b'<image xlink:href="https://example.com/a.png"/>'), "svg_raster"),
    "an embedded image": (with_xlink(b'<image xlink:href="data:image/png;base64,AAAA"/>'), "svg_raster"),
    "an image in use": (with_xlink(b'<use xlink:href="data:image/svg+xml;base64,AAAA"/>'), "svg_raster"),
    "a link": (with_xlink(b'<a xlink:href="#x"><rect/></a>'), "svg_interactive"),
    "a cursor": (an_image(b"<cursor/>"), "svg_interactive"),
    "audio": (an_image(b"<audio/>"), "svg_media"),
    "video": (an_image(b"<video/>"), "svg_media"),
    "a foreign object": (an_image(b"<foreignObject/>"), "svg_media"),
    "a style sheet": (an_image(b"<style>*{fill:red}</style>"), "svg_style"),
    "a style attribute": (an_image(b'<rect style="fill:red"/>'), "svg_style"),
    "a style sheet elsewhere": (
        b'<?xml-stylesheet href="https://example.com/a.css"?>' + an_image(),
        "svg_instructions",
    ),
    "an instruction inside": (an_image(b"<?php x?>"), "svg_instructions"),
    "an instruction behind": (an_image() + b"<?php x?>", "svg_instructions"),
    "use of another document": (with_xlink(b'<use xlink:href="https://evil.example/a.svg#a"/>'), "svg_external"),
    "use of a file": (with_xlink(b'<use xlink:href="logo.svg#a"/>'), "svg_external"),
    "a paint elsewhere": (an_image(b'<rect fill="url(https://evil.example/#a)"/>'), "svg_external"),
    "a paint elsewhere behind an escape": (
        an_image(rb'<rect fill="u\72l(https://evil.example/#a)"/>'), "svg_external",
    ),
    "a font elsewhere behind an escape": (
        an_image(rb'<text font-family="\75 rl(https://evil.example/a)">a</text>'), "svg_external",
    ),
    "another encoding declared far behind": (
        b'<?xml version="1.0"' + b" " * 400 + b'encoding = "UTF-7"?>' + an_image(), "svg_encoding",
    ),
    "another encoding declared behind a byte order mark": (
        b"\xef\xbb\xbf<?xml version='1.0' encoding='iso-2022-jp' ?>" + an_image(), "svg_encoding",
    ),
    "a quoted paint elsewhere": (an_image(b"<rect fill=\"url( 'a.svg#b' )\"/>"), "svg_external"),
    "a base": (an_image(b'<g xml:base="https://evil.example/"/>'), "svg_external"),
    "a filter": (an_image(b"<filter/>"), "svg_elements"),
    "a symbol": (an_image(b"<symbol/>"), "svg_elements"),
    "a clip path": (an_image(b"<clipPath/>"), "svg_elements"),
    "a mask": (an_image(b"<mask/>"), "svg_elements"),
    "a tspan": (an_image(b"<text>a<tspan>b</tspan></text>"), "svg_elements"),
    "another namespace": (an_image(b'<x:y xmlns:x="urn:x"/>'), "svg_elements"),
    "RDF in the metadata": (
        an_image(b'<metadata><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></metadata>'),
        "svg_elements",
    ),
    "an svg in the svg": (an_image(b"<svg/>"), "svg_structure"),
    "a shape in a shape": (an_image(b"<rect><circle/></rect>"), "svg_structure"),
    "a stop in a group": (an_image(b"<g><stop/></g>"), "svg_structure"),
    "gradientTransform": (
        an_image(b'<defs><linearGradient gradientTransform="scale(2)"/></defs>'),
        "svg_attributes",
    ),
    "opacity": (an_image(b'<rect opacity=".5"/>'), "svg_attributes"),
    "an editor's attribute": (an_image(b'<rect data-name="x"/>'), "svg_attributes"),
    "an attribute of a namespace": (an_image(b'<rect xmlns:i="urn:i" i:label="x"/>'), "svg_attributes"),
    "overflow at the root": (with_root(b'overflow="visible"'), "svg_attributes"),
    "href without a namespace": (an_image(b'<use href="#a"/>'), "svg_attributes"),
    "href of a shape": (with_xlink(b'<rect xlink:href="#a"/>'), "svg_attributes"),
    "use of itself": (with_xlink(b'<g id="a"><use xlink:href="#a"/></g>'), "svg_use"),
    "use of each other": (
        with_xlink(b'<g id="a"><use xlink:href="#b"/></g><g id="b"><use xlink:href="#a"/></g>'),
        "svg_use",
    ),
    "use that multiplies": (
        with_xlink(
            b'<g id="g0"><rect/></g>'
            + b"".join(
                b'<g id="g%d">%s</g>' % (n, b'<use xlink:href="#g%d"/>' % (n - 1) * 10) for n in range(1, 9)
            )
        ),
        "svg_use",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("octets", "rule"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_breaks_its_own_rule(octets: bytes, rule: str) -> None:
    report = check_svg(octets)
    assert rule in broken(report)
    assert report.failure is not None
    told = [f for f in report.findings if not f.passed]
    assert all(f.message.isascii() and f.message.isprintable() and len(f.message) < 200 for f in told)


def test_every_fault_of_the_table_is_one() -> None:
    assert len(FAULTS) == 87


#: A fault that is the only one of its document, so that no other rule is broken by it.
@pytest.mark.parametrize(
    "name",
    [
        "a script",
        "an event handler",
        "a link",
        "x at the root",
        "version 1.1",
        "no title",
        "opacity",
        "a filter",
        "deep",
    ],
)
def test_a_fault_breaks_no_other_rule(name: str) -> None:
    octets, rule = FAULTS[name]
    assert broken(check_svg(octets)) == {rule}


@pytest.mark.parametrize(
    ("octets", "rule"),
    [
        (an_image(root=OPEN.replace(b"0 0 100 100", b"0 0 100 50")), "svg_square"),
        (an_image(root=OPEN.replace(b' viewBox="0 0 100 100"', b"")), "svg_square"),
        (an_image(root=OPEN.replace(b"0 0 100 100", b"0 0 0 0")), "svg_square"),
        (an_image(root=OPEN.replace(b"0 0 100 100", b"0 0 100")), "svg_square"),
        (an_image(root=OPEN.replace(b"0 0 100 100", b"0 0 nan 1e999")), "svg_square"),
        (an_image(title=b"<desc/><title>Example</title>"), "svg_title_first"),
        (an_image(title=b"<title>" + b"x" * 65 + b"</title>"), "svg_title_length"),
    ],
)
def test_what_is_only_recommended_is_told_and_refuses_nothing(octets: bytes, rule: str) -> None:
    report = check_svg(octets)
    assert broken(report) == {rule}
    assert report.failure is None


@pytest.mark.parametrize(
    "root",
    [
        OPEN.replace(b"0 0 100 100", b"0,0,100,100"),
        OPEN.replace(b"0 0 100 100", b"-50 -50 99.9 100"),
        OPEN.replace(b'viewBox="0 0 100 100"', b'width="64px" height="64"'),
        OPEN.replace(b" viewBox", b' zoomAndPan="disable" snapshotTime="none" preserveAspectRatio="xMidYMid meet" viewBox'),
    ],
)  # fmt: skip
def test_square_images_are_square(root: bytes) -> None:
    assert broken(check_svg(an_image(root=root))) == set()


def test_a_finding_names_its_line() -> None:
    report = check_svg(SVG.replace(b"<circle", b"<script/><circle"))
    assert report.failure is not None
    assert report.failure.line == 5


def test_one_rule_is_not_told_more_than_five_times() -> None:
    report = check_svg(an_image(b"<script/>" * 100))
    assert len([f for f in report.findings if f.rule == "svg_script"]) == 5


def test_the_size_is_limited_from_both_sides() -> None:
    room = MAX_SVG - len(an_image(b"<desc></desc>"))
    assert check_svg(an_image(b"<desc>" + b"x" * room + b"</desc>")).failure is None
    assert broken(check_svg(an_image(b"<desc>" + b"x" * (room + 1) + b"</desc>"))) == {"svg_size"}
    assert check_svg(SVG, max_size=len(SVG)).failure is None
    assert broken(check_svg(SVG, max_size=len(SVG) - 1)) == {"svg_size"}


def test_the_worst_of_allowed_size_takes_little_time() -> None:
    worst = [
        an_image(b"<g/>" * 4900),
        an_image(b'<rect a=""/>' * 4900),
        an_image(b"<g>" * 60 + b"<g/>" * 4000 + b"</g>" * 60),
        with_xlink(b'<g id="a"/>' + b'<use xlink:href="#a"/>' * 4900),
        an_image(title=b"<title>" + b"x " * 100_000 + b"</title>"),
        an_image(b'<path d="' + b"url(" * 50_000 + b'"/>'),
        an_image(b'<path d="' + b"url( " + b" " * 200_000 + b'"/>'),
        an_image(b'<path fill="url(' + b" " * 200_000 + b'#a)"/>'),
        an_image(b'<path fill="url(' + b" " * 100_000 + b"'" + b" " * 100_000 + b'#a)"/>'),
        b"<?xml encoding" + b" " * 200_000 + b"?>",
        b"<?xml " + b"encoding " * 20_000 + b"?>",
        b"<?xml " + b" " * 200_000,
    ]
    for octets in worst:
        began = time.process_time()
        check_svg(octets)
        assert time.process_time() - began < 1.0


PIECES = st.sampled_from(
    [b"<svg ", b"xmlns='http://www.w3.org/2000/svg'", b">", b"<g>", b"</g>", b"<use ", b"href='#a'", b"id='a'", b"/>", b"&a;",
     b"<!DOCTYPE", b"<![CDATA[", b"]]>", b"<!--", b"-->", b"<?x ", b"?>", b"\xff", b"\0", b"\x1f\x8b", b"</svg>", b"<title>"]
)  # fmt: skip


@given(st.binary(max_size=100) | st.lists(PIECES, max_size=30).map(b"".join))
@settings(max_examples=300, deadline=None)
def test_any_octets_give_a_report(octets: bytes) -> None:
    report = check_svg(octets)
    assert report.findings


@given(st.lists(st.tuples(st.integers(0, len(RICH) - 1), st.integers(0, 255)), max_size=5))
@settings(max_examples=300, deadline=None)
def test_an_image_with_wrong_octets_gives_a_report(changes: list[tuple[int, int]]) -> None:
    octets = bytearray(RICH)
    for at, octet in changes:
        octets[at] = octet
    assert check_svg(bytes(octets)).findings
