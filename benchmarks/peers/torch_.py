"""PyTorch on the processor, called eagerly or compiled by Inductor (`compile`); derivatives by `torch.func`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from . import THREADS, Case, Inputs, Table, calling, training, updating
from .. import formulas

torch.set_num_threads(THREADS)

version = lambda: torch.__version__


def shown(result: Any) -> Any:
    return [r.detach().numpy() for r in result] if isinstance(result, tuple) else result.detach().numpy()


def eager(function: Callable[..., Any]) -> dict[str, Callable[[Inputs], Case]]:
    """A builder for a function that takes the inputs by name."""
    def build(inputs: Inputs) -> Case:
        tensors = {name: torch.from_numpy(a) if a.ndim else torch.tensor(a[()]) for name, a in inputs.items()}

        def call() -> Any:
            with torch.no_grad():
                return function(**tensors)
        return calling(call, shown=shown)
    return {"": build}


def both(function: Callable[..., Any]) -> dict[str, Callable[[Inputs], Case]]:
    """Eager, and compiled by Inductor for these very shapes."""
    def build(inputs: Inputs) -> Case:
        torch._dynamo.reset()
        return eager(torch.compile(function, dynamic=False))[""](inputs)
    return eager(function) | {"compile": build}


def chain(x: Any, a: Any, b: Any, c: Any) -> Any:
    return torch.tanh(a * x + b) * torch.sigmoid(c * x) - torch.exp(-x * x) / (1 + torch.abs(x))


def network(x: Any, weights: dict[str, Any]) -> Any:
    for k in range(3):
        x = torch.tanh(weights[f"W{k}"] @ x)
    return weights["W3"] @ x


def loss(p: Any, X: Any, y: Any) -> Any:
    split = formulas.FEATURES * formulas.HIDDEN
    W, b, w = p[:split].reshape(formulas.FEATURES, -1), p[split:-formulas.HIDDEN], p[-formulas.HIDDEN:]
    return ((torch.tanh(X @ W + b) @ w - y) ** 2).mean()


def hvp(X: Any, y: Any, p: Any, v: Any) -> Any:
    return torch.func.jvp(lambda at: torch.func.grad(loss)(at, X, y), (p,), (v,))[1]


def rosenbrock(x: Any) -> Any:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def cross_entropy(parameters: list[Any], x: Any, y: Any) -> Any:
    W0, b0, W1, b1, W2, b2 = parameters
    h = torch.relu(torch.addmm(b1, torch.relu(torch.addmm(b0, x, W0)), W1))
    return F.cross_entropy(torch.addmm(b2, h, W2), y)


def step(inputs: Inputs, value_of: Callable[..., Any] = cross_entropy) -> Case:
    x, y = torch.from_numpy(inputs["x"]), torch.from_numpy(inputs["y"]).long()
    held: dict[str, Any] = {}

    def reset() -> None:
        held["parameters"] = [torch.from_numpy(inputs[name].copy()).requires_grad_() for name in formulas.PARAMETERS]
        held["adam"] = torch.optim.Adam(held["parameters"], lr=formulas.RATE, betas=(formulas.BETA1, formulas.BETA2),
                                        eps=formulas.ADAM_EPSILON, fused=True)

    def call() -> Any:
        held["adam"].zero_grad(set_to_none=True)
        value = value_of(held["parameters"], x, y)
        value.backward()
        held["adam"].step()
        return value
    return training(call, reset, lambda: [p.detach().numpy() for p in held["parameters"]])


def compiled_step(inputs: Inputs) -> Case:
    torch._dynamo.reset()
    return step(inputs, torch.compile(cross_entropy, dynamic=False))


def adam(inputs: Inputs) -> Case:
    """The update alone, fused, for gradients that are given."""
    p = torch.from_numpy(inputs["p"].copy()).requires_grad_()
    optimiser = torch.optim.Adam([p], lr=formulas.RATE, betas=(formulas.BETA1, formulas.BETA2),
                                 eps=formulas.ADAM_EPSILON, fused=True)
    p.grad = torch.from_numpy(inputs["g"])
    return updating(optimiser.step, lambda: p.detach().numpy())


def loss_and_gradient(z: Any, y: Any) -> Any:
    at = z.detach().requires_grad_()
    with torch.enable_grad():
        value = F.cross_entropy(at, y.long())
        return value.detach(), torch.autograd.grad(value, at)[0]


CASES: Table = {
    "scale": eager(lambda x: x * 2 + 1),
    "chain": both(chain),
    "softmax": both(lambda x: torch.softmax(x, -1)),
    "layernorm": both(lambda x, g, b: F.layer_norm(x, x.shape[-1:], g, b, formulas.EPSILON)),
    "logsumexp": both(lambda x: torch.logsumexp(x, -1)),
    "gemm": eager(lambda a, b: a @ b),
    "dense": both(lambda x, W, b: torch.relu(torch.addmm(b, x, W))),
    "training": {"": step, "compile": compiled_step},
    "jacobian": {name: eager(lambda x, f=f, **weights: f(network)(x, weights))[""]
                 for name, f in (("jacfwd", torch.func.jacfwd), ("jacrev", torch.func.jacrev))},
    "hessian": eager(lambda X, y, p: torch.func.hessian(loss)(p, X, y)),
    "hvp": eager(hvp),
    "rosenbrock": eager(lambda x: torch.func.grad(rosenbrock)(x)),
    "sum0": eager(lambda x: x.sum(0)),
    "sum1": eager(lambda x: x.sum(1)),
    "sum": eager(lambda x: x.sum()),
    "transpose": eager(lambda x: x.T.contiguous()),
    "adam": {"": adam},
    "gelu_norm": both(lambda x, r, g, b: F.layer_norm(F.gelu(x) + r, x.shape[-1:], g, b, formulas.EPSILON)),
    "cross_entropy": eager(loss_and_gradient),
    "product": eager(lambda A, B, C, D, x: A @ B @ C @ D @ x),
}
