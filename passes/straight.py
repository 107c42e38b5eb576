"""Small static graphs as straight-line code: every element a value of its own, no loops, nothing in between in memory.

    y = sin(x[2]) * w[2]        %0 = load x[0]      %4 = load w[0]    y[0] = %5
                           ->   %1 = load x[1]      %5 = mul %2 %4    ..
                                %2 = sin %0
                                %3 = sin %1

What comes out is kernels without axes (`graphc.ir.plan`).  Equal operations are computed once.  Dear functions that do
not need each other stand side by side, so that code generation can compute them as lanes of one vector; everything else
stands shortly before it is needed.  Long code is cut into kernels of about `PIECE` operations, because the code
generator's time grows with the square of the length; what crosses a cut lies in a row of the arena.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
import math
from typing import Any

import numpy as np

from graphc.ir.costs import HEAVY, weight
from graphc.ir.errors import Loc
from graphc.ir.node import OPS, Node, ancestors
from graphc.ir.plan import Kernel, KernelOp, Map
from graphc.ir.types import Type, numpy_dtype

from .builder import COMPARISONS, Draft, Place, Scratch
from .elements import INDEXED, Elements, expanded, is_expandable
from .roots import is_leaf
from .straight_cost import Call, Floor, straight_cost, worth

MOST_ELEMENTS = 4000  # of all nodes together, before equal ones meet
PIECE = 500  # operations of one kernel
ROUNDED = ("float16", "bfloat16")  # are rounded where they are stored
PASSED_ON = ("identity", "stop_gradient")
COMMUTATIVE = ("add", "mul")
Store = tuple[Node, int, int]  # root, place, row


@dataclass
class Code:
    """Operations so far; an element is the number of a row.  `values[r]` is a constant, (leaf, place) of a load, or the
    parameter of an op."""

    kinds: list[str] = field(default_factory=list)
    operands: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    known: dict[object, int] = field(default_factory=dict)
    locs: list[Loc] = field(default_factory=list)  # the user's lines

    def row(self, key: object, kind: str, operands: tuple[int, ...], dtype: str, value: Any) -> int:
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = len(self.kinds)
            self.kinds.append(kind)
            self.operands.append(operands)
            self.dtypes.append(dtype)
            self.values.append(value)
        return found

    def came_from(self, loc: Loc) -> None:
        """Says so of the rows that have no line yet."""
        self.locs += [loc] * (len(self.kinds) - len(self.locs))

    # -- leaves --
    def number(self, value: Any, like: Node) -> int:
        return self.constant(value, like.dtype)

    def constant(self, value: Any, dtype: str) -> int:
        value = numpy_dtype(dtype).type(value).item()
        return self.row((dtype, repr(value)), "const", (), dtype, value)

    def loads(self, leaf: Node) -> Elements:
        assert isinstance(leaf.size, int)
        return self.listed(leaf, [self.row((leaf, k), "load", (), leaf.dtype, (leaf, k)) for k in range(leaf.size)])

    def constants(self, node: Node) -> Elements:
        return self.listed(node, [self.constant(value, node.dtype) for value in node.attrs["value"].array.flat])

    def is_leaf(self, row: int) -> bool:
        return self.kinds[row] in ("load", "const")

    def listed(self, node: Node, rows: list[int]) -> Elements:
        return np.array(rows, object).reshape(node.shape)

    # -- operations --
    def apply(self, op: str, operands: Sequence[int], like: Node) -> int:
        if op in PASSED_ON:
            return operands[0]
        if op == "user":
            return self.expression(like, operands)
        return self.put(op, tuple(operands), like.dtype, like.attrs.get("order"))

    def expression(self, node: Node, operands: Sequence[int]) -> int:
        """A user's op, step by step."""
        rows = list(operands)
        for name, places, parameter in node.attrs["expression"]:
            if name == "const":
                rows.append(self.constant(parameter, node.dtype))
            else:
                dtype = "bool" if name in COMPARISONS else node.dtype
                rows.append(self.put(name, tuple(rows[k] for k in places), dtype, parameter))
        return rows[-1]

    def put(self, op: str, operands: tuple[int, ...], dtype: str, parameter: Any = None) -> int:
        same = self.simpler(op, operands, dtype)
        if same is not None:
            return same
        key = tuple(sorted(operands)) if op in COMMUTATIVE else operands
        return self.row((op, key, dtype, parameter), op, operands, dtype, parameter)

    def simpler(self, op: str, operands: tuple[int, ...], dtype: str) -> int | None:
        """What the operation is equal to, bit by bit: the folded constant, the other factor of 1, the chosen branch."""
        numbers = [self.values[k] if self.kinds[k] == "const" else None for k in operands]
        if op in ("mul", "div") and numbers[1] == 1 and numbers[1] is not True:
            return operands[0]
        if op == "mul" and numbers[0] == 1 and numbers[0] is not True:
            return operands[1]
        if op == "where" and numbers[0] is not None:
            return operands[1 if numbers[0] else 2]
        if any(n is None for n in numbers) or op in ("cast", "polygamma"):
            return None
        arrays = [np.asarray(n, numpy_dtype(self.dtypes[k])) for n, k in zip(numbers, operands)]
        return self.constant(np.asarray(OPS[op].reference({}, Type(dtype, ()), *arrays)).item(), dtype)

    def fold(self, op: str, terms: Sequence[int], like: Node) -> int:
        """As a balanced tree: its depth, and with it the error of a sum, grows with the logarithm."""
        level = list(terms)
        while len(level) > 1:
            pairs = [self.put(op, (a, b), like.dtype) for a, b in zip(level[::2], level[1::2])]
            level = pairs + level[len(pairs) * 2:]
        return level[0]

    def scan(self, a: int, last: int | None, b: int, like: Node) -> int:
        before = self.constant(0, like.dtype) if last is None else last
        return self.put("add", (self.put("mul", (a, before), like.dtype), b), like.dtype)


