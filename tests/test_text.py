"""The text form: what it looks like, and that it depends on the fetches alone."""

import os
import re
import subprocess
import sys

import numpy as np

import graphc as gc
from graphc.ir.text import canonical_key, postorder, text


def model():
    x = gc.placeholder("float32", ("batch", 64), name="x")
    w = gc.variable(np.ones((64, 10), "float32"), name="w")
    y = gc.exp(x @ w * 2.0)
    return y, (y / y.sum(1, keepdims=True)).mean()


def test_text(golden):
    with gc.Graph():
        y, loss = model()
        big = gc.constant(np.arange(100)).sum()
        golden(re.sub(r"test_text.py:\d+", "test_text.py:_", text([loss, y, big, gc.constant([1.5, 2.5])])))


def test_notes_stand_under_their_nodes():
    with gc.Graph():
        y, loss = model()
        lines = text([loss], {y: ["what is wrong"]}).splitlines()
    place = next(k for k, line in enumerate(lines) if "exp(" in line)
    assert lines[place + 1] == "    ^ what is wrong"


def test_history_does_not_matter():
    with gc.Graph():
        y, loss = model()
        plain = text([loss])
        key = canonical_key([loss])
    with gc.Graph():
        x = gc.placeholder("float32", ("batch", 64), name="x")
        held = [gc.sin(x), gc.full((2,), 3.0)]
        w = gc.variable(np.ones((64, 10), "float32"), name="w")
        early = w * 3
        z = x @ w
        y = gc.exp(z * 2.0)
        loss = (y / y.sum(1, keepdims=True)).mean()
        strip = lambda t: re.sub(r"py:\d+", "", t)
        assert strip(text([loss])) == strip(plain)
        assert canonical_key([loss]) == key
        assert held and early is not None


def test_keys_tell_graphs_apart():
    with gc.Graph():
        x, y = (gc.placeholder("float32", (3,), name=n) for n in "xy")
        nodes = [x, y, x + y, y + x, x - y, gc.exp(x), x + 0.0, x + -0.0, gc.sum(x), x.reshape(3, 1), x[::-1],
                 gc.constant(np.zeros(3)), gc.constant(np.zeros(3, "float32")), gc.constant(np.zeros(3, "int32"))]
        assert len({canonical_key([n]) for n in nodes}) == len(nodes)
        assert canonical_key([x, y]) != canonical_key([y, x])
        assert canonical_key([gc.exp(x)], named=False) == canonical_key([gc.exp(y)], named=False)


def test_keys_are_the_same_in_every_process():
    program = ("import graphc as gc, numpy as np\n"
               "from graphc.ir.text import canonical_key\n"
               "x = gc.placeholder('float32', ('n', 3), name='x')\n"
               "print(canonical_key([gc.logsumexp(x @ np.ones((3, 2), 'float32'), axis=1)]))")
    keys = {subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in "12"}
    assert len(keys) == 1


def test_postorder_is_operands_first():
    with gc.Graph():
        _, loss = model()
        order = postorder([loss])
        place = {node: k for k, node in enumerate(order)}
        assert all(place[o] < place[n] for n in order for o in n.operands)
