"""Nodes and graphs.

A **node** is immutable: op, operands, attributes, type, and the user's line that made it first.  Nodes are interned in
their graph: building an equal node gives the same object, so a graph holds no duplicates, and what nobody holds is
gone.  An operand is built before its user, hence `operand.id < node.id`, and ascending ids are a topological order.

A **graph** holds placeholders and variables by name, the intern table, and the open name scopes.

Operands must be of one graph.  Constants are equal by bits: 0.0 is not -0.0, and a NaN equals itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
import hashlib
import itertools
import threading
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from .dims import Dim, known_equal, sign
from .errors import DTypeError, GraphError, Loc, ShapeError, user_line
from .plan import DimCheck
from .types import Shape, Type, as_dtype, dtype_name, from_storage, numpy_dtype, shape_text, to_storage

Attrs = Mapping[str, Any]


class Need:
    """Collects what a type rule requires of symbolic sizes; refuses at once what can never hold."""

    def __init__(self) -> None:
        self.checks: list[DimCheck] = []

    def equal(self, a: int | Dim, b: int | Dim, what: str) -> int | Dim:
        """Requires a == b; returns the one that is known better."""
        verdict = known_equal(a, b)
        if verdict is False:
            raise ShapeError(f"{what}: {a} and {b} differ")
        if verdict is None:
            self.checks.append(DimCheck("==", a, b, what))
        return b if isinstance(b, int) else a

    def same_shape(self, a: Shape, b: Shape, what: str) -> Shape:
        if len(a) != len(b):
            raise ShapeError(f"{what}: shapes {shape_text(a)} and {shape_text(b)} differ in rank")
        return tuple(self.equal(x, y, f"{what}: shapes {shape_text(a)} and {shape_text(b)}") for x, y in zip(a, b))

    def at_least(self, a: int | Dim, b: int | Dim, what: str) -> None:
        """Requires a >= b."""
        gap = a - b
        if isinstance(gap, int):
            if gap < 0:
                raise ShapeError(f"{what}: {a} is less than {b}")
        elif sign(gap) != 1:
            self.checks.append(DimCheck(">=", a, b, what))


class Infer(Protocol):
    """Type rule: the type of the result, from operand types and attributes; raises ShapeError, DTypeError."""

    def __call__(self, need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type: ...


@dataclass(frozen=True)
class Op:
    """A row of the op table: everything the program knows about an op.

    `reference(attrs, type, *arrays)` is the NumPy meaning.  The derivative is declared once: elementwise ops give
    `partials`, one per operand, built from the graph API as `partial(result, *operands)` or None where the op is
    constant in it; other ops give `maps(node)`, one linear map per operand, or None for those.
    """

    name: str
    kind: str  # leaf, elementwise, structural
    infer: Infer
    reference: Callable[..., Any]
    partials: tuple[Callable[..., Any] | None, ...] | None = None
    maps: Callable[[Node], Sequence[Any]] | None = None
    commutative: bool = False
    sympy: Callable[..., Any] | None = None  # elementwise: the same function of sympy expressions
    # elementwise: operand and result dtypes by NumPy's promotion; an operand is a dtype name, or int, float if weak
    rule: Callable[[tuple[Any, ...]], tuple[tuple[str, ...], str]] | None = None
    doc: str = ""


OPS: dict[str, Op] = {}  # the op table; filled by the modules of graphc.ir.ops
METHODS: dict[str, Callable[..., Node]] = {}  # what the methods and operators of Node call; filled by graphc.functions


class Bits:
    """An array as an attribute: equal by dtype, shape and bits."""

    __slots__ = ("array", "dtype", "hash", "name")

    def __init__(self, array: np.ndarray[Any, Any], dtype: str) -> None:
        self.array = np.array(array, numpy_dtype(dtype), order="C")  # a copy that nobody else can change
        self.array.flags.writeable = False
        self.dtype = dtype
        self.hash = hash((dtype, self.array.shape, self.array.tobytes()))
        self.name = ""

    @property
    def key(self) -> str:
        """A name by content, the same in every process."""
        if not self.name:
            digest = hashlib.sha256(f"{self.dtype}{self.array.shape}".encode())
            digest.update(to_storage(self.array, self.dtype).tobytes())
            self.name = digest.hexdigest()[:24]
        return self.name

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Bits) and self.hash == other.hash and self.dtype == other.dtype
                and self.array.shape == other.array.shape and self.array.tobytes() == other.array.tobytes())

    def __repr__(self) -> str:
        return f"Bits({self.dtype}{list(self.array.shape)})"


def _operator(name: str) -> Callable[[Node, Any], Node]:
    def method(self: Node, other: Any) -> Node:
        return METHODS[name](self, other)
    return method


def _reflected(name: str) -> Callable[[Node, Any], Node]:
    def method(self: Node, other: Any) -> Node:
        return METHODS[name](other, self)
    return method


def _method(name: str) -> Callable[..., Node]:
    def method(self: Node, *args: Any, **kwargs: Any) -> Node:
        return METHODS[name](self, *args, **kwargs)
    return method


class Node:
    """A vertex of a static graph: a value that will exist at run time.

    Has NumPy's operators, and the methods `sum mean max min prod var std argmax argmin any all reshape transpose T
    astype ravel squeeze dot cumsum cumprod clip round take repeat`, with NumPy's arguments.
    """

    __slots__ = ("__weakref__", "attrs", "checks", "elements", "graph", "id", "loc", "op", "operands", "origins",
                 "scope", "type")

    op: Op
    operands: tuple[Node, ...]
    attrs: Attrs
    type: Type
    loc: Loc
    graph: Graph
    id: int
    checks: tuple[DimCheck, ...]
    scope: str
    elements: int | Dim  # the size, once somebody has asked for it
    origins: tuple[Any, ...]  # what it is the derivative of, if it was made as one (graphc.origins)

    __array_ufunc__ = None  # NumPy operands leave their operators to ours
    __hash__ = object.__hash__

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    @property
    def size(self) -> int | Dim:
        try:
            return self.elements
        except AttributeError:
            self.elements = self.type.size
            return self.elements

    @property
    def name(self) -> str:
        """The user's name of a placeholder or variable, else op and number."""
        return str(self.attrs["name"]) if "name" in self.attrs else f"{self.op.name}_{self.id}"

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.name}: {self.type} at {self.loc}>"

    def __bool__(self) -> bool:
        raise GraphError(f"the truth of {self!r} is not known before run time; use gc.where for a choice by value, "
                         "or `is` to ask whether two nodes are the same")

    def __iter__(self) -> Iterator[Node]:
        if not self.shape or not isinstance(self.shape[0], int):
            raise GraphError(f"cannot iterate over {self!r}: its first axis is not of a known length")
        return iter([self[i] for i in range(self.shape[0])])

    def __len__(self) -> int:
        if not self.shape or not isinstance(self.shape[0], int):
            raise TypeError(f"len() of {self!r}: the length is not known before run time")
        return self.shape[0]

    def __float__(self) -> float:
        raise GraphError(f"{self!r} has no value before run time; fetch it with Session.run")

    __int__ = __float__
    __index__ = __float__

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise GraphError(f"{self!r} has no value before run time: use graphc's functions (gc.exp, gc.sum, ..) on it, "
                         "or fetch it with Session.run")

    def __getitem__(self, index: Any) -> Node:
        return METHODS["getitem"](self, index)

    @property
    def T(self) -> Node:
        return METHODS["transpose"](self)

    def transpose(self, *axes: Any) -> Node:
        return METHODS["transpose"](self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None)

    def reshape(self, *shape: Any) -> Node:
        return METHODS["reshape"](self, shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, Dim)) else shape)

    def astype(self, dtype: Any) -> Node:
        return METHODS["cast"](self, dtype)

    # -- operators, by NumPy's rules --
    __add__ = _operator("add")
    __radd__ = _reflected("add")
    __sub__ = _operator("subtract")
    __rsub__ = _reflected("subtract")
    __mul__ = _operator("multiply")
    __rmul__ = _reflected("multiply")
    __truediv__ = _operator("divide")
    __rtruediv__ = _reflected("divide")
    __floordiv__ = _operator("floor_divide")
    __rfloordiv__ = _reflected("floor_divide")
    __mod__ = _operator("mod")
    __rmod__ = _reflected("mod")
    __pow__ = _operator("power")
    __rpow__ = _reflected("power")
    __matmul__ = _operator("matmul")
    __rmatmul__ = _reflected("matmul")
    __and__ = _operator("bitwise_and")
    __rand__ = _reflected("bitwise_and")
    __or__ = _operator("bitwise_or")
    __ror__ = _reflected("bitwise_or")
    __xor__ = _operator("bitwise_xor")
    __rxor__ = _reflected("bitwise_xor")
    __lshift__ = _operator("left_shift")
    __rlshift__ = _reflected("left_shift")
    __rshift__ = _operator("right_shift")
    __rrshift__ = _reflected("right_shift")
    __lt__ = _operator("less")
    __le__ = _operator("less_equal")
    __gt__ = _operator("greater")
    __ge__ = _operator("greater_equal")
    __eq__ = _operator("equal")  # type: ignore[assignment]
    __ne__ = _operator("not_equal")  # type: ignore[assignment]
    __neg__ = _method("negative")
    __pos__ = _method("positive")
    __abs__ = _method("absolute")
    __invert__ = _method("invert")

    # -- NumPy's methods --
    sum = _method("sum")
    mean = _method("mean")
    max = _method("max")
    min = _method("min")
    prod = _method("prod")
    var = _method("var")
    std = _method("std")
    argmax = _method("argmax")
    argmin = _method("argmin")
    any = _method("any")
    all = _method("all")
    ravel = _method("ravel")
    squeeze = _method("squeeze")
    dot = _method("dot")
    cumsum = _method("cumsum")
    cumprod = _method("cumprod")
    clip = _method("clip")
    round = _method("round")
    take = _method("take")
    repeat = _method("repeat")


@dataclass(eq=False)
class Graph:
    """Placeholders, variables and the nodes built from them.  As a context manager it is the default graph inside."""

    placeholders: dict[str, Node] = field(default_factory=dict)
    variables: dict[str, Node] = field(default_factory=dict)
    initial: dict[str, Any] = field(default_factory=dict)  # variable name -> array, or initialiser to call
    interned: WeakValueDictionary[Any, Node] = field(default_factory=WeakValueDictionary)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    scopes: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)

    def __enter__(self) -> Graph:
        STACK.graphs.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        STACK.graphs.remove(self)

    @property
    def scope(self) -> str:
        return "".join([f"{name}/" for name in self.scopes]) if self.scopes else ""

    @contextmanager
    def name_scope(self, name: str) -> Iterator[str]:
        """Names and drawings inside carry the prefix `name/`."""
        self.scopes.append(name)
        try:
            yield self.scope
        finally:
            self.scopes.pop()

    def unique_name(self, given: str | None, kind: str) -> str:
        """The scoped name; a name that the user chose must be new."""
        taken = self.placeholders.keys() | self.variables.keys()
        if given is None:
            return next(n for i in itertools.count() if (n := f"{self.scope}{kind}{f'_{i}' if i else ''}") not in taken)
        full = self.scope + given
        if full in taken:
            old = self.placeholders[full] if full in self.placeholders else self.variables[full]
            raise GraphError(f"{kind}: the name {full!r} is taken by {old!r}; choose another, or use gc.name_scope")
        return full


class _Stack(threading.local):
    def __init__(self) -> None:
        self.graphs: list[Graph] = [Graph()]
        self.locs: list[tuple[Loc, str]] = []


STACK = _Stack()


def default_graph() -> Graph:
    return STACK.graphs[-1]


def reset_default_graph() -> Graph:
    """Starts a new default graph; refused inside a `with graph:` block."""
    if len(STACK.graphs) != 1:
        raise GraphError("reset_default_graph inside a `with graph:` block: leave the block first")
    STACK.graphs[0] = Graph()
    return STACK.graphs[0]


@contextmanager
def located(node: Node) -> Iterator[None]:
    """Nodes built inside carry the location and scope of `node`: a rewritten node still names the user's line."""
    STACK.locs.append((node.loc, node.scope))
    try:
        yield
    finally:
        STACK.locs.pop()


def make(name: str, operands: Iterable[Node] = (), /, graph: Graph | None = None, **attrs: Any) -> Node:
    """The node of op `name` on these operands.  Raises GraphError naming the op, the operands and the user's line."""
    operands = tuple(operands)
    graph = graph or graph_of(name, operands)
    op = OPS[name]
    key = (name, tuple([o.id for o in operands]), tuple(attrs.items()))
    found = graph.interned.get(key)
    if found is not None:
        return found
    loc, scope = STACK.locs[-1] if STACK.locs else (user_line(), graph.scope)
    need = Need()
    try:
        kind = op.infer(need, tuple([o.type for o in operands]), attrs)
    except GraphError as fault:
        raise type(fault)(f"{name}: {fault}\n  at {loc}" + operand_lines(operands)) from None
    node = Node()
    node.op, node.operands, node.attrs, node.type, node.loc = op, operands, attrs, kind, loc
    node.graph, node.scope = graph, scope
    node.checks = tuple([DimCheck(c.relation, c.a, c.b, f"{name}: {c.message}\n  at {loc}{operand_lines(operands)}")
                         for c in need.checks])
    with graph.lock:
        node.id = next(graph.numbers)
        return graph.interned.setdefault(key, node)


def operand_lines(operands: Sequence[Node]) -> str:
    """Where the operands came from, for error messages."""
    return "".join(f"\n  operand {i}: {o.type} {o.name} from {o.loc}" for i, o in enumerate(operands))


def graph_of(name: str, operands: Sequence[Node]) -> Graph:
    """The one graph of the operands."""
    for o in operands:
        if not isinstance(o, Node):
            raise GraphError(f"{name}: expected a node, got {type(o).__name__} {o!r:.60}\n  at {user_line()}")
        if o.graph is not operands[0].graph:
            raise GraphError(f"{name}: operands of two graphs\n  at {user_line()}{operand_lines(operands)}\n"
                             "build them inside the same `with graph:` block")
    return operands[0].graph if operands else default_graph()


# -- leaves --
def constant(value: Any, dtype: Any = None, graph: Graph | None = None) -> Node:
    """A node of a fixed value.

    Example::

        >>> import graphc as gc
        >>> gc.constant([1.0, 2.0], "float32").type
        Type(dtype='float32', shape=(2,))
    """
    if isinstance(value, Node):
        return value
    if dtype is None:
        try:
            dtype = dtype_name(np.asarray(value).dtype)
        except TypeError as fault:
            raise DTypeError(f"constant: {fault}\n  at {user_line()}") from None
    name = dtype_name(dtype)
    array = np.asarray(value)
    if name == "bfloat16" and array.dtype == np.uint16:
        array = from_storage(array, name)
    return make("constant", graph=graph, value=Bits(as_dtype(array, name), name))


def uniform_value(node: Node) -> Any | None:
    """The Python number that a constant (or a broadcast of one) holds everywhere, else None."""
    while node.op.name in ("broadcast", "reshape"):
        node = node.operands[0]
    if node.op.name != "constant":
        return None
    array = node.attrs["value"].array
    if array.size == 0 or (array.size > 1 and array.tobytes() != array.flat[:1].tobytes() * array.size):
        return None
    return array.flat[0].item()


# -- walks --
def ancestors(nodes: Iterable[Node]) -> list[Node]:
    """The nodes and all they depend on, operands before users, in the order of their ids."""
    seen: dict[int, Node] = {}
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node.id not in seen:
            seen[node.id] = node
            pending.extend(node.operands)
    return [seen[i] for i in sorted(seen)]


def users(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """Which of the nodes read each of them (once per operand position)."""
    found: dict[Node, list[Node]] = {}
    for node in nodes:
        found.setdefault(node, [])
        for operand in node.operands:
            found.setdefault(operand, []).append(node)
    return found


def path_to(fetch: Node, leaf: Node) -> list[Node]:
    """A shortest path of nodes from `fetch` down to `leaf`, for messages; empty if there is none."""
    before: dict[Node, Node | None] = {fetch: None}
    queue = deque([fetch])
    while queue:
        node = queue.popleft()
        if node is leaf:
            path = [node]
            while (back := before[path[-1]]) is not None:
                path.append(back)
            return path[::-1]
        for operand in node.operands:
            if operand not in before:
                before[operand] = node
                queue.append(operand)
    return []


def replaced(targets: Sequence[Node], new: Mapping[Node, Node]) -> list[Node]:
    """The targets with nodes of `new` in the place of others; what does not depend on them stays the same node."""
    made: dict[Node, Node] = dict(new)
    for node in ancestors(targets):
        if node in made:
            continue
        operands = [made[o] for o in node.operands]
        if all(a is b for a, b in zip(operands, node.operands)):
            made[node] = node
            continue
        with located(node):
            made[node] = make(node.op.name, operands, **node.attrs)
    return [made[t] for t in targets]
