"""The linearised graph of scalar code, in integers, and what it costs to eliminate a vertex.

Vertices are numbered operands first; a set of vertices is a bit mask in one Python integer.  An edge from i to j has
as label the partial derivative of j by i, of which only the class is known here: +-1 (`units`), another constant
(`constants`, units included), or a value.

Eliminating v joins every predecessor to every successor, label(i, j) += label(v, j) * label(i, v), and removes v.  An
output that others read is only cut from these: its own row of the Jacobian stays.  Inputs have no predecessors.  When
nothing is left to eliminate, the labels of the remaining edges are the Jacobian.

Two models of cost:

    products      every product counts, those with +-1 as well; sums are free (the model of published figures)
    operations    products that are computed, and sums that are computed; what is known before run time is free
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

Order = tuple[int, ...]
# A state is changed in place: predecessors, successors, units, constants; masks by vertex.
State = tuple[list[int], list[int], list[int], list[int]]
Eliminate = Callable[[State, int, int], int]


@dataclass(frozen=True)
class Dag:
    """`preds[v]` and `succs[v]` are the neighbours of v; `units[v]` and `constants[v]` are sets of its predecessors."""

    preds: tuple[int, ...]
    succs: tuple[int, ...]
    units: tuple[int, ...]
    constants: tuple[int, ...]
    inputs: int
    outputs: int

    @property
    def count(self) -> int:
        return len(self.preds)

    @cached_property
    def free(self) -> Order:
        """What is to be eliminated, operands first."""
        return tuple(v for v in range(self.count) if self.preds[v] and self.succs[v])

    def state(self) -> State:
        return list(self.preds), list(self.succs), list(self.units), list(self.constants)

    def after(self, order: Sequence[int]) -> Dag:
        """The graph that is left when these are eliminated; vertices keep their numbers."""
        state = self.state()
        for v in order:
            count_operations(state, v, self.outputs)
        preds, succs, units, constants = map(tuple, state)
        return Dag(preds, succs, units, constants, self.inputs, self.outputs)


def dag_of(count: int, edges: Sequence[tuple[int, int, str]], inputs: Sequence[int], outputs: Sequence[int]) -> Dag:
    """The graph of edges (from, to, class), class one of "unit", "constant", "value", without what lies on no path."""
    preds, units, constants = [0] * count, [0] * count, [0] * count
    for i, j, label in edges:
        if not 0 <= i < j < count:
            raise ValueError(f"edge {i} -> {j}: operands come first, and there are {count} vertices")
        preds[j] |= 1 << i
        units[j] |= (label == "unit") << i
        constants[j] |= (label != "value") << i
    starts, ends = mask_of(inputs), mask_of(outputs)
    kept = on_paths(preds, starts, ends)
    for j in range(count):
        kept_preds = kept if kept >> j & 1 and not starts >> j & 1 else 0
        preds[j], units[j], constants[j] = preds[j] & kept_preds, units[j] & kept_preds, constants[j] & kept_preds
    succs = [0] * count
    for j in range(count):
        for i in members(preds[j]):
            succs[i] |= 1 << j
    return Dag(tuple(preds), tuple(succs), tuple(units), tuple(constants), starts, ends)


def on_paths(preds: Sequence[int], inputs: int, outputs: int) -> int:
    """What an input reaches and what reaches an output."""
    reached, needed = inputs, outputs
    for v, mask in enumerate(preds):
        if mask & reached:
            reached |= 1 << v
    for v in reversed(range(len(preds))):
        if needed >> v & 1 and not inputs >> v & 1:
            needed |= preds[v]
    return reached & needed


def members(mask: int) -> Iterator[int]:
    """The vertices of a set, in ascending order."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def mask_of(vertices: Sequence[int]) -> int:
    mask = 0
    for v in vertices:
        mask |= 1 << v
    return mask


# -- elimination --
def count_products(state: State, v: int, outputs: int) -> int:
    """Eliminates v; returns the products.  Classes of labels are not kept up."""
    preds, succs = state[0], state[1]
    before, after = preds[v], succs[v]
    bit = 1 << v
    stays = outputs & bit
    rest = before
    while rest:
        low = rest & -rest
        i = low.bit_length() - 1
        succs[i] = succs[i] | after if stays else (succs[i] | after) & ~bit
        rest ^= low
    rest = after
    while rest:
        low = rest & -rest
        j = low.bit_length() - 1
        preds[j] = (preds[j] | before) & ~bit
        rest ^= low
    succs[v] = 0
    if not stays:
        preds[v] = 0
    return before.bit_count() * after.bit_count()


def count_operations(state: State, v: int, outputs: int) -> int:
    """Eliminates v; returns the products and sums that have to be computed."""
    preds, succs, units, constants = state
    before, after = preds[v], succs[v]
    own_units, own_constants = units[v], constants[v]
    values, others = (before & ~own_constants).bit_count(), (before & ~own_units).bit_count()
    bit = 1 << v
    stays = outputs & bit
    cost = 0
    rest = before
    while rest:
        low = rest & -rest
        i = low.bit_length() - 1
        succs[i] = succs[i] | after if stays else (succs[i] | after) & ~bit
        rest ^= low
    rest = after
    while rest:
        low = rest & -rest
        j = low.bit_length() - 1
        rest ^= low
        new_units = new_constants = 0
        if units[j] & bit:
            new_units, new_constants = own_units, own_constants
        elif constants[j] & bit:
            new_constants = own_constants
            cost += values
        else:
            cost += others
        met = preds[j] & before
        both = met & constants[j] & new_constants
        cost += (met & ~both).bit_count()
        apart = ~(before | bit)
        units[j] = units[j] & apart | new_units & ~met
        constants[j] = constants[j] & apart | new_constants & ~met | both
        preds[j] = (preds[j] | before) & ~bit
    succs[v] = 0
    if not stays:
        preds[v] = 0
    return cost


MODELS: dict[str, Eliminate] = {"products": count_products, "operations": count_operations}


def cost_of(dag: Dag, order: Sequence[int], model: str = "products") -> int:
    """What eliminating all free vertices in this order costs."""
    eliminate, state = MODELS[model], dag.state()
    if sorted(order) != list(dag.free):
        raise ValueError(f"the order {tuple(order)} is no order of the free vertices {dag.free}")
    return sum(eliminate(state, v, dag.outputs) for v in order)
