"""A mail as a value: who connected, what the envelope said, and the message."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from authmilter.message import Message
from authmilter.names import Domain, Helo, IPAddress, NullPath, Recipient, ReversePath

__all__ = ["BodyFacts", "Envelope", "Mail", "MailId", "Origin", "Session", "TlsInfo"]

#: Our own id of a message, made by the door: letters and digits only, told to the sender as support id.
MailId = str


class Origin(StrEnum):
    """Where a mail comes from, as far as judging it goes (ARCHITECTURE.md, section Origins)."""

    #: from anybody: judged
    INTERNET = "internet"
    #: authenticated, or through a chosen {daemon_name}: forged headers stripped, signed, not judged
    SUBMISSION = "submission"
    #: from an own network: as submission
    INTERNAL = "internal"
    #: our content filter or list coming back: our own Authentication-Results is kept, not judged again
    TRUSTED_HOP = "trusted_hop"
    #: a backup MX or edge of ours: judged for the client it names, never refused (it would bounce)
    TRUSTED_RELAY = "trusted_relay"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsInfo:
    """The session's TLS as the MTA reports it: protocol `version`, `cipher`, verified client `subject` or ``."""

    version: str
    cipher: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One SMTP session. `client_ip` None: not known (SPF and iprev are then not asked).

    `client_name` is what the MTA says of the client's name, `daemon_name` its {daemon_name},
    `authenticated` the SASL user, `local_name` the MTA's own name (macro `j`).
    """

    client_ip: IPAddress | None = None
    client_name: str = ""
    helo: Helo | None = None
    local_name: Domain | None = None
    authenticated: str | None = None
    daemon_name: str = ""
    tls: TlsInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The SMTP envelope; `mail_options` are the ESMTP arguments of MAIL FROM as written (`BODY=8BITMIME`)."""

    mail_from: ReversePath = NullPath()
    rcpt_to: tuple[Recipient, ...] = ()
    mail_options: tuple[str, ...] = ()

    @property
    def smtputf8(self) -> bool:
        """True if the sender asked for SMTPUTF8 (RFC 6531 §3.4)."""
        return "SMTPUTF8" in map(str.upper, self.mail_options)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyFacts:
    """What is remembered of a body that was hashed as it arrived: `size` in octets, and bare CR or LF seen.

    `long_line` (a line over 998 octets, RFC 5322 §2.1.1) and `eight_bit` (an octet over 127) are looked for only in
    mail that is signed; elsewhere they are False.
    """

    size: int = 0
    bare_cr: bool = False
    bare_lf: bool = False
    long_line: bool = False
    eight_bit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail on its way through the checks. `origin_because` is the line that decided the origin."""

    id: MailId
    session: Session
    envelope: Envelope
    message: Message
    received_at: datetime
    body: BodyFacts = BodyFacts()
    origin: Origin = Origin.INTERNET
    origin_because: str = ""
