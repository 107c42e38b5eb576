"""The cheapest bracketing of a chain of linear maps, by dynamic programming over intervals.

    F'[q-1] * ... * F'[1] * F'[0]                         elements are numbered from the right
    C[j,i]  the least cost of the product of elements i..j, the least of
            the element itself, where i = j                          Leaf, in one of the model's modes
            C[j,k+1] + C[k,i] + multiply(left, right)                Multiply, for i <= k < j
            C[j-1,i] + tangent(j, product of i..j-1)                 Tangent: element j is applied, matrix-free
            C[j,i+1] + adjoint(i, product of i+1..j)                 Adjoint: element i is applied transposed

What products cost, and what describes one, is the business of a `CostModel`; nothing here looks into a product.  A run
of tangents or adjoints is a sequence of single steps, so that runs need no search of their own: they are gathered when
the tree is made.

With a memory limit an adjoint sweep may hold as much tape at a time as the limit: steps with a larger tape are left
out, and a run is cut where its tape would pass the limit.  With t threads the halves of a product may be computed at
the same time on t1 + t2 = t threads, and the cost is the time until the last is done (optimal for t = 1 and t >= q).

    plan = best_bracketing(model)
    plan.cost, str(plan.bracketing)     ->    56, "((adj(F2) * adj(F1))adj(F0))"

Invariants
1. Costs are numbers >= 0.  Of equal costs the product wins over a step, then the step that makes a longer run, then the
   tangent, then the lower split, then one thread group: the same model always gives the same tree.
2. Of the products of an interval the cheapest is kept, with its description.  Where all orders lead to the same
   description (dense, sparse) the result is optimal; otherwise it is a good one, and rivals are to be compared.
3. The last product is chosen with what `finish` asks for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from graphc.ir.errors import GraphError

from .bracketing import Adjoint, Bracketing, Leaf, Multiply, Tangent, operands, postorder

Product = TypeVar("Product")
Priced: TypeAlias = "tuple[int, Product]"  # a cost and the description of what it buys
Interval: TypeAlias = "tuple[int, int]"  # last element, first element
LEAF, MULTIPLY, TANGENT, ADJOINT = range(4)


class Accumulated(NamedTuple, Generic[Product]):
    """One way to have the matrix of an element: "given", by "tangent"s or by "adjoint"s; tape is held meanwhile."""

    mode: str
    cost: int
    product: Product
    tape: int = 0


class CostModel(Protocol[Product]):
    """Prices of the steps.  None says that a step cannot be taken."""

    @property
    def length(self) -> int: ...
    def preaccumulate(self, element: int) -> Sequence[Accumulated[Product]]: ...
    def multiply(self, left: Product, right: Product) -> Priced[Product] | None: ...
    def tangent(self, element: int, product: Product) -> Priced[Product] | None: ...
    def adjoint(self, element: int, product: Product) -> Priced[Product] | None: ...
    def tape(self, element: int) -> int: ...
    def finish(self, product: Product) -> int: ...


# -- the result --
@dataclass(frozen=True)
class ChainPlan(Generic[Product]):
    """A bracketing with its cost, that of its finish included, and the description of the product."""

    bracketing: Bracketing
    cost: int
    product: Product
    tape: int  # the most tape that is held at a time by one sweep


# -- the search --
class Choice(NamedTuple):
    """What makes the product of an interval: a kind, the split or the mode, and the threads of the halves."""

    kind: int
    split: int = 0
    mode: str = ""
    threads: tuple[int, int] | None = None


class Entry(NamedTuple, Generic[Product]):
    """A row of the table: ordered by its first four fields."""

    total: int  # the cost and, of the whole chain, the finish
    step: bool  # products before steps
    short: int  # -1 times the length of the run
    kind: int
    cost: int
    product: Product
    choice: Choice


Table: TypeAlias = "dict[tuple[int, int, int], Entry[Product]]"  # by last element, first element, threads


def best_bracketing(model: CostModel[Product], memory: int | None = None, threads: int = 1) -> ChainPlan[Product]:
    """The cheapest order of products, tangents and adjoints; `memory` limits the tape, in the model's units."""
    threads = checked(model, memory, threads)
    table = interval_table(model, memory, threads)
    last = model.length - 1
    if (last, 0, threads) not in table:
        raise GraphError(nothing_fits(model, memory))
    entry = table[last, 0, threads]
    tree = assembled(lambda j, i, t: table[j, i, t].choice, model.length, threads, model.tape, memory)
    return ChainPlan(tree, entry.total, entry.product, largest_tape(model, tree))


