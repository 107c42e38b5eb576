"""The verifier: one broken graph or plan per invariant, and sound ones of which it says nothing."""

from dataclasses import replace

import numpy as np
import pytest

import graphc as gc
from graphc.ir.dims import Dim
from graphc.ir.node import Bits, Node, Op
from graphc.ir.plan import (Array, Buffer, Constant, Contraction, CopyStep, Guard, Kernel, KernelOp, KernelStep, Map,
                            Program, RangeStep, Schedule)
from graphc.ir.types import Type
from graphc.ir.verify import assert_valid, assert_valid_program, faults, kernel_faults, program_faults

N = Dim.symbol("n")


def altered(node, **changes):
    """A node that `make` would never build."""
    new = Node()
    for slot in Node.__slots__:
        if slot not in ("__weakref__", "elements", "origins"):  # these two are not there before they are needed
            setattr(new, slot, changes.get(slot, getattr(node, slot)))
    return new


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph() as new:
        yield new


def sound():
    x = gc.placeholder("float32", ("n", 4), name="x")
    return x, gc.logsumexp(gc.exp(x) @ np.ones((4, 3), "float32"), axis=1)


def test_a_sound_graph_has_no_faults():
    _, y = sound()
    assert faults([y, gc.tril(y[:, None] * y), gc.cumprod(y), y[[0, 1]], gc.diag(y)]) == []
    assert_valid([y], after="nothing")


def broken_graphs():
    x, _ = sound()
    y = gc.exp(x)
    writeable = Bits(np.zeros(2), "float64")
    writeable.array = np.zeros(2)
    stranger = Op("exp", "elementwise", y.op.infer, y.op.reference)
    with gc.Graph():
        other = gc.placeholder("float32", ("n", 4), name="x")
    unborn = altered(x, id=10**9)
    return {
        "is not a row of the op table": altered(y, op=stranger),
        "operand 0 is of another graph": altered(y, operands=(other,)),
        "operand 0 was built after its user": altered(y, operands=(unborn,)),
        "the type is float64[n, 4], the type rule says float32[n, 4]": altered(y, type=Type("float64", y.shape)),
        "the type is float32[n, 5]": altered(y, type=Type("float32", (N, 5))),
        "the type rule refuses the operands": altered(x.sum(0), attrs={"axes": (7,)}),
        "attribute axes is not hashable": altered(x.sum(0), attrs={"axes": [0]}),
        "the constant's array is writeable": altered(gc.constant(np.zeros(2)), attrs={"value": writeable}),
        "1 partials for 2 operands": altered(y, operands=(x, x)),
    }


@pytest.mark.parametrize("message", broken_graphs())
def test_every_broken_graph_is_found(message):
    node = broken_graphs()[message]
    found = faults([node])
    assert any(message in fault.message for fault in found)
    assert any(fault.node is node for fault in found)


def test_the_error_shows_the_graph_and_the_pass():
    x, _ = sound()
    bad = altered(gc.exp(x), type=Type("float64", x.shape))
    with pytest.raises(gc.VerifyError) as caught:
        assert_valid([bad], after="simplify")
    assert "after simplify: 1 faults" in str(caught.value)
    lines = str(caught.value).splitlines()
    place = next(k for k, line in enumerate(lines) if "exp(x)" in line)
    assert "    ^ the type is float64" in lines[place + 1]


# -- kernels --
ROW = Map(0, 0, (4, 1))
OUT = Map(1, 0, (1, 0))
SUM = Kernel((N, 4), ("float32", "float32"), (
    KernelOp("load", map=ROW), KernelOp("exp", (0,)), KernelOp("reduce", (1,), value=("add", (1,))),
    KernelOp("store", (2,), map=OUT)))
PRODUCT = Contraction((N, 8), 4, ("float32", "float32", "float32"), "float32", Map(0, 0, (4, 0, 1)),
                      Map(1, 0, (0, 1, 8)),
                      (KernelOp("accumulator"), KernelOp("relu", (0,)), KernelOp("store", (1,), map=Map(2, 0, (8, 1)))))

