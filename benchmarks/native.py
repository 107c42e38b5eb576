"""C files of this folder as shared objects, built by the system's compiler; and what the machine can do at most."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
import subprocess
import sysconfig
from tempfile import mkdtemp
from time import process_time
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROUNDS = 15
LARGE = 1 << 22  # floats: beyond the second-level cache, and as much as the large workloads have


class NoCompiler(ImportError):
    """The yardsticks are in C, and there is no compiler."""


def built(name: str, *flags: str) -> Path:
    """The shared object of `name`.c."""
    library = Path(mkdtemp(prefix="benchmarks-")) / f"{name}.so"
    command = ["cc", "-O3", "-march=native", "-fPIC", "-shared", str(HERE / f"{name}.c"), *flags,
               "-o", str(library), "-lm"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    except FileNotFoundError as problem:
        raise NoCompiler("there is no C compiler (cc)") from problem
    except subprocess.CalledProcessError as problem:
        raise NoCompiler(f"{name}.c: {problem.stderr.decode()[:300]}") from problem
    return library


def extension(name: str) -> Any:
    """The module of a Python extension."""
    flags = [f"-I{sysconfig.get_paths()['include']}", f"-I{np.get_include()}"]
    loader = ExtensionFileLoader(name, str(built(name, *flags)))
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Peaks:
    """Of one core: floating-point operations a second, and bytes a second read where 16 MiB are kept."""

    float32: float
    float64: float
    bandwidth: float


def peaks() -> Peaks:
    """The best of several rounds, as others on the machine can only slow it down."""
    library = ctypes.CDLL(str(built("peaks")))
    found = [operations(library.peak_float, ctypes.c_float), operations(library.peak_double, ctypes.c_double)]
    data = np.ones(LARGE, "float32")  # zeros would all be one page
    library.read_all.restype = ctypes.c_float
    read = library.read_all
    seconds = min(timed(lambda: read(ctypes.c_void_p(data.ctypes.data), ctypes.c_int64(data.size)))
                  for _ in range(ROUNDS))
    return Peaks(*found, data.nbytes / seconds)


def operations(function: Any, kind: Any) -> float:
    function.restype = ctypes.c_int64
    sink, rounds = kind(), 200_000
    count = function(ctypes.c_int64(rounds), ctypes.byref(sink))
    best = min(timed(lambda: function(ctypes.c_int64(rounds), ctypes.byref(sink))) for _ in range(ROUNDS))
    return float(count / best)


def timed(call: Any) -> float:
    start = process_time()
    call()
    return process_time() - start
