"""Which axes of a product are cut into ranges that threads take: the longest batch axis, rows and columns.

The function of a product has two parameters for each, `%lo<axis>` and `%hi<axis>`.  Any ranges give the bits of the
whole; those that start at multiples of a tile give them without waste.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.dims import Dim
from graphc.ir.plan import Contraction

from ..target import Target
from ..text import Int
from ..work import REGION, product_work

ASSUMED = 256  # length of a batch axis that is not known before run time


@dataclass(frozen=True)
class Range:
    """An axis of the extents that may be cut at multiples of `multiple`; cuts at multiples of `block` are for free."""

    axis: int
    extent: int | Dim
    multiple: int
    block: int

    @property
    def bounds(self) -> tuple[Int, Int]:
        return f"%lo{self.axis}", f"%hi{self.axis}"


def ranges(contraction: Contraction, target: Target, rows: int, columns: int, block: int) -> tuple[Range, ...]:
    """The axes of a product, as it is computed, that are worth cutting: to tiles of rows and columns."""
    work = product_work(contraction, target)
    if isinstance(work, int) and work < REGION:
        return ()
    *batch, m, n = contraction.extents
    found = [Range(len(batch), m, rows, rows), Range(len(batch) + 1, n, columns, block)]
    if any(size != 1 for size in batch):
        axis = max(range(len(batch)), key=lambda a: size if isinstance(size := batch[a], int) else ASSUMED)
        found.insert(0, Range(axis, batch[axis], 1, 1))
    return tuple(r for r in found if not isinstance(r.extent, int) or r.extent > r.multiple)
