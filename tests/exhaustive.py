"""The error of a float32 function at every float: one compiled loop makes the argument, both results and the error.

The oracle is the same function in float64, whose own error tests/accuracy.py bounds against wider arithmetic: 2 ulp of
float64 are 4e-9 ulp of float32.  Functions that are computed in double anyway are left out.
"""

from __future__ import annotations

import ctypes

import numpy as np

from codegen import scalars
from codegen.jit import compile_text, load
from codegen.target import Target
from codegen.text import Function, Module
from codegen.vectors import Lanes
from codegen.vmath.real import Real

FLOATS = 1 << 32
BLOCK = 1 << 20  # floats of one native call


def loop(name: str, target: Target) -> Module:
    """`void k(ptr errors, ptr places, i64 first, i64 last)`: each lane's largest error, and its argument's bits."""
    module = Module()
    function = Function(module, "define void @k(ptr %errors, ptr %places, i64 %first, i64 %last) #0")
    lanes = Lanes(function, target, target.lanes(32))
    numbers = ", ".join(f"i32 {i}" for i in range(lanes.count))
    lane = f"<{lanes.count} x i32> <{numbers}>"

    def body(index: str | int, carried: list[str]) -> list[str]:
        start = lanes.splat("int32", function.value(f"trunc i64 {index} to i32"))
        bits = function.value(f"add {lane[:lane.index('>') + 1]} {start}, {lane[lane.index('>') + 2:]}")
        x = lanes.convert("bitcast", "i32", bits, "float")
        error = error_of(lanes, name, x)
        more = Real(lanes, 64).compare("ogt", error, carried[0])
        return [lanes.pick("double", more, error, carried[0]), lanes.pick("i32", more, bits, carried[1])]

    errors, places = lanes.vector("double"), lanes.vector("i32")
    start = [(errors, lanes.literal("double", -1.0)), (places, lanes.literal("i32", 0))]
    last = function.loop("%first", "%last", lanes.count, start, body)
    function.emit(f"store {errors} {last[0]}, ptr %errors, align 8")
    function.emit(f"store {places} {last[1]}, ptr %places, align 4")
    function.emit("ret void")
    module.add("k", function.text())
    return module


def error_of(lanes: Lanes, name: str, x: str) -> str:
    """In ulp of float32 at the exact value; infinite where one is NaN or infinite and the other is not."""
    single, double = Real(lanes, 32), Real(lanes, 64)
    got = scalars.emit(lanes, name, "float32", [x], "float32")
    exact = scalars.emit(lanes, name, "float64", [lanes.convert("fpext", "float", x, "double")], "float64")
    size = double.select(double.compare("ogt", double.abs(exact), 2.0**-126), double.abs(exact), 2.0**-126)
    power = double.from_bits(double.bit("and", double.to_bits(size), 0x7FF << 52))
    wide = lanes.convert("fpext", "float", got, "double")
    inverse = double.from_bits(double.bit("sub", 2 * double.bias << 52, double.to_bits(power)))
    error = double.mul(double.abs(double.sub(wide, exact)), double.mul(inverse, 2.0**23))
    near = lanes.convert("fptrunc", "double", exact, "float")
    same = double.either(single.compare("oeq", got, near), double.both(single.is_nan(got), single.is_nan(near)))
    finite = double.both(*(single.compare("olt", single.abs(value), np.inf) for value in (got, near)))
    # At the edge of overflow both the largest number and infinity are within an ulp.
    ends = double.both(single.compare("oge", single.abs(got), single.largest),
                       single.compare("oge", single.abs(near), single.largest))
    signs = single.bit_compare("sge", single.bit("xor", single.to_bits(got), single.to_bits(near)), 0)
    beyond = double.select(double.both(ends, signs), 1.0, np.inf)
    result = double.select(finite, error, double.select(same, 0.0, beyond))
    return double.select(double.either(signs, single.is_nan(near)), result, np.inf)


def worst_of_all(name: str, target: Target, stride: int = 1) -> tuple[float, float]:
    """(largest error in ulp, the float where it is); with a stride, at the first floats of every block."""
    loaded = load(compile_text(loop(name, target).text(), target), ["k"], target)
    native = loaded.function("k", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    count = target.lanes(32)
    errors, places = np.zeros(count), np.zeros(count, np.uint32)
    found = (-1.0, 0.0)
    length = BLOCK // stride
    for first in range(0, FLOATS, BLOCK):
        native(errors.ctypes.data, places.ctypes.data, first, first + length)
        lane = int(np.argmax(errors))
        if errors[lane] > found[0]:
            found = float(errors[lane]), float(places[lane:lane + 1].view(np.float32)[0])
    return found
