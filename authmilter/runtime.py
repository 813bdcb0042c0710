"""The composition root: from settings to a `Runtime`, and the small outside things it is made of."""

from __future__ import annotations

import hashlib
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

from authmilter import documents
from authmilter.config.load import Loaded, read_text
from authmilter.config.model import Config, OpenDkimTablesConfig
from authmilter.dkim.signature import DkimLimits
from authmilter.dmarc.result import DiscoveryMethod
from authmilter.dmarc.settings import DmarcSettings, KeysInTesting
from authmilter.dns.cache import CachingResolver
from authmilter.dns.resolver import NetworkResolver, ResolverSettings
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Budget, Runtime
from authmilter.errors import Complaint, ConfigError, DecodeError, Span
from authmilter.headers.edits import HeaderSettings
from authmilter.memory import ResultMemory
from authmilter.names import Domain
from authmilter.observe.journal import LogJournal, LogSettings, make_log
from authmilter.origins import Hop, Network, OriginRules, Relay
from authmilter.pipeline import CheckSettings
from authmilter.policy import loader, shipped
from authmilter.policy.decide import OnError
from authmilter.policy.rules import Policy
from authmilter.ports import Journal, Resolver
from authmilter.signing import keys
from authmilter.signing.keys import KeySource
from authmilter.signing.opendkim import OpenDkimTable, read_tables, table_path
from authmilter.signing.settings import (
    OnSigningError,
    OnUnsafeBody,
    SignatureSettings,
    SigningSettings,
)
from authmilter.signing.table import Binding, DomainTable, SenderBindings, SignerLine, Table, parse_table
from authmilter.spf.check import SpfLimits

