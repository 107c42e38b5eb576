"""Groups -> kernels: the scalar SSA list of every loop nest.

    group: max1, z, y over (batch, 10)          %0 = load x          %4 = exp %3
                                                %1 = reduce max %0   %5 = keep -> y
                                         ->     %2 = load x          %6 = reduce add %5
                                                %3 = sub %2 %1       %7 = div %5 %6      store y %7

A builder turns (node, coordinates) into an operation once; coordinates compose through movement ops (`coordinates`), so
broadcasts, transposes, slices and gathers leave no trace but the maps of loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphc.ir.costs import weight
from graphc.ir.dims import Dim, product
from graphc.ir.errors import Unsupported
from graphc.ir.node import Node, uniform_value
from graphc.ir.plan import Contraction, Kernel, KernelOp, Map
from graphc.ir.types import is_integer

from .coordinates import Coordinate, Coordinates, IndexRead, axis, flattened, identity, operand_coordinates, row_major
from .groups import Group, iteration_space, operand_places, through_reshapes
from .roots import CHEAP, REDUCTIONS, is_count, is_known, label_sizes, storage, without_casts

Shape = tuple["int | Dim", ...]
MONOIDS = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "any", "all": "all", "argmax": "argmax",
           "argmin": "argmin", "einsum": "add"}
WIDE = {"float16": "float32", "bfloat16": "float32"}  # what sums are accumulated in
MOVED = frozenset({"broadcast", "transpose", "slice", "reshape", "gather", "stop_gradient", "identity"})


@dataclass(frozen=True, eq=False)
class Scratch:
    """A row buffer of a kernel for values that a later pass reads back."""

    owner: Node
    dtype: str
    shape: Shape
    number: int


Place = Node | Scratch  # what a kernel's argument is bound to: a root, a leaf, or a scratch row


@dataclass(frozen=True, eq=False)
class Draft:
    """A step whose buffers are still nodes."""

    kernel: Kernel | Contraction
    places: tuple[Place, ...]
    writes: tuple[Node, ...]
    label: str
    indices: tuple[tuple[Node, int | Dim, Node], ...] = ()  # (index buffer, extent, the op that reads by it)

    @property
    def index_buffers(self) -> tuple[Node, ...]:
        return tuple(held for held, _, _ in self.indices)

    def reads(self) -> list[Place]:
        loaded = {op.map.argument for op in self.kernel.ops if op.map and op.kind in ("load", "accumulate")}
        if isinstance(self.kernel, Contraction):
            loaded |= {self.kernel.a.argument, self.kernel.b.argument}
        return [self.places[k] for k in sorted(loaded)]


class Builder:
    """A kernel under construction over `extents`."""

    def __init__(self, extents: Shape, roots: set[Node]) -> None:
        self.extents = extents
        self.roots = roots
        self.ops: list[KernelOp] = []
        self.places: list[Place] = []
        self.known: dict[Any, int] = {}
        self.indices: dict[tuple[int, int | Dim], tuple[Node, int | Dim, Node]] = {}

    # -- pieces --
    def put(self, kind: str, operands: Sequence[int] = (), dtype: str = "float32", map: Map | None = None,
            value: Any = None) -> int:
        op = KernelOp(kind, tuple(operands), dtype, map, value)
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
        pending: list[tuple[Node, Coordinates]] = [(node, at)]
        while pending:
            one, where = pending[-1]
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
                pending += reversed(missing)
                continue
            self.known[one, where] = self.computed(one, [self.known[n] for n in needed])
            pending.pop()
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


COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite"})


def row_places(group: Group) -> Coordinates:
    return tuple(axis(k, len(group.domain)) for k in group.kept)


def loop_kernel(group: Group, roots: set[Node], stored: set[Node]) -> Draft:
    """The kernel of a group of elementwise roots and reductions; `stored` are the roots read elsewhere."""
    builder = Builder(group.domain, roots)
    full = identity(len(group.domain))
    reduced = tuple(sorted(group.reduced))
    values: list[tuple[Node, int, Coordinates]] = []
    for root in group.roots:
        space, own_axes = iteration_space(root)
        if (root.op.name in REDUCTIONS and not is_count(root)) or root.op.name == "einsum":
            number, at = builder.reduced(root, full, tuple(sorted(own_axes))), row_places(group) if own_axes else full
        else:
            at = full if space == group.domain and not (group.reduced and space == group.row_shape) else row_places(group)
            number = root_value(builder, root, at)
        builder.known[root, at] = number
        values.append((root, number, at))
    for root, number, at in values:
        if root in stored:
            builder.store(root, number, at)
    scratch = keep_dear_values(builder, reduced, group.roots[0])
    places = (*builder.places, *scratch) if scratch else tuple(builder.places)
    return finished(builder, tuple(places), tuple(r for r in group.roots if r in stored), group.roots)


def root_value(builder: Builder, root: Node, at: Coordinates) -> int:
    """The value of an elementwise or movement root, from its operands."""
    if is_known(root):
        return builder.known_value(root)
    if root.op.name == "iota":
        return builder.position(at[root.attrs["axis"]], root.dtype)
    if root.op.name == "reshape" and storage(root.operands[0], builder.roots) is not None:
        held = storage(root.operands[0], builder.roots)
        assert held is not None
        return builder.put("load", (), root.dtype, builder.map(held, builder.address(at, root.shape)))
    needed = builder.operands_of(root, at)
    return builder.computed(root, [builder.value(n, where) for n, where in needed])


def finished(builder: Builder, places: tuple[Place, ...], writes: tuple[Node, ...], roots: Sequence[Node]) -> Draft:
    dtypes = tuple(p.dtype for p in places)
    label = "+".join(dict.fromkeys(r.op.name for r in roots))
    return Draft(Kernel(builder.extents, dtypes, tuple(builder.ops)), places, writes, label,
                 tuple(builder.indices.values()))


# -- values that a later pass over the row needs again --
def passes_of(ops: Sequence[KernelOp]) -> list[int]:
    """For each op the pass over the reduced axes in which it can first be computed."""
    found: list[int] = []
    for op in ops:
        inputs = [found[k] for k in op.operands] + [found[k] for k, _, _ in (op.map.indices if op.map else ())]
        found.append(max(inputs, default=0) + (op.kind == "reduce"))
    return found


def keep_dear_values(builder: Builder, reduced: tuple[int, ...], owner: Node) -> list[Scratch]:
    """Inserts a `keep` for values that are dear to compute and used in a later pass as well; returns the scratch rows."""
    first = passes_of(builder.ops)
    if max(first, default=0) == 0:
        return []
    spread = axes_of(builder, reduced)
    scratch: list[Scratch] = []
    price: list[float] = []
    chosen: list[tuple[int, int]] = []
    for number, op in enumerate(builder.ops):
        own = 0.0 if number in dict(chosen) else weight(op.kind)
        price.append(own + sum(price[k] for k in set(op.operands) if spread[k]) if spread[number] else 0.0)
        last = last_pass(builder.ops, first, number)
        if spread[number] and op.kind not in ("load", "store", "reduce") and price[number] > CHEAP and last > first[number]:
            chosen.append((number, last))
            price[number] = 1.0
    for number, last in reversed(chosen):
        insert_keep(builder, number, last, first, reduced, owner, scratch)
    return scratch


def axes_of(builder: Builder, reduced: tuple[int, ...]) -> list[bool]:
    """Whether each op's value varies along the reduced axes."""
    found: list[bool] = []
    for op in builder.ops:
        varies = any(found[k] for k in op.operands) and op.kind != "reduce"
        if op.map and op.kind == "load":
            varies = any(op.map.strides[a] != 0 for a in reduced) or any(found[k] for k, _, _ in op.map.indices)
        found.append(varies or (op.kind == "iota" and op.value in reduced))
    return found


