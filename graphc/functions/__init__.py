"""The functions a user calls: NumPy's names, axes, broadcasting and dtypes, on nodes.

Importing this package gives the operators and methods of `Node` their meaning.
"""

from __future__ import annotations

from ..ir import ops
from ..ir.node import METHODS
from . import arithmetic, contractions, creation, indexing, logic, movement, real, reductions, scans, user

FUNCTIONS = {
    arithmetic: "add subtract multiply divide floor_divide mod power negative positive absolute sign square "
                "reciprocal maximum minimum copysign hypot arctan2 clip logaddexp",
    logic: "equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor logical_not "
           "bitwise_and bitwise_or bitwise_xor invert left_shift right_shift where isnan isinf isfinite",
    real: "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt cbrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh "
          "arccosh arctanh erf erfc lgamma digamma polygamma sigmoid softplus relu floor ceil round trunc cast "
          "stop_gradient identity",
    reductions: "sum prod mean max min argmax argmin any all logsumexp var std norm",
    movement: "reshape ravel transpose swapaxes moveaxis broadcast_to expand_dims squeeze concatenate stack split flip "
              "tile repeat roll pad",
    contractions: "matmul einsum tensordot dot inner outer trace diagonal diag",
    indexing: "take take_along_axis gather gather_nd scatter_add",
    scans: "cumsum cumprod",
    creation: "placeholder variable zeros ones full zeros_like ones_like full_like arange linspace eye tril triu "
              "one_hot",
    user: "elementwise from_sympy",
}
ALIASES = {"abs": "absolute", "true_divide": "divide", "remainder": "mod", "pow": "power", "concat": "concatenate",
           "asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2", "asinh": "arcsinh",
           "acosh": "arccosh", "atanh": "arctanh", "bitwise_not": "invert", "bitwise_invert": "invert", "rint": "round",
           "amax": "max", "amin": "min", "cumulative_sum": "cumsum", "cumulative_prod": "cumprod",
           "permute_dims": "transpose", "astype": "cast"}

PUBLIC = {name: getattr(module, name) for module, names in FUNCTIONS.items() for name in names.split()}
PUBLIC |= {alias: PUBLIC[name] for alias, name in ALIASES.items()}
METHODS.update(PUBLIC, getitem=indexing.getitem)

__all__ = ["PUBLIC", "ops"]
