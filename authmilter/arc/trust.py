"""Whose word counts: what trusted sealers say in their ARC-Authentication-Results (RFC 8617 §7.2, §9).

A chain that passes proves who handled a message, not that they told the truth: anybody can seal what they like. So
the results of a set are read only where its sealer, and every sealer after it, is on the administrator's list: the
last of them says what came in, and each vouches for the one before.

The message as it is now must be the one the newest of them sealed: its message signature has to cover the From field
and the whole body (`ArcResult.whole`). DMARC counts as passed at a hop if the set has exactly one dmarc result, that
is `pass`, and names this message's author domain in header.from.

Total. Others' text is read by `headers.foreign`, bounded as there.
"""

from __future__ import annotations

import re
from dataclasses import replace

from authmilter.arc.chain import Link
from authmilter.arc.result import ArcResult, ArcSet, ArcStatus
from authmilter.arc.settings import TrustedSealers
from authmilter.headers import foreign
from authmilter.headers.foreign import ForeignResult, Unparsable
from authmilter.names import Domain, parse_ip

__all__ = ["believe", "payload_of"]

# The clause of arc= may hold an IPv6 address that is not quoted, as RFC 8617's own examples do.
_REMOTE_IP = re.compile(rb"\bsmtp\.remote-ip[ \t]*=[ \t]*\"?([0-9A-Fa-f.:]{2,45})\"?(?=[ \t\r\n;(]|\Z)")


def payload_of(value: bytes) -> bytes:
    """Return an ARC-Authentication-Results value without its instance: what an A-R field would hold."""
    return value.partition(b";")[2]


def believe(
    result: ArcResult, links: tuple[Link, ...], author: Domain | None, trusted: TrustedSealers
) -> ArcResult:
    """Return a passing result with what trusted sealers say in it.

    Args:
        result: of the chain.
        links: the sets it was made of.
        author: the message's one author domain, or None.
        trusted: whose word counts.
    """
    if result.status is not ArcStatus.PASS or not trusted:
        return result
    sets = list(result.sets)
    passed_at = 0
    for position in range(len(sets) - 1, -1, -1):
        if not trusted.covers(sets[position].sealer):
            break
        told = sets[position] = _read(sets[position], links[position])
        if not passed_at and author is not None and told.dmarc == "pass" and told.dmarc_from == author:
            passed_at = told.instance
    return replace(result, sets=tuple(sets), dmarc_passed_at=passed_at if result.whole else 0)


def _read(found: ArcSet, link: Link) -> ArcSet:
    """Return a trusted set with what its results say."""
    payload = payload_of(link.results.value)
    authserv_id = foreign.authserv_id_of(payload)
    dmarc = _dmarc(payload)
    address = _REMOTE_IP.search(payload[: foreign.MAX_VALUE])
    return replace(
        found,
        trusted=True,
        authserv_id="" if isinstance(authserv_id, Unparsable) else authserv_id[:253],
        dmarc=dmarc.result[:20] if dmarc is not None else "",
        dmarc_from=Domain.maybe(dmarc.value("header", "from") or "") if dmarc is not None else None,
        remote_ip=parse_ip(address.group(1).decode("ascii")) if address is not None else None,
    )


def _dmarc(payload: bytes) -> ForeignResult | None:
    """Return the one dmarc result of an A-R value; None if there is none, several, or one that cannot be read."""
    clauses = foreign.clauses_of(payload)
    if isinstance(clauses, Unparsable):
        return None
    found: list[ForeignResult] = []
    for clause in clauses:
        # One clause at a time, because others of it may be beyond the reader (IPv6 addresses that are not quoted).
        if b"dmarc" not in clause.lower():
            continue
        read = foreign.read(b"x;" + clause)
        if isinstance(read, Unparsable):
            return None
        found += [r for r in read.results if r.method == "dmarc"]
    return found[0] if len(found) == 1 else None
