"""Operations on vectors of one length: `Lanes` writes instructions on `<count x T>`, on plain scalars if count is 1.

Form of a value: a string, a register or a constant of the dtype's register type.
    float64 -> double; float32, float16, bfloat16 -> float; (u)intN -> iN; bool -> i1
In memory float16 is `half`, bfloat16 is `i16` and bool is `i8` holding 0 or 1: `load_convert` and `store_convert` go
between the two.  Values of float16 and bfloat16 are rounded when stored and by a cast, not after each operation.

Invariants: nothing here becomes a call in the object; `fma` is two instructions where the machine has no fused one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.errors import Unsupported

from .target import Target
from .text import Function, float_literal

FLOATS = ("float64", "float32", "float16", "bfloat16")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *SIGNED, *UNSIGNED, "bool")

REGISTER = {"float64": "double", "float32": "float", "float16": "float", "bfloat16": "float", "bool": "i1"}
REGISTER |= {dtype: "i" + dtype.removeprefix("u").removeprefix("int") for dtype in SIGNED + UNSIGNED}
MEMORY = REGISTER | {"float16": "half", "bfloat16": "i16", "bool": "i8"}

FLOAT_PREDICATES = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}


def kind_bits(kind: str) -> int:
    """Width of an element kind: double -> 64, i8 -> 8."""
    return {"double": 64, "float": 32, "half": 16}.get(kind) or int(kind[1:])


class Lanes:
    """Writes operations on vectors of `count` elements into `function`, for `target`."""

    def __init__(self, function: Function, target: Target, count: int) -> None:
        self.function = function
        self.target = target
        self.count = count

    # -- types and constants --
    def vector(self, kind: str) -> str:
        """The type of `count` elements of an LLVM kind such as `float` or `i1`."""
        return kind if self.count == 1 else f"<{self.count} x {kind}>"

    def type(self, dtype: str) -> str:
        """The type of a value of `dtype` in registers."""
        return self.vector(REGISTER[dtype])

    def memory_type(self, dtype: str) -> str:
        """The type that a load or a store of `dtype` has."""
        return self.vector(MEMORY[dtype])

    def literal(self, kind: str, value: float | int) -> str:
        """The constant `value` in every lane; `kind` as for `vector`."""
        if kind in ("float", "double"):
            text = float_literal(float(value), kind_bits(kind))
        elif kind == "i1":
            text = "true" if value else "false"
        else:
            text = str(int(value))
        return text if self.count == 1 else f"splat ({kind} {text})"

    def constant(self, dtype: str, value: float | int) -> str:
        return self.literal(REGISTER[dtype], value)

    def splat(self, dtype: str, scalar: str) -> str:
        """A scalar register (of the register type) in every lane."""
        if self.count == 1:
            return scalar
        one = self.value(f"insertelement {self.type(dtype)} poison, {REGISTER[dtype]} {scalar}, i64 0")
        return self.value(f"shufflevector {self.type(dtype)} {one}, {self.type(dtype)} poison, "
                          f"<{self.count} x i32> zeroinitializer")

    # -- instructions --
    def value(self, text: str) -> str:
        return self.function.value(text)

    def binary(self, instruction: str, kind: str, a: str, b: str) -> str:
        """`instruction` as in `fadd` or `lshr`."""
        return self.value(f"{instruction} {self.vector(kind)} {a}, {b}")

    def convert(self, instruction: str, source: str, value: str, destination: str) -> str:
        """`instruction` as in `bitcast`, `zext` or `fptrunc`; nothing when both kinds are one."""
        if source == destination:
            return value
        return self.value(f"{instruction} {self.vector(source)} {value} to {self.vector(destination)}")

    def intrinsic(self, name: str, kind: str, *operands: str) -> str:
        """`llvm.<name>` whose result and operands have one kind."""
        kind_type = self.vector(kind)
        return self.function.call(kind_type, f"llvm.{name}.{self.mangled(kind)}",
                                  *((kind_type, operand) for operand in operands))

    def mangled(self, kind: str) -> str:
        """The type as intrinsic names spell it: v16f32, f64, v8i1."""
        letter = f"f{kind_bits(kind)}" if kind in ("float", "double", "half") else kind
        return letter if self.count == 1 else f"v{self.count}{letter}"

    def fma(self, kind: str, a: str, b: str, c: str) -> str:
        """a*b + c, rounded once where the machine can; a call to `llvm.fma` elsewhere would be one to libm."""
        if self.target.has_fma:
            return self.intrinsic("fma", kind, a, b, c)
        return self.binary("fadd", kind, self.binary("fmul", kind, a, b), c)

    def multiply_add(self, kind: str, a: str, b: str, c: str) -> str:
        """a*b + c of floats or integers."""
        if kind in ("float", "double"):
            return self.fma(kind, a, b, c)
        return self.binary("add", kind, self.binary("mul", kind, a, b), c)

    def compare(self, dtype: str, predicate: str, a: str, b: str) -> str:
        """`predicate` is eq, ne, lt, le, gt or ge with NumPy's meaning; the result is a bool."""
        if dtype in FLOATS:
            return self.value(f"fcmp {FLOAT_PREDICATES[predicate]} {self.type(dtype)} {a}, {b}")
        sign = "" if predicate in ("eq", "ne") else "s" if dtype in SIGNED else "u"
        return self.value(f"icmp {sign}{predicate} {self.type(dtype)} {a}, {b}")

    def pick(self, kind: str, mask: str, yes: str, no: str) -> str:
        return self.value(f"select {self.vector('i1')} {mask}, {self.vector(kind)} {yes}, {self.vector(kind)} {no}")

    def select(self, dtype: str, mask: str, yes: str, no: str) -> str:
        return self.pick(REGISTER[dtype], mask, yes, no)

    def any(self, mask: str) -> str:
        """A scalar i1: does `mask` hold in some lane?"""
        if self.count == 1:
            return mask
        return self.function.call("i1", f"llvm.vector.reduce.or.v{self.count}i1", (self.vector("i1"), mask))

    def parts(self, kind: str, value: str, pieces: int) -> list[str]:
        """`value` cut into vectors of count/pieces lanes."""
        width = self.count // pieces
        whole = self.vector(kind)
        return [self.value(f"shufflevector {whole} {value}, {whole} poison, {_indices(i, width)}")
                for i in range(0, self.count, width)]

    def join(self, kind: str, pieces: Sequence[str]) -> str:
        """The inverse of `parts`; the number of pieces is a power of two."""
        width, level = self.count // len(pieces), list(pieces)
        while len(level) > 1:
            narrow = f"<{width} x {kind}>"
            level = [self.value(f"shufflevector {narrow} {a}, {narrow} {b}, {_indices(0, 2 * width)}")
                     for a, b in zip(level[::2], level[1::2], strict=True)]
            width *= 2
        return level[0]

    def repeat(self, carried: Sequence[tuple[str, str]],
               body: Callable[[list[str]], tuple[Sequence[str], str]]) -> list[str]:
        """`body(values) -> (next values, mask)` until its mask holds in no lane; `carried` are (type, first value)."""
        function, before = self.function, self.function.block
        head, after = function.new_label("again"), function.new_label("done")
        function.branch(head)
        function.place(head)
        values, at = [function.register() for _ in carried], len(function.lines)
        function.lines += [None] * len(values)
        following, again = body(list(values))
        latch = function.block
        function.branch_if(self.any(again), head, after)
        for offset, ((kind, first), value, last) in enumerate(zip(carried, values, following, strict=True)):
            function.lines[at + offset] = f"  {value} = phi {kind} [{first}, %{before}], [{last}, %{latch}]"
        function.place(after)
        return list(following)

    # -- between memory and registers --
    def load_convert(self, dtype: str, loaded: str) -> str:
        """From the memory type to the register type."""
        if dtype == "bool":
            return self.value(f"icmp ne {self.vector('i8')} {loaded}, {self.literal('i8', 0)}")
        if dtype == "bfloat16":
            wide = self.convert("zext", "i16", loaded, "i32")
            return self.convert("bitcast", "i32", self.binary("shl", "i32", wide, self.literal("i32", 16)), "float")
        if dtype == "float16":
            return self.convert("fpext", "half", loaded, "float") if self._has_half else self._half_to_float(loaded)
        return loaded

    def store_convert(self, dtype: str, value: str) -> str:
        """From the register type to the memory type."""
        if dtype == "bool":
            return self.convert("zext", "i1", value, "i8")
        if dtype == "bfloat16":
            return self._float_to_bfloat(value)
        if dtype == "float16":
            return self.convert("fptrunc", "float", value, "half") if self._has_half else self._float_to_half(value)
        return value

    @property
    def _has_half(self) -> bool:
        """Elsewhere LLVM calls library functions, which are not ours to call."""
        return self.target.has_half

    def _float_to_bfloat(self, value: str) -> str:
        """Rounds to nearest, ties to even, by adding just under half a unit to the bits; NaN stays a quiet NaN."""
        bits = self.convert("bitcast", "float", value, "i32")
        upper = self.binary("lshr", "i32", bits, self.literal("i32", 16))
        even = self.binary("and", "i32", upper, self.literal("i32", 1))
        rounded = self.binary("add", "i32", self.binary("add", "i32", bits, self.literal("i32", 0x7FFF)), even)
        quiet = self.binary("or", "i32", bits, self.literal("i32", 0x400000))
        is_nan = self.value(f"fcmp uno {self.vector('float')} {value}, {value}")
        chosen = self.pick("i32", is_nan, quiet, rounded)
        return self.convert("trunc", "i32", self.binary("lshr", "i32", chosen, self.literal("i32", 16)), "i16")

    def _half_to_float(self, loaded: str) -> str:
        """Puts the bits in place and scales by 2^112, which makes subnormals right too."""
        def number(value: int) -> str:
            return self.literal("i32", value)
        bits = self.convert("zext", "i16", self.convert("bitcast", "half", loaded, "i16"), "i32")
        sign = self.binary("shl", "i32", self.binary("and", "i32", bits, number(0x8000)), number(16))
        magnitude = self.binary("and", "i32", bits, number(0x7FFF))
        shifted = self.binary("shl", "i32", magnitude, number(13))
        scaled = self.binary("fmul", "float", self.convert("bitcast", "i32", shifted, "float"),
                             self.literal("float", 2.0**112))
        infinite = self.value(f"icmp uge {self.vector('i32')} {magnitude}, {number(0x7C00)}")
        special = self.binary("or", "i32", shifted, number(0x7F800000))
        chosen = self.pick("i32", infinite, special, self.convert("bitcast", "float", scaled, "i32"))
        return self.convert("bitcast", "i32", self.binary("or", "i32", chosen, sign), "float")

    def _float_to_half(self, value: str) -> str:
        """Normal numbers round in the bits; subnormal ones by adding 0.5, whose unit is the smallest half."""
        def number(value: int) -> str:
            return self.literal("i32", value)

        def below(bits: str, limit: int) -> str:
            return self.value(f"icmp ult {self.vector('i32')} {bits}, {number(limit)}")
        bits = self.convert("bitcast", "float", value, "i32")
        magnitude = self.binary("and", "i32", bits, number(0x7FFFFFFF))
        sign = self.binary("lshr", "i32", self.binary("and", "i32", bits, number(-(2**31))), number(16))
        even = self.binary("and", "i32", self.binary("lshr", "i32", magnitude, number(13)), number(1))
        raised = self.binary("add", "i32", self.binary("add", "i32", magnitude, number(0xFFF - (112 << 23))), even)
        normal = self.binary("lshr", "i32", raised, number(13))
        sum_with_half = self.binary("fadd", "float", self.convert("bitcast", "i32", magnitude, "float"),
                                    self.literal("float", 0.5))
        small = self.binary("sub", "i32", self.convert("bitcast", "float", sum_with_half, "i32"), number(0x3F000000))
        chosen = self.pick("i32", below(magnitude, 113 << 23), small, normal)
        chosen = self.pick("i32", below(magnitude, 0x477FF000), chosen, number(0x7C00))
        is_nan = self.value(f"fcmp uno {self.vector('float')} {value}, {value}")
        chosen = self.pick("i32", is_nan, number(0x7E00), chosen)
        half = self.convert("trunc", "i32", self.binary("or", "i32", chosen, sign), "i16")
        return self.convert("bitcast", "i16", half, "half")


def check_dtype(dtype: str, op: str) -> None:
    if dtype not in REGISTER:
        raise Unsupported(f"{op}: code generation has no element type {dtype!r}")


def _indices(first: int, count: int) -> str:
    return f"<{count} x i32> <{', '.join(f'i32 {i}' for i in range(first, first + count))}>"
