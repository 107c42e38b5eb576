"""Files on disk under keys: compiled code, and what is known of a function without compiling it.

A key is a hash of all that the contents depend on, so a file is right or absent.  It is written beside its place and
renamed, and several processes may do so at once.  Every file begins with a checksum of the rest: what a full disk or a
fault has cut short or changed counts as absent.  The files that were not used for longest go when the folder outgrows
its limit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
import hashlib
import os
from pathlib import Path
import time

from graphc.ir.files import write_whole

SUFFIXES = {"code": ".o", "plan": ".plan", "order": ".order"}  # by kind
COUNTERS = ("hits", "misses")
MARK = b"graphc1\n"
DIGEST = 16  # bytes
STALE = 3600.0  # seconds after which a file that is still being written belongs to a process that died
MOST_PARTS = 4  # a file larger than this part of the limit is not kept
TRIM_PARTS = 64  # room is made after files larger than this part of the limit, and after one of so many others


@dataclass
class Cache:
    """Files in a folder.  `limit` in bytes, 0 to keep nothing.  A folder that cannot be written is no error."""

    folder: Path
    limit: int

    def get(self, kind: str, key: str) -> bytes | None:
        """What was kept under the key, None where there is nothing or nothing whole."""
        if not self.limit:
            return None
        path = self.path(kind, key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        start = len(MARK) + DIGEST
        if data[:start] != MARK + digest(data[start:]):
            return None
        with suppress(OSError):
            os.utime(path)
        if kind == "code":
            self.count("hits")
        return data[start:]

    def put(self, kind: str, key: str, data: bytes) -> None:
        if len(data) * MOST_PARTS > self.limit:
            return  # it would drive out what others need
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self.path(kind, key), [MARK, digest(data), data], mode=0o600, durable=False)
            if TRIM_PARTS * len(data) > self.limit or int(key[:8], 16) % TRIM_PARTS == 0:
                self.trim()
        except OSError:
            return

    def made(self, kind: str, key: str, make: Callable[[], bytes]) -> bytes:
        """What is kept under the key; made and kept if need be."""
        data = self.get(kind, key)
        if data is None:
            data = make()
            self.put(kind, key, data)
            self.count("misses")
        return data

    def path(self, kind: str, key: str) -> Path:
        return self.folder / (key + SUFFIXES[kind])

    # -- counts --
    def count(self, what: str) -> None:
        """Remembers that code was found or made: the length of a file, to which any process may add a byte."""
        if self.limit:
            with suppress(OSError), open(self.folder / what, "ab", buffering=0) as file:
                file.write(b".")

    def counts(self) -> tuple[int, int]:
        """How often code was found here, and how often it was not."""
        return size_of(self.folder / "hits"), size_of(self.folder / "misses")

    # -- the folder --
    def files(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of every file, oldest first."""
        found = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(tuple(SUFFIXES.values())):
                    with suppress(OSError):  # another process may be faster
                        found.append((entry.stat().st_mtime, entry.stat().st_size, Path(entry.path)))
        return sorted(found)

    def trim(self) -> None:
        """Removes the oldest files until a tenth of the limit is free, and what dead processes left half written."""
        files = self.files()
        excess = sum(size for _, size, _ in files) - self.limit
        if excess > 0:
            excess += self.limit // 10
        for _, size, path in files:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
        for path in self.folder.glob(".graphc-*.tmp"):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - STALE:
                    path.unlink()

    def clear(self) -> int:
        """Removes every file; returns how many there were."""
        files = self.files()
        for _, _, path in files:
            path.unlink(missing_ok=True)
        for name in COUNTERS:
            with suppress(OSError):
                (self.folder / name).unlink()
        return len(files)


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
