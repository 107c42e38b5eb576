"""A term under construction: atoms are identified, split and removed in place, then frozen into a `Term`.

`sizes` holds exactly the live atoms.  Identifications and splits are recorded while two sides are unified and carried
out once for the whole network by `rewire`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .. import build
from ..dims import Dim, exact_quotient, product
from ..node import Node
from .tensors import reduced
from .term import Factor, Size, Stride, Term, View


class Network:
    """out, inn, factors, views and coefficient over atoms that may still change."""

    def __init__(self) -> None:
        self.sizes: dict[int, Size] = {}
        self.out: list[int] = []
        self.inn: list[int] = []
        self.factors: list[Factor] = []
        self.views: list[View] = []
        self.coef = 1.0
        self.fresh_atom = 0
        self.parts: dict[int, tuple[int, ...]] = {}  # pending: an atom and what it becomes

    def fresh(self, size: Size) -> int:
        atom = self.fresh_atom
        self.fresh_atom += 1
        self.sizes[atom] = size
        return atom

    def load(self, term: Term) -> tuple[list[int], list[int]]:
        """Adds a term under new names; returns its two sides."""
        base = self.fresh_atom
        for atom, size in enumerate(term.sizes, base):
            self.sizes[atom] = size
        self.fresh_atom += len(term.sizes)
        self.factors += [(node, tuple([a + base for a in atoms])) for node, atoms in term.factors]
        for v in term.views:
            self.views.append(View(v.target + base, v.base, tuple((a + base, s) for a, s in v.strides), v.index,
                                   tuple(a + base for a in v.labels)))
        self.coef *= term.coef
        return [a + base for a in term.out], [a + base for a in term.inn]

    # -- identification --
    def unify(self, left: Sequence[int], right: Sequence[int]) -> None:
        """Identifies two row-major lists of atoms of the same total size, splitting atoms where sizes divide."""
        ahead, behind = list(reversed(left)), list(reversed(right))
        while self.settle(ahead) and self.settle(behind):
            p, q = ahead[-1], behind[-1]
            a, b = self.sizes[p], self.sizes[q]
            if p == q or a == b or len(ahead) == len(behind) == 1:
                ahead.pop()
                behind.pop()
                if p != q:
                    self.parts[q] = (p,)
            elif (rest := exact_quotient(a, b)) is not None and rest != 0:
                self.parts[p] = (self.fresh(b), self.fresh(rest))
            elif (rest := exact_quotient(b, a)) is not None and rest != 0:
                self.parts[q] = (self.fresh(a), self.fresh(rest))
            else:
                self.join(ahead, behind)
        for atom in ahead + behind:  # a symbolic size that a check of the graph holds to be 1
            self.views.append(View(atom))
        self.rewire()

    def settle(self, stack: list[int]) -> bool:
        """Brings the pending parts of the last atom onto the stack; False if it is empty."""
        while stack and stack[-1] in self.parts:
            stack.extend(reversed(self.parts[stack.pop()]))
        return bool(stack)

    def join(self, ahead: list[int], behind: list[int]) -> None:
        """Links the shortest leading groups of equal size through one flat atom with a view from either side."""
        left, right = self.expanded(reversed(ahead)), self.expanded(reversed(behind))
        g, h = equal_prefixes([self.sizes[a] for a in left], [self.sizes[a] for a in right])
        flat = self.fresh(product([self.sizes[a] for a in left[:g]]))
        for group in (left[:g], right[:h]):
            self.views.append(View(flat, 0, row_major(group, [self.sizes[a] for a in group])))
        ahead[:], behind[:] = left[g:][::-1], right[h:][::-1]

    def expanded(self, atoms: Iterable[int]) -> list[int]:
        stack, done = list(atoms)[::-1], []
        while self.settle(stack):
            done.append(stack.pop())
        return done

    def split(self, atom: int, sizes: Sequence[Size]) -> tuple[int, ...]:
        """Replaces an atom by several, row-major."""
        self.parts[atom] = new = tuple(self.fresh(size) for size in sizes)
        self.rewire()
        return new

    def identify(self, atom: int, other: int) -> None:
        """Gives `other` the name of `atom`; both are of one size."""
        self.parts[other] = (atom,)
        self.rewire()

    def rewire(self) -> None:
        """Carries out the pending identifications and splits everywhere."""
        if not self.parts:
            return
        became = {atom: tuple(self.expanded([atom])) for atom in self.parts}
        self.parts = {}
        self.out, self.inn = replaced(self.out, became), replaced(self.inn, became)
        self.factors = [self.resplit(node, atoms, became) for node, atoms in self.factors]
        halves = [View(atom, 0, row_major(parts, [self.sizes[a] for a in parts])) for atom in
                  dict.fromkeys(view.target for view in self.views) if len(parts := became.get(atom, ())) > 1]
        self.views = [self.renamed_view(view, became) for view in self.views] + halves
        targets = {view.target for view in self.views}
        for atom in became:
            if atom not in targets:
                del self.sizes[atom]

    def resplit(self, node: Node, atoms: Sequence[int], became: Mapping[int, tuple[int, ...]]) -> Factor:
        new = tuple(replaced(atoms, became))
        if len(new) != len(atoms):
            node = build.reshape(node, tuple(self.sizes[atom] for atom in new))
        return node, new

    def renamed_view(self, view: View, became: Mapping[int, tuple[int, ...]]) -> View:
        """The view between new atoms; a target that was split stays as an inner atom, tied to its parts by `rewire`."""
        target = became.get(view.target, (view.target,))
        kept = target[0] if len(target) == 1 else view.target
        if view.index is not None:
            index, labels = reduced(self.resplit(view.index, view.labels, became), self.sizes)
            return View(kept, index=index, labels=labels)
        strides: list[Stride] = []
        for atom, stride in view.strides:
            parts = became.get(atom, (atom,))
            strides += [(a, s * stride) for a, s in row_major(parts, [self.sizes[x] for x in parts])]
        return View(kept, view.base, merged_strides(strides))

    # -- the finished term --
    def ends(self) -> set[int]:
        """Atoms that must not be summed: of the two sides and of views."""
        return {*self.out, *self.inn}.union(*(view.atoms for view in self.views))

    def freeze(self) -> Term:
        number: dict[int, int] = {}

        def named(atoms: Iterable[int]) -> tuple[int, ...]:
            return tuple([number.setdefault(atom, len(number)) for atom in atoms])

        out, inn = named(self.out), named(self.inn)
        views: list[View] = []
        for v in sorted(self.views, key=lambda v: view_order(v, number)):
            target, *sources = named(v.atoms)
            views.append(View(target, v.base, tuple((a, s) for a, (_, s) in zip(sources, v.strides)), v.index,
                              tuple(sources) if v.index is not None else ()))
        unknown = len(self.sizes)
        ordered = sorted(self.factors, key=lambda f: ([number.get(a, unknown) for a in f[1]], f[0].id))
        factors = tuple([(node, named(atoms)) for node, atoms in ordered])
        return Term(out, inn, tuple([self.sizes[atom] for atom in number]), factors, tuple(views), self.coef)


def view_order(view: View, number: Mapping[int, int]) -> tuple[object, ...]:
    """A sorting key of views whose interior atoms have no numbers yet."""
    return ([number.get(atom, len(number)) for atom in view.atoms], repr(view.base),
            [repr(stride) for _, stride in view.strides], -1 if view.index is None else view.index.id)


def replaced(atoms: Iterable[int], became: Mapping[int, tuple[int, ...]]) -> list[int]:
    return [new for atom in atoms for new in became.get(atom, (atom,))]


def row_major(atoms: Sequence[int], sizes: Sequence[Size]) -> tuple[Stride, ...]:
    """Strides of a flat index over these atoms; one that comes twice runs along a diagonal."""
    strides: list[Stride] = []
    step: Size = 1
    for atom, size in zip(reversed(atoms), reversed(sizes)):
        strides.append((atom, step))
        step = step * size
    return merged_strides(reversed(strides))


def merged_strides(strides: Iterable[Stride]) -> tuple[Stride, ...]:
    """One stride per source."""
    total: dict[int, Size] = {}
    for atom, stride in strides:
        total[atom] = total.get(atom, 0) + stride
    return tuple(total.items())


def equal_prefixes(left: Sequence[Size], right: Sequence[Size]) -> tuple[int, int]:
    """Lengths of the shortest prefixes of equal product; the whole lists where no equality is known."""
    products: dict[int | Dim, int] = {}
    total: Size = 1
    for g, size in enumerate(left, 1):
        total = total * size
        products.setdefault(total, g)
    total = 1
    for h, size in enumerate(right, 1):
        total = total * size
        if total in products:
            return products[total], h
    return len(left), len(right)