def last_pass(ops: Sequence[KernelOp], first: list[int], number: int) -> int:
    return max((first[k] - (op.kind == "reduce") for k, op in enumerate(ops) if number in op.operands), default=0)


def insert_keep(builder: Builder, number: int, last: int, first: list[int], reduced: tuple[int, ...], owner: Node,
                scratch: list[Scratch]) -> None:
    op = builder.ops[number]
    target = next((o.map for k, o in enumerate(builder.ops) if o.kind == "store" and o.dtype == op.dtype and o.map
                   and first[k] >= last and all(o.map.strides[a] != 0 for a in reduced)
                   and not any(p.kind == "keep" and p.map == o.map for p in builder.ops)), None)
    if target is None:
        shape = tuple(builder.extents[a] for a in reduced)
        strides: list[int | Dim] = [0] * len(builder.extents)
        for a, stride in zip(reduced, row_major(shape)):
            strides[a] = stride
        row = Scratch(owner, op.dtype, shape, len(scratch))
        scratch.append(row)
        target = Map(len(builder.places) + len(scratch) - 1, 0, tuple(strides))
    kept = KernelOp("keep", (number,), op.dtype, target)

    def moved(k: int) -> int:
        return k if k < number else number + 1 if k == number else k + 1

    later = [replace(o, operands=tuple(map(moved, o.operands)), map=o.map and replace(o.map, indices=tuple(
        (moved(k), s, e) for k, s, e in o.map.indices))) for o in builder.ops[number + 1:]]
    builder.ops[number + 1:] = [kept, *later]
    first.insert(number + 1, first[number])


# -- ops that write their output piece by piece, and scans --
def zero_kernel(root: Node, roots: set[Node]) -> Draft:
    builder = Builder(root.shape, roots)
    zero = builder.put("const", (), root.dtype, None, 0)
    builder.store(root, zero, identity(root.ndim))
    return finished(builder, tuple(builder.places), (root,), [root])


def piece(root: Node, operand: Node, roots: set[Node], target: list[Coordinate], kind: str = "store") -> Draft:
    """A kernel over the operand's axes that writes it to those coordinates of the root."""
    builder = Builder(operand.shape, roots)
    number = builder.value(operand, identity(operand.ndim))
    builder.store(root, number, tuple(target), kind)
    return finished(builder, tuple(builder.places), (root,), [root])


