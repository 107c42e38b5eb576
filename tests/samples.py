"""Sample nodes of every op of the table: what the tests of derivatives differentiate.

`SAMPLES[op]` is a list of builders of no arguments, each giving one node over fresh placeholders and constants of the
default graph; an elementwise op without a row gets its samples from the table itself.  `values_of` feeds the leaves.
"""

import zlib

import numpy as np

import graphc.ir.ops  # noqa: F401  (fills the op table)
from graphc.ir.node import OPS, ancestors, constant, make
from graphc.ir.types import is_float

SHAPES = [(), (0,), (1,), (5,), (2, 3), (3, 1, 2)]
DOMAINS = {"acosh": (1.2, 2.0), "mod": (1.1, 1.9), "floor_divide": (1.1, 1.9)}  # elsewhere (0.15, 0.85)


def leaf(name, *shape, dtype="float64"):
    return make("placeholder", (), name=name, dtype=dtype, shape=shape)


def values_of(nodes, seed=0):
    """Random values for the float placeholders among the ancestors; integers come from constants."""
    found = {}
    for node in ancestors(nodes):
        if node.op.name == "placeholder":
            low, high = next((DOMAINS[o.op.name] for o in ancestors(nodes) if o.op.name in DOMAINS), (0.15, 0.85))
            rng = np.random.default_rng([seed, zlib.crc32(node.name.encode())])
            values = rng.uniform(low, high, node.shape)
            found[node] = values if is_float(node.dtype) else (values > 0.5 if node.dtype == "bool" else
                                                               np.arange(values.size).reshape(values.shape) % 3)
    return found


def indices(*values):
    return constant(np.array(values, "int64"))


def elementwise_samples(name):
    op = OPS[name]
    attrs = {"polygamma": {"order": 1}, "cast": {"dtype": "float64"}}.get(name, {})
    dtypes = operand_dtypes(op)
    return [lambda shape=shape: make(name, [leaf(f"x{k}", *shape, dtype=d) for k, d in enumerate(dtypes)], **attrs)
            for shape in SHAPES]


def operand_dtypes(op):
    """The first of these combinations that the op takes."""
    count = len(op.partials)
    for dtypes in (("float64",) * count, ("bool", *("float64",) * (count - 1)), ("int64",) * count):
        try:
            wanted, _ = op.rule(dtypes)
        except TypeError:
            continue
        if wanted == dtypes:
            return dtypes
    raise AssertionError(f"{op.name}: no sample dtypes")


def user():
    expression = (("mul", (0, 1), None), ("exp", (2,), None), ("add", (3, 0), None))
    return make("user", (leaf("x0", 4), leaf("x1", 4)), name="mine", expression=expression, arity=2)


def window(op, shape, starts, steps, other):
    return lambda: make(op, (leaf("x", *shape),), starts=starts, steps=steps, shape=other)


def unary(op, operand, /, **attrs):
    return lambda: make(op, (leaf("x", *operand),), **attrs)


def einsum(labels, out, *shapes):
    return lambda: make("einsum", [leaf(f"x{k}", *s) for k, s in enumerate(shapes)], labels=labels, out=out)


def gather(shape, index, x_labels, index_labels, out):
    return lambda: make("gather", (leaf("x", *shape), *(constant(np.array(i or 1, "int64")) for i in index)),
                        x_labels=x_labels, index_labels=index_labels, out=out)


def scatter(u_shape, index, x_labels, index_labels, out, shape):
    return lambda: make("scatter_add", (leaf("x", *u_shape), *(indices(*i) for i in index)), x_labels=x_labels,
                        index_labels=index_labels, out=out, shape=shape)


def scan(shape, axis, reverse):
    return lambda: make("linear_scan", (leaf("a", *shape), leaf("b", *shape)), axis=axis, reverse=reverse)


