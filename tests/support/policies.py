"""Builders for policy tests: a policy from a few lines, facts from a few words, a mail from a few values."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from authmilter.evidence import Evidence
from authmilter.mail import BodyFacts, Envelope, Mail, Origin, Session
from authmilter.message import AuthorHeader, Defect, Header, Message
from authmilter.names import Address, parse_helo, parse_ip, parse_recipient, parse_reverse_path
from authmilter.policy import loader
from authmilter.policy.decide import judge_facts
from authmilter.policy.facts import Facts
from authmilter.policy.rules import Policy
from authmilter.verdict import Decision

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def a_policy(text: str, *, read_list: Callable[[str], str] | None = None) -> Policy:
    """A policy from its text; `default: accept` is added where it has none."""
    if "default:" not in text:
        text += "\ndefault: accept\n"
    return loader.load(text, "p.yaml", read_list=read_list)


def a_rule(when: str, then: str = "reject", *, more: str = "") -> Policy:
    """A policy of one rule `r`, its condition and action in flow style."""
    return a_policy(f"{more}\nrules:\n  - {{id: r, when: {when}, then: {then}}}\n")


def facts(**values: object) -> Facts:
    """Facts by name, with `__` for the dot; from the internet, with the id `ABC`."""
    named = {name.replace("__", "."): value for name, value in values.items()}
    return Facts.from_mapping({"origin": "internet", "mail.id": "ABC", **named})


def judged(policy: Policy, **values: object) -> Decision:
    """What a policy says of facts."""
    return judge_facts(facts(**values), policy)


def holds(when: str, **values: object) -> bool:
    """Whether a condition (flow style) holds for facts."""
    return judge_facts(facts(**values), a_rule(when, "discard")).rule == "r"


def a_mail(
    *,
    ip: str | None = "192.0.2.1",
    name: str = "",
    helo: str | None = "client.example",
    mail_from: str = "<bob@sender.example>",
    rcpt: tuple[str, ...] = ("<user@here.example>",),
    headers: tuple[tuple[str, str], ...] = (),
    authors: AuthorHeader | None = None,
    defects: tuple[Defect, ...] = (),
    origin: Origin = Origin.INTERNET,
    authenticated: str | None = None,
    body: BodyFacts | None = None,
) -> Mail:
    """A mail as the engine hands it to the policy."""
    author = Address.parse("bob@author.example")
    return Mail(
        id="ABC123",
        session=Session(
            client_ip=None if ip is None else parse_ip(ip),
            client_name=name,
            helo=None if helo is None else parse_helo(helo),
            authenticated=authenticated,
        ),
        envelope=Envelope(
            mail_from=parse_reverse_path(mail_from), rcpt_to=tuple(parse_recipient(r) for r in rcpt)
        ),
        message=Message(
            headers=tuple(
                Header(n.encode(), b" " + v.encode("utf-8", "surrogateescape")) for n, v in headers
            ),
            defects=defects,
            authors=authors or AuthorHeader(fields=1, addresses=(author,), domains=(author.domain,)),
        ),
        received_at=NOW,
        body=body or BodyFacts(size=100),
        origin=origin,
    )


def value(fact: str, mail: Mail, evidence: Evidence | None = None) -> object:
    """The value of one fact of a mail."""
    return Facts.of(mail, evidence or Evidence()).get(fact)