def checked(model: CostModel[Product], memory: int | None, threads: int) -> int:
    """The threads that can be of use."""
    if model.length < 1:
        raise GraphError("jacobian: a chain has one element or more, got none")
    if threads < 1:
        raise GraphError(f"jacobian: needs one thread or more, got {threads}")
    if memory is not None and memory < 0:
        raise GraphError(f"jacobian: memory is zero or more, got {memory}")
    return min(threads, model.length)


def nothing_fits(model: CostModel[Product], memory: int | None) -> str:
    least = least_memory(model)
    if least is None:
        return f"jacobian: the model has no way to multiply the {model.length} elements of the chain"
    return (f"jacobian: no order of the {model.length} elements fits a tape of {memory}; "
            f"the least that would do is {least}")


def interval_table(model: CostModel[Product], memory: int | None, threads: int) -> Table[Product]:
    """The best entry of every interval that can be computed, short intervals first."""
    table: Table[Product] = {}
    for distance in range(model.length):
        for i in range(model.length - distance):
            for t in range(1, threads + 1):
                entry = best_entry(model, table, (i + distance, i), t, memory)
                if entry is not None:
                    table[i + distance, i, t] = entry
    return table


def best_entry(model: CostModel[Product], table: Table[Product], interval: Interval, t: int, memory: int | None
               ) -> Entry[Product] | None:
    j, i = interval
    whole = j - i == model.length - 1
    best: Entry[Product] | None = None
    if i == j:
        found = leaves(model, i, memory)
    else:
        found = steps(model, table, interval, t, memory)
    for entry in found:
        best = better(best, finished(model, entry) if whole else entry)
    for bound, k, pair in splits(table, interval, t):
        if best is not None and bound > best.total:  # a product costs nothing at best
            continue
        left, right = halves(table, interval, t, k, pair)
        made = model.multiply(left.product, right.product)
        if made is not None:
            cost = bound + made[0]
            entry = Entry(cost, False, 0, MULTIPLY, cost, made[1], Choice(MULTIPLY, k, threads=pair))
            best = better(best, finished(model, entry) if whole else entry)
    return best


def better(best: Entry[Product] | None, entry: Entry[Product]) -> Entry[Product]:
    return entry if best is None or entry[:4] < best[:4] else best


def finished(model: CostModel[Product], entry: Entry[Product]) -> Entry[Product]:
    return entry._replace(total=entry.cost + model.finish(entry.product))


def leaves(model: CostModel[Product], element: int, memory: int | None) -> Iterator[Entry[Product]]:
    for way in model.preaccumulate(element):
        if memory is None or way.tape <= memory:
            yield Entry(way.cost, False, 0, LEAF, way.cost, way.product, Choice(LEAF, mode=way.mode))


def steps(model: CostModel[Product], table: Table[Product], interval: Interval, t: int, memory: int | None
          ) -> Iterator[Entry[Product]]:
    """The last element applied as a tangent, the first as an adjoint."""
    j, i = interval
    for kind, before, element in ((TANGENT, table.get((j - 1, i, t)), j), (ADJOINT, table.get((j, i + 1, t)), i)):
        if before is None or (kind == ADJOINT and memory is not None and model.tape(element) > memory):
            continue
        price = model.tangent if kind == TANGENT else model.adjoint
        made = price(element, before.product)
        if made is not None:
            cost = before.cost + made[0]
            run = before.short if before.kind == kind else 0
            yield Entry(cost, True, run - 1, kind, cost, made[1], Choice(kind))


def splits(table: Table[Product], interval: Interval, t: int) -> Iterator[tuple[int, int, tuple[int, int] | None]]:
    """Costs of the two halves, one after the other or at the same time, with the split and the threads."""
    j, i = interval
    for k in range(i, j):
        if (j, k + 1, t) in table and (k, i, t) in table:
            yield table[j, k + 1, t].cost + table[k, i, t].cost, k, None
        for own in range(1, t):
            if (j, k + 1, own) in table and (k, i, t - own) in table:
                yield max(table[j, k + 1, own].cost, table[k, i, t - own].cost), k, (own, t - own)


def halves(table: Table[Product], interval: Interval, t: int, k: int, pair: tuple[int, int] | None
           ) -> tuple[Entry[Product], Entry[Product]]:
    (j, i), (left, right) = interval, pair or (t, t)
    return table[j, k + 1, left], table[k, i, right]


