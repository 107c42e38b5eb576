"""How a product is cut: the tile of registers, the blocks of k, columns and rows, and which operands are packed.

    columns in blocks of `nc`, rows in blocks of `mc`, k in blocks of `kc`   (this order, k innermost)
      b's block packed in panels of a tile's columns, unless `direct_b`
      for every panel of rows: a's panel packed, unless `direct_a`; for every panel of columns: one tile

Panels at the end of an axis overlap the panel before, so a tile never reaches outside; only the part that is new goes
through the epilogue.  The order in which one element is summed depends on `kc` alone, never on where its tile lies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

from graphc.ir.dims import Dim
from graphc.ir.plan import Contraction

from ..target import Target
from ..vectors import REGISTER, kind_bits
from .pack import power_below

Size = int | Dim

IN_PLACE = 1 << 20  # bytes of b that may stay where they are, however often they are read
SELDOM = 37  # panels of rows for which a larger b may stay, as copying it would cost more than it saves
IN_PLACE_SELDOM = 1 << 22  # bytes of that
LONGEST_DEPTH = 512  # a tile's a and b for so many steps of k stay in the first-level cache
PACKED_DEPTH = 256  # the same for packed panels
BLOCK_BYTES = 1 << 20  # of b, packed: half of the second-level cache
MOST_ROWS = 1344  # rows whose partial sums wait in the workspace
MANY_ROWS = 64  # so many make it worth while to copy a few columns of b into vectors with unused lanes
AHEAD = 16  # steps of k by which b is fetched, where it comes from afar
WHOLE = 1 << 40  # a block that holds the axis, whatever its length
PADDING = 16  # elements after each row of a packed panel, so that rows do not share cache sets
LINE, SETS, WAYS = 64, 64, 12  # of the first-level cache
RESIDENT = 24576  # bytes of b that stay in it
TYPICAL_ROWS, TYPICAL_DEPTH = 4000, 256  # what sizes are taken for that are known only at run time


@dataclass(frozen=True)
class Blocking:
    """`rows` and `vectors` list the variants of the tile, largest first."""

    lanes: int
    rows: tuple[int, ...]
    vectors: tuple[int, ...]
    kc: int
    nc: int
    mc: int
    direct_a: bool
    direct_b: bool | None  # None: found at run time
    has_blocks: bool  # k may need more than one block
    ahead: int

    @property
    def columns(self) -> int:
        return self.vectors[0] * self.lanes


def most_rows(target: Target, vectors: int) -> int:
    """Rows of a tile whose accumulators, b's vectors and elements of a (and a product, without fma) are registers.

    On ARM an element of a needs a register until its last use, and several are loaded in advance.
    """
    is_arm = target.architecture == "aarch64"
    registers = 32 if target.vector_bits == 512 or is_arm else 16
    spare = 6 if is_arm else 4 if not target.has_fma else 1
    return min((registers - vectors - spare) // vectors, 16 if registers == 32 else 11)


def row_variants(most: int) -> tuple[int, ...]:
    """Heights of the tile for a number of rows that is known only at run time."""
    return (most, *(rows for rows in (8, 4, 2, 1) if rows + most // 8 < most))


def blocking(contraction: Contraction, target: Target) -> Blocking:
    """The way of this contraction; all its numbers follow from static sizes and the target."""
    m, n = contraction.extents[-2:]
    kind = REGISTER[contraction.dtype]
    size = kind_bits(kind) // 8
    lanes = target.vector_bits // (8 * size)
    padded = isinstance(n, int) and isinstance(m, int) and 1 < n < lanes and m >= MANY_ROWS and n & (n - 1) != 0
    if isinstance(n, int):
        lanes = 2 * power_below(n) if padded else power_below(max(min(lanes, n), 1))
    direct_b = False if padded else may_stay(contraction, size, most_rows(target, 2))
    rows, vectors = tile_shape(contraction, lanes, target, direct_b is not False)
    kc, nc, mc = block_sizes(contraction, size, rows[0], vectors[0] * lanes, direct_b is True)
    has_blocks = not isinstance(contraction.depth, int) or contraction.depth > kc
    result = Blocking(lanes, rows, vectors, kc, nc, mc if has_blocks else WHOLE, False, direct_b, has_blocks,
                      0 if direct_b and stays_near(contraction, size) else AHEAD)
    return replace(result, direct_a=a_may_stay(contraction, result, size))


def block_sizes(contraction: Contraction, size: int, rows: int, width: int, direct: bool) -> tuple[int, int, int]:
    """Lengths of the blocks of k, columns and rows; equal ones where the size is known."""
    m, depth = contraction.extents[-2], contraction.depth
    few = isinstance(m, int) and m <= 2 * rows
    longest = (WHOLE if few else LONGEST_DEPTH) if direct else PACKED_DEPTH
    if is_one_panel(contraction, width):  # a is read once: nothing of it need stay in a cache
        longest = max(longest, BLOCK_BYTES // (2 * width * size))
    if isinstance(depth, int):
        kc = rounded(-(-depth // max(-(-depth // longest), 1)), 4) if depth > longest else max(depth, 1)
        whole = direct and depth <= kc
    else:
        kc, whole = PACKED_DEPTH, False
    nc = WHOLE if whole else max(BLOCK_BYTES // (kc * size) // width, 1) * width
    n = contraction.extents[-1]
    if isinstance(n, int) and not whole:
        nc = rounded(-(-n // max(round(n / nc), 1)), width) or width
    most = -(-m // max(-(-m // MOST_ROWS), 1)) if isinstance(m, int) else MOST_ROWS
    return kc, nc, rounded(max(most, 1), rows)


def is_one_panel(contraction: Contraction, width: int) -> bool:
    """All columns are in one tile."""
    n = contraction.extents[-1]
    return isinstance(n, int) and n <= width


def rounded(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def may_stay(contraction: Contraction, size: int, rows: int) -> bool | None:
    """Whether b is read in place: contiguous along n, of the accumulator's kind, and small or seldom read."""
    m, n = contraction.extents[-2:]
    if contraction.b.strides[-2] != 1 or contraction.arguments[contraction.b.argument] != contraction.dtype:
        return False
    if isinstance(m, int) and m <= 2 * rows:
        return True if isinstance(n, int) else None
    step = contraction.b.strides[-1]
    crowded = isinstance(step, int) and is_crowded(step * size, WAYS + 1)  # all of a column is in one set
    if isinstance(n, int) and isinstance(contraction.depth, int):
        nbytes = n * contraction.depth * size
        if isinstance(m, int):
            return nbytes <= (IN_PLACE_SELDOM if m <= SELDOM * rows and not crowded else IN_PLACE)
        return True if nbytes <= IN_PLACE else None
    return None


