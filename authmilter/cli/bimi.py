"""`authmilter bimi check`: what a receiver would say of a logo, every rule with its answer, and the logo as a picture."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from authmilter import runtime
from authmilter.bimi.evidence import MarkEvidence
from authmilter.bimi.fetch import Fetcher, FetchSettings
from authmilter.bimi.findings import Finding, first_failure
from authmilter.bimi.inspect import DomainReport, inspect_domain, is_selector
from authmilter.bimi.svg import MAX_READ, check_svg
from authmilter.bimi.vmc import MAX_BUNDLE, TrustRoots, check_mark, read_roots
from authmilter.cli.output import CONFIG_OPTION, ExitCode, console, fail, reports_errors
from authmilter.config import load as config_load
from authmilter.config.load import Loaded
from authmilter.dmarc.result import DiscoveryMethod
from authmilter.dmarc.settings import DmarcSettings
from authmilter.dns.servers import Server
from authmilter.errors import Complaint, ConfigError, InvalidName, Span
from authmilter.names import Domain
from authmilter.ports import Resolver

__all__ = ["Report", "bimi", "of_domain", "show"]

#: Beginnings of files that are certificates; everything else that is a file is taken for an image.
_PEM = b"-----BEGIN "
#: Pixels of a picture, each way.
_MAX_PIXELS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the command tells: of what (`kind`: domain, certificate or image), the findings, and facts to go with them.

    `svg` is the image, None where there is none that could be read; `temporary`: what failed may pass by itself.
    """

    target: str
    kind: str
    findings: tuple[Finding, ...]
    facts: dict[str, str] = field(default_factory=dict)
    svg: bytes | None = None
    temporary: bool = False

    @property
    def code(self) -> ExitCode:
        """OK, FOUND where a rule is broken, UNAVAILABLE where it is broken only because something did not answer."""
        if first_failure(self.findings) is None:
            return ExitCode.OK
        return ExitCode.UNAVAILABLE if self.temporary else ExitCode.FOUND

    @property
    def as_dict(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "target": self.target,
            "kind": self.kind,
            "ok": self.code is ExitCode.OK,
            "temporary": self.temporary,
            **self.facts,
            "findings": [
                {
                    "rule": f.rule,
                    "passed": f.passed,
                    "advisory": f.advisory,
                    "problem": f.problem,
                    "message": f.message,
                    "line": f.line,
                }
                for f in self.findings
            ],
        }


@click.group()
def bimi() -> None:
    """Look at logos of senders (BIMI)."""