# The sum of a kept value and a row's total is computed anew after the maximum, when the value is no longer there.
LATER = Kernel((N, 4), ("float32",) * 3, (
    KernelOp("load", map=ROW), KernelOp("exp", (0,)), KernelOp("keep", (1,), map=Map(1, 0, (4, 1))),
    KernelOp("reduce", (1,), value=("add", (1,))), KernelOp("add", (2, 3)),
    KernelOp("reduce", (4,), value=("max", (1,))), KernelOp("mul", (4, 5)), KernelOp("add", (6, 0)),
    KernelOp("store", (7,), map=Map(2, 0, (4, 1))), KernelOp("store", (3,), map=Map(1, 0, (4, 1)))))


def with_op(kernel, place, **changes):
    ops = list(kernel.ops)
    ops[place] = replace(ops[place], **changes)
    return replace(kernel, ops=tuple(ops))


def test_sound_kernels_have_no_faults():
    assert kernel_faults(SUM) == []
    assert kernel_faults(PRODUCT) == []
    gathered = Kernel((N,), ("int64", "float32", "float32"), (
        KernelOp("load", dtype="int64", map=Map(0, 0, (1,))),
        KernelOp("load", map=Map(1, 0, (0,), indices=((0, 1, 10),), guards=(Guard(0, (1,), 5),))),
        KernelOp("store", (1,), map=Map(2, 0, (1,)))))
    assert kernel_faults(gathered) == []


BROKEN_KERNELS = [
    (with_op(SUM, 1, operands=(2,)), "op 1 (exp): operand 2 does not come before it"),
    (with_op(SUM, 1, kind="nope"), "op 1 (nope): no such kind"),
    (with_op(SUM, 1, kind="sum"), "op 1 (sum): no such kind"),
    (with_op(SUM, 1, operands=(0, 0)), "op 1 (exp): has 2 operands, needs 1"),
    (with_op(SUM, 1, map=ROW), "has a map that nothing reads"),
    (with_op(SUM, 0, map=None), "op 0 (load): has no map"),
    (with_op(SUM, 0, map=Map(0, 0, (1,))), "1 strides for 2 axes"),
    (with_op(SUM, 0, map=Map(5, 0, (4, 1))), "argument 5 of 2"),
    (with_op(SUM, 0, dtype="float64"), "is of float64, its argument of float32"),
    (with_op(SUM, 0, map=Map(0, 0, (4, 1), indices=((2, 1, 4),))), "index 2 does not come before it"),
    (with_op(SUM, 3, map=Map(1, 0, (1, 0), indices=((1, 1, 4),))), "index 1 is of float32, not int64"),
    (with_op(SUM, 0, map=Map(0, 0, (4, 1), guards=(Guard(0, (1,), 4),))), "a guard has 1 strides for 2 axes"),
    (with_op(SUM, 2, value=("plus", (1,))), "is no (monoid, axes)"),
    (with_op(SUM, 2, value=("add", (2,))), "axes (2,) are not axes of 2"),
    (replace(SUM, ops=SUM.ops[:3]), "nothing is stored"),
    (replace(SUM, ops=(*SUM.ops[:2], KernelOp("reduce", (1,), value=("max", (0,))), *SUM.ops[2:3])),
     "reductions over different axes"),
    (with_op(SUM, 1, kind="second"), "its operand is load, not an argmax"),
    (with_op(SUM, 1, kind="iota", operands=(), value=7), "value 7 is no axis"),
    (with_op(SUM, 1, kind="const", operands=(), value="1"), "value '1' is no number"),
    (with_op(SUM, 1, kind="scan", operands=(0, 0), value=(9, False)), "is no (axis, reverse)"),
    (replace(SUM, schedule=Schedule(streamed=(0,))), "argument 0 is streamed, but not just stored to"),
    (replace(SUM, schedule=Schedule(streamed=(7,))), "argument 7 is streamed, but not just stored to"),
    (LATER, "op 2 (keep): what it reads is overwritten by op 9 before the last pass that needs it"),
    (replace(LATER, ops=(*LATER.ops[:8], KernelOp("store", (4,), map=ROW), replace(LATER.ops[8]))),
     "op 0 (load): what it reads is overwritten by op 8 before the last pass that needs it"),
    (replace(LATER, ops=(*LATER.ops[:8], replace(LATER.ops[8], map=Map(0, 1, (4, 1))))),
     "op 0 (load): reads what op 8 writes, at another place"),
    (replace(PRODUCT, a=Map(0, 0, (4, 1, 1))), "map a: its stride along axis 1 is 1, not 0"),
    (replace(PRODUCT, b=Map(1, 0, (0, 1))), "map b: 2 strides for 3 axes"),
    (with_op(PRODUCT, 0, dtype="float64"), "op 0 is not the accumulator of dtype float32"),
]


