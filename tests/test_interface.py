"""What a header says of its arguments, and names that C can have, whatever they are in the graph."""

from __future__ import annotations

from dataclasses import replace
import re
import shutil
import subprocess

import numpy as np
import pytest

from codegen.header import MACROS, CFunction, CLibrary, CPattern, c_argument, header_text
import graphc as gc
from graphc.cli import main
from tests.elf_programs import runs_here

pytestmark = runs_here


def header(folder, entries, session=None, **options):
    path = gc.compile_library(folder, "said", entries, session=session, **options)
    return joined(path.with_name("said.h").read_text()), path


def joined(text):
    """The text on one line, comments without their margins."""
    return " ".join(re.sub(r"\n +\* ", " ", text).split())


def derivatives():
    """Entries whose outputs are derivatives of all kinds."""
    x = gc.placeholder("float64", ("n", 4), name="x")
    w, b = gc.variable(np.ones((4, 2)), name="layer/w"), gc.variable(np.zeros(2), name="layer/b")
    loss = gc.mean((x @ w + b) ** 2)
    dw, db = gc.gradients(loss, [w, b])
    a, v = gc.placeholder("float64", (5,), name="a"), gc.placeholder("float64", (5,), name="v")
    f = gc.sin(a[1:] * a[:-1])
    return {
        "slopes": gc.signature([x], [loss, dw, db], names=["loss", "dw", "db"], doc="The mean square.",
                               comments={"x": "lengths in metres", "n": "how many", "layer/w": "factors"}),
        "hidden": gc.signature([x], [dw]),
        "step": gc.signature([x], [loss, b, w], updates={w: w - dw}, names=["loss", "b", "w"]),
        "products": gc.signature([a, v], [gc.hvp(gc.sum(f ** 2), a, v), gc.jvp(f, a, v), gc.vjp(f, a, v[1:])]),
        "matrices": gc.signature([a], [gc.jacobian(f, a), gc.hessian(gc.sum(f ** 2), a), gc.sparse_jacobian(f, a),
                                       gc.sparse_hessian(gc.sum(f ** 2), a), a, f],
                                 names=["J", "H", "SJ", "SH", "same", "f"])}


SAID = (
    "The mean square. Computes loss, dw, db.",
    "- n: size, at least 0; how many", "- x (in): float64, [n, 4] row-major; lengths in metres",
    "- dw (out): float64, [4, 2] row-major; gradient of loss by layer/w",
    "- db (out): float64, [2] row-major; gradient of loss by layer/b",
    "- output0 (out): float64, [4, 2] row-major; gradient of a result of div by layer/w",
    "/* float64, [4, 2] row-major; 'layer/w' of the graph; factors; updated by step; 64 bytes */",
    "/* float64, [2] row-major; 'layer/b' of the graph; no entry updates it; 16 bytes */",
    "- b (out): float64, [2] row-major; the variable layer/b",
    "- w (out): float64, [4, 2] row-major; the variable layer/w, before it is updated",
    "Computes loss, b, w; then updates layer_w of the state.",
    "- output0 (out): float64, [5] row-major; the Hessian of a result of sum by a times a vector",
    "- output1 (out): float64, [4] row-major; the Jacobian of a result of sin by a times a vector",
    "- output2 (out): float64, [5] row-major; a vector times the Jacobian of a result of sin by a",
    "- J (out): float64, [4, 5] row-major; Jacobian of f by a: the axes of f, then those of a",
    "- H (out): float64, [5, 5] row-major; Hessian of a result of sum by a: the axes of the first, then those of the",
    "- SJ (out): float64, [8] row-major; entries of the Jacobian of f by a, whose elements are numbered in row-major",
    "- SH (out): float64, [13] row-major; entries of the Hessian of a result of sum by a, whose elements",
    "- same (out): float64, [5] row-major; the same as a")


def test_the_header_says_what_is_the_gradient_of_what(tmp_path):
    with gc.Graph():
        text, _ = header(tmp_path, derivatives())
    for line in SAID:
        assert line in text, line


