"""Every call over a real connection: what it answers, and what its options change."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # it has no types
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # it has no types
    reflection_pb2,
    reflection_pb2_grpc,
)

from authmilter import engine, runtime
from authmilter.config.load import Loaded, parse
from authmilter.dns.zone import ZoneResolver
from authmilter.engine import Runtime
from authmilter.errors import AuthMilterError
from authmilter.mail import Origin, Session
from authmilter.names import parse_ip
from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.codec import plain
from authmilter.rpc.methods import SERVICES
from authmilter.rpc.settings import Identity, Peers, RpcSettings
from tests.rpc.local import ANYBODY, Local, local, run, violations
from tests.support import dkim_keys
from tests.support.road import Notes
from tests.support.scenarios import SCENARIOS

SCENARIO = next(s for s in SCENARIOS if s.name == "all-pass")
VERIFIER = Identity(name="verifier", peers=frozenset(Peers))


def a_request(**more: Any) -> pb.VerifyRequest:
    return pb.VerifyRequest(
        **{
            "id": "m1",
            "message": SCENARIO.message,
            "session": pb.Session(client_ip=SCENARIO.client_ip, helo=SCENARIO.helo),
            "envelope": pb.Envelope(mail_from=SCENARIO.mail_from, rcpt_to=SCENARIO.rcpt_to),
            **more,
        }
    )


# -- verifying ------------------------------------------------------------------------------------------------------------


def test_a_message_is_judged_and_recorded(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            answer = await server.client("Verify", a_request())
            assert (answer.id, answer.HasField("mail")) == ("m1", False)
            assert answer.verdict.decision.disposition == pb.DISPOSITION_ACCEPT
            assert answer.verdict.evidence.dmarc.status == pb.DMARC_STATUS_PASS
            assert answer.verdict.mail_id == "TESTID"
            ((mail, _verdict),) = server.notes.records
            assert str(mail.session.client_ip) == SCENARIO.client_ip

    run(work)


def test_a_client_that_is_not_known_is_not_asked_about(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            evidence = (await server.client("Verify", a_request(session=pb.Session()))).verdict.evidence
            assert [n for n in ("spf", "spf_helo", "iprev") if evidence.HasField(n)] == []
            assert evidence.HasField("dkim")
            assert evidence.HasField("dmarc")

    run(work)


def test_record_false_keeps_a_message_out_of_the_journal(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            await server.client("Verify", a_request(options=pb.VerifyOptions(record=False)))
            assert server.notes.records == []
            await server.client("Verify", a_request(options=pb.VerifyOptions(record=True)))
            assert len(server.notes.records) == 1

    run(work)


def test_explain_adds_the_mail_as_it_was_read(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            answer = await server.client("Verify", a_request(options=pb.VerifyOptions(explain=True)))
            assert answer.mail.session.client_ip == SCENARIO.client_ip
            assert list(answer.mail.message.authors.domains) == ["good.example"]
            assert answer.mail.body.size > 0
            assert answer.mail.received_at.seconds > 0

    run(work)


def test_now_judges_as_of_another_time(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            options = pb.VerifyOptions(explain=True)
            options.now.FromDatetime(datetime(2001, 2, 3, tzinfo=UTC))
            answer = await server.client("Verify", a_request(options=options))
            assert answer.mail.received_at.ToDatetime(UTC) == datetime(2001, 2, 3, tzinfo=UTC)

    run(work)


def test_a_policy_is_chosen_by_its_name_among_those_the_server_has(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            for name in ("strict", "enforce", "monitor"):
                answer = await server.client("Verify", a_request(options=pb.VerifyOptions(policy=name)))
                assert answer.verdict.decision.policy == name
            error = await server.client.refused(
                "Verify", a_request(options=pb.VerifyOptions(policy="../../etc/passwd"))
            )
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert violations(error) == ["options.policy"]

    run(work)


def test_a_configured_policy_has_its_files_name(tmp_path: Path) -> None:
    (tmp_path / "lists.yaml").write_text(
        "version: 1\nname: lists\nmode: enforce\nrules: []\ndefault: {then: quarantine, because: as told}\n"
    )
    text = f"grpc: {{listen: ['unix:/x'], policies: [{tmp_path}/lists.yaml]}}\n"

    async def work() -> None:
        async with local(tmp_path, config=text) as server:
            assert sorted(server.runtime.policies) == ["enforce", "lists", "monitor", "strict"]
            answer = await server.client("Verify", a_request(options=pb.VerifyOptions(policy="lists")))
            assert answer.verdict.decision.disposition == pb.DISPOSITION_QUARANTINE

    run(work)


def test_a_reload_reaches_the_next_message(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            first = await server.client("Verify", a_request())
            server.runtime = runtime.with_policy(server.runtime, server.runtime.policies["strict"])
            second = await server.client("Verify", a_request())
            assert (first.verdict.decision.policy, second.verdict.decision.policy) == ("monitor", "strict")

    run(work)


def test_an_authserv_id_is_used_where_it_is_allowed(tmp_path: Path) -> None:
    allowed = replace(ANYBODY, authserv_ids=frozenset({"mx2.recv.example"}))
    forged = b"Authentication-Results: mx.recv.example; dmarc=pass header.from=x.example\r\n"

    async def work() -> None:
        async with local(tmp_path, RpcSettings(identities=(allowed,))) as server:
            options = pb.VerifyOptions(authserv_id="MX2.recv.example.")
            verdict = (
                await server.client("Verify", a_request(message=forged + SCENARIO.message, options=options))
            ).verdict
            assert verdict.authentication_results.startswith("mx2.recv.example;")
            # the server's own name is ours still
            assert [e.delete_header.name for e in verdict.edits if e.WhichOneof("op") == "delete_header"] == [
                b"Authentication-Results"
            ]
            own = pb.VerifyOptions(authserv_id="mx.recv.example")
            await server.client("Verify", a_request(options=own))
            other = pb.VerifyOptions(authserv_id="mx3.recv.example")
            error = await server.client.refused("Verify", a_request(options=other))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED

    run(work)


def test_an_origin_is_believed_only_of_who_may_declare_it(tmp_path: Path) -> None:
    may = replace(ANYBODY, origins=frozenset({Origin.SUBMISSION}))

    async def work() -> None:
        options = pb.VerifyOptions(origin=pb.ORIGIN_SUBMISSION)
        async with local(tmp_path, RpcSettings(identities=(may,))) as server:
            verdict = (await server.client("Verify", a_request(options=options))).verdict
            assert verdict.origin == pb.ORIGIN_SUBMISSION
            assert verdict.origin_because == "grpc: declared by anybody"
            assert not verdict.evidence.HasField("dmarc")
        async with local(tmp_path) as server:
            error = await server.client.refused("Verify", a_request(options=options))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert server.notes.records == []

    run(work)


def test_a_zone_is_taken_only_of_who_may_bring_one_and_never_recorded(tmp_path: Path) -> None:
    async def work() -> None:
        options = pb.VerifyOptions()
        options.zone.update({"good.example": {"TXT": ["v=spf1 -all"]}, "_dmarc.good.example": "TIMEOUT"})
        async with local(tmp_path) as server:
            evidence = (await server.client("Verify", a_request(options=options))).verdict.evidence
            assert evidence.spf.status == pb.SPF_STATUS_FAIL
            assert server.notes.records == []
            real = (await server.client("Verify", a_request())).verdict.evidence
            assert real.spf.status == pb.SPF_STATUS_PASS
        async with local(tmp_path, RpcSettings(identities=(VERIFIER,))) as server:
            error = await server.client.refused("Verify", a_request(options=options))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED

    run(work)


def test_a_stream_answers_by_id_and_an_item_fails_alone(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            requests = [
                a_request(id="good"),
                a_request(id="bad", session=pb.Session(client_ip="nowhere")),
                a_request(id=""),
                a_request(id="empty", message=b""),
                a_request(id="forbidden", options=pb.VerifyOptions(origin=pb.ORIGIN_INTERNAL)),
                a_request(id="last"),
            ]
            sent = [pb.VerifyStreamRequest(request=r) for r in requests]
            answers = {a.id: a async for a in server.client("VerifyStream", *sent)}
            codes = {i: a.error.code for i, a in answers.items() if a.WhichOneof("result") == "error"}
            assert codes == {
                "bad": grpc.StatusCode.INVALID_ARGUMENT.value[0],
                "": grpc.StatusCode.INVALID_ARGUMENT.value[0],
                "forbidden": grpc.StatusCode.PERMISSION_DENIED.value[0],
            }
            assert {"good", "empty", "last"} < set(answers)
            assert answers["good"].response.id == "good"

    run(work)


def test_an_upload_needs_its_start_first_and_once(tmp_path: Path) -> None:
    start = pb.VerifyUploadRequest(start=pb.VerifyUploadStart(id="u"))
    chunk = pb.VerifyUploadRequest(chunk=b"From: a@good.example\r\n\r\nbody")

    async def work() -> None:
        async with local(tmp_path) as server:
            for wrong in ([], [chunk], [start, start], [start, pb.VerifyUploadRequest()]):
                error = await server.client.refused("VerifyUpload", *wrong)
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert violations(error) == ["start"]
            answer = await server.client("VerifyUpload", start, chunk, chunk)
            assert answer.id == "u"
            assert (await server.client("VerifyUpload", start)).id == "u"  # an empty message is one

    run(work)


# -- single questions -----------------------------------------------------------------------------------------------------


def test_spf_is_answered_for_both_identities(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            answer = await server.client(
                "CheckSpf", pb.CheckSpfRequest(client_ip=SCENARIO.client_ip, mail_from="a@good.example")
            )
            assert answer.spf.status == pb.SPF_STATUS_PASS
            assert not answer.HasField("spf_helo")
            assert answer.questions >= 1
            both = await server.client(
                "CheckSpf", pb.CheckSpfRequest(client_ip="198.51.100.1", helo=SCENARIO.helo, mail_from="<>")
            )
            assert (both.spf.identity, both.spf_helo.identity) == (
                pb.SPF_IDENTITY_MAILFROM,
                pb.SPF_IDENTITY_HELO,
            )
            error = await server.client.refused(
                "CheckSpf", pb.CheckSpfRequest(client_ip="x", helo="h" * 2000)
            )
            assert violations(error) == ["client_ip", "helo"]
            assert violations(await server.client.refused("CheckSpf", pb.CheckSpfRequest())) == ["client_ip"]
            assert server.notes.records == []

    run(work)


def test_a_dkim_key_is_looked_at(tmp_path: Path) -> None:
    zone = {
        "rsa._domainkey.example.com": {"TXT": [dkim_keys.rsa_key().record]},
        "old._domainkey.example.com": {"TXT": ["v=DKIM1; p="]},
        "down._domainkey.example.com": "SERVFAIL",
        "flags._domainkey.example.com": {"TXT": ["v=DKIM1; h=sha1; t=y:s; p=" + "A" * 8]},
        "two._domainkey.example.com": {"TXT": ["v=DKIM1; p=", dkim_keys.ed25519_key().record]},
    }

    async def work() -> None:
        async with local(tmp_path, resolver=zone) as server:

            async def key(selector: str) -> Any:
                return await server.client(
                    "CheckDkimKey", pb.CheckDkimKeyRequest(domain="Example.com", selector=selector)
                )

            good = await key("rsa")
            assert (good.name, good.kind, good.key_bits) == ("rsa._domainkey.example.com", "rsa", 2048)
            assert good.problem == pb.DKIM_PROBLEM_UNSPECIFIED
            assert good.record == dkim_keys.rsa_key().record
            assert (await key("old")).problem == pb.DKIM_PROBLEM_KEY_REVOKED
            assert (await key("down")).problem == pb.DKIM_PROBLEM_KEY_UNAVAILABLE
            assert (await key("none")).problem == pb.DKIM_PROBLEM_NO_KEY
            flags = await key("flags")
            assert (flags.testing, flags.strict, list(flags.hashes)) == (True, True, ["sha1"])
            best = await key("two")
            assert (best.kind, best.problem) == ("ed25519", pb.DKIM_PROBLEM_UNSPECIFIED)
            for domain, selector, field in (
                ("", "s", "domain"),
                ("example.com", "", "selector"),
                ("x", "a..b", "selector"),
            ):
                error = await server.client.refused(
                    "CheckDkimKey", pb.CheckDkimKeyRequest(domain=domain, selector=selector)
                )
                assert violations(error) == [field]

    run(work)


def test_a_dmarc_policy_is_found_with_the_way_to_it(tmp_path: Path) -> None:
    zone = {
        "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject; sp=quarantine"]},
        "sub.example.com": {"A": "192.0.2.1"},
    }

    async def work() -> None:
        async with local(tmp_path, resolver=zone) as server:
            found = (
                await server.client("DiscoverDmarc", pb.DiscoverDmarcRequest(domain="sub.example.com"))
            ).dmarc
            assert found.status == pb.DMARC_STATUS_FAIL
            assert (found.record_at, found.policy) == ("example.com", pb.DMARC_POLICY_QUARANTINE)
            assert found.queries[0].name == "_dmarc.sub.example.com"
            none = (
                await server.client("DiscoverDmarc", pb.DiscoverDmarcRequest(domain="other.example"))
            ).dmarc
            assert none.status == pb.DMARC_STATUS_NONE
            asked = pb.DiscoverDmarcRequest(domain="brought.example")
            asked.zone.update({"_dmarc.brought.example": {"TXT": ["v=DMARC1; p=none"]}})
            assert (await server.client("DiscoverDmarc", asked)).dmarc.record_at == "brought.example"

    run(work)


def test_bimi_is_answered_where_it_is_enabled(tmp_path: Path) -> None:
    zone = {
        "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
        "default._bimi.example.com": {
            "TXT": ["v=BIMI1; l=https://example.com/l.svg; a=https://example.com/c.pem"]
        },
        "off._bimi.example.com": {"TXT": ["v=BIMI1; l=; a="]},
    }

    async def work() -> None:
        async with local(tmp_path, resolver=zone) as server:
            error = await server.client.refused("CheckBimi", pb.CheckBimiRequest(domain="example.com"))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        async with local(tmp_path, resolver=zone, config="bimi: {enabled: true}\n") as server:
            found = (await server.client("CheckBimi", pb.CheckBimiRequest(domain="example.com"))).bimi
            assert found.record.location == "https://example.com/l.svg"
            assert found.problem in {pb.BIMI_PROBLEM_EVIDENCE_PENDING, pb.BIMI_PROBLEM_EVIDENCE_NOT_FETCHED}
            other = pb.CheckBimiRequest(domain="example.com", selector="off")
            assert (await server.client("CheckBimi", other)).bimi.status == pb.BIMI_STATUS_DECLINED
            wrong = await server.client.refused(
                "CheckBimi", pb.CheckBimiRequest(domain="x.example", selector="a b")
            )
            assert violations(wrong) == ["selector"]

    run(work)


# -- signing --------------------------------------------------------------------------------------------------------------

OUTBOUND = (
    b"From: Joe <joe@good.example>\r\nTo: a@b.example\r\nSubject: hello\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <1@good.example>\r\n\r\nHello,\r\nthis is a test.\r\n"
)


def _with_keys(folder: Path, more: str = "") -> Any:
    for name, key in (("rsa.pem", dkim_keys.rsa_key()), ("ed.pem", dkim_keys.ed25519_key())):
        file = folder / name
        file.write_bytes(key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.chmod(0o600)
    text = (
        "policy: enforce\ngrpc: {listen: ['unix:/x']}\nsigning:\n  domains:\n"
        "    - {domain: good.example, selector: s1, key: rsa.pem}\n"
        "    - {domain: good.example, selector: e1, key: ed.pem}\n" + more
    )
    loaded = Loaded(config=parse(text, "test.yaml"), path=None, base=folder)

    def change(built: Runtime) -> Runtime:
        made = runtime.build(loaded, journal=built.journal, resolver=built.resolver)
        return replace(made, now=built.now, new_id=built.new_id)

    return change


def _judged(message: bytes) -> list[str]:
    zone = {
        "s1._domainkey.good.example": {"TXT": [dkim_keys.rsa_key().record]},
        "e1._domainkey.good.example": {"TXT": [dkim_keys.ed25519_key().record]},
    }
    built = replace(
        runtime.build(
            Loaded(config=parse("", "x"), path=None, base=Path()),
            journal=Notes(),
            resolver=ZoneResolver(zone),
        )
    )
    session = Session(client_ip=parse_ip("203.0.113.5"))
    _mail, verdict = asyncio.run(engine.verify(message, built, session=session))
    return [r.status.value for r in verdict.evidence.dkim or ()]


def test_a_message_is_signed_whole_and_in_pieces(tmp_path: Path) -> None:
    async def work() -> list[Any]:
        async with local(tmp_path, change=_with_keys(tmp_path)) as server:
            whole = await server.client("Sign", pb.SignRequest(id="s", message=OUTBOUND))
            start = pb.SignUploadRequest(start=pb.SignUploadStart(id="s"))
            pieces = [
                pb.SignUploadRequest(chunk=OUTBOUND[at : at + 10]) for at in range(0, len(OUTBOUND), 10)
            ]
            upload = await server.client("SignUpload", start, *pieces)
            assert [m.origin.value for m, _ in server.notes.records] == ["submission", "submission"]
            assert server.notes.bugs == []
            return [whole, upload]

    for answer in run(work):
        assert answer.id == "s"
        assert list(answer.signing.signed) == ["good.example/s1", "good.example/e1"]
        assert [f.name for f in answer.fields] == ["DKIM-Signature"] * 2
        signed = b"".join(f"{f.name}: {f.value}\r\n".encode() for f in answer.fields) + OUTBOUND
        assert _judged(signed) == ["pass", "pass"]


def test_a_message_that_is_not_signed_says_why(tmp_path: Path) -> None:
    more = "  senders:\n    - {users: [joe], authors: [good.example]}\n"

    async def work() -> None:
        async with local(tmp_path, change=_with_keys(tmp_path, more)) as server:
            foreign = await server.client(
                "Sign", pb.SignRequest(message=OUTBOUND.replace(b"good.example", b"other.example"))
            )
            assert (list(foreign.fields), foreign.signing.reason) == ([], "no_key")
            stranger = pb.SignRequest(message=OUTBOUND, session=pb.Session(authenticated="mallory"))
            assert (await server.client("Sign", stranger)).signing.reason == "sender_not_allowed"
            joe = pb.SignRequest(message=OUTBOUND, session=pb.Session(authenticated="joe"))
            assert len((await server.client("Sign", joe)).fields) == 2

    run(work)


def test_without_keys_nothing_is_signed(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            error = await server.client.refused("Sign", pb.SignRequest(message=OUTBOUND))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION

    run(work)


def test_no_signature_is_had_by_calling_oneself_authenticated(tmp_path: Path) -> None:
    request = a_request(message=OUTBOUND, session=pb.Session(authenticated="joe"))

    async def inserted(server: Local) -> list[bytes]:
        verdict = (await server.client("Verify", request)).verdict
        assert verdict.origin == pb.ORIGIN_SUBMISSION
        return [e.insert_header.name for e in verdict.edits if e.WhichOneof("op") == "insert_header"]

    async def work() -> None:
        change = _with_keys(tmp_path)
        async with local(tmp_path, RpcSettings(identities=(VERIFIER,)), change=change) as server:
            assert b"DKIM-Signature" not in await inserted(server)
            error = await server.client.refused("Sign", pb.SignRequest(message=OUTBOUND))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        async with local(tmp_path, change=change) as server:
            assert (await inserted(server)).count(b"DKIM-Signature") == 2

    run(work)


# -- the service ----------------------------------------------------------------------------------------------------------


def test_status_and_reload_go_to_whoever_runs_the_server(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            server.control.answer = {
                "version": "1.2", "generation": 3, "digest": "abc", "policy": "enforce", "uptime_seconds": 1.5,
                "counters": {"messages": 7.0}, "workers": [{"pid": 1, "ready": True, "role": None}],
            }  # fmt: skip
            status = await server.client("GetStatus", pb.GetStatusRequest())
            assert (status.version, status.generation, status.digest) == ("1.2", 3, "abc")
            assert dict(status.counters) == {"messages": 7.0}
            assert MessageToDict(status.details)["workers"] == [{"pid": 1.0, "ready": True, "role": None}]
            assert (await server.client("Reload", pb.ReloadRequest())).digest == "abc"
            server.control.answer = {"error": "a.yaml:1:2: wrong"}
            error = await server.client.refused("Reload", pb.ReloadRequest())
            assert (error.code(), error.details()) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "a.yaml:1:2: wrong",
            )
            server.control.refusal = AuthMilterError("no")
            assert (await server.client.refused("Reload", pb.ReloadRequest())).details() == "no"
            assert server.control.told == ["status", "reload", "reload", "reload"]
        async with local(tmp_path, RpcSettings(identities=(VERIFIER,))) as server:
            for call, request in (("GetStatus", pb.GetStatusRequest()), ("Reload", pb.ReloadRequest())):
                error = await server.client.refused(call, request)
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert server.control.told == []

    run(work)


def test_health_is_told_and_watched_and_ends_first(tmp_path: Path) -> None:
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )

    async def work() -> None:
        nobody = Identity(name="nobody", tokens=frozenset({"sha256:" + "0" * 64}))
        async with local(tmp_path, RpcSettings(identities=(nobody,))) as server:  # health needs no permission
            stub = health_pb2_grpc.HealthStub(server.client.channel)
            for service in ("", *SERVICES):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
                assert answer.status == serving
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]))
            assert (await watch.read()).status == serving
            draining = asyncio.ensure_future(server.server.drain(10.0))
            assert (await watch.read()).status == not_serving
            async with asyncio.timeout(5):  # a watcher does not hold it up for ten seconds
                await draining

    run(work)


def test_reflection_tells_all_there_is(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as server:
            stub = reflection_pb2_grpc.ServerReflectionStub(server.client.channel)
            call = stub.ServerReflectionInfo()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            names = {s.name for s in (await call.read()).list_services_response.service}
            assert {*SERVICES, "grpc.health.v1.Health"} <= names
            await call.write(
                reflection_pb2.ServerReflectionRequest(file_containing_symbol="authmilter.v1.VerifierService")
            )
            answer = await call.read()
            assert len(answer.file_descriptor_response.file_descriptor_proto) >= 1
            await call.done_writing()

    run(work)


def test_the_plain_form_of_an_answer_is_json(tmp_path: Path) -> None:
    async def work() -> dict[str, object]:
        async with local(tmp_path) as server:
            return plain((await server.client("Verify", a_request())).verdict)

    assert run(work)["origin"] == "internet"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "mail.example.com:0"])
def test_no_public_port_is_opened_in_the_clear(listen: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path, listen=listen):
            pass

    with pytest.raises(AuthMilterError, match="could be read on its way"):
        run(work)
