"""Named arrays in one file: a stored zip whose member `tensors.safetensors` has the safetensors format.

    8 bytes     length of the header, little-endian
    header      JSON: {"w": {"dtype": "F32", "shape": [64, 10], "data_offsets": [0, 2560]}, ..}
    data        the arrays in C order, little-endian; offsets count from here and tile the data

Arrays of bfloat16 are float32 in Python and two bytes in the file.  Widest elements come first in the data, so that
each array is aligned for readers that map it; the header keeps the caller's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import math
import os
from typing import Any
import zlib

import numpy as np

from ..ir.errors import GraphError
from ..ir.files import Chunk
from ..ir.types import SAFETENSORS, from_storage, itemsize, storage_dtype, to_storage
from .archive import Archive, Member, open_archive, write_archive
from .strict_json import parsed

Tensors = Mapping[str, tuple[str, np.ndarray[Any, Any]]]

MEMBER = "tensors.safetensors"
METADATA = "__metadata__"  # the format's own entry of the header
DTYPE_OF_CODE = {code: dtype for dtype, code in SAFETENSORS.items()}
MOST_HEADER = 100_000_000  # bytes; the format's own limit
MOST_AXES = 64  # NumPy's limit


def write_tensors(path: str | os.PathLike[str], tensors: Tensors) -> None:
    """Writes (dtype, array) pairs by name; the file is whole or not there."""
    write_archive(path, {MEMBER: tensor_chunks(tensors)})


def read_tensors(path: str | os.PathLike[str]) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    """Reads what `write_tensors` wrote.  GraphError naming the path and the fault for any other file."""
    with open_archive(path) as archive:
        return tensors_of(archive)


# -- writing --
def tensor_chunks(tensors: Tensors) -> Sequence[Chunk]:
    """The member's data in pieces: header, then the arrays."""
    if METADATA in tensors:
        raise GraphError(f"a tensor cannot be named {METADATA!r}: the file format uses that name itself")
    stored = {name: stored_array(array, dtype) for name, (dtype, array) in tensors.items()}
    header: dict[str, Any] = {name: {} for name in tensors}
    position = 0
    chunks: list[Chunk] = []
    for name in sorted(tensors, key=lambda name: -itemsize(tensors[name][0])):
        array = stored[name]
        header[name] = {"dtype": SAFETENSORS[tensors[name][0]], "shape": list(array.shape),
                        "data_offsets": [position, position + array.nbytes]}
        position += array.nbytes
        if array.nbytes:
            chunks.append(array.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *chunks]


def stored_array(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """The array as files hold it, with the bits of every NaN that the dtype can hold."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32).reshape(np.shape(array))
        exact = not (bits & np.uint32(0xFFFF)).any()  # then even the bits of a NaN are kept
        array = (bits >> np.uint32(16)).astype(np.uint16) if exact else to_storage(array, dtype)
    kind = storage_dtype(dtype).newbyteorder("<")
    return np.asarray(array, kind, order="C")


def array_of_bytes(data: np.ndarray[Any, Any], dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The array that `stored_array` made these bytes of; ValueError for a bool that is neither 0 nor 1."""
    if dtype == "bool" and data.size and data.max() > 1:
        raise ValueError(f"is of dtype bool and holds the byte {int(data.max())}")
    array = data.view(storage_dtype(dtype).newbyteorder("<")).astype(storage_dtype(dtype), copy=False)
    return from_storage(array.reshape(shape), dtype)


# -- reading --
def tensors_of(archive: Archive) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    """The arrays in the archive's member; all of the header is checked before any array is made."""
    member = archive.member(MEMBER)
    if member.nbytes < 8:
        archive.refuse(f"{MEMBER} has {member.nbytes} bytes, too few for the length of its header")
    length = archive.read(member.start, 8)
    nbytes = int.from_bytes(length, "little")
    if nbytes > min(member.nbytes - 8, MOST_HEADER):
        archive.refuse(f"{MEMBER}: a header of {nbytes} bytes does not fit {member.nbytes} bytes")
    text = archive.read(member.start + 8, nbytes)
    header = parsed(text, lambda fault: archive.refuse(f"the header of {MEMBER}: {fault}"))
    specs = _checked_header(archive, header, member.nbytes - 8 - nbytes)
    return _arrays(archive, member, specs, zlib.crc32(text, zlib.crc32(length)), member.start + 8 + nbytes)


Spec = tuple[str, str, tuple[int, ...], int, int]  # name, dtype, shape, begin, end


def _checked_header(archive: Archive, header: Any, room: int) -> list[Spec]:
    """The tensors of the header, whose offsets must tile the room."""
    if not isinstance(header, dict):
        archive.refuse(f"the header of {MEMBER} is no JSON object")
    specs = [_spec(archive, name, entry) for name, entry in header.items() if name != METADATA]
    position = 0
    for name, _, _, begin, end in sorted(specs, key=lambda spec: spec[3:]):
        if begin != position:
            archive.refuse(f"tensor {name!r} begins at byte {begin} of the data, not at {position}")
        position = end
    if position != room:
        archive.refuse(f"the tensors end at byte {position} of {room} bytes of data")
    return specs


def _spec(archive: Archive, name: str, entry: Any) -> Spec:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        archive.refuse(f"tensor {name!r} needs dtype, shape and data_offsets, got {entry!r:.200}")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPE_OF_CODE:
        archive.refuse(f"tensor {name!r} is of dtype {code!r:.40}; known are {', '.join(DTYPE_OF_CODE)}")
    if not _is_sizes(shape) or len(shape) > MOST_AXES:
        archive.refuse(f"tensor {name!r} is of shape {shape!r:.200}")
    if not _is_sizes(offsets) or len(offsets) != 2:
        archive.refuse(f"tensor {name!r} has offsets {offsets!r:.200}")
    dtype = DTYPE_OF_CODE[code]
    if math.prod(size or 1 for size in shape) * itemsize(dtype) >= 2**63:
        archive.refuse(f"tensor {name!r} of shape {shape!r:.200} is beyond any memory")
    nbytes = math.prod(shape) * itemsize(dtype)
    if offsets[1] - offsets[0] != nbytes:
        archive.refuse(f"tensor {name!r}, {dtype}{shape!r:.200}, is {nbytes} bytes and has offsets {offsets}")
    return name, dtype, tuple(shape), offsets[0], offsets[1]


def _is_sizes(data: Any) -> bool:
    return isinstance(data, list) and all(type(size) is int and 0 <= size < 2**63 for size in data)


def _arrays(archive: Archive, member: Member, specs: Sequence[Spec], crc: int,
            start: int) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    """The arrays, read in the order of the file so that one walk also gives the checksum."""
    found: dict[str, tuple[str, np.ndarray[Any, Any]]] = {}
    for name, dtype, shape, begin, end in sorted(specs, key=lambda spec: spec[3:]):
        room = np.empty(end - begin, np.uint8)
        if end > begin:
            view = room.data
            archive.read_into(start + begin, view)
            crc = zlib.crc32(view, crc)
        try:
            found[name] = dtype, array_of_bytes(room, dtype, shape)
        except ValueError as fault:
            archive.refuse(f"tensor {name!r} {fault}")
    archive.check_crc(member, crc)
    return {name: found[name] for name, *_ in specs}
