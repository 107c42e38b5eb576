"""Build-time errors: the kind, the offending values, the user's own line, and how to mend it."""

import numpy as np
import pytest

import graphc as gc
from graphc.ir.reference import evaluate


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph() as new:
        yield new


def f(*shape, dtype="float32", name=None):
    return gc.placeholder(dtype, shape, name=name)


CASES = [  # program, kind of error, what its message says
    (lambda: f(3) + f(4), gc.ShapeError, "float32[3] and float32[4] do not broadcast: 3 against 4 at axis -1"),
    (lambda: f(2, 3) @ f(4, 5), gc.ShapeError, "float32[2, 3] and float32[4, 5]: 3 columns against 4 rows"),
    (lambda: f() @ f(3), gc.ShapeError, "needs one axis or more"),
    (lambda: f(3, dtype="bool") - f(3, dtype="bool"), gc.DTypeError, "sub: no meaning for dtypes bool, bool; cast"),
    (lambda: f(3) & f(3), gc.DTypeError, "bitwise_and: no meaning for dtypes float32, float32"),
    (lambda: f(3, dtype="int8") + 1000, gc.DTypeError, "1000 does not fit int8, which holds -128 to 127"),
    (lambda: f(3) + 1j, gc.DTypeError, "complex128"),
    (lambda: f(3, dtype="int32") ** -1, gc.GraphError, "an integer to the power -1 is not an integer"),
    (lambda: gc.placeholder("float31", (3,)), gc.DTypeError, "float31"),
    (lambda: gc.placeholder("complex64", (3,)), gc.DTypeError, "no dtype complex64; there are float64"),
    (lambda: gc.placeholder("float32", (2.5,)), gc.GraphError, "a size is an integer, a Dim or a name, got 2.5"),
    (lambda: gc.placeholder("float32", (-2,)), gc.ShapeError, "-2 is less than 0"),
    (lambda: gc.placeholder("float32", ("two words",)), gc.GraphError, "named like a variable, got 'two words'"),
    (lambda: (f(name="x"), f(name="x")), gc.GraphError, "the name 'x' is taken"),
    (lambda: gc.variable(f(3)), gc.DTypeError, "got a node"),
    (lambda: gc.constant("text"), gc.DTypeError, "no dtype str"),
    (lambda: gc.reshape(f(6), (4, -1)), gc.ShapeError, "numbers of elements: 6 and 4 differ"),
    (lambda: gc.reshape(f(6), (-1, -1)), gc.ShapeError, "only one size can be -1"),
    (lambda: gc.reshape(f(6), (2, 2)), gc.ShapeError, "float32[6] to shape (2, 2)"),
    (lambda: gc.transpose(f(2, 3), (0, 0)), gc.ShapeError, "names an axis twice"),
    (lambda: gc.transpose(f(2, 3), (0,)), gc.ShapeError, "are not the 2 axes"),
    (lambda: gc.sum(f(2, 3), axis=2), gc.ShapeError, "axis 2 is out of range for 2 axes"),
    (lambda: gc.sum(f(2, 3), axis=1.5), gc.ShapeError, "axis must be an integer, got 1.5"),
    (lambda: gc.max(f(0, 3), axis=0), gc.ShapeError, "which must not be empty"),
    (lambda: gc.squeeze(f(2, 3), 0), gc.ShapeError, "not all of size 1"),
    (lambda: gc.concatenate([f(2, 3), f(2, 4)]), gc.ShapeError, "sizes of axis 1: 3 and 4 differ"),
    (lambda: gc.concatenate([f(2), f(2, 4)]), gc.ShapeError, "differ in rank"),
    (lambda: gc.concatenate([]), gc.ShapeError, "needs at least one array"),
    (lambda: gc.stack([f(2), f(3)]), gc.ShapeError, "2 and 3 differ"),
    (lambda: gc.split(f(5), 2), gc.ShapeError, "does not split into 2 equal parts"),
    (lambda: gc.broadcast_to(f(2, 3), (4, 3)), gc.ShapeError, "2 against 4 at axis 0"),
    (lambda: gc.broadcast_to(f(2, 3), (3,)), gc.ShapeError, "more axes than shape (3,)"),
    (lambda: f(3)[3], gc.ShapeError, "index 3 is out of range for axis 0 of float32[3]"),
    (lambda: f(3)[0, 0], gc.ShapeError, "2 indices and 0 ellipses for float32[3]"),
    (lambda: f(3)["a"], gc.GraphError, "is no index"),
    (lambda: f(3)[1.5], gc.ShapeError, "1.5 is no index"),
    (lambda: f(3)[::0], gc.ShapeError, "step 0"),
    (lambda: f(3)[f(3)], gc.DTypeError, "indices are integers, got float32[3]"),
    (lambda: f(3)[f(3) > 0], gc.Unsupported, "selects a number of elements that is not known before run time"),
    (lambda: gc.take(f(3), [0.5]), gc.DTypeError, "indices must be integers"),
    (lambda: gc.one_hot([0.5], 3), gc.DTypeError, "indices are integers"),
    (lambda: gc.einsum("ij,jk", f(2, 3)), gc.ShapeError, "2 terms for 1 operands"),
    (lambda: gc.einsum("ijk", f(2, 3)), gc.ShapeError, "'ijk' has 3 labels for float32[2, 3]"),
    (lambda: gc.einsum("ij->ik", f(2, 3)), gc.ShapeError, "occur in the operands"),
    (lambda: gc.einsum("ij,ij", f(2, 3), f(2, 4)), gc.ShapeError, "3 and 4 differ"),
    (lambda: gc.einsum("i1", f(2, 3)), gc.ShapeError, "labels are letters"),
    (lambda: gc.tensordot(f(2), f(3), 1), gc.ShapeError, "2 and 3 differ"),
    (lambda: gc.norm(f(3), ord="fro"), gc.DTypeError, "ord is a number"),
    (lambda: gc.polygamma(-1, f(3)), gc.DTypeError, "order is a static integer >= 0, got -1"),
    (lambda: bool(f(3) > 0), gc.GraphError, "the truth of"),
    (lambda: float(f()), gc.GraphError, "no value before run time"),
    (lambda: np.exp(f(3)), TypeError, ""),
    (lambda: np.asarray(f(3)), gc.GraphError, "use graphc's functions"),
    (lambda: list(f("n")), gc.GraphError, "not of a known length"),
    (lambda: gc.elementwise(lambda m, x: m.nothing(x), name="mine")(f(3)), gc.GraphError,
     "mine: no elementwise op 'nothing'"),
    (lambda: gc.elementwise(lambda m, x: 1.0 if x > 0 else x, name="mine")(f(3)), gc.GraphError, "use m.where"),
]