# -- what is taken --
def straight_drafts(targets: Sequence[Node], late: Iterable[Node], *, force: bool = False) -> list[Draft] | None:
    """The steps that compute the targets as straight-line code; None where loops pay (`force` asks not) or are needed.

    What is `late` is stored when everything has been read: it may take the place of what was read.
    """
    roots = [t for t in dict.fromkeys(targets) if not is_leaf(t)]
    nodes = ancestors(roots)
    if not roots or not all(map(is_small, nodes)) or sum(map(operations, nodes)) > MOST_ELEMENTS:
        return None
    if not all(root.size for root in roots):
        return None  # an empty result is not stored, and so not made
    code = Code()
    most = math.inf if force else worth(nodes)
    stores = stores_of(code, roots, nodes, most)
    if stores is None or straight_cost(calls(code, stores)) >= most:
        return None
    behind = set(late)
    return Cut(code, [s for s in stores if s[0] not in behind], [s for s in stores if s[0] in behind]).drafts()


def is_small(node: Node) -> bool:
    """Whether it is static, of a dtype whose values are what is stored, and of an op that can be taken apart."""
    if node.dtype in ROUNDED or not isinstance(node.size, int):
        return False
    return node.op.kind == "leaf" or is_expandable(node)


def operations(node: Node) -> int:
    """At most how many operations its elements become."""
    if node.op.name != "einsum":
        return max([int(o.size) for o in (node, *node.operands)])
    sizes = {x: int(n) for labels, o in zip(node.attrs["labels"], node.operands)
             for x, n in zip(labels, o.shape)}
    return int(np.prod(list(sizes.values()), dtype=np.int64)) * len(node.operands)


def stores_of(code: Code, roots: Sequence[Node], nodes: Sequence[Node], most: float) -> list[Store] | None:
    """The elements of the roots as rows; None where an index is known at run time only, or they cost `most`."""
    known: dict[Node, Elements] = {}
    floor = Floor(roots, nodes)
    for node in nodes:
        if node.op.name == "constant":
            known[node] = code.constants(node)
        elif is_leaf(node):
            known[node] = code.loads(node)
        else:
            unread = np.empty(0, object)
            operands = [known[o] if k == 0 or node.op.name not in INDEXED else unread
                        for k, o in enumerate(node.operands)]
            found = expanded(node, code, operands)
            if found is None:
                return None
            known[node] = found
        code.came_from(node.loc)
        if floor.after(code.kinds) >= most:
            return None
    return [(root, k, row) for root in roots for k, row in enumerate(known[root].flat)]


