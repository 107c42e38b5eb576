"""A compiler for static graphs: build a graph, plan its derivatives, get one native function.

    import graphc as gc

What builds graphs is loaded at once; the rest (sessions, derivatives, libraries, pictures ..) when its name is first
used, because it needs libraries that are slow to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .functions.arithmetic import (
    absolute as abs, absolute, add, arctan2, arctan2 as atan2, clip, copysign, divide, floor_divide, hypot, logaddexp,
    maximum, minimum, mod, multiply, negative, positive, power as pow, power, reciprocal, mod as remainder, sign,
    square, subtract, divide as true_divide,
)
from .functions.contractions import (
    diag, diagonal, dot, einsum, inner, matmul, outer, tensordot, trace,
)
from .functions.creation import (
    arange, eye, full, full_like, linspace, one_hot, ones, ones_like, placeholder, tril, triu, variable, zeros,
    zeros_like,
)
from .functions.indexing import (
    gather, gather_nd, scatter_add, take, take_along_axis,
)
from .functions.logic import (
    bitwise_and, invert as bitwise_invert, invert as bitwise_not, bitwise_or, bitwise_xor, equal, greater,
    greater_equal, invert, isfinite, isinf, isnan, left_shift, less, less_equal, logical_and, logical_not, logical_or,
    logical_xor, not_equal, right_shift, where,
)
from .functions.movement import (
    broadcast_to, concatenate as concat, concatenate, expand_dims, flip, moveaxis, pad, transpose as permute_dims,
    ravel, repeat, reshape, roll, split, squeeze, stack, swapaxes, tile, transpose,
)
from .functions.real import (
    arccos as acos, arccosh as acosh, arccos, arccosh, arcsin, arcsinh, arctan, arctanh, arcsin as asin,
    arcsinh as asinh, cast as astype, arctan as atan, arctanh as atanh, cast, cbrt, ceil, cos, cosh, digamma, erf,
    erfc, exp, exp2, expm1, floor, identity, lgamma, log, log10, log1p, log2, polygamma, relu, round as rint, round,
    rsqrt, sigmoid, sin, sinh, softplus, sqrt, stop_gradient, tan, tanh, trunc,
)
from .functions.reductions import (
    all, max as amax, min as amin, any, argmax, argmin, logsumexp, max, mean, min, norm, prod, std, sum, var,
)
from .functions.scans import (
    cumprod, cumsum, cumprod as cumulative_prod, cumsum as cumulative_sum,
)
from .functions.user import (
    elementwise, from_sympy,
)
from .ir.dims import Dim
from .ir.errors import DTypeError, FeedError, GraphError, SessionError, ShapeError, Unsupported, VerifyError
from .ir.node import Graph, Node, constant, default_graph, reset_default_graph

__version__ = "0.1.0"

LATER: dict[str, tuple[str, ...]] = {  # module: the names that it gives; a module without names is itself a name
    "graphc.session": ("Session", "Function"),
    "graphc.derivatives": ("gradients", "jacobian", "hessian", "jvp", "vjp", "hvp", "plan_jacobian"),
    "graphc.sparse": ("sparse_jacobian", "sparse_hessian", "SparseJacobian"),
    "graphc.counting": ("count_operations",),
    "graphc.library": ("compile_library", "load_library", "signature"),
    "graphc.shipped": ("inspect_library", "update_weights"),
    "graphc.view.graphs": ("dump",),
    "graphc.io.graphs": ("save_graph", "load_graph"),
    "graphc.nn": (),
    "graphc.random": (),
    "graphc.optim": (),
    "graphc.init": (),
}
MODULE_OF = {name: module for module, names in LATER.items() for name in names or (module.rpartition(".")[2],)}


def name_scope(name: str) -> Any:
    """Names and drawings of what is built inside carry the prefix `name/`.

    >>> import graphc as gc
    >>> with gc.name_scope("encoder"):
    ...     x = gc.placeholder("float32", (3,), name="inputs")
    >>> x.name
    'encoder/inputs'
    """
    return default_graph().name_scope(name)


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF:
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    module = import_module(MODULE_OF[name])
    value = getattr(module, name) if LATER[MODULE_OF[name]] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()} - {"annotations", "import_module", "Any", "LATER", "MODULE_OF"})


__all__ = [
    "DTypeError", "Dim", "FeedError", "Graph", "GraphError", "Node", "SessionError", "ShapeError", "Unsupported",
    "VerifyError", "constant", "default_graph", "name_scope", "reset_default_graph", *MODULE_OF,
    "abs", "absolute", "acos", "acosh", "add", "all", "amax", "amin", "any", "arange", "arccos", "arccosh",
    "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "argmax", "argmin", "asin", "asinh", "astype", "atan",
    "atan2", "atanh", "bitwise_and", "bitwise_invert", "bitwise_not", "bitwise_or", "bitwise_xor",
    "broadcast_to", "cast", "cbrt", "ceil", "clip", "concat", "concatenate", "copysign", "cos", "cosh",
    "cumprod", "cumsum", "cumulative_prod", "cumulative_sum", "diag", "diagonal", "digamma", "divide", "dot",
    "einsum", "elementwise", "equal", "erf", "erfc", "exp", "exp2", "expand_dims", "expm1", "eye", "flip",
    "floor", "floor_divide", "from_sympy", "full", "full_like", "gather", "gather_nd", "greater",
    "greater_equal", "hypot", "identity", "inner", "invert", "isfinite", "isinf", "isnan", "left_shift", "less",
    "less_equal", "lgamma", "linspace", "log", "log10", "log1p", "log2", "logaddexp", "logical_and",
    "logical_not", "logical_or", "logical_xor", "logsumexp", "matmul", "max", "maximum", "mean", "min",
    "minimum", "mod", "moveaxis", "multiply", "negative", "norm", "not_equal", "one_hot", "ones", "ones_like",
    "outer", "pad", "permute_dims", "placeholder", "polygamma", "positive", "pow", "power", "prod", "ravel",
    "reciprocal", "relu", "remainder", "repeat", "reshape", "right_shift", "rint", "roll", "round", "rsqrt",
    "scatter_add", "sigmoid", "sign", "sin", "sinh", "softplus", "split", "sqrt", "square", "squeeze", "stack",
    "std", "stop_gradient", "subtract", "sum", "swapaxes", "take", "take_along_axis", "tan", "tanh",
    "tensordot", "tile", "trace", "transpose", "tril", "triu", "true_divide", "trunc", "var", "variable",
    "where", "zeros", "zeros_like",
]
