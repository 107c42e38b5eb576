"""What things cost: scalar ops in vector additions, and the time of a kernel, by which fusion decides.

    time = max(bytes / bandwidth, operations * STEP) + LAUNCH        bandwidth by the level that the bytes fit into

Ops of the graph and ops of kernels share the table.  A function costs the vector operations that code generation
writes for one register of float32.  1/sqrt(x) is a root and a quotient, 9, and is priced at 7: the rule
x / sqrt(y) -> x * rsqrt(y) then pays, which shares one quotient among several.
"""

from __future__ import annotations

from dataclasses import dataclass

# One core of a present x86-64 machine, in bytes and nanoseconds: plans are equal on all machines.
LEVELS = (("L1", 1 << 15, 120.0), ("L2", 1 << 20, 60.0), ("memory", 1 << 62, 25.0))  # bytes held, bytes per nanosecond
VECTOR_NBYTES = 32  # what one vector operation works on
STEP = 0.19  # nanoseconds of a vector addition: half a cycle
PRODUCT = 0.0125  # nanoseconds of a multiply-add of a tiled matrix product in float32, twice that in float64
LAUNCH = 100.0  # nanoseconds to start a kernel and to fill its registers and pipelines
ROW_NBYTES = LEVELS[1][1]  # a row of more than that does not stay in cache from one pass to the next

WEIGHTS: dict[str, float] = {
    # -- of kernels only --
    "const": 0, "second": 0, "accumulator": 0, "load": 1, "store": 1, "keep": 1,
    "reduce": 1, "scan": 2, "accumulate": 3,
    # -- views and leaves --
    "identity": 0, "stop_gradient": 0, "iota": 0, "broadcast": 0, "reshape": 0, "transpose": 0, "slice": 0,
    "gather": 4, "user": 20,
    # -- arithmetic --
    "add": 1, "sub": 1, "mul": 1, "fma": 1, "div": 4, "mod": 50, "floor_divide": 60, "pow": 80,
    "neg": 1, "abs": 1, "sign": 4, "copysign": 1, "relu": 1, "maximum": 2, "minimum": 2, "hypot": 20, "atan2": 34,
    "where": 1, "cast": 1,
    # -- comparison, bits and rounding --
    "eq": 1, "ne": 1, "lt": 1, "le": 1, "gt": 1, "ge": 1, "isnan": 1, "isinf": 2, "isfinite": 2,
    "bitwise_and": 1, "bitwise_or": 1, "bitwise_xor": 1, "bitwise_not": 1, "left_shift": 3, "right_shift": 3,
    "floor": 1, "ceil": 1, "trunc": 1, "round": 1,
    # -- exponentials, logarithms, roots --
    "sqrt": 5, "rsqrt": 7, "cbrt": 30, "exp": 12, "exp2": 12, "expm1": 18,
    "log": 22, "log2": 32, "log10": 33, "log1p": 32, "sigmoid": 20, "softplus": 40,
    # -- trigonometric and hyperbolic --
    "sin": 22, "cos": 22, "tan": 36, "asin": 24, "acos": 26, "atan": 24,
    "sinh": 28, "cosh": 20, "tanh": 20, "asinh": 55, "acosh": 55, "atanh": 55,
    # -- special functions --
    "erf": 25, "erfc": 45, "lgamma": 220, "digamma": 170, "polygamma": 300,
}

HEAVY = 12.0  # from here on one vector of several results is cheaper than scalars, packing included


def weight(op: str) -> float:
    """The cost of an op by its name; 1 for an op of the graph that is none of a kernel's, such as a reduction."""
    return WEIGHTS.get(op, 1.0)


@dataclass(frozen=True)
class Cost:
    """What a kernel moves and computes, symbolic sizes taken as typical."""

    read: float = 0.0  # bytes
    written: float = 0.0
    operations: float = 0.0  # weighted vector operations
    products: float = 0.0  # nanoseconds of the tiles of a matrix product

    @property
    def level(self) -> str:
        """Where its buffers lie between two calls."""
        return next(name for name, held, _ in LEVELS if self.read + self.written <= held)

    @property
    def moving(self) -> float:
        """Nanoseconds to move its bytes."""
        return (self.read + self.written) / bandwidth(self.read + self.written)

    @property
    def computing(self) -> float:
        """Nanoseconds of its operations."""
        return self.operations * STEP + self.products

    @property
    def time(self) -> float:
        return max(self.moving, self.computing) + LAUNCH


def bandwidth(nbytes: float) -> float:
    """Bytes per nanosecond of the level that holds so many bytes."""
    return next(speed for _, held, speed in LEVELS if nbytes <= held)
