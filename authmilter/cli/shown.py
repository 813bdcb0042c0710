"""A verdict for people: the table of `authmilter verify` and `authmilter call verify`, made of the One JSON.

Both have it from different places (a verdict, an answer of the service), and print the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from authmilter.cli.sign import told
from authmilter.text import printable

__all__ = ["road", "show"]


class _Part:
    """An object of the One JSON with its keys as attributes; what is not there is None."""

    __slots__ = ("_data",)

    def __init__(self, data: Mapping[str, object]) -> None:
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return _part(self._data.get(name))


def _part(value: object) -> Any:
    if isinstance(value, Mapping):
        return _Part(value)
    return tuple(map(_part, value)) if isinstance(value, list | tuple) else value


def _reply(reply: Any) -> str:
    return f"{reply.code} {reply.enhanced} {reply.text}"


_COLOURS = {
    "pass": "green", "accept": "green", "fail": "red", "reject": "red", "permerror": "red", "softfail": "yellow",
    "temperror": "yellow", "tempfail": "yellow", "policy": "yellow", "quarantine": "yellow", "discard": "red",
    "internal_error": "bold red",
}  # fmt: skip


def _word(word: str) -> str:
    colour = _COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else word


def road(document: Mapping[str, object], *, signing: bool | None) -> Iterator[str]:
    """Yield which lines decided: the direction, the disposition, and the signing.

    Args:
        document: a verdict as the One JSON has it.
        signing: something is configured to be signed; None: not known.
    """
    verdict = _Part(document)
    decision = verdict.decision
    yield f"direction: {verdict.origin} ({verdict.origin_because})"
    yield f"decision: {decision.disposition} by rule {decision.rule} of policy {decision.policy}: {decision.because}"
    for passed in decision.passed_over:
        yield f"  passed over {passed.rule}: {passed.because}"
    if verdict.signing is not None:
        yield from told(verdict.signing)
    elif signing:
        yield f"signing: not signed: the mail is not delivered ({decision.disposition})"
    elif signing is not None:
        yield "signing: not configured"


def _arc_words(arc: Any) -> tuple[str, str]:
    """Return what a chain is about, and why it has the result it has."""
    sealers = " <- ".join(
        f"{s.sealer or '-'}{' (trusted)' if s.trusted else ''}" for s in reversed(arc.sets[-5:])
    )
    more = f" and {len(arc.sets) - 5} before" if len(arc.sets) > 5 else ""
    if arc.problem is not None:
        why = arc.detail or arc.problem
    elif arc.dmarc_passed_at:
        why = f"DMARC passed at set {arc.dmarc_passed_at}, says its sealer"
    else:
        why = f"oldest pass {arc.oldest_pass}"
    about = f"{len(arc.sets)} sets: {sealers or '-'}{more}"
    return escape(about), escape(printable(why, 200))


def show(out: Console, document: Mapping[str, object]) -> None:
    """Print the verdict for a person: what each method found, what was decided and why.

    Args:
        out: where to.
        document: a verdict, and `mail` it is about, as the One JSON has them.
    """
    verdict = _Part(document)
    evidence, decision = verdict.evidence, verdict.decision
    table = Table(
        "method",
        "result",
        "about",
        "why",
        title=f"origin {verdict.origin} ({escape(verdict.origin_because)})",
        title_justify="left",
    )
    if evidence.iprev is not None:
        i = evidence.iprev
        table.add_row("iprev", _word(i.status), str(i.ip), escape(printable(i.name or i.problem or "", 200)))
    for spf in (evidence.spf_helo, evidence.spf):
        if spf is not None:
            name = "spf helo" if spf.identity == "helo" else "spf mailfrom"
            why = spf.mechanism or spf.detail or (spf.problem or "")
            table.add_row(name, _word(spf.status), str(spf.domain or "-"), escape(printable(why, 200)))
    for dkim in evidence.dkim or ():
        why = dkim.detail or (dkim.problem or "") or f"{dkim.key_bits} bits"
        about = f"d={dkim.domain or '-'} s={printable(dkim.selector, 80)} a={printable(dkim.algorithm, 30)}"
        table.add_row("dkim", _word(dkim.status), escape(about), escape(printable(why, 200)))
    if evidence.dkim == ():
        table.add_row("dkim", "none", "-", "no signature")
    arc = evidence.arc
    if arc is not None and (arc.sets or arc.problem is not None):
        table.add_row("arc", _word(arc.status), *_arc_words(arc))
    dmarc = evidence.dmarc
    if dmarc is not None:
        about = f"{dmarc.author or '-'} policy {dmarc.policy or '-'} (record at {dmarc.record_at or '-'})"
        why = (
            f"aligned: {', '.join(dmarc.aligned)}"
            if dmarc.aligned
            else dmarc.detail or (dmarc.problem or "nothing aligned passed")
        )
        table.add_row("dmarc", _word(dmarc.status), escape(about), escape(printable(why, 200)))
    bimi = evidence.bimi
    if bimi is not None:
        about = f"{bimi.selector}._bimi.{bimi.domain}" if bimi.domain is not None else "-"
        why = bimi.detail or (bimi.problem or (bimi.evidence.mark_type if bimi.evidence is not None else ""))
        table.add_row("bimi", _word(bimi.status), escape(about), escape(printable(why, 200)))
    out.print(table)
    if verdict.mail.message.defects:
        listed = ", ".join(
            f"{d.kind}{f' ({d.field})' if d.field else ''}" for d in verdict.mail.message.defects
        )
        out.print(f"defects: {escape(listed)}")
    if dmarc is not None:
        for query in dmarc.queries:
            out.print(f"  dmarc asked {escape(query.name)} for {escape(query.why)}: {escape(query.answer)}")
        for sentence in dmarc.because:
            out.print(f"  {escape(sentence)}")
    if bimi is not None:
        for asked in bimi.queries:
            out.print(f"  bimi asked {escape(asked.name)}: {escape(asked.answer)}")
        if bimi.selector_ignored is not None:
            out.print(f"  bimi: BIMI-Selector is not followed: {bimi.selector_ignored}")
    out.print(
        f"decision: [bold]{_word(decision.disposition)}[/] by rule [bold]{escape(decision.rule)}[/] of policy {escape(decision.policy)}: {escape(decision.because)}"
    )
    if decision.reply is not None:
        out.print(f"  reply: {escape(_reply(decision.reply))}")
    for would in decision.would_have:
        out.print(
            f"  would have: {_word(would.disposition)} by rule {escape(would.rule)}"
            + (f" with {escape(_reply(would.reply))}" if would.reply else "")
        )
    for passed in decision.passed_over:
        out.print(f"  [dim]passed over {escape(passed.rule)}: {escape(passed.because)}[/]")
    if verdict.signing is not None:
        for line in told(verdict.signing):
            out.print(escape(line), soft_wrap=True)
    sealing = verdict.sealing
    if sealing is not None:
        done = f"by {sealing.sealed}, i={sealing.instance} cv={sealing.cv}" if sealing.sealed else "none"
        why = f": {sealing.reason} ({sealing.detail})" if sealing.reason else ""
        out.print(escape(printable(f"ARC set, {sealing.mode}: {done}{why}", 300)), soft_wrap=True)
    if verdict.authentication_results:
        out.print("Authentication-Results: " + escape(verdict.authentication_results), soft_wrap=True)
    questions = sum(s.questions for s in verdict.trace)
    out.print(f"[dim]{verdict.elapsed_ms:.1f} ms, {questions} DNS questions[/]")