REDUCED = [((), ()), ((5,), (0,)), ((2, 3), (1,)), ((2, 3), (0, 1)), ((2, 3, 2), (0, 2)), ((1, 3), (0,)), ((2, 1), ())]
SAMPLES = {
    "user": [user],
    "broadcast": [unary("broadcast", s, shape=t, axes=a) for s, t, a in [
        ((), (3,), ()), ((2,), (2, 3), (0,)), ((2, 3), (2, 4, 3), (0, 2)), ((1,), (1, 2), (0,)), ((3,), (0, 3), (1,))]],
    "reshape": [unary("reshape", s, shape=t) for s, t in [
        ((6,), (2, 3)), ((2, 3), (6,)), ((3, 4), (2, 6)), ((2, 3), (3, 2)), ((1, 4), (4, 1)), ((0, 3), (0,)),
        ((), (1, 1)),
        ((4, 6, 1), (3, 8)), ((2, 2, 3), (4, 3)), ((2, 3, 5), (5, 6))]],
    "transpose": [unary("transpose", s, axes=a) for s, a in [((2, 3), (1, 0)), ((2, 1, 3), (2, 0, 1)), ((), ())]],
    "slice": [window("slice", *row) for row in [
        ((5,), (1,), (1,), (3,)), ((5,), (4,), (-1,), (5,)), ((7,), (6,), (-2,), (3,)), ((5,), (2,), (1,), (1,)),
        ((4, 6), (1, 5), (2, -2), (2, 3)), ((4, 1), (0, 0), (1, 1), (3, 1)), ((5,), (0,), (1,), (0,))]],
    "pad": [window("pad", *row) for row in [
        ((3,), (1,), (1,), (5,)), ((3,), (4,), (-2,), (5,)), ((2, 3), (0, 1), (1, 2), (2, 7)), ((1,), (0,), (1,), (4,)),
        ((1, 2), (2, 0), (1, 1), (3, 2)), ((0,), (0,), (1,), (3,))]],
    "concat": [lambda: make("concat", (leaf("x", 2, 3), leaf("y", 1, 3), leaf("z", 3, 3)), axis=0),
               lambda: make("concat", (x := leaf("x", 2, 3), x), axis=1),
               lambda: make("concat", (leaf("x", 2),), axis=0),
               lambda: make("concat", (leaf("x", 0), leaf("y", 2)), axis=0)],
    "choose": [lambda: make("choose", (leaf("x", 2, 3), leaf("y", 2, 3)), conditions=(((1, 2),),)),
               lambda: make("choose", (leaf("x"), leaf("y"), leaf("z")), conditions=(((1, 2),), ((2, 1), (1, 1)))),
               lambda: make("choose", (leaf("x", 0), leaf("y", 0)), conditions=((),))],
    "diagonal": [unary("diagonal", s, axes=a) for s, a in [
        ((3,), ((0, 1),)), ((3, 2), ((0, 2), (1,))), ((2,), ((0, 1, 2),)), ((2, 3), ((1, 3), (0, 2))),
        ((1,), ((0, 1),))]],
    **{op: [unary(op, s, axes=a) for s, a in [*REDUCED, *([((0, 3), (0,))] if op in ("sum", "prod") else [])]]
       for op in ("sum", "prod", "max", "min")},
    "argmax": [unary("argmax", (2, 3), axis=1)], "argmin": [unary("argmin", (2, 3), axis=0)],
    "any": [lambda: make("any", (leaf("x", 3, dtype="bool"),), axes=(0,))],
    "all": [lambda: make("all", (leaf("x", 3, dtype="bool"),), axes=(0,))],
    "einsum": [einsum(*row) for row in [
        (((0, 1), (1, 2)), (0, 2), (2, 3), (3, 4)), (((0, 1), (1,)), (0,), (2, 3), (3,)), (((0, 0),), (0,), (3, 3)),
        (((0, 0),), (), (3, 3)), (((0,), (1,)), (0, 1), (2,), (3,)), (((0,), (1,), (0, 1)), (), (2,), (3,), (2, 3)),
        (((0, 1), (1, 2), (2, 3)), (3, 0), (2, 3), (3, 4), (4, 2)),
        (((0, 1, 2), (0, 2, 3)), (0, 1, 3), (2, 3, 4), (2, 4, 5)),
        (((0, 0, 1), (1, 0)), (0,), (2, 2, 3), (3, 2)), (((0, 1), (2,)), (0,), (2, 3), (4,)),
        (((), (0,)), (0,), (), (3,)),
        (((0, 1), (1, 2)), (0, 2), (2, 0), (0, 3)), (((0, 1), (1, 2)), (0, 2), (1, 3), (3, 1)),
        (((0,), (0,), (0,)), (), (3,), (3,), (3,))]],
    "gather": [gather(*row) for row in [
        ((4, 2), [(1, -1, 1)], (("index", 0), 1), ((0,),), (0, 1)),
        ((2, 4), [((1, 1, 0), (3, -2, 3))], (0, ("index", 0)), ((0, 1),), (0, 1)),
        ((3, 3), [(0, 2, 2, 0), (1, 1, 0, 1)], (("index", 0), ("index", 1)), ((0,), (0,)), (0,)),
        ((3, 2), [()], (("index", 0), 0), ((),), (0,)), ((4,), [((0, 1), (3, 3))], (("index", 0),), ((0, 1),), (1, 0)),
        ((1, 2), [(0, -1)], (("index", 0), 1), ((0,),), (1, 0)),
        ((3, 3), [(0, 2, 1)], (0, ("index", 0)), ((0,),), (0,))]],
    "scatter_add": [scatter(*row) for row in [
        ((3, 2), [(1, -1, 1)], (("index", 0), 1), ((0,),), (0, 1), (4, 2)),
        ((4,), [(0, 2, 2, 0), (1, 1, 0, 1)], (("index", 0), ("index", 1)), ((0,), (0,)), (0,), (3, 3)),
        ((2, 3), [((1, 1, 0), (3, -2, 3))], (0, ("index", 0)), ((0, 1),), (0, 1), (2, 4)),
        ((3,), [(0, 2, 1)], (0, ("index", 0)), ((0,),), (0,), (3, 3))]],
    "linear_scan": [scan(s, a, r) for s, a in [((4,), 0), ((3, 2), 0), ((2, 3, 2), 1), ((1,), 0), ((0,), 0)]
                    for r in (False, True)],
}
LEAVES = ("placeholder", "variable", "constant", "iota")


def samples_of(name):
    return SAMPLES.get(name) or elementwise_samples(name)


def all_samples():
    """(op name, number, builder) of every op."""
    return [(name, k, sample) for name in OPS if OPS[name].kind != "leaf"
            for k, sample in enumerate(samples_of(name))]
