"""Evidence: one optional slot per method. None means not asked; a status `none` means asked, nothing there."""

from __future__ import annotations

from dataclasses import dataclass

from authmilter.arc.result import ArcResult
from authmilter.bimi.result import BimiResult
from authmilter.dkim.result import DkimResult
from authmilter.dmarc.result import DmarcResult
from authmilter.iprev.result import IprevResult
from authmilter.spf.result import SpfResult

__all__ = ["Evidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the checks found. `dkim` is None where not asked and empty where the message has no signature."""

    iprev: IprevResult | None = None
    spf_helo: SpfResult | None = None
    spf: SpfResult | None = None
    dkim: tuple[DkimResult, ...] | None = None
    arc: ArcResult | None = None
    dmarc: DmarcResult | None = None
    bimi: BimiResult | None = None
