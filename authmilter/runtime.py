"""The composition root: from settings to a `Runtime`, and the small outside things it is made of."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from authmilter import documents
from authmilter.arc.seal import OnDnsFailure, RecipientPatterns, SealSettings
from authmilter.arc.settings import ArcSettings, TrustedSealers
from authmilter.bimi.evidence import EvidenceSource
from authmilter.bimi.settings import BimiSettings, EvidenceSettings
from authmilter.config.checked import pack
from authmilter.config.loaded import Loaded, read_text
from authmilter.dkim.signature import DkimLimits
from authmilter.dmarc import psl
from authmilter.dmarc.result import DiscoveryMethod
from authmilter.dmarc.settings import DmarcSettings, KeysInTesting
from authmilter.dns.cache import CachingResolver
from authmilter.dns.resolver import NetworkResolver, ResolverSettings
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Budget, Runtime
from authmilter.errors import (
    AuthMilterError,
    Complaint,
    ConfigError,
    DecodeError,
    InvalidName,
    KeyMaterialError,
    Span,
    StoreError,
)
from authmilter.headers.edits import HeaderSettings
from authmilter.mail import Origin
from authmilter.memory import ResultMemory
from authmilter.names import Domain
from authmilter.observe.journal import LogJournal, LogSettings, make_log
from authmilter.origins import Hop, Network, OriginRules, Relay
from authmilter.pipeline import CheckSettings
from authmilter.policy import loader, shipped
from authmilter.policy.decide import OnError
from authmilter.policy.rules import Policy
from authmilter.ports import Journal, Resolver
from authmilter.signing import keys, rotation
from authmilter.signing.keys import KeyKind, KeyRing, KeySource
from authmilter.signing.rotation import STATE_FILE, KeyState, RotationSettings, RotationState, Timing
from authmilter.signing.settings import (
    OnSigningError,
    OnUnsafeBody,
    SignatureSettings,
    SigningSettings,
)
from authmilter.signing.table import Binding, DomainTable, SenderBindings, SignerLine, Table, parse_table
from authmilter.spf.check import SpfLimits

if TYPE_CHECKING:
    from authmilter.bimi.vmc import TrustRoots
    from authmilter.config.model import Config, OpenDkimTablesConfig
    from authmilter.rpc.settings import RpcSettings
    from authmilter.signing.opendkim import OpenDkimTable

__all__ = [
    "build",
    "cache_counters",
    "grpc_settings",
    "load_policy",
    "load_zone",
    "new_mail_id",
    "preload",
    "resolver_for",
    "with_policy",
    "with_zone",
]

#: Octets of whole results kept; no more than of DNS answers, and none where those are not kept.
_MOST_RESULTS = 16 << 20
_ALPHABET = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Eight octets stand for each letter, so random octets make random letters.
_LETTERS = _ALPHABET * 8
_ID_LETTERS = 16
_ONE_ID = re.compile(f".{{{_ID_LETTERS}}}")
#: How many ids are drawn at a time, with one call of the system.
_IDS_AT_A_TIME = 256

# Ids that were drawn and not yet given out. What was drawn before a fork is the parent's: no two processes may give
# out the same ones.
_drawn_ids: list[str] = []
os.register_at_fork(after_in_child=_drawn_ids.clear)


def preload() -> None:
    """Read and import what every runtime needs and nothing loads before it is used, for processes that will fork.

    The public suffix list takes 5 MB to read. Done here it is once in memory, and not in every worker.
    """
    psl.version()
    shipped.shipped_text(shipped.NAMES[0])  # imports what reads package data


def new_mail_id() -> str:
    """Return a new message id: 16 letters and digits, unpredictable, easy to read out."""
    while True:
        try:
            return _drawn_ids.pop()
        except IndexError:  # (another thread may be quicker than this one)
            text = secrets.token_bytes(_ID_LETTERS * _IDS_AT_A_TIME).translate(_LETTERS).decode("ascii")
            _drawn_ids.extend(_ONE_ID.findall(text))


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
        return loader.load(
            loaded.read(path), str(path), read_list=lambda n: loaded.read(folder / n), today=now().date()
        )
    return loader.load(
        shipped.shipped_text(word),
        f"{word}.yaml",
        read_list=lambda n: loaded.read(loaded.resolve(n)),
        today=now().date(),
    )


def build(
    loaded: Loaded,
    *,
    journal: Journal | None = None,
    resolver: Resolver | None = None,
    policy: Policy | None = None,
    keys_validated: bool = False,
    keys: bool = True,
    marks: EvidenceSource | None = None,
) -> Runtime:
    """Return the runtime for a configuration.

    Args:
        loaded: the configuration and where it came from.
        journal: where lines go; default: as `log` says, to standard error.
        resolver: where answers come from; default: as `dns` says (a reload hands the old one in, with its cache).
        policy: the policy; default: as `policy` says.
        keys_validated: another process has loaded the same signing keys and found them whole (saves 30 ms a key).
        keys: load the signing keys; without them nothing is signed, and `digest` does not cover them.
        marks: the store of BIMI documents of before; goes on if it would be made the same (same resolver and settings).

    Raises:
        ConfigError, PolicyError: something cannot be used; lists every mistake.
    """
    config = loaded.config
    if journal is None:
        settings = log_settings(config)
        journal = LogJournal(make_log(settings), settings)
    chosen = policy if policy is not None else load_policy(loaded)
    named = named_policies(loaded)
    receiver = socket.gethostname()
    signing = signing_settings(loaded, validated=keys_validated) if keys else None
    sealing = seal_settings(loaded, validated=keys_validated) if keys else None
    answers = resolver if resolver is not None else resolver_for(config, base=loaded)
    store = evidence_store(loaded, answers, journal, marks) if config.bimi.enabled else None
    return Runtime(
        policy=chosen,
        resolver=answers,
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
            arc=arc_settings(loaded),
            bimi=bimi_settings(config),
            marks=store,
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
            bimi_indicator=config.bimi.write_indicator,
        ),
        origins=origin_rules(config),
        budget=Budget(
            message=config.limits.message,
            checks=min(config.limits.checks, config.limits.message),
            question=config.dns.timeout,
        ),
        on_error=OnError(config.milter.on_error),
        signing=signing,
        sealing=sealing,
        digest=digest(config, chosen, signing, sealing, named=named),
        policies=named,
        memory=ResultMemory(min(_MOST_RESULTS, config.dns.cache_size)),
    )


def cache_counters(built: Runtime) -> dict[str, float]:
    """Return how often DNS answers and whole results were at hand, and how often not, since `built` was made."""
    memory = built.memory.stats()
    counted: dict[str, float] = {
        "results_recalled": memory.hits,
        "results_not_recalled": memory.misses,
        "results_evicted": memory.evictions,
        "dns_cache_hits": 0,
        "dns_cache_misses": 0,
        "dns_cache_evictions": 0,
    }
    if isinstance(built.resolver, CachingResolver):
        stats = built.resolver.stats()
        counted["dns_cache_hits"] = stats.hits
        counted["dns_cache_misses"] = stats.misses
        counted["dns_cache_evictions"] = stats.evictions
    return counted


def signing_settings(loaded: Loaded, *, validated: bool = False) -> SigningSettings | None:
    """Return what `signing` says with its keys loaded, or None where nothing is signed.

    Raises:
        ConfigError: a table, key or sender cannot be used; lists every mistake of the first kind met.
    """
    config = loaded.config.signing
    file = str(loaded.path) if loaded.path is not None else "signing"
    tables: list[Table] = []
    warnings: list[str] = []
    seen: list[str] = []

    def table_of(found: Iterable[SignerLine], base: Path) -> None:
        listed = tuple(found)
        ring = keys.load([line.key for line in listed], base=base, validated=validated)
        made = DomainTable.of(listed, ring)
        tables.append(made)
        warnings.extend((*ring.warnings, *made.warnings))
        seen.extend(f"{line.pattern} {line.selector} {line.domain}" for line in listed)
        seen.append(_identity(ring))

    for turn in rotations(loaded):
        state = _rotation_state(turn, loaded)
        table_of(rotation.signer_lines(state, turn.patterns, folder=turn.folder), turn.folder)
        warnings += [
            f"signing.rotation: no key signs for {domain} yet: authmilter keys rotate status says what to do"
            for domain in turn.domains
            if not state.of(domain, KeyState.ACTIVE)
        ]
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
    if lines:
        table_of(lines, loaded.base)
    for name in config.tables:
        path = loaded.resolve(name)
        table_of(parse_table(loaded.read(path), str(path)), path.parent)
    if config.opendkim_tables is not None:
        table, ring = _opendkim(config.opendkim_tables, loaded, file, validated=validated)
        tables.append(table)
        warnings += (*ring.warnings, *table.warnings)
        seen.append(_identity(ring))
    _no_selector_means_two_keys(tables, file)
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
        warnings=tuple(warnings),
        identity=hashlib.sha256("\0".join(seen).encode()).hexdigest(),
    )


def rotations(loaded: Loaded) -> tuple[RotationSettings, ...]:
    """Return what `signing.rotation` says.

    Raises:
        ConfigError: a domain or a folder stands in two entries, or a template gives no selector for some domain.
    """
    found: list[RotationSettings] = []
    complaints: list[Complaint] = []
    span = Span(file=str(loaded.path) if loaded.path is not None else "signing")
    for number, entry in enumerate(loaded.config.signing.rotation):
        place = f"`signing.rotation[{number}]`"
        try:
            one = RotationSettings(
                folder=loaded.resolve(entry.folder),
                patterns=entry.domains,
                template=entry.selector,
                kinds=tuple(KeyKind(kind) for kind in entry.kinds),
                rsa_bits=entry.rsa_bits,
                timing=Timing(
                    propagation=int(entry.propagation),
                    grace=int(entry.grace),
                    queue_life=int(entry.queue_life),
                ),
                every=int(entry.every) if entry.every is not None else None,
            )
        except InvalidName as e:
            complaints.append(Complaint(span=span, message=f"{place}: {e}"))
            continue
        if any(one.folder == other.folder for other in found):
            complaints.append(
                Complaint(span=span, message=f"{place}: another entry has the folder {one.folder}")
            )
        complaints += [
            Complaint(span=span, message=f"{place}: another entry has the domain {domain}")
            for domain in one.domains
            if any(domain in other.domains for other in found)
        ]
        found.append(one)
    if complaints:
        raise ConfigError(tuple(complaints))
    return tuple(found)


def _rotation_state(turn: RotationSettings, loaded: Loaded) -> RotationState:
    """Read a rotation's state with the configuration's own files, so that all workers have the same."""
    file = turn.folder / STATE_FILE
    try:
        return rotation.parse(loaded.read(file), str(file))
    except ConfigError as e:
        if isinstance(e.__cause__, FileNotFoundError):
            return RotationState()  # nothing has begun yet
        raise
    except StoreError as e:
        raise ConfigError((Complaint(span=e.span or Span(file=str(file)), message=e.message),)) from None


def _identity(ring: KeyRing) -> str:
    """Name the keys of a ring by their public halves, so that workers with different ones can be told apart."""
    return "\0".join(f"{source.path} {key.public.hex()}" for source, key in ring.keys.items())


def _no_selector_means_two_keys(tables: Iterable[Table], file: str) -> None:
    """Refuse tables of which one has another key than another under the same d= and selector."""
    found: dict[str, tuple[str, bytes]] = {}
    for table in tables:
        for line, entry in table.listed:
            first, public = found.setdefault(entry.question.name, (line, entry.key.public))
            if public != entry.key.public:
                message = f"{line}: the selector has another key than in {first}"
                raise ConfigError((Complaint(span=Span(file=file), message=message),))


def _opendkim(
    config: OpenDkimTablesConfig, loaded: Loaded, file: str, *, validated: bool
) -> tuple[OpenDkimTable, KeyRing]:
    from authmilter.signing.opendkim import OpenDkimTable, read_tables, table_path  # noqa: PLC0415 - few have such tables

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
    return OpenDkimTable.of(found, ring), ring


def arc_settings(loaded: Loaded) -> ArcSettings:
    """Return how ARC chains are validated, and whose are believed.

    Raises:
        ConfigError: a file of sealers cannot be read, or has a line that is no domain.
    """
    config = loaded.config
    names: list[str] = []
    complaints: list[Complaint] = []
    for entry in config.arc.trusted_sealers:
        if "/" not in entry and not entry.endswith(".txt"):
            names.append(entry)
            continue
        path = loaded.resolve(entry)
        for number, line in enumerate(loaded.read(path).splitlines(), 1):
            name = line.partition("#")[0].strip()
            if not name:
                continue
            try:
                TrustedSealers.of((name,))
            except ValueError as e:
                complaints.append(Complaint(span=Span(file=str(path), line=number, column=1), message=str(e)))
            else:
                names.append(name)
    if complaints:
        raise ConfigError(tuple(complaints[:100]))
    return ArcSettings(
        min_rsa_bits=config.dkim.min_rsa_bits,
        clock_skew=int(config.dkim.clock_skew),
        trusted=TrustedSealers.of(tuple(names)),
    )


def seal_settings(loaded: Loaded, *, validated: bool = False) -> SealSettings | None:
    """Return which mail gets ARC sets of ours, the key loaded; None where none does.

    Raises:
        ConfigError: the key or the file of secrets cannot be used.
    """
    config = loaded.config.arc.seal
    inbound, outbound = config.inbound, config.outbound
    if not inbound.recipients and not outbound.recipients:
        return None
    file = str(loaded.path) if loaded.path is not None else "arc"
    domain = config.domain or ""
    line = SignerLine(
        pattern=domain,
        selector=config.selector,
        key=KeySource(str(loaded.resolve(config.key))),
        span=Span(file=file),
        name=f"arc.seal: {domain} {config.selector}",
    )
    table = DomainTable.of([line], keys.load([line.key], base=loaded.base, validated=validated))
    secrets: tuple[bytes, ...] = ()
    try:
        if outbound.recipients:
            secrets = _secrets(loaded.resolve(outbound.secret))
        return SealSettings(
            entry=table.listed[0][1],
            inbound=RecipientPatterns.of(inbound.recipients),
            on_dns_failure=OnDnsFailure(inbound.on_dns_failure),
            outbound=RecipientPatterns.of(outbound.recipients),
            secrets=secrets,
            max_age=int(outbound.max_age),
        )
    except (ValueError, KeyMaterialError) as e:
        raise ConfigError((Complaint(span=Span(file=file), message=f"`arc.seal`: {e}"),)) from None


def _secrets(path: Path) -> tuple[bytes, ...]:
    """Read a file of secrets, which must be as safe as a key's.

    Raises:
        KeyMaterialError: it cannot be read, or others can read it.
    """
    data, unsafe = keys.read_key(path)
    if unsafe:
        raise KeyMaterialError(f"{path}: {unsafe}")
    return tuple(line.strip() for line in data.splitlines() if line.strip())


def bimi_settings(config: Config) -> BimiSettings | None:
    """Return which messages have a logo, or None where none are looked for."""
    bimi = config.bimi
    if not bimi.enabled:
        return None
    return BimiSettings(
        require_evidence=bimi.require_evidence,
        require_dkim=bimi.require_dkim,
        selectors=bimi.selectors,
        mark_types=frozenset(bimi.mark_types),
    )


def evidence_settings(loaded: Loaded) -> EvidenceSettings:
    """Return how the documents that BIMI records name are fetched and kept."""
    bimi = loaded.config.bimi
    return EvidenceSettings(
        trust_roots=tuple(str(loaded.resolve(name)) for name in bimi.trust_roots),
        cache_folder=bimi.cache_folder,
        cache_ttl=bimi.cache_ttl,
        fetch_timeout=bimi.fetch_timeout,
        max_svg=bimi.max_svg,
        max_certificate=bimi.max_certificate,
        crl=bimi.crl,
    )


def trust_roots(loaded: Loaded) -> TrustRoots:
    """Return the roots that mark certificates have to lead to; none where none are configured.

    Raises:
        ConfigError: a file cannot be read, or is no list of roots.
    """
    from authmilter.bimi import vmc  # noqa: PLC0415 - loads lxml and much of cryptography, for logos only

    found: list[TrustRoots] = []
    for name in evidence_settings(loaded).trust_roots:
        try:
            found.append(vmc.read_roots(loaded.read(Path(name)).encode()))
        except ValueError as e:
            raise ConfigError((Complaint(span=Span(file=name), message=str(e)),)) from None
    return vmc.TrustRoots(tuple(c for roots in found for c in roots.certificates))


def evidence_store(
    loaded: Loaded, resolver: Resolver, journal: Journal, before: EvidenceSource | None = None
) -> EvidenceSource:
    """Return the store of what BIMI records name; `before` itself, with what it knows, if it would be made the same.

    Raises:
        ConfigError: the roots cannot be used.
    """
    from authmilter.bimi import fetch, store  # noqa: PLC0415 - loads httpx, for logos only

    settings, roots = evidence_settings(loaded), trust_roots(loaded)
    if isinstance(before, store.EvidenceStore) and before.serves(resolver, roots, settings):
        return before
    fetcher = fetch.Fetcher(resolver, fetch.FetchSettings(timeout=settings.fetch_timeout))
    return store.EvidenceStore(fetcher, roots=roots, settings=settings, now=now, bug=journal.bug)


def named_policies(loaded: Loaded) -> dict[str, Policy]:
    """Return the policies that gRPC callers may name: the shipped ones and `grpc.policies`; none without gRPC.

    Raises:
        PolicyError: a policy has mistakes.
        ConfigError: a file cannot be read, or two have the same name.
    """
    grpc = loaded.config.grpc
    if not grpc.listen:
        return {}
    found = {name: load_policy(loaded, name) for name in shipped.NAMES}
    for number, text in enumerate(grpc.policies):
        path = loaded.resolve(text)
        if path.stem in found:
            span = _written_at(loaded, "grpc", "policies", number)
            message = f"`grpc.policies`: there is a policy `{path.stem}` besides {text}: rename the file"
            raise ConfigError((Complaint(span=span, message=message),))
        found[path.stem] = load_policy(loaded, str(path))
    return found


def _written_at(loaded: Loaded, *path: str | int) -> Span:
    """Return where a setting stands in the configuration file."""
    if loaded.path is None:
        return Span(file=str(path[0]))
    return documents.parse(loaded.read(loaded.path), str(loaded.path)).span(path)


def grpc_settings(loaded: Loaded) -> RpcSettings:
    """Return what the gRPC door is told.

    Raises:
        ConfigError: the certificate, its key or the authorities cannot be used.
    """
    from authmilter.rpc.settings import Identity, Peers, Permission, RpcSettings, TlsFiles  # noqa: PLC0415 - that door's
    from authmilter.rpc.tls_files import check_files  # noqa: PLC0415 - as above

    grpc = loaded.config.grpc
    tls = None
    if grpc.certificate:
        tls = TlsFiles(
            certificate=str(loaded.resolve(grpc.certificate)),
            key=str(loaded.resolve(grpc.key)),
            client_ca=str(loaded.resolve(grpc.client_ca)) if grpc.client_ca else "",
        )
        try:
            check_files(tls)
        except AuthMilterError as e:
            span = _written_at(loaded, "grpc", "certificate")
            raise ConfigError((Complaint(span=span, message=f"`grpc.certificate`: {e}"),)) from None
    return RpcSettings(
        identities=tuple(
            Identity(
                name=i.name,
                tokens=frozenset(i.tokens),
                certificates=frozenset(i.certificates),
                peers=frozenset(map(Peers, i.peers)),
                permissions=frozenset(map(Permission, i.permissions)),
                authserv_ids=frozenset(i.authserv_ids),
                origins=frozenset(map(Origin, i.origins)),
                inline_zone=i.inline_zone,
                rate=i.rate,
                burst=i.burst,
                concurrency=i.concurrency,
            )
            for i in grpc.identities
        ),
        tls=tls,
        plaintext_anywhere=grpc.plaintext_on_public_addresses != "no",
        socket_mode=grpc.socket_mode,
        max_message=grpc.max_message,
        max_upload=grpc.max_upload,
        max_calls=grpc.max_calls,
        stream_window=grpc.stream_window,
        max_connection_age=grpc.max_connection_age,
        idle_timeout=grpc.idle_timeout,
        drain=grpc.drain,
        processes=grpc.workers,
    )


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


def digest(
    config: Config,
    policy: Policy,
    signing: SigningSettings | None = None,
    sealing: SealSettings | None = None,
    *,
    named: Mapping[str, Policy] | None = None,
) -> str:
    """Return 12 hexadecimal digits that name the settings, policies, signing keys, and the sealing key with its secrets.

    Equal in all workers of a generation: none signs with a key, or under a selector, that another does not have.
    """
    text = pack(config) + "\0" + policy.digest
    if signing is not None:
        text += "\0" + signing.identity
    if sealing is not None:
        text += "\0" + sealing.identity
    text += "".join(f"\0{name} {other.digest}" for name, other in sorted((named or {}).items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ip_network(t) for t in texts)


def origin_rules(config: Config) -> OriginRules:
    """Return what the configuration says about where mail comes from."""
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
