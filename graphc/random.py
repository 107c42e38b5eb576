"""Random numbers as nodes: a function of a state gives the numbers and the state that comes after.

    noise = gc.random.state(seed=0, name="noise")
    eps, after = gc.random.normal(noise, ("batch", 8))
    step = sess.function([x], loss, updates={**updates, noise: after})

Nothing is hidden: the state is a variable like others, which sessions and libraries keep, save and restore, or a
placeholder.  The same state gives the same numbers, on every machine and for any number of threads; draw the next ones
from the state after.  Numbers come from Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
3", section 3.3): a state is a key and a count of blocks, and the block of a number is a function of the two that gives
four words of 32 bits.  Elements take words in the order of memory, one for up to 32 bits and two for 64, the low first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import Any

import numpy as np

from .functions import creation, logic, movement, real
from .functions.operands import as_node, dtype_of, refusal, shape_of
from .ir import build
from .ir.build import Operand
from .ir.dims import Dim, product
from .ir.errors import DTypeError, ShapeError
from .ir.node import Node
from .ir.types import is_float, is_integer

__all__ = ["bernoulli", "bits", "integers", "normal", "state", "uniform"]

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85  # what the halves of the key grow by from round to round
ROUNDS = 10
SIGNIFICAND = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}  # bits
WORD, MASK = 2**32, 2**32 - 1
Drawn = tuple[Node, Node]  # numbers, state after


def state(seed: int, name: str | None = None) -> Node:
    """A variable with the state that the seed, from 0 to 2**64 - 1, stands for: uint64 of shape (2,), key and count.

    >>> import graphc as gc
    >>> print(gc.random.state(seed=7).type)
    uint64[2]
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise refusal("random.state", f"the seed is an integer from 0 to 2**64 - 1, got {seed!r:.60}")
    return creation.variable(np.array([seed, 0], "uint64"), name=name)


# -- numbers --
def bits(state: Node, shape: Any = (), dtype: Any = "uint32") -> Drawn:
    """Words all of whose bits are random, uint32 or uint64 of that shape; and the state after.

    >>> import graphc as gc
    >>> words, after = gc.random.bits(gc.random.state(0), ("n", 3))
    >>> print(words.type, after.type)
    uint32[n, 3] uint64[2]
    """
    kind = dtype_of("random.bits", dtype)
    if kind not in ("uint32", "uint64"):
        raise refusal("random.bits", f"the dtype is uint32 or uint64, got {kind}", (), DTypeError)
    sizes = shape_of("random.bits", shape)
    rows, after = words("random.bits", state, product(sizes), 1 if kind == "uint32" else 2)
    return in_order(rows, sizes), after


def uniform(state: Node, shape: Any = (), low: float = 0.0, high: float = 1.0, dtype: Any = "float32") -> Drawn:
    """Floats of that shape, evenly from low to below high, in steps of (high - low) / 2**p for a significand of p bits.

    As anywhere, low + (high - low) * u may round to high where low is not 0.

    >>> import graphc as gc
    >>> u, after = gc.random.uniform(gc.random.state(0), (2, 3), dtype="float64")
    >>> gc.Session().run(u).round(3)
    array([[0.881, 0.605, 0.362],
           [0.037, 0.319, 0.272]])
    """
    kind = float_of("random.uniform", dtype)
    sizes = shape_of("random.uniform", shape)
    rows, after = words("random.uniform", state, product(sizes), words_of(kind))
    values = in_order([fraction(row, kind) for row in rows], sizes)
    return scaled(values, high - low, low), after


def normal(state: Node, shape: Any = (), mean: float = 0.0, std: float = 1.0, dtype: Any = "float32") -> Drawn:
    """Floats of that shape from the normal distribution, by pairs (Box and Muller 1958).

    float16 and bfloat16 are rounded from float32.

    >>> import graphc as gc
    >>> z, after = gc.random.normal(gc.random.state(0), (1000,), mean=5.0)
    >>> print(gc.Session().run(gc.mean(z)).round(1))
    5.0
    """
    kind = float_of("random.normal", dtype)
    inner = "float64" if kind == "float64" else "float32"
    sizes = shape_of("random.normal", shape)
    rows, after = words("random.normal", state, product(sizes), words_of(inner))
    pairs = [pair for a, b in zip(rows[::2], rows[1::2], strict=True) for pair in normal_pair(a, b, inner)]
    return build.cast(scaled(in_order(pairs, sizes), std, mean), kind), after


def bernoulli(state: Node, p: Operand, shape: Any = None) -> Drawn:
    """Bools that are true with probability p, which broadcasts to the shape, by default p's own.

    Each is whether a uniform number of p's dtype (float32 where p is a Python number) is below p.

    >>> import graphc as gc
    >>> heads, after = gc.random.bernoulli(gc.random.state(0), 0.25, (4, "n"))
    >>> print(heads.type)
    bool[4, n]
    """
    chance = as_node(p)
    if not isinstance(p, Node):
        chance = build.cast(chance, "float32")
    if not is_float(chance.dtype):
        raise refusal("random.bernoulli", f"p is a float, got {chance.type}", (chance,), DTypeError)
    u, after = uniform(state, chance.shape if shape is None else shape, dtype=chance.dtype)
    hits = logic.less(u, chance)
    if hits.shape != u.shape:
        raise refusal("random.bernoulli", f"p of {chance.type} does not broadcast to the shape {u.shape}", (chance,),
                      ShapeError)
    return hits, after


