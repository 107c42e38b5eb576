"""Writing a file so that a reader, or a crash, sees the old one or the new one and nothing between."""

from __future__ import annotations

from collections.abc import Iterable
import errno
import os
import secrets

Chunk = bytes | bytearray | memoryview


def write_whole(path: str | os.PathLike[str], chunks: Iterable[Chunk], *, mode: int = 0o666,
                durable: bool = True) -> None:
    """Writes the chunks one after the other to a new file beside `path`, which then takes its name.

    `mode` is what the process's umask is taken from.  A file that is not `durable` may be lost, or empty, when the
    machine itself stops; that saves waiting for the disk.  Raises OSError, also where a device or a pipe would be
    replaced.
    """
    place = os.path.realpath(path)  # a link keeps pointing to the file
    if os.path.exists(place) and not os.path.isfile(place):
        raise OSError(errno.EISDIR if os.path.isdir(place) else errno.EINVAL, "is there already and is no file", place)
    folder = os.path.dirname(place)
    partial = os.path.join(folder, f".graphc-{secrets.token_hex(8)}.tmp")
    # Not the tempfile module: its files are readable by their owner alone, and so the result would be.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(partial, place)
    except BaseException:
        os.unlink(partial)
        raise
    if durable:
        _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Make the new name last too, where folders can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
