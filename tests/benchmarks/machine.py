"""What a measurement should say of the machine it was made on: processor, cores, Python, date; no names, no paths."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["about"]


def about() -> dict[str, str]:
    """Return `text` for people, and its parts."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    parts = {
        "processor": found.group(1).strip() if found is not None else platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    parts["text"] = (
        "{date}, {processor}, {cores} cores (load {load} when it was printed), Python {python}".format(
            **parts
        )
    )
    return parts