# -- in which order --
@dataclass
class Order:
    """Rows in the order in which they are computed, each once; leaves are had where they are needed."""

    code: Code
    rows: list[int] = field(default_factory=list)
    done: set[int] = field(default_factory=set)

    def need(self, row: int) -> None:
        """The row behind what it is made of, the latest operand first."""
        pending = [row]
        operands, done = self.code.operands, self.done
        while pending:
            one = pending[-1]
            missing = [] if one in done else [o for o in operands[one] if o not in done]
            if missing:
                pending += sorted(set(missing))
                continue
            pending.pop()
            if one not in done:
                done.add(one)
                if not self.code.is_leaf(one):
                    self.rows.append(one)


def live_rows(code: Code, stores: Sequence[Store]) -> list[bool]:
    live = [False] * len(code.kinds)
    for _, _, row in stores:
        live[row] = True
    for row in reversed(range(len(live))):
        if live[row]:
            for o in code.operands[row]:
                live[o] = True
    return live


def calls(code: Code, stores: Sequence[Store]) -> list[Call]:
    """What the code consists of, for its price."""
    live = live_rows(code, stores)
    found = [Call(kind, len(code.operands[row])) for row, kind in enumerate(code.kinds) if live[row]]
    return found + [Call("store", 1)] * len(stores)


def heavy_levels(code: Code, stores: Sequence[Store]) -> list[list[int]]:
    """The dear functions by level: those of one level do not need each other."""
    live = live_rows(code, stores)
    heavy = [is_live and weight(kind) >= HEAVY for is_live, kind in zip(live, code.kinds)]
    level: list[int] = []
    found: list[list[int]] = []
    for row, operands in enumerate(code.operands):
        level.append(max((level[o] + heavy[o] for o in operands), default=0))
        if heavy[row]:
            found += [[] for _ in range(level[row] + 1 - len(found))]
            found[level[row]].append(row)
    return found


def ordered(code: Code, early: Sequence[Store], late: Sequence[Store]) -> list[int | Store]:
    """Rows and the stores that are not late, in the order of the code."""
    order = Order(code)
    for rows in heavy_levels(code, [*early, *late]):
        for row in rows:
            for o in code.operands[row]:
                order.need(o)
        kinds = {kind: k for k, kind in enumerate(dict.fromkeys(code.kinds[row] for row in rows))}
        for row in sorted(rows, key=lambda row: (kinds[code.kinds[row]], code.operands[row])):
            order.need(row)
    found: list[int | Store] = list(order.rows)
    for store in early:
        start = len(order.rows)
        order.need(store[2])
        found += [*order.rows[start:], store]
    start = len(order.rows)
    for store in late:
        order.need(store[2])
    return found + list(order.rows[start:])


# -- kernels --
class Piece:
    """One kernel under construction; `loc` is the line that what is put next belongs to."""

    def __init__(self, code: Code, number: int, loc: Loc) -> None:
        self.code, self.number, self.loc = code, number, loc
        self.ops: list[KernelOp] = []
        self.places: dict[Place, int] = {}
        self.local: dict[int, int] = {}
        self.writes: dict[Node, None] = {}

    def map(self, place: Place, offset: int) -> Map:
        return Map(self.places.setdefault(place, len(self.places)), offset, ())

    def put(self, op: KernelOp) -> int:
        self.ops.append(op)
        return len(self.ops) - 1

    def value(self, row: int) -> int:
        """The row, computed here from rows that are known here."""
        if row not in self.local:
            code = self.code
            kind, dtype, value = code.kinds[row], code.dtypes[row], code.values[row]
            operands = tuple([self.local[o] for o in code.operands[row]])
            place, value = (self.map(*value), None) if kind == "load" else (None, value)
            self.local[row] = self.put(KernelOp(kind, operands, dtype, place, value, self.loc))
        return self.local[row]

    def read(self, row: int, place: Place, offset: int) -> None:
        """The row, computed by an earlier piece."""
        op = KernelOp("load", (), self.code.dtypes[row], self.map(place, offset), None, self.loc)
        self.local[row] = self.put(op)

    def store(self, place: Place, offset: int, row: int) -> None:
        if isinstance(place, Node):
            self.writes[place] = None
        op = KernelOp("store", (self.local[row],), self.code.dtypes[row], self.map(place, offset), None, self.loc)
        self.put(op)

    def draft(self) -> Draft:
        kernel = Kernel((), tuple(place.dtype for place in self.places), tuple(self.ops))
        return Draft(kernel, tuple(self.places), tuple(self.writes), "straight")


