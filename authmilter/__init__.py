"""authmilter: SPF, DKIM, DMARC and iprev for Postfix and Sendmail in one milter.

The public API, loaded when first used, so that importing a part does not load the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authmilter.engine import Runtime, verify
    from authmilter.library import load_runtime, verify_message
    from authmilter.mail import Envelope, Mail, Session
    from authmilter.verdict import Verdict

__all__ = ["Envelope", "Mail", "Runtime", "Session", "Verdict", "load_runtime", "verify", "verify_message"]

_HOME = {
    "Envelope": "authmilter.mail",
    "Mail": "authmilter.mail",
    "Runtime": "authmilter.engine",
    "Session": "authmilter.mail",
    "Verdict": "authmilter.verdict",
    "load_runtime": "authmilter.library",
    "verify": "authmilter.engine",
    "verify_message": "authmilter.library",
}


def __getattr__(name: str) -> object:
    """Load a public name from its home (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(__import__(home, fromlist=[name]), name)
    globals()[name] = found
    return found