@pytest.mark.parametrize(("kernel", "message"), BROKEN_KERNELS, ids=[message for _, message in BROKEN_KERNELS])
def test_every_broken_kernel_is_found(kernel, message):
    assert any(message in fault for fault in kernel_faults(kernel)), kernel_faults(kernel)


# -- programs --
COPY = Kernel((N,), ("float32", "float32"),
              (KernelOp("load", map=Map(0, 0, (1,))), KernelOp("store", (0,), map=Map(1, 0, (1,)))))
PROGRAM = Program(
    "f", ("n",), (Array("x", "float32", (N,)),), (Array("y", "float32", (N,)),), (),
    (Constant("k", "float32", (1,), b"1234"),),
    (Buffer("float32", N, "input", 0), Buffer("float32", N, "arena", offset=0),
     Buffer("float32", N, "arena", offset=4 * N),
     Buffer("float32", N, "output", 0)),
    (KernelStep(COPY, (0, 1)), KernelStep(COPY, (1, 2)), KernelStep(COPY, (2, 3))), 8 * N)


def with_buffer(number, /, **changes):
    buffers = list(PROGRAM.buffers)
    buffers[number] = replace(buffers[number], **changes)
    return replace(PROGRAM, buffers=tuple(buffers))


def test_a_sound_program_has_no_faults():
    assert program_faults(PROGRAM) == []
    assert_valid_program(PROGRAM, after="memory")
    chained = with_buffer(2, offset=0)  # of the same place, but never live at once
    assert program_faults(replace(chained,
                                  steps=(KernelStep(COPY, (0, 1)), KernelStep(COPY, (1, 3)), KernelStep(COPY, (0, 2))),
                                  arena=4 * N)) == []


BROKEN_PROGRAMS = [
    (with_buffer(2, offset=0), "buffers 1 and 2 overlap while both are live"),
    (with_buffer(2, offset=4 * N - 4), "buffers 1 and 2 overlap while both are live"),
    (with_buffer(1, size=N + 1), "buffers 1 and 2 overlap while both are live"),
    (with_buffer(2, offset=64), "buffers 1 and 2 overlap while both are live (at {'n': 64})"),
    (with_buffer(2, size=2 * N), "of an arena of"),
    (with_buffer(2, offset=Dim.symbol("q")), "need the symbols q"),
    (with_buffer(0, number=3), "there is no input 3"),
    (with_buffer(0, place="moon"), "no place 'moon'"),
    (with_buffer(3, dtype="float64"), "for arguments ('float32', 'float32')"),
    (with_buffer(3, place="constant"), "writes constant buffer 3"),
    (replace(PROGRAM, steps=(KernelStep(COPY, (0, 9)),)), "buffers (0, 9) of 4"),
    (replace(PROGRAM, steps=(KernelStep(with_op(COPY, 1, operands=(1,)), (0, 3)),)), "step 0: op 1 (store): operand 1"),
    (replace(PROGRAM, steps=(KernelStep(replace(COPY, extents=(Dim.symbol(".elements"),)), (0, 3)),)),
     "step 0: sizes need the symbols .elements, which nothing gives it"),
    (replace(PROGRAM, steps=(KernelStep(COPY, (0, 3), sizes=(("n", 7),)),)), "gives a value to n"),
    (replace(PROGRAM, steps=(RangeStep(0, 10, 0),), messages=("m",)), "indices of float32"),
    (replace(with_buffer(0, dtype="int64"), steps=(RangeStep(0, 10, 0),)), "message 0 of 0"),
    (replace(with_buffer(1, size=N + 1), steps=(CopyStep(0, 1),)), "copies float32[n] to float32[n + 1]"),
]


@pytest.mark.parametrize(("program", "message"), BROKEN_PROGRAMS, ids=range(len(BROKEN_PROGRAMS)))
def test_every_broken_program_is_found(program, message):
    assert any(message in fault for fault in program_faults(program)), program_faults(program)
    with pytest.raises(gc.VerifyError, match="after memory: "):
        assert_valid_program(program, after="memory")
