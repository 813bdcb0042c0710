"""The contract: linted, guarded against breaking changes, generated code as it is generated, and a mirror of our values."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from authmilter.arc.result import ArcCheck, ArcProblem, ArcResult, ArcSet, ArcStatus
from authmilter.bimi.evidence import EvidenceStatus, Indicator, MarkEvidence
from authmilter.bimi.result import (
    BimiProblem,
    BimiQuery,
    BimiRecord,
    BimiResult,
    BimiStatus,
    Preference,
    SelectorFault,
    SelectorSource,
)
from authmilter.dkim.result import DkimProblem, DkimResult, DkimStatus
from authmilter.dmarc.result import (
    AlignedBy,
    Alignment,
    DiscoveryMethod,
    DmarcPolicy,
    DmarcProblem,
    DmarcRecord,
    DmarcResult,
    DmarcStatus,
    PolicySource,
    Psd,
    Query,
)
from authmilter.evidence import Evidence
from authmilter.iprev.result import IprevProblem, IprevResult, IprevStatus
from authmilter.mail import BodyFacts, Envelope, Mail, Origin, Session, TlsInfo
from authmilter.message import AuthorHeader, AuthorProblem, Defect, DefectKind, Message
from authmilter.questions import DkimKey
from authmilter.rpc._pb import authmilter_pb2 as pb
from authmilter.rpc.codec import words
from authmilter.rpc.methods import METHODS, SERVICES
from authmilter.signing.settings import NotSignedReason
from authmilter.spf.result import SpfIdentity, SpfProblem, SpfResult, SpfStatus
from authmilter.verdict import (
    ChangeHeader,
    Decision,
    DeleteHeader,
    Disposition,
    InsertHeader,
    OverrideReason,
    PassedOver,
    Quarantine,
    Sealing,
    Signing,
    SmtpReply,
    Step,
    SubjectPrefix,
    TagHeader,
    Verdict,
    WouldHave,
)

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
SOURCE = PROTO / "authmilter" / "v1" / "authmilter.proto"
BUF = "@bufbuild/buf@1.57.0"

ENUMS: tuple[type[StrEnum], ...] = (
    AlignedBy, Alignment, ArcCheck, ArcProblem, ArcStatus, AuthorProblem, BimiProblem, BimiStatus, DefectKind,
    DiscoveryMethod, Disposition, DkimProblem, DkimStatus, DmarcPolicy, DmarcProblem, DmarcStatus, EvidenceStatus,
    IprevProblem, IprevStatus, Origin, OverrideReason, PolicySource, Preference, Psd, SelectorFault, SelectorSource,
    SpfIdentity, SpfProblem, SpfStatus,
)  # fmt: skip

#: Our value and the message of the same shape.
MIRRORED: tuple[tuple[type, type[Any]], ...] = (
    (ArcResult, pb.ArcResult), (ArcSet, pb.ArcSet), (AuthorHeader, pb.AuthorHeader), (BimiQuery, pb.BimiQuery),
    (BimiRecord, pb.BimiRecord), (BimiResult, pb.BimiResult), (BodyFacts, pb.BodyFacts),
    (ChangeHeader, pb.ChangeHeader), (Decision, pb.Decision), (Defect, pb.Defect), (DeleteHeader, pb.DeleteHeader),
    (DkimKey, pb.CheckDkimKeyResponse), (DkimResult, pb.DkimResult), (DmarcRecord, pb.DmarcRecord),
    (DmarcResult, pb.DmarcResult), (Envelope, pb.Envelope), (Evidence, pb.Evidence), (Indicator, pb.Indicator),
    (InsertHeader, pb.InsertHeader), (IprevResult, pb.IprevResult), (Mail, pb.Mail), (MarkEvidence, pb.MarkEvidence),
    (Message, pb.MessageFacts), (PassedOver, pb.PassedOver), (Quarantine, pb.Quarantine), (Query, pb.Query),
    (Sealing, pb.Sealing), (Session, pb.Session), (Signing, pb.Signing), (SmtpReply, pb.SmtpReply), (SpfResult, pb.SpfResult),
    (Step, pb.Step), (SubjectPrefix, pb.SubjectPrefix), (TagHeader, pb.TagHeader), (TlsInfo, pb.TlsInfo),
    (Verdict, pb.Verdict), (WouldHave, pb.WouldHave),
)  # fmt: skip
#: Fields that the One JSON leaves out, too.
LEFT_OUT = {(Message, "headers")}


def _buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    npx = shutil.which("npx")
    if npx is not None:
        tried = subprocess.run(
            [npx, "--yes", BUF, "--version"], capture_output=True, text=True, check=False, timeout=120
        )
        if tried.returncode == 0:
            return subprocess.run(
                [npx, "--yes", BUF, *arguments],
                capture_output=True,
                text=True,
                check=False,
                cwd=ROOT,
                timeout=120,
            )
    if os.environ.get("CI") == "true":
        pytest.fail("buf cannot be had: npx and the npm registry are needed")
    pytest.skip("NOT CHECKED: buf cannot be had here (npx and the npm registry are needed)")


@pytest.mark.slow
def test_the_contract_passes_bufs_standard_rules_and_every_part_has_a_comment() -> None:
    ran = _buf("lint", "proto")
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
def test_the_contract_breaks_no_client_of_the_baseline() -> None:
    ran = _buf("breaking", "proto", "--against", "proto/baseline.binpb")
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
def test_a_breaking_change_is_found(tmp_path: Path) -> None:
    shutil.copytree(PROTO, tmp_path / "proto")
    source = tmp_path / "proto" / "authmilter" / "v1" / "authmilter.proto"
    text = source.read_text()
    assert "bytes message = 2;" in text
    source.write_text(text.replace("bytes message = 2;", "string message = 2;", 1))
    ran = _buf("breaking", str(tmp_path / "proto"), "--against", "proto/baseline.binpb")
    assert ran.returncode != 0
    assert "message" in ran.stdout + ran.stderr


def test_the_generated_code_is_what_is_generated(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "contrib" / "generate_proto.py"), "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    made = sorted(p.name for p in tmp_path.iterdir())
    assert made == ["authmilter_pb2.py", "authmilter_pb2.pyi"]
    for name in made:
        kept = ROOT / "authmilter" / "rpc" / "_pb" / name
        assert kept.read_text() == (tmp_path / name).read_text(), f"{name} is not what `make proto` writes"


@pytest.mark.parametrize("enum", ENUMS, ids=lambda e: e.__name__)
def test_every_word_has_its_value_and_every_value_its_word(enum: type[StrEnum]) -> None:
    descriptor = pb.DESCRIPTOR.enum_types_by_name[enum.__name__]
    assert set(words(descriptor)) == {str(member.value) for member in enum}
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.__name__).upper() + "_"
    for member in enum:
        value = descriptor.values_by_name[prefix + member.value.upper()]
        assert words(descriptor)[member.value] == value.number > 0
    assert descriptor.values_by_number[0].name == prefix + "UNSPECIFIED"


def test_no_enum_is_forgotten() -> None:
    assert {e.__name__ for e in ENUMS} == set(pb.DESCRIPTOR.enum_types_by_name)


@pytest.mark.parametrize(("kind", "message"), MIRRORED, ids=lambda k: k.__name__)
def test_a_message_has_the_fields_of_the_value_it_mirrors(kind: type, message: type[Any]) -> None:
    ours = {f.name for f in fields(kind) if not f.name.startswith("_") and (kind, f.name) not in LEFT_OUT}
    assert {f.name for f in message.DESCRIPTOR.fields} == ours


def test_no_message_below_a_verdict_or_mail_is_forgotten() -> None:
    wrappers = {"Tag", "Edit", "DkimResults", "LocalParts"}
    pending, seen = [pb.Verdict.DESCRIPTOR, pb.Mail.DESCRIPTOR], set()
    while pending:
        message: Any = pending.pop()
        if message.name in seen or not message.full_name.startswith("authmilter."):
            continue
        seen.add(message.name)
        pending += [f.message_type for f in message.fields if f.message_type is not None]
    assert seen - wrappers <= {m.DESCRIPTOR.name for _, m in MIRRORED}


def test_the_reasons_for_not_signing_are_all_written_down() -> None:
    text = SOURCE.read_text()
    comment = text[text.index("message Signing {") : text.index("string reason = 3;")]
    assert set(re.findall(r"`([a-z_]+)`", comment)) >= {r.value for r in NotSignedReason}


def test_there_are_the_services_and_calls_that_were_asked_for() -> None:
    assert {name: sorted(methods) for name, methods in METHODS.items()} == {
        "VerifierService": [
            "CheckBimi", "CheckDkimKey", "CheckSpf", "DiscoverDmarc", "Verify", "VerifyStream", "VerifyUpload",
        ],
        "SignerService": ["Sign", "SignUpload"],
        "AdminService": ["GetStatus", "Reload"],
    }  # fmt: skip
    assert set(SERVICES) == {f"authmilter.v1.{name}" for name in METHODS}
