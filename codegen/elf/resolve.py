"""Which definition every symbol of every object means.

In: the parsed objects, the names of the blobs, what may be imported and what is exported.  Out: `Symbols`, where each
(object, symbol) has a `Target`: a place in a section of an object, in a blob, an import, or the global offset table.
Strong definitions win over weak ones, the first weak one wins over the others, and a definition of ours always wins
over an import: nothing that is bound here can be replaced from outside later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from . import read
from .read import LinkError, Object, Symbol

# Owners of targets that are in no object
IMPORTED, BLOB, TABLE = -1, -2, -3

TABLE_NAME = "_GLOBAL_OFFSET_TABLE_"


class Target(NamedTuple):
    """Byte `value` of section `part` of object `owner`; or of blob `part`, or import number `part`."""

    owner: int
    part: int
    value: int


@dataclass(frozen=True)
class Symbols:
    """`targets[object][symbol]` is None for symbols that no relocation may name (absolute ones, file names)."""

    targets: tuple[tuple[Target | None, ...], ...]
    definitions: dict[str, tuple[int, int]]  # name -> (object, symbol)
    imports: tuple[str, ...]
    weak_imports: frozenset[str]
    exports: tuple[str, ...]


def resolve(objects: Sequence[Object], *, exports: Sequence[str], imports: Collection[str],
            blobs: Sequence[str]) -> Symbols:
    """Binds every symbol; errors name all symbols concerned at once."""
    definitions = _definitions(objects)
    _check_names(definitions, exports=exports, blobs=blobs)
    imported, weak = _imports(objects, {*definitions, *blobs, TABLE_NAME}, imports)
    place: dict[str, Target] = {name: Target(IMPORTED, i, 0) for i, name in enumerate(imported)}
    place |= {name: Target(BLOB, i, 0) for i, name in enumerate(blobs)}
    place.setdefault(TABLE_NAME, Target(TABLE, 0, 0))
    for name, (owner, k) in definitions.items():
        symbol = objects[owner].symbols[k]
        place[name] = Target(owner, symbol.section, symbol.value)
    targets = tuple(tuple(_target(symbol, owner, place) for symbol in item.symbols)
                    for owner, item in enumerate(objects))
    return Symbols(targets, definitions, imported, weak, tuple(exports))


def _target(symbol: Symbol, owner: int, place: dict[str, Target]) -> Target | None:
    if symbol.binding != read.LOCAL:
        return place.get(symbol.name)
    if symbol.section in (read.UNDEFINED, read.ABSOLUTE):
        return None
    return Target(owner, symbol.section, symbol.value)


def _globals(objects: Sequence[Object]) -> Iterator[tuple[int, int, Symbol]]:
    for owner, item in enumerate(objects):
        for k, symbol in enumerate(item.symbols):
            if symbol.binding != read.LOCAL and symbol.name:
                yield owner, k, symbol


def _definitions(objects: Sequence[Object]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for owner, k, symbol in _globals(objects):
        if symbol.section == read.UNDEFINED:
            continue
        if symbol.section == read.ABSOLUTE:
            raise LinkError(f"link: {objects[owner].label}: global symbol {symbol.name!r} is an absolute number")
        if not objects[owner].sections[symbol.section].is_allocated:
            raise LinkError(f"link: {objects[owner].label}: global symbol {symbol.name!r} is in section "
                            f"{objects[owner].sections[symbol.section].name}, which is not loaded")
        if symbol.name not in found:
            found[symbol.name] = owner, k
            continue
        other, j = found[symbol.name]
        if symbol.binding == read.WEAK:
            continue
        if objects[other].symbols[j].binding != read.WEAK:
            raise LinkError(f"link: {symbol.name!r} is defined in {objects[other].label} and {objects[owner].label}")
        found[symbol.name] = owner, k
    return found


def _check_names(definitions: dict[str, tuple[int, int]], *, exports: Sequence[str], blobs: Sequence[str]) -> None:
    for what, names in (("export", exports), ("blob", blobs)):
        for name in names:
            if not name or "\0" in name:
                raise LinkError(f"link: {what} {name!r} is no symbol name")
    if len(set(exports)) != len(exports):
        raise LinkError(f"link: exported twice: {_listed(n for n in set(exports) if exports.count(n) > 1)}")
    if clash := [name for name in blobs if name in definitions]:
        raise LinkError(f"link: blobs that the objects also define: {_listed(clash)}")
    if missing := [name for name in exports if name not in definitions]:
        raise LinkError(f"link: exports that no object defines: {_listed(missing)}")


def _imports(objects: Sequence[Object], known: Collection[str],
             allowed: Collection[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Names that the dynamic loader must find, in order of first use, and those that it need not find."""
    used: dict[str, None] = {}
    needed: set[str] = set()
    for _, _, symbol in _globals(objects):
        if symbol.section == read.UNDEFINED and symbol.name not in known:
            used[symbol.name] = None
            if symbol.binding != read.WEAK:
                needed.add(symbol.name)
    if undefined := [name for name in used if name not in allowed]:
        raise LinkError(f"link: undefined symbols, neither in an object, a blob nor in `imports`: {_listed(undefined)}")
    return tuple(used), frozenset(used.keys() - needed)


def _listed(names: Collection[str] | Iterator[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))