__all__ = ["build", "load_policy", "load_zone", "new_mail_id", "resolver_for", "with_policy", "with_zone"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_mail_id() -> str:
    """Return a new message id: 16 letters and digits, unpredictable, easy to read out."""
    number = secrets.randbits(80)
    return "".join(_ALPHABET[(number >> (5 * i)) & 31] for i in range(16))


def now() -> datetime:
    """Return the time, with its zone (UTC)."""
    return datetime.now(UTC)


def load_zone(path: str, *, read: Callable[[Path], str] = read_text) -> ZoneResolver:
    """Read a zone file (YAML or JSON, see dns/zone.py) with `read`.

    Raises:
        ConfigError: it cannot be read or is not a zone.
    """
    document = documents.parse(read(Path(path)), path)
    span = Span(file=path)
    data = document.data if document.data is not None else {}  # an empty file: no name exists
    if not isinstance(data, dict):
        raise ConfigError((Complaint(span=span, message="is no zone: a mapping of names to records"),))
    try:
        return ZoneResolver(data)
    except DecodeError as e:
        raise ConfigError((Complaint(span=span, message=str(e)),)) from None


def resolver_for(config: Config, *, base: Loaded | None = None) -> Resolver:
    """Return the resolver that the configuration asks for: a zone file, or the network behind a cache."""
    dns = config.dns
    if dns.zone is not None:
        if base is None:
            return load_zone(dns.zone)
        return load_zone(str(base.resolve(dns.zone)), read=base.read)
    try:
        settings = ResolverSettings(nameservers=dns.nameservers, timeout=dns.timeout)
    except ValueError as e:
        span = Span(file=str(base.path) if base is not None and base.path is not None else "dns")
        raise ConfigError((Complaint(span=span, message=f"`dns`: {e}"),)) from None
    network = NetworkResolver(settings)
    return CachingResolver(
        network,
        max_bytes=dns.cache_size,
        min_ttl=dns.min_ttl,
        max_ttl=dns.max_ttl,
        negative_max_ttl=dns.negative_max_ttl,
        failure_ttl=dns.failure_ttl,
    )


def load_policy(loaded: Loaded, name: str | None = None) -> Policy:
    """Return the policy named by the configuration (or by `name`): a shipped word, or a path.

    Raises:
        PolicyError: the policy has mistakes; lists all of them.
        ConfigError: the file cannot be read.
    """
    word = name if name is not None else loaded.config.policy
    if "/" in word or word.endswith((".yaml", ".yml")):
        path = loaded.resolve(word) if name is None else loaded.base.__class__(word)
        folder = path.parent
        return loader.load(loaded.read(path), str(path), read_list=lambda n: loaded.read(folder / n))
    return loader.load(
        shipped.shipped_text(word), f"{word}.yaml", read_list=lambda n: loaded.read(loaded.resolve(n))
    )


def build(
    loaded: Loaded,
    *,
    journal: Journal | None = None,
    resolver: Resolver | None = None,
    policy: Policy | None = None,
    keys_validated: bool = False,
) -> Runtime:
    """Return the runtime for a configuration.

    Args:
        loaded: the configuration and where it came from.
        journal: where lines go; default: as `log` says, to standard error.
        resolver: where answers come from; default: as `dns` says (a reload hands the old one in, with its cache).
        policy: the policy; default: as `policy` says.
        keys_validated: another process has loaded the same signing keys and found them whole (saves 30 ms a key).

    Raises:
        ConfigError, PolicyError: something cannot be used; lists every mistake.
    """
    config = loaded.config
    if journal is None:
        settings = log_settings(config)
        journal = LogJournal(make_log(settings), settings)
    chosen = policy if policy is not None else load_policy(loaded)
    receiver = socket.gethostname()
    return Runtime(
        policy=chosen,
        resolver=resolver if resolver is not None else resolver_for(config, base=loaded),
        journal=journal,
        now=now,
        new_id=new_mail_id,
        checks=CheckSettings(
            spf=SpfLimits(voids=config.spf.void_limit),
            dkim=DkimLimits(
                signatures=config.dkim.max_signatures,
                min_rsa_bits=config.dkim.min_rsa_bits,
                clock_skew=int(config.dkim.clock_skew),
                unsigned_body=config.dkim.unsigned_body,
                testing=config.dkim.testing,
            ),
            dmarc=DmarcSettings(
                discovery=DiscoveryMethod(config.dmarc.org_domain),
                credit_broad_spf=config.dmarc.credit_broad_spf,
                testing_keys=KeysInTesting(config.dkim.testing),
            ),
            receiver=receiver,
        ),
        headers=HeaderSettings(
            authserv_id=config.authserv_id or "",
            siblings=config.authserv_siblings,
            received_spf=config.headers.received_spf,
            comments=config.headers.comments,
            show_login=config.headers.show_login,
            strip=config.headers.strip,
            own_headers=_own_headers(chosen),
            receiver=receiver,
        ),
        origins=_origins(config),
        budget=Budget(
            message=config.limits.message,
            checks=min(config.limits.checks, config.limits.message),
            question=config.dns.timeout,
        ),
        on_error=OnError(config.milter.on_error),
        signing=signing_settings(loaded, validated=keys_validated),
        digest=digest(config, chosen),
    )


def signing_settings(loaded: Loaded, *, validated: bool = False) -> SigningSettings | None:
    """Return what `signing` says with its keys loaded, or None where nothing is signed.

    Raises:
        ConfigError: a table, key or sender cannot be used; lists every mistake of the first kind met.
    """
    config = loaded.config.signing
    file = str(loaded.path) if loaded.path is not None else "signing"
    lines = [
        SignerLine(
            pattern=line.domain,
            selector=line.selector,
            key=KeySource(str(loaded.resolve(line.key))),
            domain=Domain.parse(line.signing_domain) if line.signing_domain is not None else None,
            span=Span(file=file),
            name=f"signing.domains[{n}]: {line.domain} {line.selector}",
        )
        for n, line in enumerate(config.domains)
    ]
    tables: list[Table] = []
    if lines:
        tables.append(
            DomainTable.of(
                lines, keys.load([line.key for line in lines], base=loaded.base, validated=validated)
            )
        )
    for name in config.tables:
        path = loaded.resolve(name)
        found = parse_table(loaded.read(path), str(path))
        ring = keys.load([line.key for line in found], base=path.parent, validated=validated)
        tables.append(DomainTable.of(found, ring))
    if config.opendkim_tables is not None:
        tables.append(_opendkim(config.opendkim_tables, loaded, file, validated=validated))
    if not tables:
        return None
    try:
        senders = SenderBindings(
            tuple(
                Binding(
                    users=s.users,
                    networks=_networks(s.networks),
                    authors=s.authors,
                    line=f"signing.senders[{n}]",
                )
                for n, s in enumerate(config.senders)
            )
        )
    except ValueError as e:
        raise ConfigError((Complaint(span=Span(file=file), message=f"`signing.senders`: {e}"),)) from None
    return SigningSettings(
        tables=tuple(tables),
        senders=senders,
        signature=SignatureSettings(expire=int(config.expire) if config.expire else None),
        daemon_names=config.daemon_names,
        on_error=OnSigningError(config.on_error),
        on_unsafe_body=OnUnsafeBody(config.on_unsafe_body),
    )


def _opendkim(config: OpenDkimTablesConfig, loaded: Loaded, file: str, *, validated: bool) -> OpenDkimTable:
    try:
        key_name, _ = table_path(config.key_table)
        signing_name, regular = table_path(config.signing_table)
    except ValueError as e:
        raise ConfigError(
            (Complaint(span=Span(file=file), message=f"`signing.opendkim_tables`: {e}"),)
        ) from None
    key_path, signing_path = loaded.resolve(key_name), loaded.resolve(signing_name)
    found = read_tables(
        loaded.read(key_path),
        loaded.read(signing_path),
        key_file=str(key_path),
        signing_file=str(signing_path),
        regular=regular,
        multiple=config.multiple_signatures,
    )
    ring = keys.load(found.sources, base=key_path.parent, validated=validated)
    return OpenDkimTable.of(found, ring)


def log_settings(config: Config) -> LogSettings:
    """Return the log's settings."""
    log = config.log
    return LogSettings(format=log.format, level=log.level, redact_local_parts=log.redact_local_parts)


def with_zone(runtime: Runtime, zone: Resolver) -> Runtime:
    """Return the same runtime answering from a zone; nothing is shared with the network's cache."""
    return replace(runtime, resolver=zone, memory=ResultMemory())


def with_policy(runtime: Runtime, policy: Policy) -> Runtime:
    """Return the same runtime with another policy."""
    headers = replace(runtime.headers, own_headers=_own_headers(policy))
    return replace(runtime, policy=policy, headers=headers)


def _own_headers(policy: Policy) -> tuple[str, ...]:
    """What the policy's tags write, nobody else may bring along."""
    return ("X-Authmilter-*", *sorted(policy.tag_names))


def digest(config: Config, policy: Policy) -> str:
    """Return 12 hexadecimal digits that name the settings and policy: equal in all workers of a generation."""
    text = config.model_dump_json() + "\0" + policy.digest
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ip_network(t) for t in texts)


def _origins(config: Config) -> OriginRules:
    return OriginRules(
        internal=_networks(config.internal.networks),
        authenticated=config.submission.authenticated,
        daemon_names=config.submission.daemon_names,
        hops=tuple(
            Hop(networks=_networks(h.networks), daemon_names=h.daemon_names) for h in config.trusted_hops
        ),
        relays=tuple(
            Relay(networks=_networks(r.networks), received_by=tuple(Domain.parse(n) for n in r.received_by))
            for r in config.trusted_relays
        ),
    )
