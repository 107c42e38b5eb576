"""Sizes of axes: an int, or a `Dim`, an integer polynomial over named symbols.

    Dim.symbol("batch") * 64 + 1        batch*64 + 1
    (batch + 7) // 8                    an atom of its own, because it is not a polynomial

A `Dim` is a sum of monomials, a monomial a product of atoms, an atom a symbol or one of `floordiv`, `min`,
`max` of two sizes.  Symbols stand for lengths, so they are never negative.  The form is canonical up to the
atoms: two sizes that are equal polynomials are equal objects of the same hash.  Arithmetic that comes out
constant gives an int, so a size is a `Dim` only where it really depends on a symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
import operator
from typing import Any

Size = "int | Dim"
Atom = Any  # str, or (name, size, size)
Monomial = tuple[Atom, ...]

FUNCTIONS: dict[str, Callable[[int, int], int]] = {"floordiv": operator.floordiv, "min": min, "max": max}


class Dim:
    """An integer polynomial over symbols; immutable."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms: tuple[tuple[Monomial, int], ...] = tuple(
            sorted(((m, c) for m, c in terms.items() if c), key=lambda term: (-len(term[0]), repr(term[0]))))
        self._hash = hash(self.terms)

    @staticmethod
    def symbol(name: str) -> Dim:
        return Dim({(name,): 1})

    # -- arithmetic --
    def __add__(self, other: int | Dim) -> int | Dim:
        terms = dict(self.terms)
        for monomial, factor in terms_of(other):
            terms[monomial] = terms.get(monomial, 0) + factor
        return collapsed(terms)

    def __mul__(self, other: int | Dim) -> int | Dim:
        terms: dict[Monomial, int] = {}
        for a, p in self.terms:
            for b, q in terms_of(other):
                monomial = tuple(sorted(a + b, key=repr))
                terms[monomial] = terms.get(monomial, 0) + p * q
        return collapsed(terms)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> int | Dim:
        return self * -1

    def __sub__(self, other: int | Dim) -> int | Dim:
        return self + other * -1

    def __rsub__(self, other: int | Dim) -> int | Dim:
        return self * -1 + other

    def __floordiv__(self, other: int | Dim) -> int | Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: int) -> int | Dim:
        return floordiv(other, self)

    def __mod__(self, other: int | Dim) -> int | Dim:
        return self - floordiv(self, other) * other

    # -- identity --
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __bool__(self) -> bool:
        raise TypeError(f"the truth of the symbolic size {self} is not known before run time")

    def __index__(self) -> int:
        raise TypeError(f"the symbolic size {self} is not an integer before run time")

    def __repr__(self) -> str:
        text = ""
        for monomial, factor in self.terms:
            atoms = "*".join(atom_text(atom) for atom in monomial)
            size = abs(factor)
            piece = str(size) if not atoms else atoms if size == 1 else f"{size}*{atoms}"
            text += (" - " if factor < 0 else " + ") + piece if text else ("-" if factor < 0 else "") + piece
        return text or "0"


def atom_text(atom: Atom) -> str:
    if isinstance(atom, str):
        return atom
    name, a, b = atom
    return f"(({a})//({b}))" if name == "floordiv" else f"{name}({a}, {b})"


def terms_of(size: int | Dim) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Dim) else (((), int(size)),)


def collapsed(terms: Mapping[Monomial, int]) -> int | Dim:
    """The size with these terms: an int when nothing symbolic is left."""
    live = {m: c for m, c in terms.items() if c}
    if not live:
        return 0
    if len(live) == 1 and () in live:
        return live[()]
    return Dim(live)