class Cut:
    """The code in pieces, and where the rows lie that cross from one to another."""

    def __init__(self, code: Code, early: Sequence[Store], late: Sequence[Store]) -> None:
        self.code, self.late = code, late
        self.pieces = cut(ordered(code, early, late), late)
        self.owner = [*early, *late][0][0]
        self.home = {row: k for k, piece in enumerate(self.pieces) for row in piece if isinstance(row, int)}
        self.rows: dict[int, tuple[Place, int]] = {}  # of what crosses
        self.crossing: list[list[int]] = [[] for _ in self.pieces]
        self.find_crossing()

    def find_crossing(self) -> None:
        home = self.home
        crossing: dict[int, None] = {}
        for k, piece in enumerate(self.pieces):
            needed = [o for item in piece for o in self.sources(item)]
            crossing |= {row: None for row in needed if not self.code.is_leaf(row) and home[row] != k}
        sizes: dict[tuple[int, str], int] = {}
        for row in crossing:
            key = (home[row], self.code.dtypes[row])
            sizes[key] = sizes.get(key, 0) + 1
            self.crossing[home[row]].append(row)
        rows = {key: Scratch(self.owner, key[1], (size,), number) for number, (key, size) in enumerate(sizes.items())}
        at = dict.fromkeys(rows, 0)
        for row in crossing:
            key = (home[row], self.code.dtypes[row])
            self.rows[row] = (rows[key], at[key])
            at[key] += 1

    def sources(self, item: int | Store) -> tuple[int, ...]:
        return self.code.operands[item] if isinstance(item, int) else (item[2],)

    def drafts(self) -> list[Draft]:
        found = []
        for k, items in enumerate(self.pieces):
            piece = Piece(self.code, k, self.owner.loc)
            for at, item in enumerate(items):
                piece.loc = self.code.locs[item] if isinstance(item, int) else item[0].loc
                for row in self.needed_from(items, at):
                    self.fetch(piece, row)
                if isinstance(item, int):
                    piece.value(item)
                else:
                    piece.store(*item)
            for row in self.crossing[k]:
                piece.loc = self.code.locs[row]
                piece.store(*self.rows[row], row)
            found.append(piece.draft())
        return found

    def needed_from(self, items: Sequence[int | Store], at: int) -> list[int]:
        """What an item is made of; in front of dear functions side by side, what all of them are made of."""
        found = list(self.sources(items[at]))
        while self.is_dear(items[at]) and at + 1 < len(items) and self.is_dear(items[at + 1]):
            at += 1
            found += self.sources(items[at])
        return found

    def is_dear(self, item: int | Store) -> bool:
        return isinstance(item, int) and weight(self.code.kinds[item]) >= HEAVY

    def fetch(self, piece: Piece, row: int) -> None:
        """Has the row at hand, where this piece does not compute it."""
        if self.code.is_leaf(row):
            piece.value(row)
        elif row not in piece.local and self.home[row] != piece.number:
            piece.read(row, *self.rows[row])


def cut(items: Sequence[int | Store], late: Sequence[Store]) -> list[list[int | Store]]:
    """Pieces of even length; the late stores stand in the last one, together."""
    count = max(1, -(-len(items) // PIECE))
    size = max(1, -(-len(items) // count))
    pieces = [list(items[k:k + size]) for k in range(0, len(items), size)] or [[]]
    pieces[-1] += late
    return pieces
