"""SVG Tiny Portable/Secure: is a document an image that may be shown? (draft-svg-tiny-ps-abrotman-08; the room of lxml)

Every rule gives a `Finding`, held or not, with the line. Nothing is repaired. Promises: a document is read only if it
is small UTF-8 without a document type (so that no entity, default or outside file exists), the parser has no network,
and every size (octets, depth, elements, attributes, what `use` multiplies) has a named limit; time is linear in the
octets. Never raises, whatever the octets.

The elements and attributes are those of the profile's published schema. Where that and practice differ: `title` may
stand behind comments; an aspect ratio other than 1 is an advisory finding, as receivers demand it and the profile does
not; fonts may stand in `defs`, though nothing in the profile uses them; `xml:base` is refused where it would make an
inner reference an outer one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

from authmilter.bimi.findings import Finding, first_failure
from authmilter.bimi.gzipped import is_gzip, unpack
from authmilter.text import printable

__all__ = [
    "MAX_ATTRIBUTES",
    "MAX_DEPTH",
    "MAX_ELEMENTS",
    "MAX_EXPANDED",
    "MAX_READ",
    "MAX_SVG",
    "SvgReport",
    "check_svg",
]

#: Octets of an image, uncompressed (the profile's own recommendation, and what receivers ask for).
MAX_SVG = 32 << 10
#: Octets of a document that is looked into at all, uncompressed.
MAX_READ = 256 << 10
#: Elements inside each other, elements, attributes of one element.
MAX_DEPTH, MAX_ELEMENTS, MAX_ATTRIBUTES = 64, 5000, 64
#: Elements that are drawn once every `use` is followed.
MAX_EXPANDED = 20_000
#: Findings of one rule that are told, and characters of a stranger's name in them.
_MAX_TOLD, _SHOWN = 5, 40

_SVG = "{http://www.w3.org/2000/svg}"
_XML = "{http://www.w3.org/XML/1998/namespace}"
_HREF = "{http://www.w3.org/1999/xlink}href"

#: What each rule says when it holds, in the order they are told.
_RULES = {
    "svg_gzip": "the document unpacks to a bounded size",
    "svg_size": f"the document has at most {MAX_SVG} octets uncompressed",
    "svg_encoding": "the document is UTF-8",
    "svg_doctype": "there is no document type and no entity",
    "svg_xml": "the document is well-formed XML",
    "svg_limits": "depth, elements and attributes are within bounds",
    "svg_root": "the root is svg of the SVG namespace",
    "svg_version": 'version is "1.2"',
    "svg_base_profile": 'baseProfile is "tiny-ps"',
    "svg_root_position": "the root has neither x nor y",
    "svg_root_values": "the other attributes of the root have the values the profile fixes",
    "svg_title": "there is one title, and it is not empty",
    "svg_title_first": "the title is the first element",
    "svg_title_length": "the title has at most 64 characters",
    "svg_square": "the image is as wide as it is high",
    "svg_script": "there is no script and no event handler",
    "svg_animation": "there is no animation",
    "svg_raster": "there is no raster image",
    "svg_interactive": "there is no link and nothing interactive",
    "svg_media": "there is no audio, video or foreign object",
    "svg_style": "there is no style sheet and no style attribute",
    "svg_instructions": "there is no processing instruction",
    "svg_external": "every reference is to the document itself",
    "svg_elements": "every element is of the profile",
    "svg_structure": "every element stands where the profile allows it",
    "svg_attributes": "every attribute is of the profile",
    "svg_use": "what use repeats is bounded and never itself",
}
_ADVISORY = frozenset({"svg_title_first", "svg_title_length", "svg_square"})

#: Elements that are named by the rule they break rather than as "not of the profile".
_FORBIDDEN = {
    **dict.fromkeys(("script", "handler", "listener"), "svg_script"),
    **dict.fromkeys(
        (
            "animate",
            "animateColor",
            "animateMotion",
            "animateTransform",
            "set",
            "animation",
            "discard",
            "mpath",
        ),
        "svg_animation",
    ),
    **dict.fromkeys(("image", "feImage"), "svg_raster"),
    **dict.fromkeys(("a", "cursor", "view"), "svg_interactive"),
    **dict.fromkeys(("audio", "video", "foreignObject", "iframe", "embed", "object"), "svg_media"),
    "style": "svg_style",
}

_CORE = frozenset(
    {
        "id", "class", "role", "rel", "rev", "typeof", "content", "datatype", "resource", "about", "property",
        _XML + "id", _XML + "base", _XML + "lang", _XML + "space",
    }
)  # fmt: skip
_PAINT = frozenset(
    {
        "color", "color-rendering", "direction", "display-align", "fill", "fill-opacity", "fill-rule", "font-family",
        "font-size", "font-style", "font-variant", "font-weight", "line-increment", "solid-color", "solid-opacity",
        "stop-color", "stop-opacity", "stroke", "stroke-dasharray", "stroke-dashoffset", "stroke-linecap",
        "stroke-linejoin", "stroke-miterlimit", "stroke-opacity", "stroke-width", "text-align", "text-anchor",
        "unicode-bidi", "vector-effect",
    }
)  # fmt: skip
_DISPLAY = frozenset(
    {
        "buffered-rendering", "display", "image-rendering", "shape-rendering", "text-rendering", "viewport-fill",
        "viewport-fill-opacity", "visibility",
    }
)  # fmt: skip
#: Attributes whose values readers take for CSS.
_STYLES = _PAINT | _DISPLAY
_CONDITIONS = frozenset({"requiredFonts", "systemLanguage"})
_DRAWN = _CORE | _PAINT | _CONDITIONS | {"transform"}
_FONT_FACE = frozenset(
    {
        "font-family", "font-style", "font-weight", "font-variant", "font-stretch", "unicode-range", "panose-1", "widths",
        "bbox", "units-per-em", "stemv", "stemh", "slope", "cap-height", "x-height", "accented-height", "ascent",
        "descent", "ideographic", "alphabetic", "mathematical", "hanging", "underline-position", "underline-thickness",
        "strikethrough-position", "strikethrough-thickness", "overline-position", "overline-thickness",
    }
)  # fmt: skip
#: Attributes of the root with the only value they may have.
_FIXED = {
    "externalResourcesRequired": "false",
    "focusable": "false",
    "playbackOrder": "all",
    "snapshotTime": "none",
    "timelineBegin": "onLoad",
    "zoomAndPan": "disable",
}
_ROOT = frozenset(
    {"version", "baseProfile", "width", "height", "viewBox", "preserveAspectRatio", "contentScriptType"}
)
_ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "svg": _CORE | _PAINT | _ROOT | _FIXED.keys() | {"x", "y"},  # x and y have a rule of their own
    "title": _CORE | _CONDITIONS | _DISPLAY,
    "desc": _CORE | _CONDITIONS | _DISPLAY,
    "metadata": _CORE,
    "path": _DRAWN | {"d", "pathLength"},
    "rect": _DRAWN | {"x", "y", "width", "height", "rx", "ry"},
    "circle": _DRAWN | {"cx", "cy", "r"},
    "ellipse": _DRAWN | {"cx", "cy", "rx", "ry"},
    "line": _DRAWN | {"x1", "y1", "x2", "y2"},
    "polyline": _DRAWN | {"points"},
    "polygon": _DRAWN | {"points"},
    "text": _DRAWN | {"x", "y", "rotate", "editable"},
    "textArea": _DRAWN | {"x", "y", "width", "height", "editable"},
    "g": _DRAWN,
    "defs": _CORE | _PAINT,
    "use": _DRAWN | {"x", "y", _HREF},
    "solidColor": _CORE | _PAINT,
    "linearGradient": _CORE | _PAINT | {"gradientUnits", "x1", "y1", "x2", "y2"},
    "radialGradient": _CORE | _PAINT | {"gradientUnits", "cx", "cy", "r"},
    "stop": _CORE | _PAINT | {"offset"},
    "font": _CORE | {"horiz-origin", "horiz-origin-x", "horiz-adv-x"},
    "font-face": _CORE | _FONT_FACE,
    "glyph": _CORE | {"unicode", "glyph-name", "arabic-form", "lang", "d", "horiz-adv-x"},
    "missing-glyph": _CORE | {"d", "horiz-adv-x"},
    "hkern": _CORE | {"u1", "g1", "u2", "g2", "k"},
}
_GRAPHICS = frozenset(
    {
        "path", "rect", "circle", "line", "ellipse", "polyline", "polygon", "solidColor", "textArea", "linearGradient",
        "radialGradient", "text", "g", "defs", "use",
    }
)  # fmt: skip
_CHILDREN: Mapping[str, frozenset[str]] = {
    "svg": _GRAPHICS | {"title", "desc", "metadata"},
    "g": _GRAPHICS,
    "defs": _GRAPHICS | {"font"},
    "linearGradient": frozenset({"stop"}),
    "radialGradient": frozenset({"stop"}),
    "font": frozenset({"desc", "font-face", "glyph", "missing-glyph", "hkern"}),
}

# XML 1.0 §2.8   XMLDecl ::= '<?xml' VersionInfo EncodingDecl? SDDecl? S? '?>'
_DECLARED = re.compile(rb"""encoding\s*+=\s*+["']([^"']*+)""")
_DOCTYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
# (possessive, so that white space without end is passed once)
_OUTER_URL = re.compile(r"url\(\s*+['\"]?+\s*+(?!#)", re.IGNORECASE)
_NUMBER = re.compile(r"[ \t\r\n]*[+-]?([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?:px)?[ \t\r\n]*")
_ASPECT = re.compile(r"\s*(?:none|xMidYMid)(?:\s+meet)?\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SvgReport:
    """What the rules say of a document.

    `findings` are in the order of the rules; `svg` is the document uncompressed (None where it could not be unpacked)
    and `sha256` its hash in lower-case hexadecimal; `title` is the image's title as printable ASCII.
    """

    findings: tuple[Finding, ...]
    svg: bytes | None = None
    sha256: str = ""
    title: str = ""

    @property
    def failure(self) -> Finding | None:
        """The first finding that refuses the image, or None: it may be shown."""
        return first_failure(self.findings)


class _Notes:
    """Findings as they are made; `stopped` names the rule behind which nothing could be looked at."""

    def __init__(self) -> None:
        self.broken: dict[str, list[tuple[str, int]]] = {}
        self.stopped = ""

    def add(self, rule: str, message: str, line: int = 0) -> None:
        told = self.broken.setdefault(rule, [])
        if len(told) < _MAX_TOLD:
            told.append((message, line))

    def stop(self, rule: str, message: str, line: int = 0) -> None:
        self.add(rule, message, line)
        self.stopped = rule

    def findings(self, skip: frozenset[str]) -> tuple[Finding, ...]:
        found: list[Finding] = []
        for rule, holds in _RULES.items():
            if rule in self.broken:
                found += [
                    Finding(
                        rule=rule,
                        passed=False,
                        message=message,
                        line=line,
                        advisory=rule in _ADVISORY,
                        problem=rule,
                    )
                    for message, line in self.broken[rule]
                ]
            elif rule not in skip:
                found.append(Finding(rule=rule, passed=True, message=holds, advisory=rule in _ADVISORY))
            if rule == self.stopped:
                break
        return tuple(found)


def check_svg(octets: bytes, *, max_size: int = MAX_SVG) -> SvgReport:
    """Hold a document, gzip-compressed or not, against the profile.

    Args:
        octets: the document as it was fetched or embedded.
        max_size: octets it may have uncompressed (at most `MAX_READ`).

    Returns:
        A finding for every rule; those that could not be looked at any more are not told.
    """
    notes = _Notes()
    packed = is_gzip(octets)
    svg = unpack(octets, MAX_READ) if packed else octets
    skip = frozenset() if packed else frozenset({"svg_gzip"})
    if svg is None:
        notes.stop(
            "svg_gzip", f"the compressed document is damaged or unpacks to more than {MAX_READ} octets"
        )
        return SvgReport(findings=notes.findings(skip))
    title = ""
    if len(svg) > max_size:
        notes.add("svg_size", f"the document has {len(svg)} octets, {max_size} are allowed")
    root = _parse(svg, notes)
    if root is not None:
        title = _look(root, notes)
    return SvgReport(
        findings=notes.findings(skip), svg=svg, sha256=hashlib.sha256(svg).hexdigest(), title=title
    )


def _parse(svg: bytes, notes: _Notes) -> etree._Element | None:
    """Return the root, or None with `notes` saying why."""
    if len(svg) > MAX_READ:
        notes.stop("svg_size", f"nothing over {MAX_READ} octets is looked into")
        return None
    try:
        text = svg.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or not _declared(svg) <= {b"utf-8", b"us-ascii"}:
        notes.stop("svg_encoding", "the document is not UTF-8, or says that it is something else")
        return None
    doctype = _DOCTYPE.search(svg)
    if doctype is not None:
        line = svg.count(b"\n", 0, doctype.start()) + 1
        notes.stop("svg_doctype", "the document has a document type or an entity declaration", line)
        return None
    # No DTD, entity, network or size exemption, whatever the library's defaults become.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, attribute_defaults=False,
        huge_tree=False, recover=False, encoding="utf-8",
    )  # fmt: skip
    try:
        root = etree.fromstring(svg, parser)
    except etree.XMLSyntaxError as e:
        notes.stop(
            "svg_xml", f"not well-formed XML: {printable(e.msg or 'syntax error', 120)}", e.lineno or 0
        )
        return None
    except ValueError:
        notes.stop("svg_xml", "not well-formed XML")
        return None
    if root.getroottree().docinfo.internalDTD is not None:
        notes.stop("svg_doctype", "the document has a document type")
        return None
    return root if _bounded(root, notes) else None


def _declared(svg: bytes) -> set[bytes]:
    """Return the encodings that a document declares, however far from its beginning: whoever shows it may obey them."""
    head = svg.removeprefix(b"\xef\xbb\xbf")
    declaration = head.partition(b"?>")[0] if head.startswith(b"<?xml") else b""
    return {name.lower() for name in _DECLARED.findall(declaration)}


def _bounded(root: etree._Element, notes: _Notes) -> bool:
    depth = count = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if event == "end":
            depth -= 1
            continue
        depth += 1
        count += 1
        line = _line(element)
        if depth > MAX_DEPTH:
            notes.stop("svg_limits", f"elements are nested deeper than {MAX_DEPTH}", line)
        elif count > MAX_ELEMENTS:
            notes.stop("svg_limits", f"there are more than {MAX_ELEMENTS} elements", line)
        elif len(element.attrib) > MAX_ATTRIBUTES:
            notes.stop("svg_limits", f"an element has more than {MAX_ATTRIBUTES} attributes", line)
        else:
            continue
        return False
    return True


def _look(root: etree._Element, notes: _Notes) -> str:
    """Hold a bounded document against the rules; return its title."""
    if root.tag != _SVG + "svg":
        notes.stop("svg_root", f"the root is {_name(root.tag)}, not svg of the SVG namespace", _line(root))
        return ""
    _look_at_root(root, notes)
    title = _look_at_title(root, notes)
    _look_at_instructions(root, notes)
    for element in _elements(root):
        _look_at_element(element, notes)
    _look_at_use(root, notes)
    return title


def _elements(root: etree._Element) -> Iterator[etree._Element]:
    return (e for e in root.iter() if isinstance(e.tag, str))


def _line(element: etree._Element) -> int:
    line: object = element.sourceline
    return line if isinstance(line, int) else 0


def _kind(element: etree._Element) -> object:
    """Return the tag of an element, or what stands for it in a comment or an instruction."""
    return element.tag


def _name(name: object) -> str:
    """Return a stranger's name without its namespace, short and printable."""
    return printable(str(name).rpartition("}")[2], _SHOWN)


def _look_at_root(root: etree._Element, notes: _Notes) -> None:
    line = _line(root)
    for rule, attribute, wanted in (
        ("svg_version", "version", "1.2"),
        ("svg_base_profile", "baseProfile", "tiny-ps"),
    ):
        value = root.get(attribute)
        if value is None:
            notes.add(rule, f"the root has no {attribute}", line)
        elif value != wanted:
            notes.add(rule, f'{attribute} is "{printable(value, _SHOWN)}", not "{wanted}"', line)
    for attribute in ("x", "y"):
        if root.get(attribute) is not None:
            notes.add("svg_root_position", f"the root has an attribute {attribute}", line)
    for attribute, wanted in _FIXED.items():
        if root.get(attribute, wanted) != wanted:
            notes.add("svg_root_values", f'{attribute} of the root may only be "{wanted}"', line)
    aspect = root.get("preserveAspectRatio")
    if aspect is not None and not _ASPECT.fullmatch(aspect):
        notes.add("svg_root_values", 'preserveAspectRatio of the root may only be "none" or "xMidYMid"', line)
    _look_at_shape(root, notes)


def _look_at_shape(root: etree._Element, notes: _Notes) -> None:
    line = _line(root)
    box = root.get("viewBox")
    sides = [root.get("width"), root.get("height")]
    if box is not None:
        numbers = box.replace(",", " ").split()
        if len(numbers) != 4:
            notes.add("svg_square", "viewBox is not four numbers", line)
            return
        sides = [*numbers[2:]]
    width, height = (_length(side) for side in sides)
    if width is None or height is None:
        notes.add("svg_square", "the image has no viewBox (and no width and height) that is read", line)
    elif abs(width - height) > 0.005 * max(width, height):
        notes.add("svg_square", f"the image is {width:g} wide and {height:g} high", line)


def _length(text: str | None) -> float | None:
    found = _NUMBER.fullmatch(text) if text is not None and len(text) < 40 else None
    value = float(found[1]) if found is not None else 0.0
    return value or None


def _look_at_title(root: etree._Element, notes: _Notes) -> str:
    children = [e for e in root if isinstance(e.tag, str)]
    titles = [e for e in children if e.tag == _SVG + "title"]
    if len(titles) != 1:
        found = "no title" if not titles else f"{len(titles)} titles"
        notes.add("svg_title", f"the image has {found}", _line(root))
        return ""
    text = " ".join((titles[0].text or "").split())
    line = _line(titles[0])
    if not text:
        notes.add("svg_title", "the title is empty", line)
    if children[0] is not titles[0]:
        notes.add("svg_title_first", "an element stands before the title", line)
    if len(text) > 64:
        notes.add("svg_title_length", f"the title has {len(text)} characters, 64 are recommended", line)
    return printable(text, 100)


def _look_at_instructions(root: etree._Element, notes: _Notes) -> None:
    # Those of the root's own level stand beside it.
    beside = [*root.itersiblings(preceding=True), *root.itersiblings()]
    found = [e for e in (*root.iter(), *beside) if _kind(e) is etree.PI]
    for instruction in found[:_MAX_TOLD]:
        notes.add("svg_instructions", "a processing instruction", _line(instruction))


def _look_at_element(element: etree._Element, notes: _Notes) -> None:
    line = _line(element)
    tag = str(element.tag)
    name = tag.removeprefix(_SVG)
    rule = _FORBIDDEN.get(name)
    allowed = _ATTRIBUTES.get(name)
    if rule is not None:
        notes.add(rule, f"{name} is not allowed", line)
    elif allowed is None:
        notes.add("svg_elements", f"{_name(tag)} is not an element of the profile", line)
    else:
        parent = element.getparent()
        above = str(parent.tag).removeprefix(_SVG) if parent is not None else ""
        known_above = above in _ATTRIBUTES
        # What stands in an element that is refused itself needs no second complaint.
        if (parent is None and name != "svg") or (known_above and name not in _CHILDREN.get(above, ())):
            notes.add("svg_structure", f"{name} may not stand in {above or 'place of the root'}", line)
    for key, value in element.attrib.items():
        _look_at_attribute(element, str(key), str(value), notes)


def _look_at_attribute(element: etree._Element, key: str, value: str, notes: _Notes) -> None:
    line = _line(element)
    name = str(element.tag).removeprefix(_SVG)
    allowed = _ATTRIBUTES.get(name)
    shown = _name(key)
    if key[:2].lower() == "on":
        notes.add("svg_script", f"{shown} is an event handler", line)
    elif key == "style":
        notes.add("svg_style", "a style attribute", line)
    elif shown == "href":
        if value[:11].lower() == "data:image/":
            notes.add("svg_raster", "a reference holds an image", line)
        elif not value.startswith("#"):
            notes.add("svg_external", f"a reference to {printable(value, _SHOWN)}", line)
        if allowed is not None and key not in allowed:
            notes.add("svg_attributes", f"href is not an attribute of {name} in the profile", line)
    elif key == _XML + "base" and value:
        notes.add("svg_external", "xml:base makes inner references outer ones", line)
    elif allowed is not None and key not in allowed:
        notes.add("svg_attributes", f"{shown} is not an attribute of {name} in the profile", line)
    if "\\" in value and key in _STYLES:
        # Such a value is CSS, where `u\\72l(` is `url(`.
        notes.add("svg_external", f"{shown} has a backslash, which may hide a reference", line)
    elif "url(" in value.lower() and _OUTER_URL.search(value):
        notes.add("svg_external", f"{shown} refers to something outside the document", line)


def _look_at_use(root: etree._Element, notes: _Notes) -> None:
    """Count what is drawn once every `use` is followed: nested ones multiply, and one may lead to itself."""
    targets: dict[str, etree._Element] = {}
    uses = False
    for element in _elements(root):
        uses = uses or element.tag == _SVG + "use"
        name = element.get("id") or element.get(_XML + "id")
        if name is not None:
            targets.setdefault(name, element)
    if not uses:
        return
    drawn: dict[etree._Element, int] = {}
    open_: set[etree._Element] = set()
    stack = [root]
    while stack:
        element = stack[-1]
        below = [e for e in element if isinstance(e.tag, str)]
        if element.tag == _SVG + "use":
            target = targets.get((element.get(_HREF) or "").removeprefix("#"))
            below += [target] if target is not None else []
        if element in open_:
            stack.pop()
            open_.discard(element)
            drawn[element] = min(1 + sum(drawn.get(e, 0) for e in below), MAX_EXPANDED + 1)
            continue
        if element in drawn:  # reached a second time while it waited
            stack.pop()
            continue
        open_.add(element)
        for each in below:
            if each in open_:
                notes.add("svg_use", "a use leads back to itself", _line(element))
                return
            if each not in drawn:
                stack.append(each)
    if drawn[root] > MAX_EXPANDED:
        notes.add("svg_use", f"with every use followed, more than {MAX_EXPANDED} elements are drawn")
