"""A folder of small files that several workers share: whole files or none, bounded, and never another's.

Names are hashes, so that nothing of a stranger is in one. Promises: a file is seen whole or not at all (it is written
beside and renamed), its size and the number of files are bounded. How it fails: `load` says None, `save` False, and
`trouble` the reason in our words; nothing is raised, as a cache that does not work is no reason to stop.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

__all__ = ["MAX_FILE", "EvidenceFolder"]

#: Octets of a file that are read or written.
MAX_FILE = 1 << 20
#: How often the files are counted: once in so many that are written.
_COUNT_EVERY = 20
_SUFFIX = ".json"
#: A file of ours, or one that a worker has not finished; others in the folder are not ours to remove.
_OURS = re.compile(r"[0-9A-Za-z]+\.json|\.[0-9A-Za-z]+\.[0-9a-f]{16}")


class EvidenceFolder:
    """Files by name in one folder; made with mode 0700 when it is first written to.

    Args:
        path: the folder, absolute.
        most: files that are kept; the oldest go.
    """

    __slots__ = ("_most", "_path", "_written", "trouble")

    def __init__(self, path: str, most: int = 2000) -> None:
        self._path = Path(path)
        self._most = most
        self._written = 0
        #: why the folder is not used, or what last failed; empty if all is well
        self.trouble = ""

    def load(self, name: str) -> bytes | None:
        """Return the file called `name` (letters and digits), or None."""
        if not self._usable(make=False):
            return None
        try:
            handle = os.open(self._path / (name + _SUFFIX), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(handle, "rb") as file:
            content = file.read(MAX_FILE + 1)
        return content if len(content) <= MAX_FILE else None

    def save(self, name: str, content: bytes) -> bool:
        """Write the file called `name`; True if it stands."""
        if len(content) > MAX_FILE or not self._usable(make=True):
            return False
        beside = self._path / f".{name}.{secrets.token_hex(8)}"
        try:
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                beside.replace(self._path / (name + _SUFFIX))
            except OSError:
                beside.unlink(missing_ok=True)
                raise
        except OSError as e:
            self.trouble = f"cannot write into {self._path}: {e.strerror or e}"
            return False
        self.trouble = ""
        if self._written % _COUNT_EVERY == 0:
            self._prune()
        self._written += 1
        return True

    def _usable(self, *, make: bool) -> bool:
        """True if the folder is there and nobody but us (or root) can put files into it."""
        try:
            if make:
                self._path.mkdir(mode=0o700, exist_ok=True)
            found = self._path.stat()
        except FileNotFoundError:
            if make:
                self.trouble = f"the folder above {self._path} does not exist"
            return False
        except OSError as e:
            self.trouble = f"cannot use {self._path}: {e.strerror or e}"
            return False
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o022:
            self.trouble = f"{self._path} is no folder of our own, or others may write into it"
            return False
        return True

    def _prune(self) -> None:
        """Remove the oldest of our files beyond `most`, and what a worker that died left half written."""
        found: list[tuple[float, str]] = []
        with contextlib.suppress(OSError), os.scandir(self._path) as entries:
            for entry in filter(lambda e: _OURS.fullmatch(e.name), entries):
                with contextlib.suppress(OSError):  # another worker was quicker
                    found.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
        found.sort()
        for _, path in found[: max(0, len(found) - self._most)]:
            with contextlib.suppress(OSError):
                Path(path).unlink()