def exact_quotient(a: int | Dim, b: int | Dim) -> int | Dim | None:
    """a/b where b divides a as a polynomial, else None (b must not be zero)."""
    if a == b:
        return 1
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    lead, factor = terms_of(b)[0]
    quotient: int | Dim = 0
    rest = a
    for _ in range(64):  # leading terms cancel one by one
        if isinstance(rest, int) and rest == 0:
            return quotient
        top, coefficient = terms_of(rest)[0]
        left = list(top)
        for atom in lead:
            if atom not in left:
                return None
            left.remove(atom)
        if factor == 0 or coefficient % factor:
            return None
        step = collapsed({tuple(left): coefficient // factor})
        quotient, rest = quotient + step, rest - step * b
    return None


def call(name: str, a: int | Dim, b: int | Dim) -> int | Dim:
    """An atom, or its value when both sides are known."""
    if isinstance(a, int) and isinstance(b, int):
        return FUNCTIONS[name](a, b)
    return Dim({((name, a, b),): 1})


def floordiv(a: int | Dim, b: int | Dim) -> int | Dim:
    if isinstance(b, int) and b == 0:
        raise ZeroDivisionError(f"size {a} // 0")
    exact = exact_quotient(a, b)
    return exact if exact is not None else call("floordiv", a, b)


def ceildiv(a: int | Dim, b: int | Dim) -> int | Dim:
    return -floordiv(-a, b) if isinstance(a, int) and isinstance(b, int) else floordiv(a + b - 1, b)


def minimum(a: int | Dim, b: int | Dim) -> int | Dim:
    return a if a == b else call("min", a, b) if sign(a - b) is None else b if sign(a - b) == 1 else a


def maximum(a: int | Dim, b: int | Dim) -> int | Dim:
    return a if a == b else call("max", a, b) if sign(a - b) is None else a if sign(a - b) == 1 else b


def sign(size: int | Dim) -> int | None:
    """1 where the size is never negative, -1 where it is never positive, None where that is not known (0 gives 1)."""
    factors = [c for m, c in terms_of(size) if all(map(is_never_negative, m))]
    if len(factors) < len(terms_of(size)):
        return None
    return 1 if all(c >= 0 for c in factors) else -1 if all(c <= 0 for c in factors) else None


def is_never_negative(atom: Atom) -> bool:
    if isinstance(atom, str):
        return True
    name, a, b = atom
    signs = (sign(a), sign(b))
    return 1 in signs if name == "max" else signs == (1, 1)


def known_equal(a: int | Dim, b: int | Dim) -> bool | None:
    """Whether the two are equal for all (True) or for no (False) values of their symbols; None where it depends."""
    gap = a - b
    if isinstance(gap, int):
        return gap == 0
    constant = dict(gap.terms).get((), 0)
    return False if constant and sign(gap) == (1 if constant > 0 else -1) else None


def product(sizes: Sequence[int | Dim]) -> int | Dim:
    return reduce(operator.mul, sizes, 1)


def evaluate(size: int | Dim, values: Mapping[str, int]) -> int:
    """The size where the symbols have these values."""
    result = substitute(size, values)
    if not isinstance(result, int):
        raise KeyError(f"size {size}: no value for {', '.join(symbols_of(result))}")
    return result


def substitute(size: int | Dim, values: Mapping[str, int | Dim]) -> int | Dim:
    """The size with sizes in the place of symbols."""
    if not isinstance(size, Dim):
        return int(size)
    total: int | Dim = 0
    for monomial, factor in size.terms:
        term: int | Dim = factor
        for atom in monomial:
            if isinstance(atom, str):
                term = term * values.get(atom, Dim.symbol(atom))
            else:
                name, a, b = atom
                a, b = substitute(a, values), substitute(b, values)
                term = term * (floordiv(a, b) if name == "floordiv" else call(name, a, b))
        total = total + term
    return total


def atoms(size: int | Dim) -> Iterator[Atom]:
    for monomial, _ in terms_of(size):
        yield from monomial


def symbols_of(*sizes: int | Dim) -> tuple[str, ...]:
    """Names of the symbols in these sizes, sorted."""
    found: set[str] = set()
    pending = list(sizes)
    while pending:
        for atom in atoms(pending.pop()):
            if isinstance(atom, str):
                found.add(atom)
            else:
                pending += [atom[1], atom[2]]
    return tuple(sorted(found))


def to_sympy(size: int | Dim) -> Any:
    """The same size as a sympy expression over nonnegative integer symbols."""
    import sympy

    forms = {"floordiv": lambda a, b: sympy.floor(a / b), "min": sympy.Min, "max": sympy.Max}

    def atom(a: Atom) -> Any:
        if isinstance(a, str):
            return sympy.Symbol(a, integer=True, nonnegative=True)
        return forms[a[0]](to_sympy(a[1]), to_sympy(a[2]))

    return sum((factor * sympy.Mul(*map(atom, monomial)) for monomial, factor in terms_of(size)), sympy.Integer(0))


def encode(size: int | Dim) -> Any:
    """The size as plain JSON data; `decode` reads it back."""
    if isinstance(size, int):
        return size
    return [[factor, [a if isinstance(a, str) else [a[0], encode(a[1]), encode(a[2])] for a in monomial]]
            for monomial, factor in size.terms]


def decode(data: Any) -> int | Dim:
    """Reads what `encode` wrote; ValueError for anything else."""
    if type(data) is int:
        return data
    if not isinstance(data, list) or not data:
        raise ValueError(f"not a size: {data!r}")
    total: int | Dim = 0
    try:
        for factor, monomial in data:
            term: int | Dim = int(factor)
            for a in monomial:
                term = term * (Dim.symbol(a) if isinstance(a, str) else decode_call(*a))
            total = total + term
    except (TypeError, ValueError) as fault:
        raise ValueError(f"not a size: {data!r}: {fault}") from fault
    return total


def decode_call(name: str, a: Any, b: Any) -> int | Dim:
    if name not in FUNCTIONS:
        raise ValueError(f"unknown function {name!r}")
    return call(name, decode(a), decode(b))