def integers(state: Node, shape: Any, low: int, high: int, dtype: Any = "int64") -> Drawn:
    """Integers of that shape, evenly from low to below high.

    A word of 64 bits times the width of the range, over 2**64 (Lemire 2019, section 3), without its rejection: a
    number's chance is off by less than (high - low) / 2**64 of itself.

    >>> import graphc as gc
    >>> dice, after = gc.random.integers(gc.random.state(0), (6,), 1, 7)
    >>> gc.Session().run(dice)
    array([6, 4, 3, 1, 2, 2])
    """
    kind = dtype_of("random.integers", dtype)
    if not is_integer(kind):
        raise refusal("random.integers", f"the dtype is one of integers, got {kind}", (), DTypeError)
    info = np.iinfo(kind)
    if not (isinstance(low, int | np.integer) and isinstance(high, int | np.integer) and info.min <= low < high
            and high - 1 <= info.max):
        raise refusal("random.integers", f"low and high are integers with {info.min} <= low < high <= {info.max + 1} "
                                         f"for {kind}, got {low!r:.40} and {high!r:.40}")
    word, after = bits(state, shape, "uint64")
    offset = high_product(word, int(high) - int(low)) + np.uint64(int(low) % 2**64)
    return build.cast(offset, kind), after


# -- Philox --
def words(name: str, state: Node, count: int | Dim, size: int) -> tuple[list[Node], Node]:
    """Four rows of 32-bit words, or two of 64-bit words for `size` 2, of which the columns are blocks; so many blocks
    that there are `count` words at least.  And the state after."""
    if not isinstance(state, Node) or state.dtype != "uint64" or state.shape != (2,):
        got = state.type if isinstance(state, Node) else f"{type(state).__name__} {state!r:.40}"
        raise refusal(name, f"the state is uint64 of shape (2,), as of gc.random.state(seed), got {got}",
                      (state,) if isinstance(state, Node) else (), DTypeError)
    number = (count * size + 3) // 4
    key, used = state[0], state[1]
    block = used + build.cast(creation.iota("int64", (number,), 0), "uint64")
    rows = list(philox([*halves(block), *(creation.zeros((), "uint32"),) * 2], halves(key)))
    if size == 2:
        rows = [build.cast(a, "uint64") | build.cast(b, "uint64") << np.uint64(32)
                for a, b in zip(rows[::2], rows[1::2], strict=True)]
    return rows, movement.stack([key, used + build.cast(build.size_node(number, state.graph), "uint64")])


def halves(word: Node) -> tuple[Node, Node]:
    """The low and the high 32 bits."""
    return build.cast(word, "uint32"), build.cast(word >> np.uint64(32), "uint32")


def philox(counter: Sequence[Node], key: Sequence[Node]) -> tuple[Node, ...]:
    """The four words for a counter of four and a key of two, all uint32."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        low0, high0 = halves(build.cast(c0, "uint64") * np.uint64(MULTIPLIERS[0]))
        low1, high1 = halves(build.cast(c2, "uint64") * np.uint64(MULTIPLIERS[1]))
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + np.uint32(WEYL[0]), k1 + np.uint32(WEYL[1])
    return c0, c1, c2, c3


def in_order(rows: Sequence[Node], sizes: tuple[int | Dim, ...]) -> Node:
    """The columns of rows one after the other, as many elements as the shape has."""
    count = product(sizes)
    line = movement.reshape(movement.stack(rows, axis=-1), (len(rows) * rows[0].shape[0],))
    return movement.reshape(movement.part(line, 0, 0, count), sizes)


# -- from words to numbers --
def words_of(kind: str) -> int:
    """How many words of 32 bits a float takes."""
    return 2 if kind == "float64" else 1


def fraction(word: Node, kind: str) -> Node:
    """A number from [0, 1) of all multiples of 2**-p, exactly."""
    p, width = SIGNIFICAND[kind], 64 if kind == "float64" else 32
    shifted = word >> np.dtype(word.dtype).type(width - p)
    return build.cast(shifted, kind) * 2.0**-p


def normal_pair(a: Node, b: Node, kind: str) -> tuple[Node, Node]:
    """Two independent normal numbers from two words; the first gives the radius, from (0, 1], whose log is finite."""
    radius = real.sqrt(-2.0 * real.log(fraction(a, kind) + 2.0**-SIGNIFICAND[kind]))
    angle = 2.0 * pi * fraction(b, kind)
    return radius * real.cos(angle), radius * real.sin(angle)


def high_product(word: Node, width: int) -> Node:
    """The high 64 bits of a 64-bit word times a width of at most 2**64, by halves."""
    if width == 2**64:
        return word
    low, high = word & np.uint64(MASK), word >> np.uint64(32)
    width_low, width_high = np.uint64(width % WORD), np.uint64(width // WORD)
    middle = high * width_low + (low * width_low >> np.uint64(32))
    other = low * width_high + (middle & np.uint64(MASK))
    return high * width_high + (middle >> np.uint64(32)) + (other >> np.uint64(32))


def scaled(values: Node, width: float, start: float) -> Node:
    wide = values if width == 1.0 else values * float(width)
    return wide if start == 0.0 else wide + float(start)


def float_of(name: str, dtype: Any) -> str:
    kind = dtype_of(name, dtype)
    if not is_float(kind):
        raise refusal(name, f"the dtype is one of floats, got {kind}", (), DTypeError)
    return kind