@bimi.command()
@click.argument("target")
@click.option(
    "--selector",
    default="default",
    show_default=True,
    help="The selector of the record, for a DOMAIN or a certificate.",
)
@click.option("--domain", "for_domain", help="For a certificate: the domain that it has to name.")
@click.option(
    "--roots",
    multiple=True,
    type=click.Path(dir_okay=False),
    help="A PEM file with roots of mark certificates; may be repeated; default: bimi.trust_roots.",
)
@click.option("--render", type=click.Path(dir_okay=False), help="Draw the logo into this PNG file.")
@click.option(
    "--pixels",
    type=click.IntRange(1, _MAX_PIXELS),
    default=256,
    show_default=True,
    help="How wide it is drawn.",
)
@click.option("--zone", type=click.Path(dir_okay=False), help="Answer DNS from this file (YAML or JSON).")
@click.option(
    "--resolver", "server", help="Ask this resolver, as IP or IP:port, instead of the configured ones."
)
@click.option("--now", "now_text", help="Judge certificates as of this time (RFC 3339).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@CONFIG_OPTION
@reports_errors
def check(
    *,
    target: str,
    selector: str,
    for_domain: str | None,
    roots: tuple[str, ...],
    render: str | None,
    pixels: int,
    zone: str | None,
    server: str | None,
    now_text: str | None,
    as_json: bool,
    config_path: str | None,
) -> None:
    """Hold a domain's logo, an image or a mark certificate against every rule.

    \b
    authmilter bimi check example.com          its DMARC policy, record, certificate and image
    authmilter bimi check logo.svg             an image (SVG Tiny PS; .svgz too)
    authmilter bimi check mark.pem --domain example.com
                                               a certificate (VMC or CMC) and its authorities

    TARGET is a file if there is one of that name or it ends in .svg, .svgz, .pem, .crt or .cer, else a domain. What a
    DOMAIN names is fetched as the service does: https, public addresses only.

    Exit code 1: a rule is broken; 69: only because the DNS or a server did not answer.
    """  # noqa: D301 - the backspace is click's mark for a paragraph to be left as it is
    if zone is not None and server is not None:
        raise click.UsageError("give --zone or --resolver, not both")
    if not is_selector(selector):
        raise click.UsageError(f"--selector: {selector!r} is no selector")
    moment = _time(now_text) if now_text is not None else runtime.now()
    loaded = config_load.load(config_path)
    trusted = _roots(roots) if roots else runtime.trust_roots(loaded)
    if Path(target).suffix.lower() in {".svg", ".svgz", ".pem", ".crt", ".cer"} or Path(target).is_file():
        report = of_file(
            target,
            _read(target),
            roots=trusted,
            now=moment,
            selector=selector,
            domain=_domain(for_domain) if for_domain is not None else None,
        )
    else:
        loaded = _asking(loaded, server)
        resolver = (
            runtime.load_zone(zone) if zone is not None else runtime.resolver_for(loaded.config, base=loaded)
        )
        settings = FetchSettings(timeout=loaded.config.bimi.fetch_timeout)
        report = asyncio.run(
            of_domain(
                _domain(target),
                loaded=loaded,
                resolver=resolver,
                fetcher=Fetcher(resolver, settings),
                roots=trusted,
                now=moment,
                selector=selector,
            )
        )
    if as_json:
        click.echo(json.dumps(report.as_dict))
    else:
        show(console(), report)
    if render is not None:
        _render(report, render, pixels)
    if report.code is not ExitCode.OK:
        raise click.exceptions.Exit(int(report.code))


def of_file(
    name: str, content: bytes, *, roots: TrustRoots, now: datetime, selector: str, domain: Domain | None
) -> Report:
    """Return what the rules say of a file: a certificate if it begins as one, else an image."""
    if not content.lstrip().startswith(_PEM):
        image = check_svg(content)
        facts = {"title": image.title, "svg_sha256": image.sha256}
        return Report(target=name, kind="image", findings=image.findings, facts=facts, svg=image.svg)
    mark = check_mark(content, roots=roots, now=now, domain=domain, selector=selector)
    facts = {
        "mark_type": mark.mark_type,
        "names": ", ".join(mark.names),
        "issuer": mark.issuer,
        "not_after": mark.not_after.isoformat() if mark.not_after is not None else "",
        "svg_sha256": mark.svg_sha256,
    }
    return Report(target=name, kind="certificate", findings=mark.findings, facts=facts, svg=mark.svg)


async def of_domain(
    domain: Domain,
    *,
    loaded: Loaded,
    resolver: Resolver,
    fetcher: Fetcher,
    roots: TrustRoots,
    now: datetime,
    selector: str,
) -> Report:
    """Return what the rules say of a domain: policy, record, certificate and image."""
    found = await inspect_domain(
        domain,
        resolver=resolver,
        fetcher=fetcher,
        roots=roots,
        evidence=runtime.evidence_settings(loaded),
        dmarc=DmarcSettings(discovery=DiscoveryMethod(loaded.config.dmarc.org_domain)),
        now=now,
        selector=selector,
    )
    return Report(
        target=domain.ascii,
        kind="domain",
        findings=found.findings,
        facts=_facts(found),
        svg=found.svg,
        temporary=found.temporary,
    )


def _facts(found: DomainReport) -> dict[str, str]:
    facts: dict[str, str] = {}
    record = found.result.record if found.result is not None else None
    if found.result is not None and record is not None:
        facts["record"] = f"{found.result.selector}._bimi.{found.result.domain}"
        facts["location"], facts["authority"] = record.location, record.authority
    evidence: MarkEvidence | None = found.evidence
    if evidence is not None:
        facts["evidence"] = evidence.status.value
        facts["mark_type"], facts["issuer"] = evidence.mark_type, evidence.issuer
        facts["not_after"] = evidence.not_after.isoformat() if evidence.not_after is not None else ""
        facts["svg_sha256"] = evidence.indicator.svg_sha256 if evidence.indicator is not None else ""
    return facts


def show(out: Console, report: Report) -> None:
    """Print a report for people."""
    for name, value in report.facts.items():
        if value:
            out.print(f"[bold]{name}[/] {escape(value)}")
    columns = Table()
    columns.add_column("rule", no_wrap=True)
    columns.add_column("", no_wrap=True)
    columns.add_column("about", overflow="fold")
    for one in report.findings:
        state = "[green]pass[/]" if one.passed else "[yellow]note[/]" if one.advisory else "[red]fail[/]"
        line = f" (line {one.line})" if one.line else ""
        columns.add_row(escape(one.rule), state, escape(one.message + line))
    out.print(columns)
    failed = sum(1 for f in report.findings if not f.passed and not f.advisory)
    total = len(report.findings)
    if failed:
        out.print(f"[red]{escape(report.target)}: {failed} of {total} rules are broken[/]")
    else:
        out.print(f"[green]{escape(report.target)}: all is well ({total} rules)[/]")


def _render(report: Report, file: str, pixels: int) -> None:
    """Draw the image of a report, if it is one that may be shown: the renderer gets nothing else."""
    image = check_svg(report.svg, max_size=MAX_READ) if report.svg is not None else None
    if image is None or image.svg is None or image.failure is not None:
        why = "there is none" if image is None or image.failure is None else image.failure.message
        raise fail(f"the logo is not drawn: {why}", ExitCode.FOUND)
    try:
        import resvg_py  # noqa: PLC0415 - an extra, and only here
    except ImportError:
        raise fail("--render needs the Python package resvg-py", ExitCode.UNAVAILABLE) from None
    try:
        picture = resvg_py.svg_to_bytes(svg_string=image.svg.decode("utf-8"), width=pixels)
    except ValueError as e:
        raise fail(f"the logo cannot be drawn: {e}", ExitCode.FOUND) from None
    Path(file).write_bytes(bytes(picture))


def _roots(names: tuple[str, ...]) -> TrustRoots:
    found = []
    for name in names:
        try:
            found.append(read_roots(_read(name)))
        except ValueError as e:
            raise ConfigError((Complaint(span=Span(file=name), message=str(e)),)) from None
    return TrustRoots(tuple(c for roots in found for c in roots.certificates))


def _asking(loaded: Loaded, server: str | None) -> Loaded:
    """Return the configuration that asks a resolver instead of its own."""
    if server is None:
        return loaded
    try:
        Server.parse(server)
    except ValueError as e:
        raise click.UsageError(f"--resolver: {e}") from None
    dns = loaded.config.dns.model_copy(update={"nameservers": (server,), "zone": None})
    return replace(loaded, config=loaded.config.model_copy(update={"dns": dns}))


def _domain(text: str) -> Domain:
    try:
        return Domain.parse(text)
    except InvalidName as e:
        raise click.UsageError(f"{text!r} is neither a file nor a domain: {e}") from None


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--now: {text!r} is no time such as 2026-11-22T10:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _read(name: str) -> bytes:
    """Return what a file holds, as far as any rule looks into it."""
    try:
        with Path(name).open("rb") as file:
            return file.read(MAX_BUNDLE + 1)
    except (OSError, ValueError) as e:
        raise fail(f"{name}: {getattr(e, 'strerror', None) or e}", ExitCode.NO_INPUT) from None
