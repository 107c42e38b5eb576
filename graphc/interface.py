"""An entry of a library as C sees it: names that C can have, arguments, and what the header says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import re
import unicodedata

from codegen.entry import used_state
from codegen.header import KEYWORDS, MACROS, STDINT, CArgument, CFunction, CPattern, c_argument

from .ir.dims import Dim, substitute
from .ir.errors import GraphError
from .ir.node import Node
from .ir.plan import Array, Program
from .signatures import Signature

WORD = re.compile(r"[A-Za-z0-9]+")
LONGEST = 200  # characters of a name of a graph that become a name in C


class Names:
    """Names in C within one scope of the library, each given once."""

    def __init__(self, library: str, taken: Iterable[str] = ()) -> None:
        self.prefix = f"{library.upper()}_"  # of the macros and constants of its header
        self.taken = set(taken)

    def of(self, name: str) -> str:
        """A C identifier like the name that is not taken yet; takes it."""
        plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
        base = "_".join(WORD.findall(plain))[:LONGEST].rstrip("_") or "array"  # letters without their accents
        if base[0].isdigit():
            base = f"array_{base}"
        if base in KEYWORDS or base in MACROS or STDINT.fullmatch(base) or base.startswith(self.prefix):
            base += "_value"
        found, number = base, 0
        while found in self.taken or found in KEYWORDS:
            number += 1
            found = f"{base}_{number}"
        self.taken.add(found)
        return found


def state_members(library: str, state: Sequence[Node], entries: Mapping[str, Signature]) -> tuple[CArgument, ...]:
    names, members = Names(library), []
    for v in state:
        updating = [entry for entry, what in entries.items() if any(variable is v for variable, _ in what.updates)]
        says = next((text for what in entries.values() if (text := what.comments.get(v.name))), "")
        texts = [says, f"updated by {', '.join(updating)}" if updating else "no entry updates it"]
        name = names.of(v.name)
        members.append(c_argument(name, v.dtype, [int(size) for size in v.shape], "state",
                                  comment_of(name, v.name, "; ".join(text for text in texts if text))))
    return tuple(members)


def comment_of(name: str, own: str, text: str) -> str:
    """What is said of an argument; where C has another name for it, its own name too."""
    return "; ".join(part for part in (f"{own!r} of the graph" if own != name else "", text) if part)


def c_function(library: str, entry: str, what: Signature, program: Program, state: Sequence[Node],
               members: Sequence[CArgument], weights: int) -> CFunction:
    """Its members of the state, which are the variables `state`, come after so many weights of the program."""
    names, comments = Names(library, ("state", "workspace")), what.comments
    dims = {symbol: names.of(symbol) for symbol in program.symbols}
    if clash := [name for name in what.names if what.names.count(name) > 1]:
        raise GraphError(f"compile_library: entry {entry!r}: two outputs named {clash[0]!r}")

    def array(spec: Array, own: str, direction: str, origin: str = "") -> CArgument:
        name = names.of(own)
        says = "; ".join(text for text in (comments.get(own), origin) if text)
        return c_argument(name, spec.dtype, c_shape(spec, dims), direction, comment_of(name, own, says))
    inputs = [array(spec, spec.name, "in") for spec in program.inputs]
    origins = what.origins or [""] * len(what.names)
    outputs = [array(spec, name, "out", text) for spec, name, text in zip(program.outputs, what.names, origins)]
    patterns = tuple(CPattern(item.name, p.shape, tuple(p.indptr), tuple(p.indices))
                     for item, p in zip(outputs, what.patterns) if p is not None)
    used = [members[k - weights] for k in used_state(program) if k >= weights]
    sizes = {c: comment_of(c, own, comments.get(own, "")) for own, c in dims.items()}
    return CFunction(entry, tuple(dims.values()), (*inputs, *outputs, *used),
                     function_text(what, outputs, state, members), patterns, sizes)


def function_text(what: Signature, outputs: Sequence[CArgument], state: Sequence[Node],
                  members: Sequence[CArgument]) -> str:
    changed = [item.name for v, item in zip(state, members) if any(variable is v for variable, _ in what.updates)]
    done = f"Computes {', '.join(item.name for item in outputs) or 'nothing to return'}"
    done += f"; then updates {', '.join(changed)} of the state." if changed else "."
    return f"{what.doc.rstrip()} {done}".lstrip()


def c_shape(array: Array, dims: Mapping[str, str]) -> list[int | str]:
    sizes = {symbol: Dim.symbol(new) for symbol, new in dims.items()}
    return [size if isinstance(size := substitute(old, sizes), int) else str(size) for old in array.shape]
