"""Arguments of emitted calls: what is an array or a number just as native code wants it.

Where an argument is anything else, the code leaves for a label.  Numbers that an input of rank 0 takes, apart from
arrays of rank 0: a NumPy scalar of its dtype, for float32 and float64 also float, int, bool and numpy.float64, for
integers an int in range and bool, for bool bool.  They mean what `graphc.binding.as_array` makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.plan import Array
from graphc.ir.types import is_integer, itemsize, storage_dtype

from .pyobjects import ALIGNED, C_CONTIGUOUS, FIELDS, VALUE
from .text import Function, Int, Module

FEW_PAIRS = 24  # pairs of arrays that are compared without a loop
LLVM_FLOATS = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class Refuse:
    """Where a function under construction leaves for arguments that are not plain."""

    function: Function
    label: str

    def unless(self, condition: str) -> None:
        """Leaves where the condition, an i1 that says what is wrong, holds."""
        after = self.function.new_label("plain")
        self.function.branch_if(condition, self.label, after)
        self.function.place(after)


def symbol(f: Function, name: str) -> str:
    """An object of this process, see `pyobjects.call_symbols`."""
    f.module.add_global(f"graphc_{name}", f"@graphc_{name} = external global i8")
    return f"@graphc_{name}"


def descr(f: Function, array: Array) -> str:
    return symbol(f, f"descr_{storage_dtype(array.dtype).name}")


def field(f: Function, pointer: str, name: str) -> str:
    """What an object says of itself."""
    kind = "i32" if name in ("nd", "flags") else "ptr"
    return f.value(f"load {kind}, ptr {f.element('i8', pointer, FIELDS[name])}, align {4 if kind == 'i32' else 8}")


def is_object(f: Function, pointer: str, name: str) -> str:
    return f.value(f"icmp eq ptr {pointer}, {symbol(f, name)}")


# -- arrays --
def plain_array(refuse: Refuse, array: str, spec: Array, flags: int = 0) -> str:
    """The data of an array, whose every field but the sizes is as it must be."""
    f = refuse.function
    refuse.unless(f.value(f"icmp ne ptr {field(f, array, 'type')}, {symbol(f, 'ndarray')}"))
    return data_of_array(refuse, array, spec, flags)


def data_of_array(refuse: Refuse, array: str, spec: Array, flags: int = 0) -> str:
    """The same for what is exactly an ndarray."""
    f, wanted = refuse.function, C_CONTIGUOUS | ALIGNED | flags
    rank, dtype, found = (field(f, array, name) for name in ("nd", "descr", "flags"))
    other_rank = f.value(f"icmp ne i32 {rank}, {len(spec.shape)}")
    other_dtype = f.value(f"icmp ne ptr {dtype}, {descr(f, spec)}")
    other_flags = f.value(f"icmp ne i32 {f.value(f'and i32 {found}, {wanted}')}, {wanted}")
    refuse.unless(f.value(f"or i1 {f.value(f'or i1 {other_rank}, {other_dtype}')}, {other_flags}"))
    return field(f, array, "data")


def lengths(f: Function, array: str, spec: Array) -> list[str]:
    """The sizes of an array of the right rank."""
    if not spec.shape:
        return []
    sizes = field(f, array, "dims")
    return [f.value(f"load i64, ptr {f.element('i64', sizes, k)}, align 8") for k in range(len(spec.shape))]


# -- numbers --
def number(refuse: Refuse, value: str, spec: Array, slot: str) -> str:
    """The address of the number that an argument for an input of rank 0 is; `slot` has room for it."""
    f = refuse.function
    kind = field(f, value, "type")
    name = storage_dtype(spec.dtype).name

    def no_array() -> list[Int]:
        of_numpy = is_object(f, kind, f"scalar_{name}")
        return [f.choose(of_numpy, ["ptr"], lambda: [f.element("i8", value, VALUE)], converted)[0]]

    def converted() -> list[Int]:
        f.emit(f"store {python_number(refuse, value, kind, spec.dtype, slot)}, ptr {slot}, align 8")
        return [slot]

    return f.choose(is_object(f, kind, "ndarray"), ["ptr"], lambda: [data_of_array(refuse, value, spec)], no_array)[0]


def python_number(refuse: Refuse, value: str, kind: str, dtype: str, room: str) -> str:
    """A Python number as a typed register of the dtype; `room` has 8 bytes that may be written to."""
    if dtype in LLVM_FLOATS:
        return f"{LLVM_FLOATS[dtype]} {float_number(refuse, value, kind, dtype, room)}"
    if dtype == "bool" or is_integer(dtype):
        return integer_number(refuse, value, kind, dtype, room)
    refuse.unless("true")
    return "i16 0"


def float_number(refuse: Refuse, value: str, kind: str, dtype: str, room: str) -> str:
    f, llvm = refuse.function, LLVM_FLOATS[dtype]
    is_float = f.value(f"or i1 {is_object(f, kind, 'float')}, {is_object(f, kind, 'scalar_float64')}")

    def of_float() -> list[Int]:
        found = f.value(f"load double, ptr {f.element('i8', value, VALUE)}, align 8")
        return [found if llvm == "double" else f.value(f"fptrunc double {found} to {llvm}")]

    def of_integer() -> list[Int]:
        return [f.value(f"sitofp i64 {int_or_bool(refuse, value, kind, room)} to {llvm}")]

    return f.choose(is_float, [llvm], of_float, of_integer)[0]


def int_or_bool(refuse: Refuse, value: str, kind: str, room: str) -> str:
    """An int that fits 64 bits, or a bool."""
    f = refuse.function

    def of_int() -> list[Int]:
        found = f.call("i64", "PyLong_AsLongLongAndOverflow", ("ptr", value), ("ptr", room))
        refuse.unless(f.value(f"icmp ne i32 {f.value(f'load i32, ptr {room}, align 8')}, 0"))
        return [found]

    return f.choose(is_object(f, kind, "int"), ["i64"], of_int, lambda: [of_bool(refuse, value, kind)])[0]


def of_bool(refuse: Refuse, value: str, kind: str) -> str:
    f = refuse.function
    refuse.unless(f.value(f"xor i1 {is_object(f, kind, 'bool')}, true"))
    return f.value(f"zext i1 {is_object(f, value, 'True')} to i64")


def integer_number(refuse: Refuse, value: str, kind: str, dtype: str, room: str) -> str:
    """A typed register of an integer dtype or bool; what is out of range is refused."""
    f, bits = refuse.function, 8 * itemsize(dtype)
    found = of_bool(refuse, value, kind) if dtype == "bool" else int_or_bool(refuse, value, kind, room)
    if bits == 64:
        if dtype.startswith("u"):
            refuse.unless(f.value(f"icmp slt i64 {found}, 0"))
        return f"i64 {found}"
    cut = f.value(f"trunc i64 {found} to i{bits}")
    back = f.value(f"{'zext' if dtype.startswith('u') else 'sext'} i{bits} {cut} to i64")
    refuse.unless(f.value(f"icmp ne i64 {back}, {found}"))
    return f"i{bits} {cut}"


# -- arrays that must not overlap --
def leave_where_meeting(refuse: Refuse, arrays: Sequence[tuple[str, Int]], first: int, room: str) -> None:
    """Leaves where an array (address, bytes) from `first` on meets one before it; `room` has two pointers for each."""
    f = refuse.function
    ranges = [(start, f.element("i8", start, nbytes)) for start, nbytes in arrays]
    pairs = [(k, i) for k in range(first, len(ranges)) for i in range(k)]
    if len(pairs) > FEW_PAIRS:
        for k, place in enumerate(address for pair in ranges for address in pair):
            f.emit(f"store ptr {place}, ptr {f.element('ptr', room, k)}, align 8")
        overlap_function(f.module)
        refuse.unless(f.call("i1", "graphc_overlap", ("ptr", room), ("i64", first), ("i64", len(ranges))))
        return
    for k, i in pairs:
        refuse.unless(meets(f, ranges[k], ranges[i]))


def meets(f: Function, a: Sequence[str], b: Sequence[str]) -> str:
    """An i1: whether two ranges (start, end) have a byte in common."""
    return f.value(f"and i1 {f.value(f'icmp ult ptr {a[0]}, {b[1]}')}, {f.value(f'icmp ult ptr {b[0]}, {a[1]}')}")


def overlap_function(module: Module) -> None:
    """`i1 @graphc_overlap(ptr ranges, i64 first, i64 count)`: whether a range from `first` on meets one before it."""
    name = "graphc_overlap"
    if name in module.functions:
        return
    f = Function(module, f"define internal i1 @{name}(ptr %ranges, i64 %first, i64 %count) #0")

    def ends(k: Int) -> list[str]:
        places = [f.element("ptr", "%ranges", f.add(f.mul(k, 2), side)) for side in (0, 1)]
        return [f.value(f"load ptr, ptr {place}, align 8") for place in places]

    def compare(k: Int, found: str) -> list[Int]:
        own = ends(k)
        return list(f.loop(0, k, 1, [("i1", found)], lambda i, c: [f.value(f"or i1 {c[0]}, {meets(f, own, ends(i))}")]))

    f.emit(f"ret i1 {f.loop('%first', '%count', 1, [('i1', 'false')], lambda k, c: compare(k, c[0]))[0]}")
    module.add(name, f.text())
