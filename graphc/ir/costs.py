"""What one result of a scalar op costs, in vector additions: for fusion (recompute or keep) and for unrolling."""

from __future__ import annotations

WEIGHTS: dict[str, float] = {
    "const": 0, "iota": 1, "load": 1, "store": 1, "keep": 1, "second": 0, "accumulator": 0, "reduce": 1, "scan": 2,
    "accumulate": 2, "broadcast": 0, "reshape": 0, "transpose": 0, "slice": 0, "stop_gradient": 0, "identity": 0,
    "div": 4, "mod": 8, "floor_divide": 6, "sqrt": 5, "rsqrt": 7, "cbrt": 25, "hypot": 10,
    "exp": 12, "exp2": 12, "expm1": 16, "log": 22, "log2": 24, "log10": 24, "log1p": 26, "pow": 60,
    "sin": 25, "cos": 25, "tan": 35, "asin": 25, "acos": 25, "atan": 25, "atan2": 35,
    "sinh": 25, "cosh": 25, "tanh": 20, "asinh": 35, "acosh": 35, "atanh": 35,
    "erf": 25, "erfc": 35, "lgamma": 80, "digamma": 70, "polygamma": 90, "sigmoid": 20, "softplus": 40,
    "gather": 4, "user": 20,
}


def weight(op: str) -> float:
    """The cost of an op by its name; 1 where nothing else is known."""
    return WEIGHTS.get(op, 1.0)
