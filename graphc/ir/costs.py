"""What one result of a scalar op costs, in vector additions: for fusion (recompute or keep) and for unrolling.

Ops of the graph and ops of kernels share the table.  A function costs the vector operations that code generation
writes for one register of float32.  1/sqrt(x) is a root and a quotient, 9, and is priced at 7: the rule
x / sqrt(y) -> x * rsqrt(y) then pays, which shares one quotient among several.
"""

from __future__ import annotations

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


def weight(op: str) -> float:
    """The cost of an op by its name; 1 for an op of the graph that is none of a kernel's, such as a reduction."""
    return WEIGHTS.get(op, 1.0)
