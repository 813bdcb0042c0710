"""The whole road through a real Postfix, once with each engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rig import ENGINES, Line, Rig
from tests.support.scenarios import AUTHSERV_ID, SCENARIOS, Scenario, zone

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig({"enforce": {"zone": zone(), "policy": "enforce"}}) as made:
        yield made


@pytest.fixture(params=ENGINES)
def wired(request: pytest.FixtureRequest, rig: Rig) -> Line:
    return rig.line("enforce", request.param)


def _send(line: Line, scenario: Scenario) -> tuple[int, str]:
    result = line.send(
        scenario.message,
        mail_from=scenario.mail_from,
        rcpt_to=scenario.rcpt_to,
        client_ip=scenario.client_ip,
        helo=scenario.helo,
        login=scenario.login,
    )
    return result.code, result.text


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.name for s in SCENARIOS])
def test_a_session_gets_its_reply_and_its_header(wired: Line, scenario: Scenario) -> None:
    service, postfix = wired.service, wired.postfix
    code, text = _send(wired, scenario)
    assert code == scenario.code, f"{text}\n{service.log_text()[-2000:]}"
    assert text.startswith(scenario.enhanced + " ")
    line = service.log_lines()[-1]
    assert line.get("spf") == scenario.spf
    assert line.get("dmarc") == scenario.dmarc
    if scenario.dkim is not None:
        assert tuple(sorted(r.split(":")[0] for r in line["dkim"])) == tuple(sorted(scenario.dkim))
    if code != 250:
        assert line["id"] in text, "a rejection names its support id"
        assert postfix.nothing_delivered()
        return
    delivered = postfix.delivered()[0]
    results = delivered.fields("Authentication-Results")
    assert results[0].startswith(AUTHSERV_ID + ";")
    ours = [r for r in results if r.split(";")[0].strip().lower() == AUTHSERV_ID]
    assert len(ours) == 1, "one header in our name"
    assert delivered.header.index(
        b"Authentication-Results: " + AUTHSERV_ID.encode()
    ) < delivered.header.index(b"Received: ")
    for gone in scenario.headers_gone:
        assert gone not in delivered.header
    for kept in scenario.headers_kept:
        assert kept in delivered.header


def test_the_log_names_the_queue_id_and_the_line_that_decided(wired: Line) -> None:
    service, postfix = wired.service, wired.postfix
    scenario = SCENARIOS[0]
    code, text = _send(wired, scenario)
    assert code == 250
    queue_id = text.rsplit(" ", 1)[-1]
    postfix.delivered()
    line = next(item for item in service.log_lines() if item["queue_id"] == queue_id)
    assert line["origin"] == "internet"
    assert line["mail_from"] == scenario.mail_from
    assert line["author"] == "good.example"


def test_everything_else_of_the_message_is_byte_for_byte_as_sent(wired: Line) -> None:
    message = (
        b"From: News <news@good.example>\r\nTo:  user@recv.example\r\nSubject:   odd   spaces\r\n"
        b"X-Folded: one\r\n\t two\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@good.example>\r\n"
        b"\r\nbody \r\n.dot\r\n8-bit: \xe4\xf6\xfc\r\n"
    )
    assert (
        wired.send(
            message, mail_from="news@good.example", client_ip="192.0.2.10", mail_options=("BODY=8BITMIME",)
        ).code
        == 250
    )
    delivered = wired.postfix.delivered()[0]
    head, body = delivered.raw.split(b"\n\n", 1)
    sent_head, sent_body = message.replace(b"\r\n", b"\n").split(b"\n\n", 1)
    assert head.endswith(sent_head)
    assert body.rstrip(b"\n") == sent_body.rstrip(b"\n")
