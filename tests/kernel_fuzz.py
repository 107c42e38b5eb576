"""Random kernels: axes of every size, permuted, broadcast, reversed, shifted and guarded maps, indices, several passes,
kept rows, running sums, and results that accumulate.
"""

from __future__ import annotations

import random

from graphc.ir.dims import Dim
from graphc.ir.plan import Kernel
from kernel_cases import Builder, strides

EXTENTS = (1, 2, 3, 5, 8, 16, 17, 33, 70)
SYMBOLS = {"p": (0, 1, 4, 21), "q": (1, 3, 16, 40)}
ELEMENTWISE = ("add", "sub", "mul", "maximum", "minimum")
MONOIDS = ("add", "max", "min", "fastmax", "argmax", "argmin")


TABLE = 7


def random_kernel(seed: int) -> tuple[Kernel, dict[int, int]]:
    """A kernel, and the ranges of those arguments that are indices."""
    chance = random.Random(seed)
    rank = chance.randint(1, 4)
    extents = [chance.choice([*EXTENTS, *(Dim.symbol(s) for s in SYMBOLS)]) for _ in range(rank)]
    while sum(1 for e in extents if e in (33, 70)) > 1:
        extents[extents.index(33 if 33 in extents else 70)] = 2
    dtype = chance.choice(["float32", "float64", "int32", "int64", "uint8"])
    inputs = chance.randint(1, 3)
    b = Builder(extents, [dtype] * inputs)
    arguments = b.arguments
    values = [_load(b, chance, i) for i in range(inputs)]
    ranges: dict[int, int] = {}
    index = -1
    if chance.random() < 0.3:
        index = _index(b, chance, values, ranges, dtype)
    reduced = sorted(chance.sample(range(rank), chance.randint(0, rank)))
    if chance.random() < 0.15 and dtype != "uint8":
        reduced = [chance.randrange(rank)]
        step = b.const(1, dtype) if chance.random() < 0.5 else b.const(-1, dtype)
        values.append(b.put("scan", step, values[-1], dtype=dtype, value=(reduced[0], chance.random() < 0.5)))
    for _ in range(chance.randint(1, 6)):
        kind = chance.choice(["elementwise"] * 3 + (["reduce"] * 2 + ["keep"] if reduced else ["iota"]))
        if kind == "elementwise":
            values.append(b.f(chance.choice(ELEMENTWISE), chance.choice(values), chance.choice(values), dtype=dtype))
        elif kind == "iota":
            number = b.f("cast", b.iota(chance.randrange(rank)), dtype="float32")
            values.append(b.f("cast", number, dtype=dtype))
        elif kind == "keep":
            arguments.append(dtype)
            sum_ = b.f("add", values[0], chance.choice(values), dtype=dtype)
            values.append(b.keep(len(arguments) - 1, sum_, _order(b, chance)))
        else:
            _reduce(b, chance, values, reduced, dtype)
    for value in dict.fromkeys((values[-1], chance.choice(values))):
        arguments.append(dtype)
        b.store(len(arguments) - 1, b.f("add", value, values[0], dtype=dtype), _order(b, chance))
    if not reduced and chance.random() < 0.3:
        arguments.append(dtype)
        along = [stride if chance.random() < 0.6 else 0 for stride in _order(b, chance)]
        where = [(index, 1, TABLE)] if index >= 0 and chance.random() < 0.7 else []
        b.store(len(arguments) - 1, values[0], along, kind="accumulate", indices=where)
    return b.kernel(), ranges


def _index(b: Builder, chance: random.Random, values: list[int], ranges: dict[int, int], dtype: str) -> int:
    """Reads through an index that varies along some of the axes."""
    b.arguments += ["int64", dtype]
    number = len(b.arguments) - 2
    ranges[number] = TABLE
    index = b.load(number, [stride if chance.random() < 0.6 else 0 for stride in _order(b, chance)])
    along = [stride * TABLE if chance.random() < 0.5 else 0 for stride in _order(b, chance)]
    values.append(b.load(number + 1, along, indices=[(index, 1, TABLE)]))
    return index


def _reduce(b: Builder, chance: random.Random, values: list[int], reduced: list[int], dtype: str) -> None:
    monoid = chance.choice(MONOIDS)
    result = b.reduce(monoid, chance.choice(values), *reduced)
    values.append(result)
    if monoid.startswith("arg"):
        values.append(b.f("cast", b.put("second", result, dtype="int64"), dtype=dtype))


def _order(b: Builder, chance: random.Random) -> list[int | Dim]:
    """Strides of a dense array whose axes lie in some order."""
    rank = len(b.extents)
    order = list(range(rank))
    if chance.random() < 0.5:
        chance.shuffle(order)
    dense = strides([b.extents[a] for a in order])
    result: list[int | Dim] = [0] * rank
    for a, stride in zip(order, dense, strict=True):
        result[a] = stride
    return result


def _load(b: Builder, chance: random.Random, argument: int) -> int:
    along = _order(b, chance)
    offset: int | Dim = 0
    guards = []
    for a in range(len(along)):
        style = chance.random()
        if argument and style < 0.25:
            along[a] = 0
        elif style < 0.35:  # backwards
            offset = offset + along[a] * (b.extents[a] - 1)
            along[a] = -along[a]
        elif style < 0.45:  # every second
            along[a] = along[a] * 2
        elif style < 0.6 and along[a] != 0:  # shifted by one; the element before the first is a fill
            offset = offset - along[a]
            guards.append((-1, [int(k == a) for k in range(len(along))], b.extents[a] - 1))
    return b.load(argument, along, offset=offset, guards=guards, fill=chance.choice([0, 3]))
