"""authmilter as a library, as the README shows it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import authmilter
from authmilter import load_runtime, verify_message
from authmilter.errors import DecodeError, PolicyError
from tests.support.scenarios import SCENARIOS, zone


def test_a_few_lines_judge_a_message() -> None:
    runtime = load_runtime(policy="enforce", zone=zone())
    sent = SCENARIOS[0]
    verdict = verify_message(
        sent.message, runtime, client_ip=sent.client_ip, helo=sent.helo, mail_from=sent.mail_from
    )
    assert verdict.decision.disposition == "accept"
    assert verdict.evidence.dmarc is not None
    assert verdict.evidence.dmarc.status == "pass"


def test_a_file_with_lf_line_ends_verifies_as_the_mail_it_was() -> None:
    runtime = load_runtime(policy="enforce", zone=zone())
    verdict = verify_message(SCENARIOS[0].message.replace(b"\r\n", b"\n"), runtime)
    assert verdict.evidence.dkim is not None
    assert {r.status for r in verdict.evidence.dkim} == {"pass"}


def test_an_address_that_is_none_and_a_policy_that_is_none_are_said() -> None:
    runtime = load_runtime(zone={})
    with pytest.raises(DecodeError, match="no IP address"):
        verify_message(b"", runtime, client_ip="list")
    with pytest.raises(PolicyError):
        load_runtime(policy="no-such-policy", zone={})


def test_every_public_name_is_there_and_importing_the_package_loads_nothing_else() -> None:
    for name in authmilter.__all__:
        assert getattr(authmilter, name) is not None
    code = "import sys, authmilter; print([m for m in sys.modules if m.startswith('authmilter.')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