def piecewise_kernels(root: Node, roots: set[Node]) -> list[Draft]:
    x = root.operands[0]
    own = identity(x.ndim)
    if root.op.name == "concat":
        drafts, start = [], 0
        for operand in root.operands:
            at = list(identity(operand.ndim))
            at[root.attrs["axis"]] = at[root.attrs["axis"]].scaled(1, start)
            drafts.append(piece(root, operand, roots, at))
            start = start + operand.shape[root.attrs["axis"]]
        return drafts
    if root.op.name == "pad":
        at = [c.scaled(step, begin) for c, begin, step in zip(own, root.attrs["starts"], root.attrs["steps"])]
        return [zero_kernel(root, roots), piece(root, x, roots, at)]
    if root.op.name == "diagonal":
        source = {k: own[i] for i, axes in enumerate(root.attrs["axes"]) for k in axes}
        return [zero_kernel(root, roots), piece(root, x, roots, [source[k] for k in range(root.ndim)])]
    if root.op.name == "scatter_add":
        return [zero_kernel(root, roots), scatter_piece(root, roots)]
    return [scan_kernel(root, roots)]


def scatter_piece(root: Node, roots: set[Node]) -> Draft:
    u = root.operands[0]
    place = dict(zip(root.attrs["out"], identity(u.ndim)))
    zero = (0,) * u.ndim

    def target(label: Any, size: int | Dim) -> Coordinate:
        if isinstance(label, int):
            return place[label]
        at = tuple(place[x] for x in root.attrs["index_labels"][label[1]])
        return Coordinate(0, zero, ((IndexRead(root.operands[1 + label[1]], at, size, root), 1),))

    return piece(root, u, roots, [target(x, n) for x, n in zip(root.attrs["x_labels"], root.shape)], "accumulate")


def scan_kernel(root: Node, roots: set[Node]) -> Draft:
    builder = Builder(root.shape, roots)
    own = identity(root.ndim)
    wide = WIDE.get(root.dtype, root.dtype)
    values = [builder.value(o, own) for o in root.operands]
    if wide != root.dtype:
        values = [builder.put("cast", [v], wide) for v in values]
    number = builder.put("scan", values, wide, None, (root.attrs["axis"], root.attrs["reverse"]))
    if wide != root.dtype:
        number = builder.put("cast", [number], root.dtype)
    builder.store(root, number, own)
    return finished(builder, tuple(builder.places), (root,), [root])


# -- contractions --
def contraction_step(group: Group, roots: set[Node], stored: set[Node]) -> Draft:
    """A matrix product with the group's other roots as its epilogue."""
    matmul = group.roots[0]
    out = matmul.attrs["out"]
    (la, lb), sizes = matmul.attrs["labels"], label_sizes(matmul)
    free = [x for x in out if (x in la) != (x in lb)]
    inner = next(x for x in la if x not in out)
    order = [x for x in out if x not in free] + free
    a, b = matmul.operands if free[0] in la else matmul.operands[::-1]
    labels_a, labels_b = (la, lb) if free[0] in la else (lb, la)
    extents = tuple(sizes[x] for x in order)
    builder = Builder(extents, roots)  # type: ignore[arg-type]
    own = tuple(axis(order.index(x), len(order)) for x in out)
    wide = WIDE.get(matmul.dtype, matmul.dtype)
    number = builder.put("accumulator", (), wide)
    if wide != matmul.dtype:
        number = builder.put("cast", [number], matmul.dtype)
    builder.known[matmul, own] = number
    values = [(matmul, number)]
    for root in group.roots[1:]:
        number = root_value(builder, root, own)
        builder.known[root, own] = number
        values.append((root, number))
    for root, number in values:
        if root in stored:
            builder.store(root, number, own)
    inside = [*order, inner]
    maps = [operand_map(builder, o, labels, inside, sizes) for o, labels in ((a, labels_a), (b, labels_b))]
    kernel = Contraction(extents, sizes[inner], tuple(p.dtype for p in builder.places), wide, *maps,  # type: ignore[arg-type]
                         tuple(builder.ops))
    label = "matmul" + "".join(f"+{r.op.name}" for r in group.roots[1:])
    return Draft(kernel, tuple(builder.places), tuple(r for r in group.roots if r in stored), label,
                 tuple(builder.indices.values()))


def operand_map(builder: Builder, operand: Node, labels: tuple[int, ...], inside: list[int], sizes: Any) -> Map:
    """Where a factor lies, over (*batch, m, n, k)."""
    at: Coordinates = tuple(axis(inside.index(x), len(inside)) for x in labels)
    extents = tuple(sizes[x] for x in inside)
    node = operand
    while (held := storage(node, builder.roots)) is None:
        found = operand_coordinates(node, 0, at, extents)
        if found is None or node.op.name not in MOVED:
            raise Unsupported(f"matmul: operand {operand!r} must lie in a buffer\n  at {operand.loc}")
        node, at = node.operands[0], found
    address = flattened(at, node.shape, len(inside))
    return Map(builder.argument(held), address.offset, address.strides)
