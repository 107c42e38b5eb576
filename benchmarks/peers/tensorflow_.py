"""TensorFlow 1: static graphs in a session, weights as variables; and the same through XLA (the variants `xla`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from . import THREADS, Case, Inputs, Table, calling, training
from .. import formulas

tf1 = tf.compat.v1
tf1.disable_eager_execution()

version = lambda: tf.__version__


def session(graph: Any) -> Any:
    return tf1.Session(graph=graph, config=tf1.ConfigProto(intra_op_parallelism_threads=THREADS,
                                                           inter_op_parallelism_threads=THREADS))


def compiled(function: Callable[..., Any], variant: str) -> Callable[..., Any]:
    found: Callable[..., Any] = tf.function(function, jit_compile=True) if variant == "xla" else function
    return found


def graphs(function: Callable[..., Any]) -> dict[str, Callable[[Inputs], Case]]:
    """Builders for a function that takes the inputs by name."""
    def of(variant: str) -> Callable[[Inputs], Case]:
        def build(inputs: Inputs) -> Case:
            with tf.Graph().as_default() as graph:
                holders = [tf1.placeholder(a.dtype, a.shape) for a in inputs.values()]
                named = lambda *values: function(**dict(zip(inputs, values)))
                run = session(graph).make_callable(compiled(named, variant)(*holders), holders)
            return calling(run, *inputs.values())
        return build
    return {variant: of(variant) for variant in ("", "xla")}


def chain(x: Any, a: Any, b: Any, c: Any) -> Any:
    return tf.tanh(a * x + b) * tf.sigmoid(c * x) - tf.exp(-x * x) / (1 + tf.abs(x))


def layernorm(x: Any, g: Any, b: Any) -> Any:
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, b, g, formulas.EPSILON)


def cross_entropy(parameters: list[Any], x: Any, y: Any) -> Any:
    W0, b0, W1, b1, W2, b2 = parameters
    h = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, W0), b0))
    z = tf.nn.bias_add(tf.matmul(tf.nn.relu(tf.nn.bias_add(tf.matmul(h, W1), b1)), W2), b2)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=z))


def variable(name: str, value: np.ndarray[Any, Any] | np.float32) -> Any:
    return tf1.get_variable(name, initializer=value, use_resource=True)


def update(parameters: list[Any], slots: list[tuple[Any, Any]], powers: list[Any], gradients: list[Any]) -> None:
    """One step of Adam in place, by the fused operator."""
    beta1, beta2 = (power.assign(power * factor)
                    for power, factor in zip(powers, (formulas.BETA1, formulas.BETA2)))
    for p, (m, v), gradient in zip(parameters, slots, gradients):
        tf.raw_ops.ResourceApplyAdam(
            var=p.handle, m=m.handle, v=v.handle, beta1_power=beta1, beta2_power=beta2, lr=formulas.RATE,
            beta1=formulas.BETA1, beta2=formulas.BETA2, epsilon=formulas.ADAM_EPSILON, grad=gradient)


def step(variant: str) -> Callable[[Inputs], Case]:
    def build(inputs: Inputs) -> Case:
        with tf.Graph().as_default() as graph:
            parameters = [variable(name, inputs[name]) for name in formulas.PARAMETERS]
            slots = [tuple(variable(f"{name}_{kind}", np.zeros_like(inputs[name])) for kind in "mv")
                     for name in formulas.PARAMETERS]
            powers = [variable(f"power{k}", np.float32(1)) for k in (1, 2)]

            def once(x: Any, y: Any) -> Any:
                value = cross_entropy(parameters, x, y)
                before = set(graph.get_operations()) if variant != "xla" else set()
                update(parameters, slots, powers, tf.gradients(value, parameters))
                done = [op for op in graph.get_operations() if op not in before] if variant != "xla" else []
                with tf.control_dependencies(done):
                    return tf.identity(value)
            holders = [tf1.placeholder(inputs[name].dtype, inputs[name].shape) for name in "xy"]
            value, start = compiled(once, variant)(*holders), tf1.global_variables_initializer()
            running = session(graph)
            call = running.make_callable(value, holders)
            shown = running.make_callable([p.read_value() for p in parameters])
        return training(partial(call, inputs["x"], inputs["y"]), partial(running.run, start), shown)
    return build


def network_jacobian(x: Any, W0: Any, W1: Any, W2: Any, W3: Any) -> Any:
    h = x[:, None]
    for W in (W0, W1, W2):
        h = tf.tanh(tf.matmul(W, h))
    y = tf.matmul(W3, h)[:, 0]
    return tf.stack([tf.gradients(y[k], x)[0] for k in range(y.shape[0])])


def loss(p: Any, X: Any, y: Any) -> Any:
    split = formulas.FEATURES * formulas.HIDDEN
    W = tf.reshape(p[:split], (formulas.FEATURES, formulas.HIDDEN))
    h = tf.tanh(tf.matmul(X, W) + p[split:-formulas.HIDDEN])
    return tf.reduce_mean(tf.square(tf.linalg.matvec(h, p[-formulas.HIDDEN:]) - y))


def hvp(X: Any, y: Any, p: Any, v: Any) -> Any:
    return tf.gradients(tf.reduce_sum(tf.gradients(loss(p, X, y), p)[0] * v), p)[0]


def rosenbrock(x: Any) -> Any:
    return tf.gradients(tf.reduce_sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), x)[0]


CASES: Table = {
    "scale": graphs(lambda x: x * 2 + 1),
    "chain": graphs(chain),
    "softmax": graphs(lambda x: tf.nn.softmax(x, -1)),
    "layernorm": graphs(layernorm),
    "logsumexp": graphs(lambda x: tf.reduce_logsumexp(x, -1)),
    "gemm": graphs(lambda a, b: tf.matmul(a, b)),
    "dense": graphs(lambda x, W, b: tf.nn.relu(tf.nn.bias_add(tf.matmul(x, W), b))),
    "training": {"": step(""), "xla": step("xla")},
    "jacobian": graphs(network_jacobian),
    "hvp": graphs(hvp),
    "rosenbrock": graphs(rosenbrock),
    "sum0": graphs(lambda x: tf.reduce_sum(x, 0)),
    "sum1": graphs(lambda x: tf.reduce_sum(x, 1)),
    "sum": graphs(lambda x: tf.reduce_sum(x)),
    "transpose": graphs(lambda x: tf.transpose(x)),
}
