"""Text of LLVM IR, written line by line.

A `Module` collects functions, globals and declarations; a `Function` is one function under construction.
Values are strings: a register (`%v3`), a constant (`splat (float 0x3FF0000000000000)`), or for 64-bit
integers a Python int, which folds.  Building text and parsing it once is 30 times faster than a Python builder
object per instruction, and reaches every attribute and metadata form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import struct

from graphc.ir.errors import Loc

from .debug import Lines

Int = int | str  # a 64-bit integer: known now, or a register

LOOP_METADATA = '!1 = distinct !{!1, !2}\n!2 = !{!"llvm.loop.unroll.disable"}\n'
INLINE = " alwaysinline"  # of a call, or of a function where it is defined
RARELY = '!3 = !{!"branch_weights", i32 1, i32 1048575}\n'


def float_literal(value: float, bits: int) -> str:
    """Exact literal of a `float` or `double` constant: LLVM writes both as the 64 bits of the double."""
    if bits == 32:
        try:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    image, = struct.unpack("<Q", struct.pack("<d", value))
    return f"0x{image:016X}"


class Module:
    """Functions, globals and declarations of one module; each declaration and each named text is written once."""

    def __init__(self, *, attributes: str = 'nounwind "prefer-vector-width"="512"', more_attributes: str = "",
                 debug: Lines | None = None) -> None:
        self.attributes = f"{attributes} {more_attributes}".rstrip()
        self.debug = debug
        self.loc: Loc | None = None  # the user's line of the functions that are being written
        self.declarations: dict[str, None] = {}
        self.globals: dict[str, str] = {}
        self.functions: dict[str, str] = {}
        self.kernels: dict[str, str] = {}  # kernels that are emitted already, by their text

    def declare(self, signature: str) -> None:
        """`signature` as in `float @llvm.fabs.f32(float)`."""
        self.declarations[signature] = None

    def add_global(self, name: str, text: str) -> None:
        self.globals.setdefault(name, text)

    def add(self, name: str, text: str) -> None:
        self.functions.setdefault(name, text)

    @contextmanager
    def at(self, loc: Loc | None) -> Iterator[None]:
        """Functions written within belong to that line."""
        outside = self.loc
        self.loc = loc or outside
        yield
        self.loc = outside

    def text(self) -> str:
        defined = {f"@{name}(" for name in self.functions}
        declared = [f"declare {d}" for d in sorted(self.declarations) if not any(name in d for name in defined)]
        return "\n".join([*self.globals.values(), *self.functions.values(), *declared,
                          f"attributes #0 = {{ {self.attributes} }}", "!0 = !{i32 1}",
                          LOOP_METADATA + RARELY + (self.debug.text() if self.debug is not None else "")])


class Function:
    """One function under construction.  `head` is everything before the opening brace."""

    def __init__(self, module: Module, head: str) -> None:
        self.module = module
        self.lines: list[str | None] = [head + " {", "entry:"]
        self.counter = 0
        self.block = "entry"  # label of the block being written
        self.marks: list[tuple[int, Loc]] = []  # where the user's line changes, if that is to be told
        if module.debug is not None and module.loc is not None:
            self.marks.append((0, module.loc))

    def at(self, loc: Loc | None) -> None:
        """What is written from here on belongs to that line."""
        if self.marks and loc is not None:
            self.marks.append((len(self.lines), loc))

    # -- lines --
    def register(self) -> str:
        self.counter += 1
        return f"%v{self.counter}"

    def emit(self, text: str) -> None:
        self.lines.append("  " + text)

    def value(self, text: str) -> str:
        register = self.register()
        self.lines.append(f"  {register} = {text}")
        return register

    def call(self, result: str, name: str, *arguments: tuple[str, Int], how: str = "call") -> str:
        """Calls a function that is declared here by the types of its arguments; returns the register ("" for void)."""
        self.module.declare(f"{result} @{name}({', '.join(kind for kind, _ in arguments)})")
        text = f"{how} {result} @{name}({', '.join(f'{kind} {value}' for kind, value in arguments)})"
        if result != "void":
            return self.value(text)
        self.emit(text)
        return ""

    def prefetch(self, pointer: str, *, write: bool = False, near: int = 3) -> None:
        """Fetches a line into the caches, the first-level one if `near` is 3; the address need not be one of ours."""
        self.call("void", "llvm.prefetch.p0", ("ptr", pointer), ("i32", int(write)), ("i32", near), ("i32", "1"))

    def text(self) -> str:
        lines: Sequence[str | None] = self.lines
        if self.marks and self.module.debug is not None:
            lines = self.module.debug.described(lines, self.marks)
        return "\n".join(line for line in lines if line is not None) + "\n}\n"

    # -- blocks --
    def new_label(self, prefix: str = "b") -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    def place(self, label: str) -> None:
        self.lines.append(label + ":")
        self.block = label

    def branch(self, label: str) -> None:
        self.emit(f"br label %{label}")

    def branch_if(self, condition: str, yes: str, no: str, *, unlikely: bool = False) -> None:
        """`unlikely` says that the condition hardly ever holds."""
        self.emit(f"br i1 {condition}, label %{yes}, label %{no}{', !prof !3' if unlikely else ''}")

    def when(self, condition: str, body: Callable[[], None]) -> None:
        """Runs `body` only where `condition` (an i1) holds."""
        yes, after = self.new_label("then"), self.new_label("after")
        self.branch_if(condition, yes, after)
        self.place(yes)
        body()
        self.branch(after)
        self.place(after)

    def either(self, condition: str, yes: Callable[[], None], no: Callable[[], None]) -> None:
        """Runs one of the two."""
        def arm(body: Callable[[], None]) -> Sequence[Int]:
            body()
            return ()
        self.choose(condition, (), lambda: arm(yes), lambda: arm(no))

    def choose(self, condition: str, types: Sequence[str], yes: Callable[[], Sequence[Int]],
               no: Callable[[], Sequence[Int]], *, unlikely: bool = False) -> list[str]:
        """Both arms return values of `types`; the result is what the arm that ran returned."""
        first, second, after = self.new_label("then"), self.new_label("else"), self.new_label("after")
        self.branch_if(condition, first, second, unlikely=unlikely)
        arms = []
        for label, body in ((first, yes), (second, no)):
            self.place(label)
            arms.append((body(), self.block))
            self.branch(after)
        self.place(after)
        (a, from_a), (b, from_b) = arms
        return [self.value(f"phi {kind} [{x}, %{from_a}], [{y}, %{from_b}]") for kind, x, y in zip(types, a, b)]

    def loop(self, start: Int, stop: Int, step: Int, carried: Sequence[tuple[str, Int]],
             body: Callable[[Int, list[str]], Sequence[Int]]) -> list[str]:
        """`for i in range(start, stop, step)`; `carried` are (type, first value), `body(i, values)` the next ones."""
        before = self.block
        head, inside, after = self.new_label("head"), self.new_label("body"), self.new_label("exit")
        self.branch(head)
        self.place(head)
        index = self.register()
        values = [self.register() for _ in carried]
        at = len(self.lines)
        self.lines += [None] * (1 + len(values))
        self.branch_if(self.value(f"icmp slt i64 {index}, {stop}"), inside, after)
        self.place(inside)
        following = body(index, list(values))
        advanced = self.value(f"add nsw i64 {index}, {step}")
        latch = self.block
        self.emit(f"br label %{head}, !llvm.loop !1")
        self.lines[at] = f"  {index} = phi i64 [{start}, %{before}], [{advanced}, %{latch}]"
        for offset, ((kind, first), value, last) in enumerate(zip(carried, values, following), 1):
            self.lines[at + offset] = f"  {value} = phi {kind} [{first}, %{before}], [{last}, %{latch}]"
        self.place(after)
        return values

    # -- 64-bit integers, folded where known --
    def add(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        return b if a == 0 else a if b == 0 else self.value(f"add nsw i64 {a}, {b}")

    def sub(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self.value(f"sub nsw i64 {a}, {b}")

    def mul(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        return b if a == 1 else a if b == 1 else self.value(f"mul nsw i64 {a}, {b}")

    def floordiv(self, a: Int, b: Int) -> Int:
        """Floor division by a positive divisor."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        if b == 1:
            return a
        quotient = self.value(f"sdiv i64 {a}, {b}")
        remainder = self.value(f"srem i64 {a}, {b}")
        negative = self.value(f"icmp slt i64 {remainder}, 0")
        return self.value(f"add i64 {quotient}, {self.value(f'sext i1 {negative} to i64')}")

    def ceildiv(self, a: Int, b: int) -> Int:
        """Ceiling of a/b for a >= 0 and b > 0."""
        return -(-a // b) if isinstance(a, int) else self.value(f"udiv i64 {self.add(a, b - 1)}, {b}")

    def minimum(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.value(f"select i1 {self.value(f'icmp slt i64 {a}, {b}')}, i64 {a}, i64 {b}")

    def maximum(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.value(f"select i1 {self.value(f'icmp sgt i64 {a}, {b}')}, i64 {a}, i64 {b}")

    def pick(self, predicate: str, a: Int, b: Int, yes: Int, no: Int) -> Int:
        """`yes` where a and b compare (`eq` or `slt`), else `no`."""
        if isinstance(a, int) and isinstance(b, int):
            return yes if (a < b if predicate == "slt" else a == b) else no
        if yes == no or a == b:
            return yes if a != b or predicate == "eq" else no
        return self.value(f"select i1 {self.value(f'icmp {predicate} i64 {a}, {b}')}, i64 {yes}, i64 {no}")

    def round_up(self, a: Int, multiple: int) -> Int:
        """`a` rounded up to a power of two."""
        if isinstance(a, int):
            return -(-a // multiple) * multiple
        return self.value(f"and i64 {self.add(a, multiple - 1)}, {-multiple}")

    def element(self, kind: str, pointer: str, index: Int) -> str:
        """Address of element `index` of an array of `kind`."""
        return pointer if index == 0 else self.value(f"getelementptr {kind}, ptr {pointer}, i64 {index}")
