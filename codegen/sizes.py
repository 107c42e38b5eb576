"""Sizes at run time: a `Dim` becomes straight-line 64-bit integer code over the symbols' registers.

    batch*64 + 1          mul nsw i64 %dim_batch, 64 ; add nsw i64 .., 1
    (batch + 7)//8        sdiv i64 with the correction that makes it a floor

Equal sizes are computed once per environment, so a kernel evaluates every extent and stride once, in its entry block.
"""

from __future__ import annotations

from hashlib import sha256

from graphc.ir.dims import Atom, Dim

from .text import Function, Int

Environment = dict[object, Int]


LONGEST = 500  # bytes of a name; LLVM cuts those of more than 1024


def symbol_register(symbol: str) -> str:
    """The parameter that holds a symbol's value."""
    if len(symbol.encode()) > LONGEST:
        symbol = f"{symbol[:8]}_{sha256(symbol.encode()).hexdigest()}"
    return f"%dim_{symbol}" if symbol.isascii() and symbol.isidentifier() else f'%"dim_{symbol}"'


def environment(symbols: tuple[str, ...]) -> Environment:
    """What `size_value` starts from: every symbol in its parameter."""
    return {symbol: symbol_register(symbol) for symbol in symbols}


def size_value(function: Function, size: int | Dim, env: Environment) -> Int:
    """The size as a known int or an i64 register; what is computed is remembered in `env`.

    Code is written where the function is being written, so call it first in a block that dominates every use.
    """
    if isinstance(size, int):
        return size
    if size not in env:
        total: Int = 0
        for monomial, factor in size.terms:
            term: Int = 1
            for atom in monomial:
                term = function.mul(term, _atom_value(function, atom, env))
            total = function.add(total, function.mul(term, factor))
        env[size] = total
    return env[size]


def _atom_value(function: Function, atom: Atom, env: Environment) -> Int:
    if atom not in env:
        name, a, b = atom
        combine = {"floordiv": function.floordiv, "min": function.minimum, "max": function.maximum}[name]
        env[atom] = combine(size_value(function, a, env), size_value(function, b, env))
    return env[atom]
