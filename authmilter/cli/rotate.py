"""`authmilter keys rotate begin|advance|run|status`: keys that take turns, for people and for timers.

Every command can be stopped at any instant and run again: what is done is in the state file, and the next run goes on
from there. A step that changes what signs asks the running service to read the state, and counts as taken only when
the service answers with the digest that this state gives.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from authmilter import runtime
from authmilter.cli.output import CONFIG_OPTION, ExitCode, fail, reports_errors, say_error
from authmilter.cli.run import SilentServiceError, ask
from authmilter.config import load as config_load
from authmilter.config.load import Loaded
from authmilter.errors import AuthMilterError, InvalidName
from authmilter.names import Domain
from authmilter.ports import Resolver
from authmilter.signing.keys import Publication, PublicationState, zone_line, zone_strings
from authmilter.signing.rotation import (
    STATE_FILE,
    Disk,
    Generation,
    KeyState,
    Looked,
    Rotation,
    RotationSettings,
    RotationState,
    due,
    look,
)

__all__ = ["rotate"]

#: Seconds by which the clocks of hosts that share a folder may differ.
_CLOCK_SKEW = 3600

_ZONE_OPTION = click.option(
    "--zone", type=click.Path(dir_okay=False), help="Answer DNS from this file (YAML or JSON)."
)
_JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_SOCKET_OPTION = click.option(
    "--socket", "control", metavar="PATH", help="The control socket; default: as the configuration says."
)
_RELOADED_OPTION = click.option(
    "--reloaded",
    is_flag=True,
    help="Ask no service: every service that signs has read the state since it last changed, or will at its start.",
)


@click.group()
def rotate() -> None:
    """Replace DKIM keys in turn: pending -> active -> retiring -> retired.

    \b
    begin     make new keys and print the records to publish
    advance   ask the DNS, and take every step that it and the time allow
    run       both, where they are due: for a timer
    status    what there is, what the DNS says of it, and what to do next

    The domains, the folder and the times stand in the configuration, `signing.rotation`.
    """  # noqa: D301 - the backspace is click's mark for a paragraph to be left as it is


@rotate.command()
@click.argument("domains", metavar="DOMAIN...", nargs=-1, required=True)
@_JSON_OPTION
@CONFIG_OPTION
@reports_errors
def begin(*, domains: tuple[str, ...], as_json: bool, config_path: str | None) -> None:
    """Make new keys for each DOMAIN and print the records to publish; nothing signs with them yet.

    They are used once `advance` (or the timer's `run`) finds them in the DNS.
    """
    turns = _turns(config_load.load(config_path))
    try:
        wanted = tuple(dict.fromkeys(Domain.parse(name) for name in domains))
    except InvalidName as e:
        raise click.UsageError(str(e)) from None
    for domain in wanted:
        if not any(domain in turn.settings.domains for turn in turns):
            raise fail(f"{domain}: stands in no entry of `signing.rotation`", ExitCode.CONFIG)
    now = runtime.now()
    report = _Report(turns=turns, now=now)
    with _locked(turns):
        concerned = [(turn, domain) for turn in turns for domain in wanted if domain in turn.settings.domains]
        for turn, domain in concerned:
            # Asked of all before keys are made for one, so that no records are made and not told.
            if turn.rotation.state().of(domain, KeyState.PENDING):
                raise fail(
                    f"{domain}: there is a pending generation already: publish it, or wait "
                    "(`authmilter keys rotate status` shows its records)",
                    ExitCode.DATA,
                )
        for turn, domain in concerned:
            _begin(turn, domain, report)
    new = {(step.domain, step.selectors) for step in report.steps}
    for turn in turns:
        made = [g for g in turn.rotation.state().generations if (g.domain, _selectors(g)) in new]
        report.looked[turn.settings.folder] = asyncio.run(_nothing_asked(turn, made))
    report.tell(as_json=as_json, only=new)


@rotate.command()
@_ZONE_OPTION
@_SOCKET_OPTION
@_RELOADED_OPTION
@_JSON_OPTION
@CONFIG_OPTION
@reports_errors
def advance(
    *, zone: str | None, control: str | None, reloaded: bool, as_json: bool, config_path: str | None
) -> None:
    """Ask the DNS for the keys and take every step that it and the time allow. Harmless at any time.

    Exit code 1: a key cannot be used; 69 and 78: a step was taken, but the service does not answer or refuses to
    reload. It goes on signing with the old keys, nothing is retired, and the next run asks again.
    """
    _go_on(config_path, zone=zone, control=control, reloaded=reloaded, as_json=as_json, make=False)


@rotate.command()
@_ZONE_OPTION
@_SOCKET_OPTION
@_RELOADED_OPTION
@_JSON_OPTION
@CONFIG_OPTION
@reports_errors
def run(
    *, zone: str | None, control: str | None, reloaded: bool, as_json: bool, config_path: str | None
) -> None:
    """Do all that is due, unattended: make keys where there are none or old ones (`every`), then as `advance`.

    For a timer: once an hour is enough. Exit codes as those of `advance`; that somebody has records to publish is
    printed, and no failure.
    """
    _go_on(config_path, zone=zone, control=control, reloaded=reloaded, as_json=as_json, make=True)


@rotate.command()
@_ZONE_OPTION
@_JSON_OPTION
@CONFIG_OPTION
@reports_errors
def status(*, zone: str | None, as_json: bool, config_path: str | None) -> None:
    """Show every generation of keys, what the DNS says of it, and what to do next. Changes nothing.

    Exit code 1: somebody has something to do (records to publish, a key that cannot be used, a service to reload);
    69: nothing is wrong, but some question had no answer.
    """
    loaded = config_load.load(config_path)
    turns = _turns(loaded)
    report = _Report(turns=turns, now=runtime.now())
    asyncio.run(_look_at_all(turns, _resolver(loaded, zone), report))
    report.tell(as_json=as_json)
    for turn in turns:
        for domain in due(turn.rotation.state(), turn.settings, int(report.now.timestamp())):
            report.say(f"{domain}: new keys are due: authmilter keys rotate begin {domain}", as_json=as_json)
    code = report.code
    if code is not ExitCode.OK:
        raise click.exceptions.Exit(int(code))


# ----- the steps --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    settings: RotationSettings
    disk: Disk
    rotation: Rotation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    domain: Domain
    selectors: tuple[str, ...]
    before: str
    after: str


def _turns(loaded: Loaded) -> list[_Turn]:
    found = []
    for settings in runtime.rotations(loaded):
        if not settings.folder.is_dir():
            raise fail(
                f"{settings.folder}: there is no such folder: make it for the service's user, mode 0700",
                ExitCode.CONFIG,
            )
        disk = Disk(settings.folder)
        found.append(_Turn(settings=settings, disk=disk, rotation=Rotation.of(settings, disk)))
    if not found:
        raise fail("the configuration has no `signing.rotation`", ExitCode.CONFIG)
    return found


@contextmanager
def _locked(turns: Iterable[_Turn]) -> Iterator[None]:
    """Lock all folders, in an order that is everybody's."""
    with ExitStack() as stack:
        for turn in sorted(turns, key=lambda t: t.settings.folder):
            stack.enter_context(turn.disk.locked())
        yield


def _resolver(loaded: Loaded, zone: str | None) -> Resolver:
    return runtime.load_zone(zone) if zone is not None else runtime.resolver_for(loaded.config, base=loaded)


def _begin(turn: _Turn, domain: Domain, report: _Report) -> None:
    made = turn.rotation.begin(domain, report.now)
    selectors = tuple(key.selector for key in made)
    report.steps.append(_Step(domain=domain, selectors=selectors, before="", after=KeyState.PENDING.value))


def _go_on(
    config_path: str | None,
    *,
    zone: str | None,
    control: str | None,
    reloaded: bool,
    as_json: bool,
    make: bool,
) -> None:
    loaded = config_load.load(config_path)
    turns = _turns(loaded)
    resolver = _resolver(loaded, zone)
    report = _Report(turns=turns, now=runtime.now())
    # Held until the service has answered: what it read is what is then said to be read.
    with _locked(turns):
        if make:
            for turn in turns:
                for domain in due(turn.rotation.state(), turn.settings, int(report.now.timestamp())):
                    _begin(turn, domain, report)
        asyncio.run(_look_at_all(turns, resolver, report))
        for turn in turns:
            found = report.looked[turn.settings.folder]
            before, after = turn.rotation.advance(found.published, report.now)
            report.steps += _steps(before, after)
        if not all(turn.rotation.state().taken for turn in turns):
            if reloaded:
                report.reload = {"asked": False, "ok": True}
            else:
                report.reload = _reload(loaded, control)
            if report.reload["ok"]:
                for turn in turns:
                    turn.rotation.confirm(report.now)
    report.tell(as_json=as_json)
    code = report.code_of_steps
    if code is not ExitCode.OK:
        raise click.exceptions.Exit(int(code))


def _steps(before: RotationState, after: RotationState) -> Iterator[_Step]:
    for old, new in zip(before.generations, after.generations, strict=True):
        if _word(old) != _word(new):
            yield _Step(domain=new.domain, selectors=_selectors(new), before=_word(old), after=_word(new))


def _word(generation: Generation) -> str:
    if generation.stopped is not None and generation.state is KeyState.RETIRING:
        return f"{generation.state.value}, stopped"
    if generation.seen is not None:
        return f"{generation.state.value}, shown by the DNS"
    return generation.state.value


def _selectors(generation: Generation) -> tuple[str, ...]:
    return tuple(key.selector for key in generation.keys)


async def _look_at_all(turns: Iterable[_Turn], resolver: Resolver, report: _Report) -> None:
    for turn in turns:
        folder = turn.settings.folder
        report.looked[folder] = await look(turn.rotation.state().generations, resolver, folder=folder)


async def _nothing_asked(turn: _Turn, made: list[Generation]) -> Looked:
    """Return what there is to say of new keys: nobody can have published them."""
    from authmilter.dns.zone import ZoneResolver  # noqa: PLC0415 - only `begin` needs an empty zone

    return await look(made, ZoneResolver({}), folder=turn.settings.folder)


def _reload(loaded: Loaded, control: str | None) -> dict[str, Any]:
    """Ask the service to read its configuration, and with it the state; `code` is how we leave if it does not."""
    path = control if control is not None else loaded.config.control.socket
    failed: dict[str, Any] = {"asked": bool(path), "ok": False, "code": ExitCode.UNAVAILABLE}
    if not path:
        return {**failed, "error": "there is no control socket"}
    try:
        wanted = runtime.digest(
            loaded.config,
            runtime.load_policy(loaded),
            runtime.signing_settings(loaded),
            runtime.seal_settings(loaded),
            named=runtime.named_policies(loaded),
        )
        answer = ask(path, "reload")
    except SilentServiceError as e:
        return {**failed, "error": str(e)}
    except AuthMilterError as e:
        return {**failed, "error": str(e), "code": ExitCode.CONFIG}
    if "error" in answer:
        return {**failed, "error": f"the service refuses: {answer['error']}", "code": ExitCode.CONFIG}
    if answer["digest"] != wanted:
        return {
            **failed,
            "error": f"the service at {path} has read something else (digest {answer['digest']}, not {wanted}): "
            "does it run with this configuration?",
            "code": ExitCode.CONFIG,
        }
    return {"asked": True, "ok": True, "digest": wanted}


# ----- what is told -----------------------------------------------------------------------------------------------


class _Report:
    """What was done, and what there is to do.

    Args:
        turns: the rotations.
        now: the moment of the command.
    """

    def __init__(self, *, turns: list[_Turn], now: datetime) -> None:
        self._turns = turns
        self.now = now
        self.steps: list[_Step] = []
        self.looked: dict[Path, Looked] = {}
        self.reload: dict[str, Any] | None = None

    @property
    def code_of_steps(self) -> ExitCode:
        """How a command that takes steps leaves."""
        if self.reload is not None and not self.reload["ok"]:
            return ExitCode(self.reload["code"])
        return ExitCode.FOUND if any(found.problems for found in self.looked.values()) else ExitCode.OK

    @property
    def code(self) -> ExitCode:
        """How `status` leaves."""
        if any(found.problems for found in self.looked.values()):
            return ExitCode.FOUND
        unknown = False
        for turn in self._turns:
            state = turn.rotation.state()
            if not state.taken or due(state, turn.settings, int(self.now.timestamp())):
                return ExitCode.FOUND
            for generation in state.generations:
                if generation.state is KeyState.RETIRED:
                    continue
                told = self._told(turn, generation)
                if any(one.state not in _FINE for one in told):
                    return ExitCode.FOUND
                unknown = unknown or any(one.state is PublicationState.UNKNOWN for one in told)
        return ExitCode.UNAVAILABLE if unknown else ExitCode.OK

    def tell(self, *, as_json: bool, only: set[tuple[Domain, tuple[str, ...]]] | None = None) -> None:
        """Print everything; `only` these generations (domain, selectors), if given."""
        shown = [
            (turn, generation)
            for turn in self._turns
            for generation in turn.rotation.state().generations
            if only is None or (generation.domain, _selectors(generation)) in only
        ]
        if as_json:
            self._tell_json(shown)
            return
        for step in self.steps:
            click.echo(f"{step.domain}: {', '.join(step.selectors)}: {step.before or 'new'} -> {step.after}")
        if self.reload is not None:
            self._tell_reload()
        elif not all(turn.rotation.state().taken for turn in self._turns):
            click.echo(
                "the state has changed, and no service is known to have read it: authmilter keys rotate advance"
            )
        for found in self.looked.values():
            for problem in found.problems:
                say_error(f"a key cannot be used: {problem}")
        for file, latest in self._ahead():
            say_error(
                f"{file} speaks of {_time(latest)}, and the clock of this host says {_time(int(self.now.timestamp()))}: "
                "was it wrong then, or is it now? Nothing that waits from then on goes on before"
            )
        if self.steps and shown:
            click.echo("")
        for turn, generation in shown:
            click.echo(f"{generation.domain}  {_word(generation)} since {_time(generation.since)}")
            for one in self._told(turn, generation):
                detail = f" ({one.detail})" if one.detail else ""
                if only is None:
                    click.echo(f"    {one.entry.question.name}: {one.state.value}{detail}")
            text, records = self._next(turn, generation)
            click.echo(f"    {text}")
            for record in records:
                click.echo(f"{record}")

    def _ahead(self) -> Iterator[tuple[Path, int]]:
        """Yield the state files with times that are yet to come, and the latest."""
        for turn in self._turns:
            times = [
                time
                for g in turn.rotation.state().generations
                for time in (g.since, g.seen, g.stopped, g.quiet)
                if time is not None
            ]
            if max(times, default=0) > self.now.timestamp() + _CLOCK_SKEW:
                yield turn.settings.folder / STATE_FILE, max(times)

    def say(self, text: str, *, as_json: bool) -> None:
        """Print a line for people."""
        if not as_json:
            click.echo(text)

    def _tell_reload(self) -> None:
        assert self.reload is not None  # asked by `tell`
        if not self.reload["ok"]:
            say_error(str(self.reload["error"]))
            say_error(
                "no service is known to have read the new state. If one runs, it signs with the old keys, whose "
                "records stay. The next run asks again; or reload it yourself, then: "
                "authmilter keys rotate advance --reloaded"
            )
        elif self.reload["asked"]:
            click.echo(f"the service has read the new state (digest {self.reload['digest']})")

    def _tell_json(self, shown: list[tuple[_Turn, Generation]]) -> None:
        problems = [p for found in self.looked.values() for p in found.problems]
        document = {
            "steps": [
                {"domain": s.domain.ascii, "selectors": s.selectors, "before": s.before, "after": s.after}
                for s in self.steps
            ],
            "reload": {k: v for k, v in self.reload.items() if k != "code"}
            if self.reload is not None
            else None,
            "problems": [{"key": str(p.source), "why": p.why} for p in problems],
            "generations": [self._as_dict(turn, generation) for turn, generation in shown],
        }
        click.echo(json.dumps(document))

    def _as_dict(self, turn: _Turn, generation: Generation) -> dict[str, object]:
        text, _ = self._next(turn, generation)
        return {
            "domain": generation.domain.ascii,
            "state": generation.state.value,
            "signs": generation.signs,
            "since": generation.since,
            "seen": generation.seen,
            "stopped": generation.stopped,
            "quiet": generation.quiet,
            "next": text,
            "keys": [
                {
                    "type": one.entry.key.kind.value,
                    "selector": one.entry.selector,
                    "name": one.entry.question.name,
                    "record": one.entry.key.record,
                    "strings": zone_strings(one.entry.key),
                    "dns": one.state.value,
                    "detail": one.detail,
                }
                for one in self._told(turn, generation)
            ],
        }

    def _told(self, turn: _Turn, generation: Generation) -> list[Publication]:
        found = self.looked[turn.settings.folder].found
        places = [(generation.domain, key.selector) for key in generation.keys]
        return [found[place] for place in places if place in found]

    def _next(self, turn: _Turn, generation: Generation) -> tuple[str, list[str]]:
        """Return what the administrator does next, and the lines of a zone file that belong to it."""
        timing, every = turn.settings.timing, turn.settings.every
        told = self._told(turn, generation)
        wrong = [one for one in told if one.state not in _FINE]
        publish = [zone_line(one.entry) for one in wrong]
        match generation.state:
            case KeyState.PENDING if wrong:
                return (
                    "signs nothing yet: publish what follows, then: authmilter keys rotate advance",
                    publish,
                )
            case KeyState.PENDING if generation.seen is not None:
                when = _time(generation.seen + timing.propagation)
                return f"signs nothing yet: used from {when} on, if the DNS still shows it then", []
            case KeyState.PENDING:
                return "signs nothing yet: next, authmilter keys rotate advance", []
            case KeyState.ACTIVE if wrong:
                return (
                    "signs, but the DNS does not show it, so signatures fail: publish what follows",
                    publish,
                )
            case KeyState.ACTIVE:
                when = (
                    f"new keys are due on {_time(generation.since + every)}"
                    if every is not None
                    else "nothing to do"
                )
                return f"signs: {when}", []
            case KeyState.RETIRING if generation.stopped is None:
                return (
                    f"signs beside the new keys until {_time(generation.since + timing.grace)}: leave its records",
                    [],
                )
            case KeyState.RETIRING if generation.quiet is None:
                return "is to sign no more, but no service is known to have read that: leave its records", []
            case KeyState.RETIRING:
                assert generation.quiet is not None  # the case before
                when = _time(generation.quiet + timing.queue_life)
                return f"signs no more, but mail may be on its way: leave its records until {when}", []
            case KeyState.RETIRED:
                there = [one for one in told if one.state is PublicationState.PUBLISHED]
                if there:
                    empty = [
                        f'{one.entry.question.name}. IN TXT ( "v=DKIM1; k={one.entry.key.kind.value}; p=" )'
                        for one in there
                    ]
                    return "is over: empty its records as follows, or take them away", empty
                return "is over: nothing to do; its key files may be deleted", []


_FINE = {PublicationState.PUBLISHED, PublicationState.UNKNOWN}


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