# -- the tree --
def assembled(choice: Callable[[int, int, int], Choice], length: int, threads: int, tape: Callable[[int], int],
              memory: int | None) -> Bracketing:
    """The tree of the choices, with single steps gathered into runs."""
    order: list[Bracketing | Part] = []
    pending = [(length - 1, 0, threads)]
    while pending:
        j, i, t = pending.pop()
        found = choice(j, i, t)
        if found.kind == LEAF:
            order.append(Leaf(i, found.mode))
        elif found.kind == MULTIPLY:
            left, right = found.threads or (t, t)
            order.append(Part(MULTIPLY, threads=found.threads))
            pending += [(found.split, i, right), (j, found.split + 1, left)]
        elif found.kind == TANGENT:
            first = j
            while choice(first - 1, i, t).kind == TANGENT:
                first -= 1
            order.append(Part(TANGENT, first, j))
            pending.append((first - 1, i, t))
        else:
            last, held = i, tape(i)
            while choice(j, last + 1, t).kind == ADJOINT and (memory is None or held + tape(last + 1) <= memory):
                last += 1
                held += tape(last)
            order.append(Part(ADJOINT, i, last))
            pending.append((j, last + 1, t))
    return joined(order)


class Part(NamedTuple):
    """A node of the tree before it has its operands."""

    kind: int
    first: int = 0
    last: int = 0
    threads: tuple[int, int] | None = None


def joined(order: Sequence[Bracketing | Part]) -> Bracketing:
    """The tree whose nodes are listed before their operands, left to right."""
    done: list[Bracketing] = []
    for node in reversed(order):
        if not isinstance(node, Part):
            done.append(node)
        elif node.kind == MULTIPLY:
            done.append(Multiply(done.pop(), done.pop(), node.threads))
        else:
            done.append((Tangent if node.kind == TANGENT else Adjoint)(node.first, node.last, done.pop()))
    return done[0]


# -- pricing a given tree --
def priced(model: CostModel[Product], tree: Bracketing) -> ChainPlan[Product] | None:
    """The tree with what it costs on one thread, the finish included; None where the model cannot take a step."""
    values: list[Priced[Product] | None] = []
    for node in postorder(tree):
        parts = [values.pop() for _ in operands(node)]
        values.append(step_price(model, node, [part for part in parts if part is not None])
                      if None not in parts else None)
    if values[0] is None:
        return None
    cost, product = values[0]
    return ChainPlan(tree, cost + model.finish(product), product, largest_tape(model, tree))


def step_price(model: CostModel[Product], node: Bracketing, parts: Sequence[Priced[Product]]) -> Priced[Product] | None:
    """The cost of a node with its parts, and its product."""
    match node:
        case Leaf(element, mode):
            ways = [way for way in model.preaccumulate(element) if way.mode == mode]
            return (ways[0].cost, ways[0].product) if ways else None
        case Multiply():
            (left_cost, left), (right_cost, right) = parts
            return added(left_cost + right_cost, model.multiply(left, right))
        case Tangent(first, last):
            return run_price(model.tangent, range(first, last + 1), parts[0])
        case Adjoint(first, last):
            return run_price(model.adjoint, range(last, first - 1, -1), parts[0])
    raise TypeError(f"not a bracketing: {type(node).__name__}")


def run_price(price: Callable[[int, Product], Priced[Product] | None], elements: Sequence[int], start: Priced[Product]
              ) -> Priced[Product] | None:
    found: Priced[Product] | None = start
    for element in elements:
        if found is None:
            return None
        found = added(found[0], price(element, found[1]))
    return found


def added(cost: int, made: Priced[Product] | None) -> Priced[Product] | None:
    return None if made is None else (cost + made[0], made[1])


# -- memory --
def largest_tape(model: CostModel[Product], tree: Bracketing) -> int:
    """The tape of the longest-held sweep of a tree."""
    most = 0
    for node in postorder(tree):
        match node:
            case Adjoint(first, last):
                most = max(most, sum(model.tape(element) for element in range(first, last + 1)))
            case Leaf(element, mode):
                most = max(most, *(way.tape for way in model.preaccumulate(element) if way.mode == mode), 0)
    return most


def least_memory(model: CostModel[Product], cost: int | None = None) -> int | None:
    """The smallest limit on the tape under which there is a plan, or one of at most this cost; None if none is."""
    return least_limit(model, cost, lambda limit: cost_under(model, limit))


def least_limit(model: CostModel[Product], cost: int | None, cost_under: Callable[[int], int | None]) -> int | None:
    """The same with a search of one's own: costs fall as limits rise, and only at the tape of an element."""
    sizes = {0} | {model.tape(element) for element in range(model.length)}
    sizes |= {way.tape for element in range(model.length) for way in model.preaccumulate(element)}

    def reaches(limit: int) -> bool:
        found = cost_under(limit)
        return found is not None and (cost is None or found <= cost)

    limits = sorted(sizes)
    return limits[bisect_left(limits, True, key=reaches)] if reaches(limits[-1]) else None


def cost_under(model: CostModel[Product], memory: int) -> int | None:
    entry = interval_table(model, memory, 1).get((model.length - 1, 0, 1))
    return None if entry is None else entry.total
