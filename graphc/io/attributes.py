"""Attributes of nodes as JSON: which ones each op has, in which order, and how each is written and read.

    axes (0, 2)            [0, 2]
    shape (batch, 64)      [[[1, ["batch"]]], 64]           sizes as graphc.ir.dims.encode writes them
    x_labels               [["index", 0], 1]
    a number of `user`     0.5, or {"bits": "7ff8000000000000"} for NaN and the infinities
    a small constant       {"dtype": "float32", "shape": [2], "hex": "0000803f00000040"}
    a large constant       {"tensor": "constant/7"}, an array of the file beside

Reading checks form and range only and raises ValueError; what the values mean together is checked by the type rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
import math
import struct
from typing import Any

import numpy as np

from ..ir.dims import Dim, decode, encode
from ..ir.errors import Unsupported
from ..ir.node import OPS, Bits, Node
from ..ir.types import DTYPES, itemsize
from .tensors import MOST_AXES, array_of_bytes, stored_array

MOST_INLINE = 64  # bytes of a constant that is written in the JSON
MOST_LEAVES = 256  # numbers and names in one size: arithmetic on sizes must stay fast whatever the file says
MOST_TERMS = 4096  # bound on the terms of a product of all sizes of a shape
MOST_NAME = 10_000  # characters

Arrays = dict[str, tuple[str, np.ndarray[Any, Any]]]


@dataclass
class Store:
    """The arrays that stand beside the JSON: to be written, or as read; `used` are those that were asked for."""

    arrays: Arrays = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def take(self, name: Any) -> tuple[str, np.ndarray[Any, Any]]:
        if not isinstance(name, str) or name not in self.arrays:
            raise ValueError(f"there is no tensor {name!r:.200}")
        self.used.add(name)
        return self.arrays[name]


@dataclass(frozen=True)
class Form:
    """How values of one kind of attribute are written and read."""

    write: Callable[[Any, Store], Any]
    read: Callable[[Any, Store], Any]


def plain(write: Callable[[Any], Any], read: Callable[[Any], Any]) -> Form:
    return Form(lambda value, store: write(value), lambda data, store: read(data))


# -- numbers, names, sizes --
def read_text(data: Any) -> str:
    if not isinstance(data, str) or len(data) > MOST_NAME:
        raise ValueError(f"expected a text, got {data!r:.200}")
    return data


def read_dtype(data: Any) -> str:
    if not isinstance(data, str) or data not in DTYPES:
        raise ValueError(f"no dtype {data!r:.200}; there are {', '.join(DTYPES)}")
    return data


def read_int(data: Any) -> int:
    if type(data) is not int or not -2**63 <= data < 2**63:
        raise ValueError(f"expected an integer of 64 bits, got {data!r:.200}")
    return data


def read_bool(data: Any) -> bool:
    if not isinstance(data, bool):
        raise ValueError(f"expected true or false, got {data!r:.200}")
    return data


def read_list(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError(f"expected a list, got {data!r:.200}")
    return data


def read_ints(data: Any) -> tuple[int, ...]:
    return tuple([read_int(item) for item in read_list(data)])


def read_size(data: Any) -> int | Dim:
    if type(data) is int:
        return read_int(data)
    leaves, pending = 0, [data]
    while pending:
        item = pending.pop()
        leaves += 1
        if isinstance(item, list):
            pending += item
        elif type(item) is int:
            read_int(item)
        if leaves > MOST_LEAVES:
            raise ValueError(f"a size of more than {MOST_LEAVES} parts: {data!r:.200}")
    return decode(data)


def read_sizes(data: Any) -> tuple[int | Dim, ...]:
    sizes = tuple([read_size(item) for item in read_list(data)])
    terms = math.prod(len(size.terms) for size in sizes if isinstance(size, Dim))
    if len(sizes) > MOST_AXES or terms > MOST_TERMS:
        raise ValueError(f"a shape of {len(sizes)} axes whose product has up to {terms} terms")
    return sizes


def write_sizes(sizes: Any) -> list[Any]:
    return [encode(size) for size in sizes]


def write_ints(values: Any) -> list[int]:
    return [int(value) for value in values]


# -- labels of gathers: an int, or ("index", operand) --
def write_labels(labels: Any) -> list[Any]:
    return [list(label) if isinstance(label, tuple) else int(label) for label in labels]


def read_labels(data: Any) -> tuple[Any, ...]:
    return tuple([read_index_label(item) if isinstance(item, list) else read_int(item) for item in read_list(data)])


def read_index_label(data: list[Any]) -> tuple[str, int]:
    if len(data) != 2 or data[0] != "index":
        raise ValueError(f"expected a label or [\"index\", number], got {data!r:.200}")
    return "index", read_int(data[1])


# -- expressions of user ops --
def write_number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"bits": struct.pack(">d", value).hex()}
    return value


def read_number(data: Any) -> Any:
    if isinstance(data, dict):
        if set(data) != {"bits"} or not isinstance(data["bits"], str) or len(data["bits"]) != 16:
            raise ValueError(f"expected a number, got {data!r:.200}")
        return struct.unpack(">d", bytes.fromhex(data["bits"]))[0]
    if data is None or isinstance(data, (bool, float)):
        return data
    return read_int(data)


def write_expression(expression: Any) -> list[Any]:
    return [[name, list(places), write_number(parameter)] for name, places, parameter in expression]


def read_expression(data: Any) -> tuple[Any, ...]:
    return tuple([read_entry(item) for item in read_list(data)])


def read_entry(data: Any) -> tuple[str, tuple[int, ...], Any]:
    if len(read_list(data)) != 3:
        raise ValueError(f"expected an op, its places and its parameter, got {data!r:.200}")
    name, places, parameter = read_text(data[0]), read_ints(data[1]), read_number(data[2])
    wanted = {"const": (bool, float), "polygamma": (int,)}.get(name, (type(None),))
    if type(parameter) not in wanted:
        raise ValueError(f"{name} with the parameter {parameter!r}")
    if name in OPS and len(places) != operand_count(name, {}):
        raise ValueError(f"{name} of {len(places)} operands")
    return name, places, parameter


# -- constants --
def write_bits(bits: Bits, store: Store) -> dict[str, Any]:
    if bits.array.size * itemsize(bits.dtype) <= MOST_INLINE:
        return {"dtype": bits.dtype, "shape": list(bits.array.shape),
                "hex": stored_array(bits.array, bits.dtype).tobytes().hex()}
    name = f"constant/{len(store.arrays)}"
    store.arrays[name] = bits.dtype, bits.array
    return {"tensor": name}


def read_bits(data: Any, store: Store) -> Bits:
    if not isinstance(data, dict) or set(data) not in ({"tensor"}, {"dtype", "shape", "hex"}):
        raise ValueError(f"expected a constant, got {data!r:.200}")
    if "tensor" in data:
        dtype, array = store.take(data["tensor"])
        return Bits(array, dtype)
    dtype, shape, text = read_dtype(data["dtype"]), read_ints(data["shape"]), read_text(data["hex"])
    if len(shape) > MOST_AXES or min(shape, default=0) < 0 or math.prod(shape) * itemsize(dtype) * 2 != len(text):
        raise ValueError(f"{len(text) // 2} bytes for a constant {dtype}{list(shape)}")
    if math.prod(size or 1 for size in shape) >= 2**59:
        raise ValueError(f"a constant of shape {shape} is beyond any memory")
    return Bits(array_of_bytes(np.frombuffer(bytes.fromhex(text), np.uint8), dtype, shape), dtype)


def write_conditions(conditions: Any) -> list[Any]:
    return [[write_sizes(pair) for pair in condition] for condition in conditions]


def read_conditions(data: Any) -> tuple[Any, ...]:
    return tuple([tuple([read_sizes(pair) for pair in read_list(condition)]) for condition in read_list(data)])


TEXT = plain(str, read_text)
DTYPE = plain(str, read_dtype)
INT = plain(int, read_int)
BOOL = plain(bool, read_bool)
INTS = plain(write_ints, read_ints)
GROUPS = plain(lambda groups: [write_ints(group) for group in groups],
               lambda data: tuple([read_ints(item) for item in read_list(data)]))
SIZES = plain(write_sizes, read_sizes)
LABELS = plain(write_labels, read_labels)
CONDITIONS = plain(write_conditions, read_conditions)
EXPRESSION = plain(write_expression, read_expression)
BITS = Form(write_bits, read_bits)

DECLARED = {"name": TEXT, "dtype": DTYPE, "shape": SIZES}
STEPS = {"starts": SIZES, "steps": INTS, "shape": SIZES}
AXES = {"axes": INTS}
AXIS = {"axis": INT}
INDEXED = {"x_labels": LABELS, "index_labels": GROUPS, "out": INTS}

# op: attributes in the order in which nodes are built with them; operands, where they are not counted by partials
ATTRIBUTES: dict[str, dict[str, Form]] = {
    "placeholder": DECLARED, "variable": DECLARED, "constant": {"value": BITS},
    "iota": {"dtype": DTYPE, "shape": SIZES, "axis": INT},
    "broadcast": {"shape": SIZES, "axes": INTS}, "reshape": {"shape": SIZES}, "transpose": AXES,
    "slice": STEPS, "pad": STEPS, "concat": AXIS, "choose": {"conditions": CONDITIONS}, "diagonal": {"axes": GROUPS},
    "sum": AXES, "prod": AXES, "max": AXES, "min": AXES, "any": AXES, "all": AXES, "argmax": AXIS, "argmin": AXIS,
    "einsum": {"labels": GROUPS, "out": INTS}, "gather": INDEXED, "scatter_add": {**INDEXED, "shape": SIZES},
    "linear_scan": {"axis": INT, "reverse": BOOL},
    "cast": {"dtype": DTYPE}, "polygamma": {"order": INT},
    "user": {"name": TEXT, "expression": EXPRESSION, "arity": INT},
}
ANY_NUMBER = ("concat", "choose", "einsum", "gather", "scatter_add")  # of operands; one at least
OPERANDS = {"linear_scan": 2}  # structural ops of more than one operand


def forms_of(op: str) -> dict[str, Form]:
    """The attributes of an op; Unsupported where this table does not know it."""
    if op in ATTRIBUTES:
        return ATTRIBUTES[op]
    if op not in OPS or OPS[op].kind != "elementwise":
        raise Unsupported(f"graph file: the op {op!r} cannot be written yet")
    return {}


def operand_count(op: str, attrs: dict[str, Any]) -> int | None:
    """How many operands a node of that op has; None where that is free."""
    row = OPS[op]
    if op == "user":
        return int(attrs.get("arity", 0))
    if row.kind == "elementwise":
        return len(row.partials or ())
    return 0 if row.kind == "leaf" else None if op in ANY_NUMBER else OPERANDS.get(op, 1)


def write_attributes(node: Node, store: Store) -> dict[str, Any]:
    """A node's attributes as JSON data; large constants go into the store."""
    forms = forms_of(node.op.name)
    if set(forms) != set(node.attrs):
        raise Unsupported(f"graph file: {node!r} has the attributes {', '.join(node.attrs)}, "
                          f"not {', '.join(forms) or 'none'}")
    return {name: form.write(node.attrs[name], store) for name, form in forms.items()}


def read_attributes(op: str, data: Any, store: Store) -> dict[str, Any]:
    """The attributes that `write_attributes` wrote, in building order; ValueError for anything else."""
    forms = forms_of(op)
    if not isinstance(data, dict) or set(data) != set(forms):
        raise ValueError(f"{op} has attributes {', '.join(forms) or 'none'}, got {data!r:.200}")
    return {name: form.read(data[name], store) for name, form in forms.items()}