def stays_near(contraction: Contraction, size: int) -> bool:
    """b is in the second-level cache when it is read, as far as one can know, and a column of it in the first."""
    n, depth, step = contraction.extents[-1], contraction.depth, contraction.b.strides[-1]
    if not isinstance(n, int) or not isinstance(depth, int) or not isinstance(step, int):
        return False
    return n * depth * size <= IN_PLACE and not is_crowded(step * size, depth)


def a_may_stay(contraction: Contraction, chosen: Blocking, size: int) -> bool:
    """Whether a is read in place: of the accumulator's kind, strides known, a tile's part not in few cache sets."""
    row, step = contraction.a.strides[-3], contraction.a.strides[-1]
    if contraction.arguments[contraction.a.argument] != contraction.dtype:
        return False
    if not chosen.direct_b and not is_one_panel(contraction, chosen.columns):
        return False
    if not isinstance(row, int) or not isinstance(step, int) or not isinstance(contraction.depth, int):
        return False
    if step == 1:
        return not is_crowded(row * size, chosen.rows[0])
    return row == 1 and (is_one_panel(contraction, chosen.columns) or not is_crowded(step * size, chosen.kc))


def is_crowded(stride: int, count: int) -> bool:
    """Whether so many lines of the first-level cache, so many bytes apart, push one another out."""
    if stride % LINE:
        return False
    return count > WAYS * SETS // gcd(SETS, stride // LINE)


def tile_shape(contraction: Contraction, lanes: int, target: Target,
               direct: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows and vectors of the tile's variants; where a size is known, those with the least estimated time."""
    m, n = contraction.extents[-2:]
    widest = 3 if most_rows(target, 3) >= 8 else 2
    if not isinstance(n, int):
        rows = min(most_rows(target, widest), 8)
        return row_variants(rows) if not isinstance(m, int) else (max(min(rows, m), 1),), (widest, 1)
    fits = max(n // lanes, 1)
    if isinstance(m, int):
        shapes = [(r, v) for v in range(1, min(fits, 8) + 1)
                  for r in range(1, min(max(m, 1), most_rows(target, v)) + 1) if v <= 4 or r == 1]
    else:
        shapes = [(most_rows(target, v), v) for v in range(1, min(fits, widest) + 1)]
    work = work_of(contraction, lanes, target, direct)
    best = min(shapes, key=lambda shape: (estimate(work, shape), shape[0] * shape[1]))
    rest = -(-(n % (best[1] * lanes)) // lanes)
    return ((best[0],) if isinstance(m, int) else row_variants(best[0]),
            (best[1],) if rest in (0, best[1]) else (best[1], rest))


@dataclass(frozen=True)
class Work:
    """What the time of a product depends on, besides its tile.  `nbytes` of a vector; `reads` of memory for each."""

    m: int
    n: int
    depth: int
    lanes: int
    nbytes: int
    reads: int
    is_resident: bool  # b stays in the first-level cache


def work_of(contraction: Contraction, lanes: int, target: Target, direct: bool) -> Work:
    m, n = contraction.extents[-2:]
    depth = contraction.depth if isinstance(contraction.depth, int) else TYPICAL_DEPTH
    assert isinstance(n, int)
    size = kind_bits(REGISTER[contraction.dtype]) // 8
    step = contraction.b.strides[-1]
    splits = direct and not (isinstance(step, int) and step * size % LINE == 0)  # vectors that lie in two lines
    return Work(m if isinstance(m, int) else TYPICAL_ROWS, n, depth, lanes, lanes * size,
                2 if splits and lanes * size == LINE else 1, n * depth * size <= RESIDENT)


def estimate(work: Work, shape: tuple[int, int]) -> float:
    """Cycles of the whole product."""
    rows, vectors = shape
    full, rest = divmod(work.n, vectors * work.lanes)
    narrow = -(-rest // work.lanes)
    return -(-work.m // rows) * (full * tile_cycles(work, rows, vectors)
                                 + (tile_cycles(work, rows, narrow) if narrow else 0.0))


def tile_cycles(work: Work, rows: int, vectors: int) -> float:
    """Arithmetic, loads or latency, whichever is longest; more where b flows in fast; and the tile's start and end.

    Fitted to measured products: two multiply-adds and two loads a cycle, a latency of four cycles.
    """
    step = max(rows * vectors / 2, (rows + vectors * work.reads) / 2, 4.0)
    lines = vectors * work.nbytes / LINE + (work.reads - 1)
    flow = 0.0 if work.is_resident else lines * LINE / (48 * step)
    return work.depth * step * (1 + flow * flow / 2) + 15 + 2.5 * rows * vectors
