"""Memory access of a kernel: where an element is, and the instruction that reads or writes it there.

`Frame` is what holds for the whole kernel, `Point` where code is being written: which axes are open, at which index,
how many steps of the unrolled axis are in flight, and which lanes are live.  A value is a list of registers: one per
step where it varies along the unrolled axis, else a single one; every register has all lanes.

    stride along the lanes   0       1           -1                 2..4                      other, or an index
    read                     splat   vector      vector, reversed   whole vectors, shuffled   gather

Invariants: nothing outside a buffer is touched.  Lanes beyond the end, and lanes or steps outside a guard, are masked;
a single element outside its guard is read from a zero of our own instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from graphc.ir.dims import Dim
from graphc.ir.errors import Unsupported
from graphc.ir.plan import Kernel, Map

from .collapse import Facts
from .roles import LIGHT_STEPS, Choice
from .shuffles import constant_mask, every_nth, lane_numbers, reversed_lanes, splat_kind, transposed
from .sizes import Environment, size_value
from .streams import LINE, fetch
from .text import Function, Int
from .vectors import FLOATS, MEMORY, Lanes, kind_bits

ZERO = "guarded_zero"  # what is read instead of an element outside its guard
NARROW = 1 << 30  # offsets below this fit 32-bit lanes

Site = tuple[int, "int | Dim", "tuple[int | Dim, ...]"]  # argument, offset, strides


@dataclass
class Frame:
    """One kernel being written."""

    function: Function
    lanes: Lanes
    one: Lanes
    kernel: Kernel
    facts: Facts
    choice: Choice
    sizes: Environment
    sites: dict[Site, int] = field(default_factory=dict)
    numbers: dict[Int, str] = field(default_factory=dict)  # stride -> its multiples, one per lane
    streamed: int | None = None  # the store that goes past the caches, where it fills aligned vectors

    def size(self, size: int | Dim) -> Int:
        return size_value(self.function, size, self.sizes)

    def kind(self, address: Map) -> str:
        return MEMORY[self.kernel.arguments[address.argument]]

    def site(self, address: Map) -> int:
        """Maps with the same affine part share their pointers."""
        return self.sites.setdefault((address.argument, address.offset, address.strides), len(self.sites))

    def stretch(self, stride: int | Dim, u: int) -> Int:
        """How far step `u` of the unrolled axis lies from step 0."""
        return self.size(stride * (u * (self.lanes.count if self.choice.unroll == self.choice.lanes else 1)))

    def lane_numbers(self, stride: Int) -> str:
        if stride not in self.numbers:
            self.numbers[stride] = lane_numbers(self.lanes, "i64", stride)
        return self.numbers[stride]


@dataclass(frozen=True)
class Point:
    values: dict[object, list[str]]  # operation -> registers; (operation, stride, extent) -> offsets of an index
    pointers: list[str]  # per site
    index: dict[int, Int]
    opened: int = 0
    steps: int = 1
    mask: str | None = None


def opened(frame: Frame, point: Point, axis: int, index: Int, *, steps: int | None = None,
           mask: str | None = None) -> Point:
    """The point inside the loop over `axis`; its values are its own."""
    pointers = list(point.pointers)
    for (argument, _, strides), site in frame.sites.items():
        stride = frame.size(strides[axis])
        if stride != 0:
            kind = MEMORY[frame.kernel.arguments[argument]]
            pointers[site] = frame.function.element(kind, pointers[site], frame.function.mul(index, stride))
    return replace(point, values=dict(point.values), pointers=pointers, index={**point.index, axis: index},
                   opened=point.opened | 1 << axis, steps=point.steps if steps is None else steps,
                   mask=point.mask if mask is None else mask)


def first_point(frame: Frame) -> Point:
    """In the entry block: evaluates every size, and the address of every map at the origin."""
    for extent in frame.kernel.extents:
        frame.size(extent)
    for number in frame.facts.live:
        address = frame.kernel.ops[number].map
        if address is not None:
            frame.site(address)
            _prepare(frame, address)
    pointers = [frame.function.element(MEMORY[frame.kernel.arguments[argument]], f"%a{argument}", frame.size(offset))
                for argument, offset, _ in frame.sites]
    return Point({}, pointers, {})


def _prepare(frame: Frame, address: Map) -> None:
    choice = frame.choice
    for strides in (address.strides, *(g.strides for g in address.guards)):
        for stride in strides:
            frame.size(stride)
        if choice.lanes is not None and strides[choice.lanes] not in (0, 1):
            frame.lane_numbers(frame.size(strides[choice.lanes]))
        if choice.unroll is not None:
            for u in range(1, most_steps(choice)):
                frame.stretch(strides[choice.unroll], u)
    for _, stride, extent in address.indices:
        frame.size(stride)
        frame.size(extent)
    for guard in address.guards:
        frame.size(guard.offset)
        frame.size(guard.extent)


def most_steps(choice: Choice) -> int:
    """In any pass: a light one may have more steps in flight than the kernel as a whole."""
    return max(choice.factor, LIGHT_STEPS) if choice.unroll == choice.lanes else choice.factor


# -- where --
def index_offsets(frame: Frame, values: Sequence[str], stride: Int, extent: Int, *, in_lanes: bool) -> list[str]:
    """stride * index, negative indices counted from the end; scalars where the index is equal in all lanes."""
    lanes = frame.lanes if in_lanes else frame.one
    result = []
    for value in values:
        if not in_lanes:
            value = first_lane(frame, "i64", value)
        wrapped = lanes.binary("add", "i64", value, splat_kind(lanes, "i64", extent))
        is_negative = lanes.value(f"icmp slt {lanes.vector('i64')} {value}, {lanes.literal('i64', 0)}")
        value = lanes.pick("i64", is_negative, wrapped, value)
        result.append(value if stride == 1 else lanes.binary("mul", "i64", value, splat_kind(lanes, "i64", stride)))
    return result


def first_lane(frame: Frame, kind: str, value: str) -> str:
    if frame.lanes.count == 1:
        return value
    return frame.function.value(f"extractelement {frame.lanes.vector(kind)} {value}, i64 0")


@dataclass(frozen=True)
class Place:
    """`stride` is that along the lanes; `offsets` are per lane; guards are None where they hold."""

    pointer: str
    stride: Int
    offsets: str | None
    scalar_guard: str | None
    vector_guard: str | None


def place(frame: Frame, point: Point, address: Map, u: int) -> Place:
    function, choice = frame.function, frame.choice
    kind = frame.kind(address)
    pointer = point.pointers[frame.site(address)]
    if u and choice.unroll is not None:
        pointer = function.element(kind, pointer, frame.stretch(address.strides[choice.unroll], u))
    stride = frame.size(address.strides[choice.lanes]) if choice.lanes is not None else 0
    offsets: str | None = None
    for number, size, extent in address.indices:
        values = point.values[number, size, extent]
        value = values[u if len(values) > 1 else 0]
        if not frame.facts.has(number, choice.lanes):
            pointer = function.element(kind, pointer, value)
        else:
            offsets = value if offsets is None else frame.lanes.binary("add", "i64", offsets, value)
    if offsets is not None and stride != 0:
        offsets = frame.lanes.binary("add", "i64", offsets, frame.lane_numbers(stride))
    scalar, vector = _guards(frame, point, address, u)
    return Place(pointer, stride, offsets, scalar, vector)


def _guards(frame: Frame, point: Point, address: Map, u: int) -> tuple[str | None, str | None]:
    """What must hold for the element (in all lanes alike, and lane by lane)."""
    function, lanes, choice = frame.function, frame.lanes, frame.choice
    scalar: str | None = None
    vector: str | None = None
    for guard in address.guards:
        base = frame.size(guard.offset)
        for axis, stride in enumerate(guard.strides):
            if stride != 0:
                base = function.add(base, function.mul(point.index[axis], frame.size(stride)))
        if u and choice.unroll is not None:
            base = function.add(base, frame.stretch(guard.strides[choice.unroll], u))
        extent = frame.size(guard.extent)
        along = guard.strides[choice.lanes] if choice.lanes is not None else 0
        if isinstance(base, int) and isinstance(extent, int) and isinstance(along, int):
            if all(0 <= end < extent for end in (base, base + along * (lanes.count - 1))):
                continue
        if along == 0:
            test = function.value(f"icmp ult i64 {base}, {extent}")
            scalar = test if scalar is None else function.value(f"and i1 {scalar}, {test}")
        else:
            where = lanes.binary("add", "i64", splat_kind(lanes, "i64", base), frame.lane_numbers(frame.size(along)))
            test = lanes.value(f"icmp ult {lanes.vector('i64')} {where}, {splat_kind(lanes, 'i64', extent)}")
            vector = test if vector is None else lanes.binary("and", "i1", vector, test)
    return scalar, vector


def _all_masks(frame: Frame, *masks: str | None, scalar: str | None) -> str | None:
    lanes = frame.lanes
    parts = [m for m in masks if m is not None] + ([splat_kind(lanes, "i1", scalar)] if scalar is not None else [])
    result = parts[0] if parts else None
    for part in parts[1:]:
        result = lanes.binary("and", "i1", result or "", part)
    return result


# -- reading --
def load(frame: Frame, point: Point, number: int) -> list[str]:
    """The registers that operation `number` reads by its map."""
    address = frame.kernel.ops[number].map
    assert address is not None
    if _is_tile(frame, point, number):
        return _load_tile(frame, point, address)
    steps = point.steps if frame.facts.has(number, frame.choice.unroll) else 1
    return [_load_step(frame, point, number, address, u) for u in range(steps)]


def fetch_ahead(frame: Frame, point: Point, number: int, ahead: Int) -> None:
    """Prefetches what load `number` will read so many elements further on, once per line of the cache."""
    address = frame.kernel.ops[number].map
    assert address is not None
    nbytes = kind_bits(frame.kind(address)) // 8 * frame.lanes.count
    for u in range(0, point.steps, max(1, LINE // nbytes)):
        fetch(frame.function, frame.kind(address), place(frame, point, address, u).pointer, ahead)


def _load_step(frame: Frame, point: Point, number: int, address: Map, u: int) -> str:
    lanes, dtype = frame.lanes, frame.kernel.arguments[address.argument]
    where = place(frame, point, address, u)
    is_uniform = where.offsets is None and where.stride == 0
    guarded: str | None
    if is_uniform and where.vector_guard is None:
        loaded = _load_one(frame, dtype, where.pointer, where.scalar_guard)
        if where.scalar_guard is not None and _fills(address):
            fill = frame.one.constant(dtype, address.fill)
            loaded = frame.one.select(dtype, where.scalar_guard, loaded, fill)
        return lanes.splat(dtype, loaded)
    if is_uniform:
        guarded = _all_masks(frame, where.vector_guard, scalar=where.scalar_guard)
        some = lanes.any(guarded or "")
        value = lanes.splat(dtype, _load_one(frame, dtype, where.pointer, some))
        return lanes.select(dtype, guarded or "", value, lanes.constant(dtype, address.fill))
    mask = point.mask if frame.facts.has(number, frame.choice.lanes) else None
    guarded = _all_masks(frame, mask, where.vector_guard, scalar=where.scalar_guard)
    value = lanes.load_convert(dtype, _load_vector(frame, dtype, where, guarded))
    if address.guards and _fills(address) and guarded is not None:
        value = lanes.select(dtype, guarded, value, lanes.constant(dtype, address.fill))
    return value


def _fills(address: Map) -> bool:
    return repr(address.fill) not in ("0", "0.0", "False")


def _load_one(frame: Frame, dtype: str, pointer: str, guard: str | None) -> str:
    """One element; where `guard` does not hold, zero."""
    kind = MEMORY[dtype]
    if guard is not None:
        frame.function.module.add_global(ZERO, f"@{ZERO} = internal constant i64 0")
        pointer = frame.function.value(f"select i1 {guard}, ptr {pointer}, ptr @{ZERO}")
    loaded = frame.function.value(f"load {kind}, ptr {pointer}, align {kind_bits(kind) // 8}")
    return frame.one.load_convert(dtype, loaded)


def _load_vector(frame: Frame, dtype: str, where: Place, mask: str | None) -> str:
    """A vector in the memory type; lanes outside the mask are zero.

    With a small stride whole vectors are read, the last of which ends at the last element wanted.
    """
    lanes, kind = frame.lanes, MEMORY[dtype]
    vector = lanes.vector(kind)
    if where.offsets is None and where.stride == 1:
        return _contiguous(lanes, kind, where.pointer, mask)
    if where.offsets is None and where.stride == -1:
        pointer = frame.function.element(kind, where.pointer, 1 - lanes.count)
        mask = reversed_lanes(lanes, "i1", mask) if mask is not None else None
        return reversed_lanes(lanes, kind, _contiguous(lanes, kind, pointer, mask))
    if where.offsets is None and mask is None and isinstance(where.stride, int) and 2 <= where.stride <= 4:
        starts = [k * lanes.count for k in range(where.stride - 1)] + [(lanes.count - 1) * (where.stride - 1)]
        pieces = [_contiguous(lanes, kind, frame.function.element(kind, where.pointer, at), None) for at in starts]
        return every_nth(lanes, kind, pieces, starts, where.stride)
    pointers = _lane_pointers(frame, kind, where)
    name = f"llvm.masked.gather.{lanes.mangled(kind)}.v{lanes.count}p0"
    size = kind_bits(kind) // 8
    lanes.function.module.declare(f"{vector} @{name}({lanes.vector('ptr')}, {lanes.vector('i1')}, {vector})")
    return lanes.value(f"call {vector} @{name}({lanes.vector('ptr')} align {size} {pointers}, {lanes.vector('i1')} "
                       f"{mask or lanes.literal('i1', 1)}, {vector} zeroinitializer)")


def _contiguous(lanes: Lanes, kind: str, pointer: str, mask: str | None) -> str:
    vector, size = lanes.vector(kind), kind_bits(kind) // 8
    if mask is None:
        return lanes.value(f"load {vector}, ptr {pointer}, align {size}")
    name = f"llvm.masked.load.{lanes.mangled(kind)}.p0"
    masks = lanes.vector("i1")
    lanes.function.module.declare(f"{vector} @{name}(ptr, {masks}, {vector})")
    return lanes.value(f"call {vector} @{name}(ptr align {size} {pointer}, {masks} {mask}, {vector} zeroinitializer)")


def _lane_pointers(frame: Frame, kind: str, where: Place) -> str:
    """Narrow constant offsets let the machine use its gather with 32-bit indices."""
    lanes, stride = frame.lanes, where.stride
    if where.offsets is None and isinstance(stride, int) and abs(stride) * lanes.count < NARROW:
        numbers = lane_numbers(lanes, "i32", stride)
        return lanes.value(f"getelementptr {kind}, ptr {where.pointer}, {lanes.vector('i32')} {numbers}")
    offsets = where.offsets if where.offsets is not None else frame.lane_numbers(stride)
    return lanes.value(f"getelementptr {kind}, ptr {where.pointer}, {lanes.vector('i64')} {offsets}")


# -- tiles, transposed in registers --
def _is_tile(frame: Frame, point: Point, number: int) -> bool:
    """Contiguous along the steps and not along the lanes, and at least half as many steps as lanes."""
    choice, facts, address = frame.choice, frame.facts, frame.kernel.ops[number].map
    if choice.lanes is None or choice.unroll is None or choice.lanes == choice.unroll or address is None:
        return False
    return (point.mask is None and choice.count <= 2 * point.steps <= 2 * choice.count and not address.indices
            and not address.guards and address.strides[choice.unroll] == 1
            and address.strides[choice.lanes] not in (0, 1)
            and facts.has(number, choice.unroll) and facts.has(number, choice.lanes))


def _tile_rows(frame: Frame, point: Point, address: Map) -> tuple[list[str], str | None]:
    """Where the row of each lane begins, and the mask of its elements where they do not fill a vector."""
    function, count, pointer = frame.function, frame.lanes.count, point.pointers[frame.site(address)]
    assert frame.choice.lanes is not None
    stride = frame.size(address.strides[frame.choice.lanes])
    rows = [function.element(frame.kind(address), pointer, function.mul(stride, lane)) for lane in range(count)]
    return rows, None if point.steps == count else constant_mask(count, point.steps)


def _load_tile(frame: Frame, point: Point, address: Map) -> list[str]:
    lanes, dtype = frame.lanes, frame.kernel.arguments[address.argument]
    rows, mask = _tile_rows(frame, point, address)
    loaded = [_contiguous(lanes, MEMORY[dtype], row, mask) for row in rows]
    columns = transposed(lanes, MEMORY[dtype], loaded)[:point.steps]
    return [lanes.load_convert(dtype, column) for column in columns]


def _store_tile(frame: Frame, point: Point, address: Map, values: Sequence[str]) -> None:
    lanes, dtype = frame.lanes, frame.kernel.arguments[address.argument]
    columns = [lanes.store_convert(dtype, value) for value in values]
    columns = columns * point.steps if len(columns) == 1 else columns
    rows, mask = _tile_rows(frame, point, address)
    padded = columns + ["poison"] * (lanes.count - len(columns))
    for row, value in zip(rows, transposed(lanes, MEMORY[dtype], padded), strict=True):
        _store_vector(frame, MEMORY[dtype], Place(row, 1, None, None, None), mask, value)


# -- writing --
def store(frame: Frame, point: Point, number: int, values: Sequence[str]) -> None:
    address = frame.kernel.ops[number].map
    assert address is not None
    if _is_tile(frame, point, number):
        _store_tile(frame, point, address, values)
        return
    steps = point.steps if frame.facts.has(number, frame.choice.unroll) else 1
    for u in range(steps):
        where = place(frame, point, address, u)
        _store_step(frame, point, number, where, values[u if len(values) > 1 else 0])


def accumulate(frame: Frame, point: Point, number: int, values: Sequence[str]) -> None:
    """Reads, adds and writes step by step: what a later step adds to may be what this one wrote."""
    op = frame.kernel.ops[number]
    address = op.map
    assert address is not None
    dtype = frame.kernel.arguments[address.argument]
    for u in range(point.steps if frame.facts.has(number, frame.choice.unroll) else 1):
        where = place(frame, point, address, u)
        value = values[u if len(values) > 1 else 0]
        before = _load_step(frame, point, number, replace(address, fill=0), u)
        lanes = frame.lanes
        add = "or" if dtype == "bool" else "fadd" if dtype in FLOATS else "add"
        _store_step(frame, point, number, where, lanes.value(f"{add} {lanes.type(dtype)} {before}, {value}"))


def _store_step(frame: Frame, point: Point, number: int, where: Place, value: str) -> None:
    lanes, address = frame.lanes, frame.kernel.ops[number].map
    assert address is not None
    dtype = frame.kernel.arguments[address.argument]
    in_lanes = frame.facts.has(number, frame.choice.lanes)
    if where.offsets is None and where.stride == 0:
        if where.vector_guard is not None:
            raise Unsupported(f"{frame.kernel.ops[number].kind}: a guard along axis {frame.choice.lanes}, "
                              "along which one element is written (code generation)")
        _store_one(frame, dtype, where, value)
        return
    converted = lanes.store_convert(dtype, value)
    mask = _all_masks(frame, point.mask if in_lanes else None, where.vector_guard, scalar=where.scalar_guard)
    if number == frame.streamed and mask is None:
        align = aligned_bytes(frame, MEMORY[dtype])
        frame.function.emit(f"store {lanes.memory_type(dtype)} {converted}, ptr {where.pointer}, align {align}, "
                            "!nontemporal !0")
        return
    _store_vector(frame, MEMORY[dtype], where, mask, converted)


def aligned_bytes(frame: Frame, kind: str) -> int:
    """The alignment of stores that go past the caches: a vector, or a register of several that make it up."""
    return min(kind_bits(kind) // 8 * frame.lanes.count, frame.lanes.target.vector_bits // 8)


def _store_one(frame: Frame, dtype: str, where: Place, value: str) -> None:
    function, kind = frame.function, MEMORY[dtype]
    single = frame.one.store_convert(dtype, first_lane(frame, frame.one.type(dtype), value))
    text = f"store {kind} {single}, ptr {where.pointer}, align {kind_bits(kind) // 8}"
    if where.scalar_guard is not None:
        function.when(where.scalar_guard, lambda: function.emit(text))
    else:
        function.emit(text)


def _store_vector(frame: Frame, kind: str, where: Place, mask: str | None, value: str) -> None:
    lanes, function, size = frame.lanes, frame.function, kind_bits(kind) // 8
    vector, masks = lanes.vector(kind), lanes.vector("i1")
    pointer = where.pointer
    if where.offsets is None and where.stride == -1:
        pointer = function.element(kind, pointer, 1 - lanes.count)
        value = reversed_lanes(lanes, kind, value)
        mask = reversed_lanes(lanes, "i1", mask) if mask is not None else None
    if where.offsets is None and where.stride in (1, -1):
        if mask is None:
            function.emit(f"store {vector} {value}, ptr {pointer}, align {size}")
            return
        name = f"llvm.masked.store.{lanes.mangled(kind)}.p0"
        function.module.declare(f"void @{name}({vector}, ptr, {masks})")
        function.emit(f"call void @{name}({vector} {value}, ptr align {size} {pointer}, {masks} {mask})")
        return
    pointers, kinds = _lane_pointers(frame, kind, where), lanes.vector("ptr")
    name = f"llvm.masked.scatter.{lanes.mangled(kind)}.v{lanes.count}p0"
    function.module.declare(f"void @{name}({vector}, {kinds}, {masks})")
    mask = mask or lanes.literal("i1", 1)
    function.emit(f"call void @{name}({vector} {value}, {kinds} align {size} {pointers}, {masks} {mask})")
