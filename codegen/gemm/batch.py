"""What every form of the product shares: its run-time sizes, the loops over batch axes, where operands start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.dims import Dim, symbols_of
from graphc.ir.plan import Contraction, Map

from ..sizes import Environment, environment, size_value, symbol_register
from ..text import Function, Int, Module
from ..vectors import MEMORY
from .pack import between
from .ranges import Range


def sizes_of(contraction: Contraction) -> tuple[str, ...]:
    """Symbols of the contraction, sorted: its run-time parameters."""
    maps = [contraction.a, contraction.b, *(op.map for op in contraction.ops if op.map is not None)]
    sizes = [size for map_ in maps for size in (map_.offset, *map_.strides)]
    known = [op.value for op in contraction.ops if isinstance(op.value, Dim)]
    return symbols_of(*contraction.extents, contraction.depth, *sizes, *known)


def parameters(contraction: Contraction) -> list[str]:
    """The typed parameters that every function of the contraction starts with."""
    return [*(f"ptr noalias %a{i}" for i in range(len(contraction.arguments))),
            *(f"i64 {symbol_register(symbol)}" for symbol in sizes_of(contraction))]


class Frame:
    """The contraction's function under construction, its sizes, and the batch element that it is at."""

    def __init__(self, module: Module, contraction: Contraction, name: str, cut: Sequence[Range] = ()) -> None:
        bounds = [f"i64 {bound}" for part in cut for bound in part.bounds]
        head = ", ".join([*parameters(contraction), *bounds, "ptr %workspace"])
        self.function = Function(module, f"define internal void @{name}({head}) #0")
        self.module, self.contraction, self.name = module, contraction, name
        self.env: Environment = environment(sizes_of(contraction))
        self.batch: Sequence[Int] = ()
        for map_ in (contraction.a, contraction.b):
            for value in (map_.offset, *map_.strides):
                self.size(value)
        self.bounds: list[tuple[Int, Int]] = [(0, self.size(extent)) for extent in contraction.extents]
        for part in cut:
            self.bounds[part.axis] = part.bounds

    def size(self, value: int | Dim) -> Int:
        return size_value(self.function, value, self.env)

    def over_batch(self, body: Callable[[], None], indices: tuple[Int, ...] = ()) -> None:
        """Runs `body` for every batch element of the range."""
        if len(indices) == len(self.bounds) - 2:
            self.batch = indices
            body()
            return
        low, high = self.bounds[len(indices)]
        between(self.function, low, high, 1, lambda i: self.over_batch(body, (*indices, i)))

    def base(self, map_: Map) -> str:
        """Where the operand of this batch element starts."""
        offset = self.size(map_.offset)
        for index, stride in zip(self.batch, map_.strides, strict=False):
            offset = self.function.add(offset, self.function.mul(index, self.size(stride)))
        return self.function.element(MEMORY[self.contraction.arguments[map_.argument]], f"%a{map_.argument}", offset)

    def finish(self, tile: str, *places: Int) -> None:
        """Calls the epilogue: m, n, rows, columns."""
        listed = [f"ptr %a{i}" for i in range(len(self.contraction.arguments))]
        listed += [f"i64 {self.env[symbol]}" for symbol in sizes_of(self.contraction)]
        listed += [f"i64 {index}" for index in self.batch]
        listed += [f"ptr {tile}", *(f"i64 {place}" for place in places)]
        self.function.emit(f"call void @{self.name}_epilogue({', '.join(listed)})")

    def close(self) -> None:
        self.function.emit("ret void")
        self.module.add(self.name, self.function.text())
