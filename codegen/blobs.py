"""Data as a relocatable object of any format: read-only, each blob at a multiple of 64 bytes under its own name.

LLVM writes the object with marks where the data go, and the data take their place in the file: an object of 100 MB is
made without a text of 300.  What is shorter than a mark is written as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib

from .jit import compile_text
from .literals import bytes_literal
from .target import Target

MARK = 16  # bytes


def blob_object(blobs: Mapping[str, memoryview], target: Target) -> bytes:
    """A relocatable object that defines the blobs."""
    data = bytearray(compile_text("\n".join(definition(name, blob) for name, blob in blobs.items()), target))
    places = {name: place(data, name) for name, blob in blobs.items() if len(blob) >= MARK}
    for name, at in places.items():
        data[at:at + len(blobs[name])] = blobs[name]
    return bytes(data)


def definition(name: str, blob: memoryview) -> str:
    if len(blob) < MARK:
        data = bytes(blob) or b"\0"  # none shares its place with another
        return f"@{name} = hidden constant {bytes_literal(data)}, align 64"
    kind = f"{{[{MARK} x i8], [{len(blob) - MARK} x i8]}}"
    return (f"@{name} = hidden constant {kind} {{{bytes_literal(mark(name))}, [{len(blob) - MARK} x i8] "
            "zeroinitializer}, align 64")


def mark(name: str) -> bytes:
    return hashlib.sha256(f"the place of {name}".encode()).digest()[:MARK]


def place(data: bytearray, name: str) -> int:
    """Where the data of that name begin in an object that has marks."""
    at = data.find(mark(name))
    assert at >= 0 and data.find(mark(name), at + 1) < 0, name
    return at
