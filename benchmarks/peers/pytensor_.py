"""PyTensor, through Numba and through C (the variant `C`); inputs are trusted and results lent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
import os
from tempfile import mkdtemp
from typing import Any

os.environ["PYTENSOR_FLAGS"] = f"base_compiledir={mkdtemp(prefix='benchmarks-')},gcc__cxxflags=-O3 -march=native"

import numpy as np
import pytensor
import pytensor.tensor as pt

from . import Case, Inputs, Table, calling, training
from .. import formulas

MODES = {"": "NUMBA", "C": "CVM"}
version = lambda: pytensor.__version__


def symbol(array: np.ndarray[Any, Any]) -> Any:
    return pt.tensor(dtype=str(array.dtype), shape=array.shape)


def function(inputs: list[Any], outputs: Any, mode: str, updates: Any = ()) -> Any:
    lent = lambda v: pytensor.Out(v, borrow=True)
    results = [lent(v) for v in outputs] if isinstance(outputs, list) else lent(outputs)
    found = pytensor.function([pytensor.In(v, borrow=True) for v in inputs], results, updates=updates,
                              mode=pytensor.compile.mode.get_mode(mode))
    found.trust_input = True
    return found


def functions(build: Callable[..., Any]) -> dict[str, Callable[[Inputs], Case]]:
    """Builders for what `build` makes of symbols by the names of the inputs."""
    def of(mode: str) -> Callable[[Inputs], Case]:
        def made(inputs: Inputs) -> Case:
            dtype = next(str(a.dtype) for a in inputs.values() if a.dtype.kind == "f")
            with pytensor.config.change_flags(floatX=dtype):
                symbols = {name: symbol(a) for name, a in inputs.items()}
                return calling(function(list(symbols.values()), build(**symbols), mode), *inputs.values())
        return made
    return {variant: of(mode) for variant, mode in MODES.items()}


def chain(x: Any, a: Any, b: Any, c: Any) -> Any:
    return pt.tanh(a * x + b) * pt.sigmoid(c * x) - pt.exp(-x * x) / (1 + pt.abs(x))


def layernorm(x: Any, g: Any, b: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred / pt.sqrt(variance + np.float32(formulas.EPSILON)) * g + b


def network_jacobian(x: Any, W0: Any, W1: Any, W2: Any, W3: Any) -> Any:
    h = x
    for W in (W0, W1, W2):
        h = pt.tanh(pt.dot(W, h))
    return pytensor.gradient.jacobian(pt.dot(W3, h), x, vectorize=True)


def loss(p: Any, X: Any, y: Any) -> Any:
    split = formulas.FEATURES * formulas.HIDDEN
    W = p[:split].reshape((formulas.FEATURES, formulas.HIDDEN))
    h = pt.tanh(pt.dot(X, W) + p[split:-formulas.HIDDEN])
    return ((pt.dot(h, p[-formulas.HIDDEN:]) - y) ** 2).mean()


def hessian(X: Any, y: Any, p: Any) -> Any:
    return pytensor.gradient.jacobian(pytensor.grad(loss(p, X, y), p), p, vectorize=True)


def hvp(X: Any, y: Any, p: Any, v: Any) -> Any:
    return pytensor.grad((pytensor.grad(loss(p, X, y), p) * v).sum(), p, consider_constant=[v])


def rosenbrock(x: Any) -> Any:
    return pytensor.grad((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum(), x)


def adam(parameters: list[Any], gradients: list[Any], slots: list[tuple[Any, Any]], count: Any) -> list[Any]:
    f = np.float32
    step = count + f(1)
    rate = f(formulas.RATE) / (f(1) - f(formulas.BETA1) ** step)
    scale = 1 / pt.sqrt(f(1) - f(formulas.BETA2) ** step)
    updates = [(count, step)]
    for p, (m, v), g in zip(parameters, slots, gradients):
        mean = f(formulas.BETA1) * m + f(1 - formulas.BETA1) * g
        square = f(formulas.BETA2) * v + f(1 - formulas.BETA2) * g * g
        change = rate * mean / (pt.sqrt(square) * scale + f(formulas.ADAM_EPSILON))
        updates += [(m, mean), (v, square), (p, p - change)]
    return updates


def step(mode: str) -> Callable[[Inputs], Case]:
    def build(inputs: Inputs) -> Case:
        shared = lambda value: pytensor.shared(value, borrow=True, shape=np.shape(value))
        parameters = [shared(inputs[name].copy()) for name in formulas.PARAMETERS]
        slots = [(shared(np.zeros_like(inputs[name])), shared(np.zeros_like(inputs[name])))
                 for name in formulas.PARAMETERS]
        count = pytensor.shared(np.float32(0))
        with pytensor.config.change_flags(floatX="float32"):
            x, y = symbol(inputs["x"]), symbol(inputs["y"])
            h = x
            for k in range(3):
                h = pt.dot(h, parameters[2 * k]) + parameters[2 * k + 1]
                h = pt.maximum(h, np.float32(0)) if k < 2 else h
            value = -pt.special.log_softmax(h, axis=-1)[pt.arange(y.shape[0]), y].mean()
            updates = adam(parameters, pytensor.grad(value, parameters), slots, count)
            call = function([x, y], value, mode, updates)

        def reset() -> None:
            for name, p, (m, v) in zip(formulas.PARAMETERS, parameters, slots):
                p.set_value(inputs[name].copy())
                m.set_value(np.zeros_like(inputs[name]))
                v.set_value(np.zeros_like(inputs[name]))
            count.set_value(np.float32(0))
        return training(partial(call, inputs["x"], inputs["y"]), reset, lambda: [p.get_value() for p in parameters])
    return build


CASES: Table = {
    "scale": functions(lambda x: x * 2 + 1),
    "chain": functions(chain),
    "softmax": functions(lambda x: pt.special.softmax(x, axis=-1)),
    "layernorm": functions(layernorm),
    "logsumexp": functions(lambda x: pt.logsumexp(x, axis=-1)),
    "gemm": functions(lambda a, b: pt.dot(a, b)),
    "dense": functions(lambda x, W, b: pt.maximum(pt.dot(x, W) + b, np.float32(0))),
    "training": {variant: step(mode) for variant, mode in MODES.items()},
    "jacobian": functions(network_jacobian),
    "hessian": functions(hessian),
    "hvp": functions(hvp),
    "rosenbrock": functions(rosenbrock),
    "product": functions(lambda A, B, C, D, x: pt.dot(pt.dot(pt.dot(pt.dot(A, B), C), D), x)),
}
