"""The scalar SSA list of a kernel under construction.

A builder turns (node, coordinates) into an operation once; coordinates compose through movement ops (`coordinates`), so
broadcasts, transposes, slices and gathers leave no trace but the maps of loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.dims import Dim, product
from graphc.ir.errors import Loc, Unsupported
from graphc.ir.node import Node, uniform_value
from graphc.ir.plan import Contraction, Kernel, KernelOp, Map
from graphc.ir.types import is_integer

from .branches import When
from .coordinates import Coordinate, Coordinates, IndexRead, flattened, operand_coordinates
from .spaces import operand_places, through_reshapes
from .roots import is_count, is_known, storage, without_casts

Shape = tuple["int | Dim", ...]
MONOIDS = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "any", "all": "all", "argmax": "argmax",
           "argmin": "argmin", "einsum": "add"}
WIDE = {"float16": "float32", "bfloat16": "float32"}  # what sums are accumulated in
MOVED = frozenset({"broadcast", "transpose", "slice", "reshape", "gather", "stop_gradient", "identity"})
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite"})


@dataclass(frozen=True, eq=False)
class Scratch:
    """A row buffer of a kernel for values that a later pass reads back."""

    owner: Node
    dtype: str
    shape: Shape
    number: int


@dataclass(frozen=True, eq=False)
class Again:
    """A root that is computed a second time, instead of being kept (`recompute`)."""

    root: Node
    step: int

    @property
    def dtype(self) -> str:
        return self.root.dtype

    @property
    def shape(self) -> Shape:
        return self.root.shape

    @property
    def name(self) -> str:
        return f"{self.root.name} again"


Place = Node | Scratch | Again  # what a kernel's argument is bound to: a root, a leaf, or a scratch row


@dataclass(frozen=True, eq=False)
class Draft:
    """A step whose buffers are still nodes."""

    kernel: Kernel | Contraction
    places: tuple[Place, ...]
    writes: tuple[Node | Again, ...]
    label: str
    indices: tuple[tuple[Node, int | Dim, Node], ...] = ()  # (index buffer, extent, the op that reads by it)
    when: When = ()  # the cases in which it runs

    @property
    def index_buffers(self) -> tuple[Node, ...]:
        return tuple(held for held, _, _ in self.indices)

    def reads(self) -> list[Place]:
        loaded = {op.map.argument for op in self.kernel.ops if op.map and op.kind in ("load", "accumulate")}
        if isinstance(self.kernel, Contraction):
            loaded |= {self.kernel.a.argument, self.kernel.b.argument}
        return [self.places[k] for k in sorted(loaded)]


class Builder:
    """A kernel under construction over `extents`; `loc` is the user's line of what is put next."""

    def __init__(self, extents: Shape, roots: set[Node], loc: Loc) -> None:
        self.extents = extents
        self.roots = roots
        self.loc = loc
        self.ops: list[KernelOp] = []
        self.places: list[Place] = []
        self.known: dict[Any, int] = {}
        self.indices: dict[tuple[int, int | Dim], tuple[Node, int | Dim, Node]] = {}

    # -- pieces --
    def put(self, kind: str, operands: Sequence[int] = (), dtype: str = "float32", map: Map | None = None,
            value: Any = None) -> int:
        op = KernelOp(kind, tuple(operands), dtype, map, value, self.loc)
        if kind in ("store", "accumulate", "keep"):
            self.ops.append(op)
            return len(self.ops) - 1
        key = ("op", op, repr(value))
        if key not in self.known:
            self.ops.append(op)
            self.known[key] = len(self.ops) - 1
        return self.known[key]

    def argument(self, place: Place) -> int:
        for k, known in enumerate(self.places):
            if known is place:
                return k
        self.places.append(place)
        return len(self.places) - 1

    def map(self, place: Place, address: Coordinate) -> Map:
        return Map(self.argument(place), address.offset, address.strides,
                   tuple((self.index(read), stride, read.extent) for read, stride in address.indices))

    def index(self, read: IndexRead) -> int:
        number = self.value(read.node, read.at)
        held = storage(without_casts(read.node), self.roots)
        if held is not None:
            self.indices.setdefault((held.id, read.extent), (held, read.extent, read.user))
        return number if self.ops[number].dtype == "int64" else self.put("cast", [number], "int64")

    def address(self, at: Coordinates, shape: Shape) -> Coordinate:
        return flattened(at, shape, len(self.extents))

    def store(self, root: Node, number: int, at: Coordinates, kind: str = "store") -> None:
        self.put(kind, [number], root.dtype, self.map(root, self.address(at, root.shape)))

    # -- values --
    def value(self, node: Node, at: Coordinates) -> int:
        """The operation that computes the node's element at these coordinates."""
        outside = self.loc
        pending: list[tuple[Node, Coordinates, Loc]] = [(node, at, outside)]
        while pending:
            one, where, self.loc = pending[-1]  # a load belongs to the line that reads
            if (one, where) in self.known:
                pending.pop()
                continue
            leaf = self.leaf(one, where)
            if leaf is not None:
                self.known[one, where] = leaf
                pending.pop()
                continue
            needed = self.operands_of(one, where)
            missing = [n for n in needed if n not in self.known]
            if missing:
                pending += [(*operand, one.loc) for operand in reversed(missing)]
                continue
            self.loc = one.loc
            self.known[one, where] = self.computed(one, [self.known[n] for n in needed])
            pending.pop()
        self.loc = outside
        return self.known[node, at]

    def operands_of(self, node: Node, at: Coordinates) -> list[tuple[Node, Coordinates]]:
        count = 1 if node.op.name == "gather" else len(node.operands)
        return [(node.operands[k], self.at(node, k, at)) for k in range(count)]

    def at(self, node: Node, k: int, at: Coordinates) -> Coordinates:
        found = operand_coordinates(node, k, at, self.extents)
        if found is None:
            raise Unsupported(f"{node.op.name} of {node.operands[0].type} to {node.type}: fusion needs a buffer here"
                              f"\n  at {node.loc}")
        return found

    def leaf(self, node: Node, at: Coordinates) -> int | None:
        """A load, a constant or an index, where the node is one."""
        held = storage(node, self.roots)
        if held is not None:
            place = through_reshapes(node, held, at, self.extents)
            if (held, place) in self.known:  # computed by this very kernel
                return self.known[held, place]
            return self.put("load", (), node.dtype, self.map(held, self.address(at, node.shape)))
        if is_known(node):
            return self.known_value(node)
        if node.op.name == "iota":
            return self.position(at[node.attrs["axis"]], node.dtype)
        return None

    def known_value(self, node: Node) -> int:
        """A uniform constant, or how many equal numbers are summed times one of them."""
        if not is_count(node):
            return self.put("const", (), node.dtype, None, uniform_value(node))
        x = node.operands[0]
        count = self.size(product([x.shape[a] for a in node.attrs["axes"]]))
        wide = "int64" if is_integer(node.dtype) else "float64"
        total = count if wide == "int64" else self.put("cast", [count], wide)
        if uniform_value(x) != 1:
            total = self.put("mul", [total, self.put("const", (), wide, None, uniform_value(x))], wide)
        return total if wide == node.dtype else self.put("cast", [total], node.dtype)

    def position(self, c: Coordinate, dtype: str) -> int:
        """The value of a coordinate."""
        terms = [self.times(self.put("iota", (), "int64", None, k), s) for k, s in enumerate(c.strides) if s != 0]
        terms += [self.times(self.index(read), stride) for read, stride in c.indices]
        if c.offset != 0 or not terms:
            terms.append(self.size(c.offset))
        total = terms[0]
        for term in terms[1:]:
            total = self.put("add", [total, term], "int64")
        return total if dtype == "int64" else self.put("cast", [total], dtype)

    def times(self, number: int, factor: int | Dim) -> int:
        return number if factor == 1 else self.put("mul", [number, self.size(factor)], "int64")

    def size(self, size: int | Dim) -> int:
        return self.put("const", (), "int64", None, size)

    def computed(self, node: Node, operands: list[int]) -> int:
        name = node.op.name
        if name in MOVED:
            return operands[0]
        if name == "user":
            return self.expression(node, operands)
        if node.op.kind != "elementwise":
            raise Unsupported(f"{name}: cannot be computed inside a kernel\n  at {node.loc}")
        return self.put(name, operands, node.dtype, None, node.attrs.get("order"))

    def expression(self, node: Node, operands: list[int]) -> int:
        """A user's op, step by step."""
        values = list(operands)
        for name, arguments, parameter in node.attrs["expression"]:
            kind, dtype = name, "bool" if name in COMPARISONS else node.dtype
            if name == "const":
                values.append(self.put("const", (), node.dtype, None, parameter))
            else:
                values.append(self.put(kind, [values[k] for k in arguments], dtype, None, parameter))
        return values[-1]

    def reduced(self, root: Node, own: Coordinates, axes: tuple[int, ...]) -> int:
        """A reduction or a small contraction as a reduce over the kernel's `axes`."""
        places = operand_places(root, tuple(range(len(own))), self.extents)
        terms = [self.value(o, at) for o, at in zip(root.operands, places) if at is not None]
        wide = WIDE.get(root.operands[0].dtype, root.operands[0].dtype)
        if root.op.name in ("sum", "prod", "einsum") and wide != root.operands[0].dtype:
            terms = [self.put("cast", [t], wide) for t in terms]
        term = terms[0]
        for factor in terms[1:]:
            term = self.put("bitwise_and" if wide == "bool" else "mul", [term, factor], wide)
        monoid = "any" if wide == "bool" and root.op.name in ("sum", "einsum") else MONOIDS[root.op.name]
        if not axes:
            result = term
        else:
            result = self.put("reduce", [term], wide, None, (monoid, axes))
        if root.op.name in ("argmax", "argmin"):
            return self.put("second", [result], "int64") if axes else self.size(0)
        return result if wide == root.dtype else self.put("cast", [result], root.dtype)


def root_value(builder: Builder, root: Node, at: Coordinates) -> int:
    """The value of an elementwise or movement root, from its operands."""
    if is_known(root):
        return builder.known_value(root)
    if root.op.name == "iota":
        return builder.position(at[root.attrs["axis"]], root.dtype)
    if root.op.name == "reshape" and storage(root.operands[0], builder.roots) is not None:
        held = storage(root.operands[0], builder.roots)
        assert held is not None
        place = through_reshapes(root, held, at, builder.extents)
        if (held, place) in builder.known:  # computed by this very kernel
            return builder.known[held, place]
        return builder.put("load", (), root.dtype, builder.map(held, builder.address(at, root.shape)))
    needed = builder.operands_of(root, at)
    return builder.computed(root, [builder.value(n, where) for n, where in needed])


def finished(builder: Builder, places: tuple[Place, ...], writes: tuple[Node, ...], roots: Sequence[Node]) -> Draft:
    dtypes = tuple(p.dtype for p in places)
    label = "+".join(dict.fromkeys(r.op.name for r in roots))
    return Draft(Kernel(builder.extents, dtypes, tuple(builder.ops)), places, writes, label,
                 tuple(builder.indices.values()))
