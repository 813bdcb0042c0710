"""Tag lists, RFC 6376 §3.2: the `name=value; name=value` text of signatures and key records.

Strict: what the grammar does not allow is refused, never repaired. Work is linear in the text.
Fails with `TagListError` where the list has no readable structure; a value that holds forbidden octets is
only marked, so that the caller can say which tag was wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from authmilter.makers import maker
from authmilter.octets.chosen import plain_tags

__all__ = ["TagList", "TagListError", "parse_tag_list"]

# RFC 6376 §3.2; the grammar stands beside `octets.python.plain_tags`, which reads what has nothing odd about it
_TAG = re.compile(r"[ \t]*([A-Za-z][A-Za-z0-9_]*)[ \t]*=(.*)", re.DOTALL)

# RFC 6376 §3.2     VALCHAR =  %x21-3A / %x3C-7E      ; EXCLAMATION to TILDE except SEMICOLON
# with white space between, and with UTF-8 (RFC 8616 §5, RFC 6532 §3.1); no controls, no stray octets.
_VALUE = re.compile("[\t -~\u00a0-\ud7ff\ue000-\U0010ffff]*")


class TagListError(ValueError):
    """The text is no tag list; the message says why, in words of ours only."""


@dataclass(frozen=True, slots=True)
class TagList:
    """The tags in the order they stand: `values` without surrounding white space; `ill_formed` names those
    whose value holds an octet that no value may hold.
    """

    values: Mapping[str, str]
    ill_formed: frozenset[str] = frozenset()


_make_tag_list = maker(TagList)


def parse_tag_list(text: bytes) -> TagList:
    """Read a tag list; folds are CRLF followed by a blank or a tab (RFC 6376 §2.8).

    Names and values are case-sensitive; unknown tags are kept (the caller ignores them).

    Raises:
        TagListError: an empty list or tag, a tag without `=`, a wrong tag name, or a tag that stands twice.
    """
    plain = plain_tags(text)
    if plain is not None:
        return _make_tag_list(plain)
    if b"\r\n" in text:
        text = text.replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
    whole = text.decode("utf-8", "surrogateescape")
    specs = whole.split(";")
    if len(specs) > 1 and not specs[-1].strip(" \t"):
        specs.pop()  # tag-list = tag-spec *( ";" tag-spec ) [ ";" ]
    values: dict[str, str] = {}
    for spec in specs:
        tag = _TAG.fullmatch(spec)
        if tag is None:
            raise TagListError("a part between semicolons is no tag=value")
        name = tag.group(1)
        if name in values:
            # RFC 6376 §3.2: Tags with duplicate names MUST NOT occur ...; if [so], the entire tag-list is invalid.
            raise TagListError("a tag stands twice")
        values[name] = tag.group(2).strip(" \t")
    if _VALUE.fullmatch(whole):
        return TagList(values)
    return TagList(values, frozenset(n for n, v in values.items() if not _VALUE.fullmatch(v)))
