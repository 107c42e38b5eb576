"""Initial values of variables: objects with `.shape`, `.dtype`, called once per session for an array.

Every one with randomness takes a seed and draws from NumPy's Philox generator, so that a seed gives the same numbers
on every machine.  Fans are those of Glorot and Bengio (2010), He et al. (2015): the product of all axes but the last,
times one of the last two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np

from .ir.errors import GraphError
from .ir.types import as_dtype, dtype_name, is_float


@dataclass(frozen=True)
class Initialiser:
    """Draws one array.  `kind` is normal, uniform, truncated or constant; `scale` its width."""

    kind: str
    shape: tuple[int, ...]
    scale: float
    seed: int = 0
    dtype: str = "float32"
    centre: float = 0.0

    def __call__(self) -> np.ndarray[Any, Any]:
        generator = np.random.Generator(np.random.Philox(self.seed))
        if self.kind == "constant":
            return as_dtype(np.full(self.shape, self.scale), self.dtype)
        return as_dtype(DRAWS[self.kind](generator, self.shape) * self.scale + self.centre, self.dtype)


def truncated(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Standard normal numbers within two deviations: those outside are drawn again."""
    values = generator.standard_normal(shape)
    while (outside := np.abs(values) > 2.0).any():
        values = np.where(outside, generator.standard_normal(shape), values)
    return np.asarray(values)


DRAWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray[Any, Any]]] = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "truncated": truncated,
    "uniform": lambda generator, shape: generator.uniform(-1.0, 1.0, shape),
}


def checked(shape: int | Sequence[int], dtype: Any) -> tuple[tuple[int, ...], str]:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if not all(isinstance(n, (int, np.integer)) and n >= 0 for n in sizes):
        raise GraphError(f"init: a variable's shape is made of known sizes, got {shape!r}")
    name = dtype_name(dtype)
    if not is_float(name):
        raise GraphError(f"init: random values are of a float dtype, got {name}")
    return tuple(map(int, sizes)), name


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan in, fan out): the last axis is the output's, the one before it the input's."""
    if len(shape) < 2:
        return max(1, prod(shape)), max(1, prod(shape))
    field = prod(shape[:-2])
    return max(1, field * shape[-2]), max(1, field * shape[-1])


def zeros(shape: int | Sequence[int], dtype: Any = "float32") -> Initialiser:
    """All zero.  ``gc.init.zeros((3,))().tolist()`` gives ``[0.0, 0.0, 0.0]``."""
    return constant(shape, 0.0, dtype)


def ones(shape: int | Sequence[int], dtype: Any = "float32") -> Initialiser:
    """All one."""
    return constant(shape, 1.0, dtype)


def constant(shape: int | Sequence[int], value: float, dtype: Any = "float32") -> Initialiser:
    """All `value`."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    return Initialiser("constant", sizes, value, 0, dtype_name(dtype))


def normal(shape: int | Sequence[int], stddev: float = 1.0, mean: float = 0.0, seed: int = 0,
           dtype: Any = "float32") -> Initialiser:
    """Normal numbers of that mean and standard deviation."""
    sizes, name = checked(shape, dtype)
    return Initialiser("normal", sizes, stddev, seed, name, mean)


def truncated_normal(shape: int | Sequence[int], stddev: float = 1.0, mean: float = 0.0, seed: int = 0,
                     dtype: Any = "float32") -> Initialiser:
    """Normal numbers within two standard deviations of the mean."""
    sizes, name = checked(shape, dtype)
    return Initialiser("truncated", sizes, stddev, seed, name, mean)


def uniform(shape: int | Sequence[int], low: float = -1.0, high: float = 1.0, seed: int = 0,
            dtype: Any = "float32") -> Initialiser:
    """Numbers from [low, high)."""
    sizes, name = checked(shape, dtype)
    return Initialiser("uniform", sizes, (high - low) / 2, seed, name, (high + low) / 2)


def he_normal(shape: int | Sequence[int], seed: int = 0, dtype: Any = "float32") -> Initialiser:
    """Normal numbers of variance 2 / fan in (He et al. 2015, eq. 10), for layers that end in a relu.

    Example::

        >>> import graphc as gc
        >>> gc.init.he_normal((64, 10), seed=0)().shape
        (64, 10)
    """
    sizes, name = checked(shape, dtype)
    return Initialiser("normal", sizes, sqrt(2.0 / fans(sizes)[0]), seed, name)


def he_uniform(shape: int | Sequence[int], seed: int = 0, dtype: Any = "float32") -> Initialiser:
    """Uniform numbers of variance 2 / fan in."""
    sizes, name = checked(shape, dtype)
    return Initialiser("uniform", sizes, sqrt(6.0 / fans(sizes)[0]), seed, name)


def glorot_normal(shape: int | Sequence[int], seed: int = 0, dtype: Any = "float32") -> Initialiser:
    """Normal numbers of variance 2 / (fan in + fan out) (Glorot and Bengio 2010, eq. 12)."""
    sizes, name = checked(shape, dtype)
    return Initialiser("normal", sizes, sqrt(2.0 / sum(fans(sizes))), seed, name)


def glorot_uniform(shape: int | Sequence[int], seed: int = 0, dtype: Any = "float32") -> Initialiser:
    """Uniform numbers of variance 2 / (fan in + fan out) (Glorot and Bengio 2010, eq. 16)."""
    sizes, name = checked(shape, dtype)
    return Initialiser("uniform", sizes, sqrt(6.0 / sum(fans(sizes))), seed, name)