def test_a_saved_graph_keeps_what_the_header_says(tmp_path, capsys):
    """Derivatives are plain nodes in a file, and a sparse output its entries; `graphc compile` knows both."""
    with gc.Graph():
        entries = derivatives()
        direct, _ = header(tmp_path / "direct", entries)
        gc.save_graph(tmp_path / "said.gcm", [what.outputs[0] for what in entries.values()], entries=entries)
    assert main(["compile", str(tmp_path / "said.gcm"), "-o", str(tmp_path)]) == 0
    text = joined((tmp_path / "said.h").read_text())
    for line in (*SAID[:6], *SAID[8:9], *SAID[10:]):
        assert line in text, line
    pattern = "SAID_MATRICES_SJ_ENTRIES 8 static const int32_t said_matrices_SJ_indptr[5] = { 0, 2, 4, 6, 8 };"
    assert pattern in direct and pattern in text


def test_equal_gradients_are_said_of_both(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float32", (3,), name="x")
        a, b = gc.variable(np.ones(3, "f"), name="a"), gc.variable(np.ones(3, "f"), name="b")
        loss = gc.sum((x * x + a + b) ** 2)
        outputs = [loss, *gc.gradients(loss, [a, b])]
        text, _ = header(tmp_path, {"run": gc.signature([x], outputs, names=["l", "p", "q"])})
    assert "p (out): float32, [3] row-major; gradient of l by a; gradient of l by b" in text


def test_an_output_may_be_called_like_an_input(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float32", ("n",), name="x")
        loss = gc.sum(x * x * x)
        text, path = header(tmp_path, {"run": gc.signature([x], [loss, gc.gradients(loss, x)], names=["loss", "x"])})
    assert "- x (in): float32, [n] row-major -" in text
    assert "- x_1 (out): float32, [n] row-major; 'x' of the graph; gradient of loss by x -" in text
    assert gc.load_library(path).run([1.0, 2.0])[1].tolist() == [3, 12]


def test_comments_on_nothing_are_refused():
    with gc.Graph():
        x = gc.placeholder("float32", ("n",), name="x")
        for comments in ({"y": "what"}, {"x": 3}):
            with pytest.raises(gc.GraphError, match=r"comments: '.': .*: expected a string for one of x, output0, n"):
                gc.signature([x], x * 2, comments=comments)
        for names in ("y", [1], ["a", "b"]):
            with pytest.raises(gc.GraphError, match="names for 1 outputs, expected a string for each"):
                gc.signature([x], x * 2, names=names)


NAMES = ("class", "EOF", "I", "complex", "NAN", "stdin", "near", "état", "数", "n", "SAID_OK", "SAID_H", "said_run",
         "said_state", "workspace", "state", "int32_t", "1st", "a b", "a/b", "a_b", "x" * 300, "INT64_MAX", "__x__",
         "SAID_RUN_J_ROWS", "status", "for", "FALSE", "IN", "M_PI")


def test_names_that_c_cannot_have_are_changed(tmp_path):
    """Keywords, macros of other headers and of this one, letters of other alphabets, and the names of sizes."""
    with gc.Graph():
        inputs = [gc.placeholder("float32", ("n",), name=name) for name in NAMES]
        variables = [gc.variable(np.zeros(2, "f"), name=f"{name} ") for name in NAMES]
        a = gc.placeholder("float64", (5,), name="J")
        found = gc.sparse_jacobian(a[1:] * a[:-1], a)
        entries = {"run": gc.signature([*inputs, a], [sum(inputs[1:], inputs[0]), found], names=["double", "J_out"]),
                   "for": gc.signature([], [], updates={v: v + 1 for v in variables})}
        text, path = header(tmp_path, entries)
    assert "const float *etat," in text and "const float *n_1," in text and "float *double_value," in text
    assert "int32_t said_for(" in text and "'EOF' of the graph" in text
    lib = gc.load_library(path)
    total, _ = lib.run(*(np.full(3, 1, "f") for _ in inputs), np.ones(5))
    assert total.tolist() == [len(NAMES)] * 3 and lib["for"]() == [] and lib.state["EOF "].tolist() == [1, 1]
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    others = "".join(f"#include <{name}.h>\n" for name in ("complex", "stdio", "math", "limits", "errno", "termios"))
    others += "".join(f"#ifndef {name}\n#define {name} 1 +\n#endif\n" for name in sorted(MACROS))
    (tmp_path / "main.c").write_text(f'{others}#include "said.h"\nint main(void) {{ return 0; }}\n')
    done = subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror",
                           "-fsyntax-only", "main.c"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


ODD = ('a"b\\c\n*/ %s', "??/", "\u202e", "'", "\\", "\0", "%d", "{}", " ", "ünï", "a" * 3000)


def test_odd_texts_do_no_harm(tmp_path, capsys):
    """Quotes, ends of comments, trigraphs, zeros, directions of writing, very long names: in names and in comments."""
    with gc.Graph():
        entries, updates = {}, {}
        for k, text in enumerate(ODD):
            x = gc.placeholder("float32", (text if text.isidentifier() else "n", 2), name=f"{text}x")
            w = gc.variable(np.ones(2, "f"), name=f"{text}w")
            updates[w] = w + 1
            entries[f"e{k}"] = gc.signature([x], [x * w, x + 1], names=[text, f"{text}2"], doc=text,
                                            comments={f"{text}x": text})
        entries["up"] = gc.signature([], [], updates=updates)
        path = gc.compile_library(tmp_path, "odd", entries)
        gc.save_graph(tmp_path / "odd.gcm", [what.outputs[0] for what in entries.values() if what.outputs],
                      entries=entries)
    assert main(["compile", str(tmp_path / "odd.gcm"), "-o", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "odd.h").read_bytes() == path.with_name("odd.h").read_bytes()
    lib = gc.load_library(path)
    lib.up()
    lib.save_state(tmp_path / "s")
    lib.load_state(tmp_path / "s")
    for k in range(len(ODD)):
        assert lib[f"e{k}"](np.ones((3, 2)))[0].tolist() == [[2, 2]] * 3
    assert "odd" in str(gc.inspect_library(path)) and "odd" in repr(lib)
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    (tmp_path / "main.c").write_text('#include "odd.h"\nint main(void) { return 0; }\n')
    done = subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wtrigraphs", "-Werror", "-fsyntax-only",
                           "main.c"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:1000]


def test_macros_of_patterns_must_differ():
    """Two entries whose names differ by case alone have one name for the macros of their patterns."""
    item, pattern = c_argument("J", "float64", (1,), "out"), CPattern("J", (1, 1), (0, 1), (0,))
    run = CFunction("run", (), (item,), patterns=(pattern,))
    with pytest.raises(gc.GraphError, match="used twice: 'P_RUN_J_COLUMNS'"):
        header_text(CLibrary("p", (run, replace(run, name="Run"))))
    with pytest.raises(gc.GraphError, match="'P_RUN_J_ROWS' is a word of C"):
        header_text(CLibrary("p", (run, CFunction("other", (), (c_argument("P_RUN_J_ROWS", "float64", (), "in"),)))))


def test_a_library_knows_its_own_header(tmp_path):
    """The number changes with an entry, a dtype, a shape, an order, a name, but not with values, code or comments."""
    def number(dtype="float32", columns=4, names=("a", "b"), entry="run", factor=2, **options):
        with gc.Graph():
            a = gc.placeholder(dtype, ("n", columns), name=names[0])
            b = gc.placeholder(dtype, ("n", columns), name=names[1])
            w = gc.variable(np.full(columns, factor, dtype), name="w")
            path = gc.compile_library(tmp_path, "said", {
                entry: gc.signature([a, b], a * factor + b, **options), "up": gc.signature([], [], updates={w: w + 1})})
        define = re.search(r"#define SAID_INTERFACE (\d+)", path.with_name("said.h").read_text())
        assert gc.load_library(path).image.dll["said_interface"]() == int(define[1])
        return int(define[1])
    same = {number(), number(factor=3), number(doc="Other words.", comments={"a": "a thing"})}
    others = [number(dtype="float64"), number(columns=5), number(entry="go"),
              *(number(names=names) for names in (("b", "a"), ("a", "c")))]
    assert len(same) == 1 and len({*same, *others}) == 6


def test_the_pattern_of_a_sparse_output_is_part_of_the_interface():
    """Of two patterns with as many entries, the header has one, and the library computes the other."""
    item = c_argument("J", "float64", (2,), "out")
    patterns = [CPattern("J", (2, 2), (0, 1, 2), indices) for indices in ((0, 1), (1, 0), (0, 1))]
    numbers = {CLibrary("p", (CFunction("run", (), (item,), patterns=(p,)),)).interface for p in patterns}
    assert len(numbers) == 2


def test_entries_called_like_attributes_are_reached_by_name(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float32", ("n",), name="x")
        names = ("name", "entries", "lock", "image", "variables", "new_state", "save_state", "lambda")
        _, path = header(tmp_path, {name: gc.signature([x], x * k) for k, name in enumerate(names)})
    lib = gc.load_library(path)
    assert [lib[name]([1.0]).tolist() for name in names] == [[k] for k in range(len(names))]
    with pytest.raises(KeyError):
        lib["none"]
