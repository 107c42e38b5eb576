"""The command line, run in child processes as users run it."""

import os
from pathlib import Path
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import graphc as gc
from graphc import cli
from graphc.config import SWITCHES


def run(*arguments, **environment):
    """A finished child process; its standard error holds a message and no traceback."""
    done = subprocess.run([sys.executable, "-m", "graphc", *map(str, arguments)], capture_output=True, text=True,
                          timeout=120, check=False, env={**os.environ, **environment})
    assert "Traceback" not in done.stderr, done.stderr
    return done


def succeed(*arguments, **environment):
    done = run(*arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fail(*arguments, **environment):
    done = run(*arguments, **environment)
    assert done.returncode == 2 and not done.stdout, done.stdout + done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved model with two entries, and its values for x = ones((2, 4))."""
    path = tmp_path_factory.mktemp("model") / "net.gcm"
    with gc.Graph(), gc.Session() as session:
        x = gc.placeholder("float32", ("batch", 4), name="x")
        w = gc.variable(np.full((4, 3), 0.5, "float32"), name="w")
        y = gc.tanh(x @ w)
        updates = gc.optim.SGD(0.1).minimize((y * y).mean())
        gc.save_graph(path, {"y": y}, session=session, entries={
            "predict": gc.signature([x], y, names=["y"]), "train": gc.signature([x], y.sum(), updates)})
    return path


# -- doctor --
def test_doctor_shows_everything_and_passes():
    shown = succeed("doctor")
    for word in (gc.__version__, np.__version__, "llvmlite", "LLVM", "x86_64", "bits", "self-test  passed", "onnx",
                 os.environ["GRAPHC_CACHE_DIR"], *(switch.variable for switch in SWITCHES.values())):
        assert word in shown, word


def test_doctor_tells_where_a_switch_comes_from():
    shown = succeed("doctor", GRAPHC_VERIFY="no", GRAPHC_VERIFI="no")
    row = next(line for line in shown.splitlines() if line.endswith("GRAPHC_VERIFY"))
    assert row.split() == ["verify", "off", "environment", "GRAPHC_VERIFY"]
    assert "GRAPHC_VERIFI is no switch" in shown


def test_a_wrong_switch_is_one_message():
    assert fail("doctor", GRAPHC_MODE="fast").startswith("graphc: options: GRAPHC_MODE is 'fast'; it takes native")


def test_a_failed_self_test_is_status_1(capsys, monkeypatch):
    monkeypatch.setattr(cli, "self_test", lambda: "FAILED: expected 1, got 2")
    assert cli.main(["doctor"]) == 1
    assert "FAILED: expected 1, got 2" in capsys.readouterr().out


def test_the_self_test_sees_wrong_values(monkeypatch):
    assert cli.self_test() == ""
    monkeypatch.setattr(cli.real, "tanh", cli.real.sin)
    assert cli.self_test().startswith("FAILED: expected ")


# -- view --
def test_view_prints_text_or_writes_a_picture(model, tmp_path):
    shown = succeed("view", model)
    assert "tanh(" in shown and "fetch %" in shown and "update" not in shown
    assert succeed("view", model, "-o", tmp_path / "net.svg") == f"{tmp_path / 'net.svg'}\n"
    ElementTree.parse(tmp_path / "net.svg")
    assert "update w" in succeed("view", model, "--entry", "train")


def test_view_of_what_is_not_there(model, tmp_path):
    assert "No such file" in fail("view", tmp_path / "none.gcm")
    assert "known are .svg" in fail("view", model, "-o", tmp_path / "net.gif")
    assert "no entry 'x'; there are predict, train" in fail("view", model, "--entry", "x")
    assert "No such file or directory" in fail("view", model, "-o", tmp_path / "no" / "net.svg")
    (tmp_path / "text.gcm").write_text("hello")
    assert "too few for a zip file" in fail("view", tmp_path / "text.gcm")


# -- compile --
def test_compile_makes_a_library_that_runs(model, tmp_path):
    place = tmp_path / "build" / "libnet.so"
    assert succeed("compile", model, "-o", tmp_path / "build", "--name", "net") == f"{place}\n"
    header = Path(tmp_path, "build", "net.h").read_text("utf-8")
    assert "net_predict" in header and "net_train" in header
    library = gc.load_library(place)
    x = np.ones((2, 4), "float32")
    np.testing.assert_allclose(library.predict(x), np.tanh(np.full((2, 3), 2.0)), rtol=1e-5)


def test_compile_of_one_entry_is_named_after_the_file(model, tmp_path):
    succeed("compile", model, "-o", tmp_path, "--entry", "predict", "--target", "x86-64-v3")
    header = (tmp_path / "net.h").read_text("utf-8")
    assert "net_predict" in header and "net_train" not in header


def test_compile_without_entries_makes_run(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float64", ("n",), name="x")
        gc.save_graph(tmp_path / "twofold.gcm", {"twice": x * 2})
    succeed("compile", tmp_path / "twofold.gcm", "-o", tmp_path)
    found = gc.load_library(tmp_path / "libtwofold.so").run(np.arange(3.0))
    assert found.tolist() == [0.0, 2.0, 4.0]


def test_compile_of_what_cannot_be_compiled(model, tmp_path):
    assert "no target 'z80'" in fail("compile", model, "-o", tmp_path, "--target", "z80")
    assert "no entry 'x'" in fail("compile", model, "-o", tmp_path, "--entry", "x")
    assert "is no folder" in fail("compile", model, "-o", model)
    assert "no-name" in fail("compile", model, "-o", tmp_path, "--name", "no-name")
    assert not list(tmp_path.iterdir())


# -- cache --
def test_cache_is_shown_and_cleared(tmp_path):
    folder = str(tmp_path / "cache")
    assert succeed("cache", GRAPHC_CACHE_DIR=folder) == (
        f"{folder}: 0 files, 0 B of 1.07 GB; code was found 0 times and compiled 0 times\n")
    succeed("doctor", GRAPHC_CACHE_DIR=folder)
    files = len([name for name in os.listdir(folder) if name not in ("hits", "misses")])
    assert files and succeed("cache", GRAPHC_CACHE_DIR=folder).startswith(f"{folder}: {files} files, ")
    assert succeed("cache", "--clear", GRAPHC_CACHE_DIR=folder) == f"{files} files removed from {folder}\n"
    assert not os.listdir(folder)
    assert "switched off" in succeed("cache", GRAPHC_CACHE_DIR=folder, GRAPHC_CACHE="off")


# -- usage --
@pytest.mark.parametrize("command", [[], ["doctor"], ["view"], ["compile"], ["cache"]])
def test_help_everywhere(command):
    assert succeed(*command, "--help").startswith("usage: graphc " + " ".join(command))


def test_usage_mistakes_are_status_2():
    assert "usage: graphc" in fail()
    assert "invalid choice" in fail("dance")
    assert "unrecognized arguments" in fail("doctor", "--fast")
    assert succeed("--version") == f"graphc {gc.__version__}\n"


def test_a_reader_that_stops_is_no_fault(model):
    done = subprocess.run([sys.executable, "-c", "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
                           "import graphc.cli; sys.exit(graphc.cli.main(['view', sys.argv[1]]))", str(model)],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stderr == ""


def test_views_and_help_load_no_code_generator(model):
    program = "import sys, graphc.cli; graphc.cli.main(['view', sys.argv[1]]); print('llvmlite' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, str(model)], capture_output=True, text=True, timeout=60,
                          check=True)
    assert done.stdout.endswith("False\n")