@pytest.mark.parametrize(("program", "kind", "says"), CASES, ids=range(len(CASES)))
def test_errors_name_the_values_and_the_line(program, kind, says):
    with pytest.raises(kind) as caught:
        program()
    message = str(caught.value)
    assert says in message
    if isinstance(caught.value, gc.GraphError | gc.Unsupported) and says not in ("the truth of",
                                                                                 "no value before run time") \
            and "test_errors.py" not in message:
        pytest.fail(f"the message does not name the user's line: {message}")


def test_the_line_is_the_one_that_was_wrong():
    a = f(3, name="a")
    b = f(4, name="b")
    with pytest.raises(gc.ShapeError) as caught:
        a * b
    line = program_line("a * b")
    assert f"test_errors.py:{line}" in str(caught.value)
    for text in ("a = f(3", "b = f(4"):
        assert f"test_errors.py:{program_line('return gc.placeholder(dtype')}" in str(caught.value), text


def program_line(text):
    lines = open(__file__, encoding="utf-8").read().splitlines()
    return next(k for k, line in enumerate(lines, 1) if line.strip().startswith(text))


def test_operands_of_two_graphs():
    x = f(3)
    with gc.Graph(), pytest.raises(gc.GraphError, match="operands of two graphs"):
        x + gc.placeholder("float32", (3,))


def test_symbolic_sizes_that_can_never_fit():
    n = f("n").shape[0]
    with pytest.raises(gc.ShapeError, match=r"n \+ 1 against n|n against n \+ 1"):
        f("n") + f(n + 1)


def test_symbolic_sizes_are_checked_when_they_are_known():
    x, y = f("n", name="x"), f("m", name="y")
    node = x + y
    with pytest.raises(gc.ShapeError) as caught:
        evaluate([node], {x: np.zeros(3), y: np.zeros(4)}, {})
    assert "test_errors.py" in str(caught.value) and "got 3 and 4" in str(caught.value)
    with pytest.raises(gc.ShapeError, match="n is 3 by axis 0 of x"):
        z = f("n", name="z")
        evaluate([x + z], {x: np.zeros(3), z: np.zeros(4)}, {})
    with pytest.raises(gc.FeedError, match="y"):
        evaluate([node], {x: np.zeros(3)}, {})


def test_indices_out_of_range_are_refused_at_run_time():
    i = f(2, dtype="int64")
    node = gc.take(gc.constant([1.0, 2.0, 3.0]), i)
    for bad in (3, -4):
        with pytest.raises(gc.GraphError, match=rf"index {bad} is outside \[-3, 3\)"):
            evaluate([node], {i: np.array([0, bad])}, {})
