"""The user's lines in machine code: metadata of LLVM, which writes them as DWARF 4.

    define internal void @kernel_0_tanh(..) #0 !dbg !14 {
      %v1 = load float, ptr %a0, align 4, !dbg !15
    !12 = !DIFile(filename: "model.py", directory: "")
    !14 = distinct !DISubprogram(name: "kernel_0_tanh", file: !12, line: 42, ..)
    !15 = !DILocation(line: 42, scope: !14)

Every instruction of a function that is described has a line, as LLVM demands of calls; a line of another file than the
function's own lies in a scope of that file.  No instruction is another one for it; on aarch64, what tells debuggers of
the stack may move some at the start of a function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
import os
import re

from graphc.ir.errors import Loc
from graphc.ir.plan import Contraction, Kernel

from .literals import escaped

FIRST = 8  # lower numbers of metadata are the module's own
NAME = re.compile(r"@([^(]+)\(")
WORD = re.compile(r"\W+")
LONGEST = 48  # characters of what a kernel computes, in its name
UNSPOKEN = ("load", "store", "keep", "const", "iota", "second", "accumulator", "accumulate", "cast")
REDUCED = {"add": "sum", "mul": "prod", "fastmax": "max"}


@dataclass(frozen=True)
class Origin:
    """The user's line of each entry of a library, and the folder that files are named from, "" to keep their names."""

    entries: tuple[Loc, ...]
    root: str = ""


class Lines:
    """What a module says of its functions; files below the folder `root` are named from there."""

    def __init__(self, root: str = "") -> None:
        self.root = root and os.path.join(os.path.abspath(root), "")
        self.numbers: dict[str, int] = {}

    def node(self, text: str) -> str:
        """A piece of metadata, once."""
        return f"!{self.numbers.setdefault(text, FIRST + len(self.numbers))}"

    def file(self, name: str) -> str:
        if self.root and os.path.abspath(name).startswith(self.root):
            name = os.path.relpath(name, self.root).replace(os.sep, "/")
        return self.node(f'!DIFile(filename: "{escaped(name.encode())}", directory: "")')

    def unit(self) -> str:
        """The module, by the file of its first function."""
        file = next(f"!{number}" for text, number in self.numbers.items() if text.startswith("!DIFile"))
        return self.node(f'distinct !DICompileUnit(language: DW_LANG_C99, file: {file}, producer: "graphc", '
                         "isOptimized: true, runtimeVersion: 0, emissionKind: FullDebug, nameTableKind: None)")

    def described(self, lines: Sequence[str | None], marks: Sequence[tuple[int, Loc]]) -> list[str]:
        """The lines of a function, with what belongs to each; from line `at` of it on they are of the mark's `loc`."""
        head, name = str(lines[0]), NAME.search(str(lines[0]))
        assert name is not None, head
        own = marks[0][1]
        function = self.function(name[1], own, is_local=" internal " in head)
        result: list[str] = []
        for (at, loc), (end, _) in pairwise([*marks, (len(lines), own)]):
            end_of_line = f", !dbg {self.location(function, own, loc)}" if at < end else ""
            result += [line + end_of_line if line.startswith("  ") else line for line in lines[at:end] if line]
        return [f"{head.removesuffix(' {')} !dbg {function} {{", *result[1:]]

    def function(self, name: str, loc: Loc, *, is_local: bool) -> str:
        file, kind = self.file(loc.file), self.node(f"!DISubroutineType(types: {self.node('!{}')})")
        flags = ["DISPFlagLocalToUnit"] * is_local + ["DISPFlagDefinition", "DISPFlagOptimized"]
        return self.node(f'distinct !DISubprogram(name: "{escaped(name.encode())}", scope: {file}, file: {file}, '
                         f"line: {loc.line}, type: {kind}, scopeLine: {loc.line}, spFlags: {' | '.join(flags)}, "
                         f"unit: {self.unit()})")

    def location(self, function: str, own: Loc, loc: Loc) -> str:
        scope = function
        if loc.file != own.file:
            scope = self.node(f"!DILexicalBlockFile(scope: {function}, file: {self.file(loc.file)}, discriminator: 0)")
        return self.node(f"!DILocation(line: {loc.line}, scope: {scope})")

    def text(self) -> str:
        """The metadata; nothing where no function is described."""
        if not self.numbers:
            return ""
        flags = [self.node('!{i32 7, !"Dwarf Version", i32 4}'), self.node('!{i32 2, !"Debug Info Version", i32 3}')]
        unit = self.unit()
        return "\n".join([*(f"!{number} = {text}" for text, number in self.numbers.items()),
                          f"!llvm.dbg.cu = !{{{unit}}}", f"!llvm.module.flags = !{{{', '.join(flags)}}}", ""])


def spoken(kernel: Kernel | Contraction, label: str) -> str:
    """What a kernel computes, as the end of a symbol's name: its operations, each once; `label` where it only moves."""
    words = ["matmul"] if isinstance(kernel, Contraction) else []
    words += [REDUCED.get(op.value[0], op.value[0]) if op.kind == "reduce" else op.kind for op in kernel.ops
              if op.kind not in UNSPOKEN]
    return WORD.sub("_", "_".join(dict.fromkeys(words)) or label)[:LONGEST].strip("_")
