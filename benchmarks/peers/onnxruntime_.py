"""ONNX Runtime, inference only: weights are initialisers where a deployed model has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper, numpy_helper
import onnxruntime as ort

from . import THREADS, Case, Inputs, Table, calling
from .. import formulas

OPSET, IR = 18, 9

version = lambda: ort.__version__


def model(nodes: Sequence[Any], fed: Inputs, kept: Inputs) -> Any:
    """A session for a model whose output is `y`; `fed` are its inputs, `kept` its initialisers."""
    kind = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in fed.items()}
    inputs = [helper.make_tensor_value_info(name, kind[name], a.shape) for name, a in fed.items()]
    outputs = [helper.make_tensor_value_info("y", next(iter(kind.values())), None)]
    weights = [numpy_helper.from_array(a, name) for name, a in kept.items()]
    graph = helper.make_graph(list(nodes), "workload", inputs, outputs, weights)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = THREADS, 1, 3
    return ort.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])


def operators(*rows: tuple[str, str, str], kept: Sequence[str] = (), numbers: dict[str, Any] | None = None,
              **attributes: Any) -> dict[str, Callable[[Inputs], Case]]:
    """A builder from rows (operator, names of operands, name of the result); attributes are of the only operator."""
    def build(inputs: Inputs) -> Case:
        nodes = [helper.make_node(op, operands.split(), [result], **attributes) for op, operands, result in rows]
        fed = {name: a for name, a in inputs.items() if name not in kept}
        dtype = next(iter(fed.values())).dtype
        weights = {name: inputs[name] for name in kept} | {
            name: np.array(value, dtype if np.ndim(value) == 0 else "int64")
            for name, value in (numbers or {}).items()}
        session = model(nodes, fed, weights)
        return calling(session.run, None, fed)
    return {"": build}


CHAIN = (("Mul", "a x", "ax"), ("Add", "ax b", "axb"), ("Tanh", "axb", "left"), ("Mul", "c x", "cx"),
         ("Sigmoid", "cx", "right"), ("Mul", "left right", "product"), ("Neg", "x", "minus"),
         ("Mul", "minus x", "square"), ("Exp", "square", "bell"), ("Abs", "x", "size"), ("Add", "size one", "below"),
         ("Div", "bell below", "quotient"), ("Sub", "product quotient", "y"))
CASES: Table = {
    "scale": operators(("Mul", "x two", "twice"), ("Add", "twice one", "y"), numbers={"two": 2.0, "one": 1.0}),
    "chain": operators(*CHAIN, numbers={"one": 1.0}),
    "softmax": operators(("Softmax", "x", "y"), axis=-1),
    "layernorm": operators(("LayerNormalization", "x g b", "y"), kept=("g", "b"), axis=-1, epsilon=formulas.EPSILON),
    "logsumexp": operators(("ReduceLogSumExp", "x axes", "y"), numbers={"axes": [-1]}, keepdims=0),
    "gemm": operators(("MatMul", "a b", "y")),
    "dense": operators(("Gemm", "x W b", "sum"), ("Relu", "sum", "y"), kept=("W", "b")),
    "sum0": operators(("ReduceSum", "x axes", "y"), numbers={"axes": [0]}, keepdims=0),
    "sum1": operators(("ReduceSum", "x axes", "y"), numbers={"axes": [1]}, keepdims=0),
    "sum": operators(("ReduceSum", "x axes", "y"), numbers={"axes": [0, 1]}, keepdims=0),
    "transpose": operators(("Transpose", "x", "y"), perm=[1, 0]),
    "product": operators(("MatMul", "A B", "AB"), ("MatMul", "AB C", "ABC"), ("MatMul", "ABC D", "ABCD"),
                         ("MatMul", "ABCD x", "y")),
}
