"""Matrix products against NumPy: shapes, strides, batches, epilogues, dtypes, targets; no access leaves a buffer."""

from __future__ import annotations

import ctypes
import mmap
import random
import subprocess
import sys

import numpy as np
from native import executable_targets
from products import Product, memory, numbers, plain, reference, row_major
import pytest

from codegen.contraction import checked, emit_contraction, workspace_bytes
from codegen.gemm.blocking import blocking
from codegen.gemm.driver import layout
from codegen.jit import compile_text
from codegen.target import target
from codegen.text import Module
from graphc.ir.dims import Dim, evaluate
from graphc.ir.errors import Unsupported
from graphc.ir.plan import Contraction, Guard, KernelOp, Map

TOLERANCE = {"float64": 1e-14, "float32": 2e-6, "float16": 2e-3, "bfloat16": 1e-2}
TARGETS = executable_targets()
LENGTHS = (1, 1, 2, 3, 4, 5, 7, 8, 13, 14, 15, 16, 17, 28, 31, 32, 33, 48, 50, 63, 64, 65, 67)
FLOATING = ("float32", "float64")
EPILOGUES = ("plain", "dense", "two stores", "in place", "long")


def epilogue(kind: str, extents: tuple, dtype: str) -> tuple[tuple[KernelOp, ...], tuple[str, ...]]:
    """Ops and the arguments that they add, which start at number 2."""
    lead = (0,) * (len(extents) - 2)
    whole, accumulator = row_major(extents), KernelOp("accumulator", (), dtype)
    m, n = extents[-2:]

    def op(name: str, *operands: int) -> KernelOp:
        return KernelOp(name, operands, dtype)

    def load(argument: int, *strides: int | Dim) -> KernelOp:
        return KernelOp("load", (), dtype, Map(argument, 0, strides))

    def store(value: int, argument: int, *strides: int | Dim) -> KernelOp:
        return KernelOp("store", (value,), dtype, Map(argument, 0, strides))
    if kind == "plain":
        return (accumulator, store(0, 2, *whole)), (dtype,)
    if kind == "dense":  # maximum(c + bias, 0) + residual * scale
        return (accumulator, load(3, *lead, 0, 1), op("add", 0, 1), KernelOp("const", (), dtype, None, 0),
                op("maximum", 2, 3), load(4, *whole), load(5, *lead, 0, 0), op("mul", 5, 6), op("add", 4, 7),
                store(8, 2, *whole)), (dtype,) * 4
    if kind == "two stores":  # c and its transpose plus a column
        turned = (*whole[:-2], 1, m)
        return (accumulator, store(0, 2, *whole), load(4, *lead, 1, 0), op("add", 0, 2),
                store(3, 3, *turned)), (dtype,) * 3
    if kind == "in place":  # c += a b, through the transpose
        turned = (*whole[:-2], 1, m)
        return (accumulator, load(2, *turned), op("add", 0, 1), store(2, 2, *turned)), (dtype,)
    chain = [accumulator, load(3, *lead, 1, n)]  # a column-major matrix, and a mask
    for number in range(1, 14):
        chain.append(op("add" if number % 3 else "maximum", number, 0 if number % 2 else 1))
    last = len(chain) - 1
    chain += [KernelOp("lt", (last, 0), "bool"), op("where", last + 1, last, 0), store(last + 2, 2, *whole)]
    chain[1] = load(3, *lead, 1, m)
    return tuple(chain), (dtype,) * 2


def reach(map_: Map, extents: tuple[int, ...], sizes: dict[str, int]) -> int:
    """Elements that a flat array needs for a map without negative strides."""
    if 0 in extents:
        return 0
    return evaluate(map_.offset, sizes) + sum((e - 1) * evaluate(s, sizes) for e, s in zip(extents, map_.strides)) + 1


def flat_arrays(contraction: Contraction, sizes: dict[str, int], generator: np.random.Generator) -> list[np.ndarray]:
    """Random contents for every argument, exactly as long as its maps reach."""
    extents = tuple(evaluate(e, sizes) for e in contraction.extents)
    lengths = [0] * len(contraction.arguments)
    deep = (*extents, evaluate(contraction.depth, sizes))
    maps = [(contraction.a, deep), (contraction.b, deep), *((op.map, extents) for op in contraction.ops if op.map)]
    for map_, shape in maps:
        lengths[map_.argument] = max(lengths[map_.argument], reach(map_, shape, sizes))
    arrays = []
    for length, dtype in zip(lengths, contraction.arguments):
        if "float" in dtype:
            arrays.append(memory(generator.standard_normal(length), dtype))
        else:
            limits = np.iinfo(dtype)
            arrays.append(generator.integers(limits.min, limits.max, length, dtype, endpoint=True))
    return arrays


def check(contraction: Contraction, sizes: dict[str, int], arrays: list[np.ndarray], product: Product,
          run: list[np.ndarray] | None = None) -> None:
    """Runs the product on copies (or on the arrays given, which hold the same) and compares everything."""
    expected = reference(contraction, sizes, arrays)
    got = run if run is not None else [array.copy() for array in arrays]
    product(sizes, *got)
    depth = evaluate(contraction.depth, sizes)
    for number, dtype in enumerate(contraction.arguments):
        if "float" not in dtype:
            np.testing.assert_array_equal(got[number], expected[number])
            continue
        scale = TOLERANCE[dtype] * max(depth, 1) ** 0.5 * 4
        ours, theirs = numbers(got[number], dtype), numbers(expected[number], dtype)
        np.testing.assert_allclose(ours, theirs, rtol=scale, atol=scale)


def random_case(seed: int) -> tuple[Contraction, dict[str, int]]:
    chooser = random.Random(seed)
    values = {name: chooser.choice(LENGTHS) for name in "mnk"}
    if chooser.random() < 0.1:
        values[chooser.choice("mnk")] = 0
    if chooser.random() < 0.15:
        values["k"] = chooser.choice((257, 300, 513, 700))
    symbolic = chooser.choice(("", "", "m", "n", "k", "mn", "mnk"))
    m, n, k = (Dim.symbol(name) if name in symbolic else values[name] for name in "mnk")
    batch = chooser.choice(((), (), (2,), (2, 3)))
    dtype = chooser.choice(FLOATING)
    ops, more = epilogue(chooser.choice(EPILOGUES), (*batch, m, n), dtype)
    spread = (chooser.random() < 0.3, chooser.random() < 0.3) if batch else (False, False)
    return plain(m, n, k, dtype=dtype, batch=batch, turn_a=chooser.random() < 0.4, turn_b=chooser.random() < 0.4,
                 ops=ops, more=more[1:], spread=spread), values


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seed", range(40))
def test_random_products(name: str, seed: int) -> None:
    contraction, sizes = random_case(seed)
    check(contraction, sizes, flat_arrays(contraction, sizes, np.random.default_rng(seed)), Product(contraction, name))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("turned", [(False, False), (True, True), (False, True)])
def test_one_function_serves_all_sizes(name: str, turned: tuple[bool, bool]) -> None:
    m, n, k = (Dim.symbol(s) for s in "mnk")
    ops, more = epilogue("dense", (m, n), "float32")
    contraction = plain(m, n, k, turn_a=turned[0], turn_b=turned[1], ops=ops, more=more[1:])
    product, generator, chooser = Product(contraction, name), np.random.default_rng(1), random.Random(2)
    shapes = [(1, 1, 1), (0, 5, 3), (5, 0, 3), (5, 3, 0), (100, 1100, 7), (700, 40, 3), (3, 5, 1000), (29, 33, 600)]
    shapes += [tuple(chooser.choice(LENGTHS) for _ in range(3)) for _ in range(40)]
    for shape in shapes:
        sizes = dict(zip("mnk", shape))
        check(contraction, sizes, flat_arrays(contraction, sizes, generator), product)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_every_length(name: str, turned: tuple[bool, bool]) -> None:
    m, n, k = (Dim.symbol(s) for s in "mnk")
    product = Product(plain(m, n, k, turn_a=turned[0], turn_b=turned[1]), name)
    rng = np.random.default_rng(5)
    left, right = (rng.standard_normal((70, 70)).astype("float32") for _ in "ab")
    for length in range(68):
        for shape in ((length, 33, 17), (29, length, 19), (15, 37, length)):
            sizes = dict(zip("mnk", shape))
            a, b = left[:shape[0], :shape[2]], right[:shape[2], :shape[1]]
            c = np.full(shape[:2], np.nan, "float32")
            product(sizes, *(np.ascontiguousarray(x.T if t else x) for x, t in zip((a, b), turned)), c)
            np.testing.assert_allclose(c, a.astype("float64") @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(150, 1300, 530), (700, 40, 300), (1, 300, 2000), (300, 1, 2000), (40, 2100, 257),
                                   (30, 1033, 300), (1, 700, 300), (80, 10, 300), (80, 3, 20)])
@pytest.mark.parametrize("turn_b", [False, True])
def test_several_blocks(shape: tuple[int, int, int], turn_b: bool) -> None:
    contraction = plain(*shape, turn_b=turn_b)
    check(contraction, {}, flat_arrays(contraction, {}, np.random.default_rng(3)), Product(contraction))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("storage, dtype", [
    ("float16", "float32"), ("bfloat16", "float32"), ("float32", "float64"), ("int8", "int32"), ("uint8", "int32"),
    ("int8", "int8"), ("uint16", "uint16"), ("int32", "int32"), ("uint32", "uint32"), ("int64", "int64"),
    ("uint64", "uint64")])
@pytest.mark.parametrize("turned", [(False, False), (True, True), (False, True)])
def test_dtypes(name: str, storage: str, dtype: str, turned: tuple[bool, bool]) -> None:
    cases = (((17, 35, 40), ""), ((9, 50, 33), "mnk"), ((1, 20, 37), ""), ((1, 700, 600), "k"), ((90, 7, 20), "k"))
    for shape, symbolic in cases:
        m, n, k = (Dim.symbol(s) if s in symbolic else size for s, size in zip("mnk", shape))
        contraction = plain(m, n, k, dtype=dtype, storage=storage, turn_a=turned[0], turn_b=turned[1])
        sizes = dict(zip("mnk", shape))
        check(contraction, sizes, flat_arrays(contraction, sizes, np.random.default_rng(4)), Product(contraction, name))


def test_a_half_result_is_rounded_once() -> None:
    ops = (KernelOp("accumulator", (), "float32"), KernelOp("cast", (0,), "float16"),
           KernelOp("store", (1,), "float16", Map(2, 0, (40, 1))))
    plan = Contraction((30, 40), 50, ("float16",) * 3, "float32", Map(0, 0, (50, 0, 1)), Map(1, 0, (0, 1, 40)), ops)
    check(plan, {}, flat_arrays(plan, {}, np.random.default_rng(5)), Product(plan))


@pytest.mark.parametrize("a, b", [
    (Map(0, 3, (2, 0, 90)), Map(1, 1, (0, 3, 200))),  # nothing contiguous
    (Map(0, 5, (64, 0, 1)), Map(1, 7, (0, 1, 100))),  # rows with gaps
    (Map(0, 0, (0, 0, 1)), Map(1, 0, (0, 1, 0))),  # one row, repeated
    (Map(0, 0, (1, 0, 0)), Map(1, 0, (0, 0, 1))),  # one column, repeated
])
@pytest.mark.parametrize("n", [1, 50])
def test_strides(a: Map, b: Map, n: int) -> None:
    for m, k in ((1, 20), (33, 41)):
        contraction = Contraction((m, n), k, ("float32",) * 3, "float32", a, b, plain(m, n, k).ops)
        check(contraction, {}, flat_arrays(contraction, {}, np.random.default_rng(6)), Product(contraction))


@pytest.mark.parametrize("symbolic", [False, True])
def test_negative_strides(symbolic: bool) -> None:
    m, n, k = 20, 33, 40
    rows = Dim.symbol("m") if symbolic else m
    backwards = Map(0, m * k - 1, (-k, 0, -1)), Map(1, k * n - 1, (0, -1, -n))
    plan = Contraction((rows, n), k, ("float32",) * 3, "float32", *backwards, plain(m, n, k).ops)
    generator = np.random.default_rng(7)
    a, b = generator.standard_normal((m, k), np.float32), generator.standard_normal((k, n), np.float32)
    c = np.zeros((m, n), np.float32)
    Product(plan)({"m": m}, a, b, c)
    np.testing.assert_allclose(c, a[::-1, ::-1] @ b[::-1, ::-1], rtol=1e-4, atol=1e-4)


def test_an_operand_used_twice() -> None:
    plan = Contraction((30, 30), 70, ("float32", "float32"), "float32", Map(0, 0, (70, 0, 1)), Map(0, 0, (0, 70, 1)),
                       (KernelOp("accumulator", (), "float32"), KernelOp("store", (0,), "float32", Map(1, 0, (30, 1)))))
    check(plan, {}, flat_arrays(plan, {}, np.random.default_rng(8)), Product(plan))


def test_bits_do_not_depend_on_the_neighbours() -> None:
    """Rows and columns of a larger product are those of the smaller one."""
    m, n = (Dim.symbol(s) for s in "mn")
    product, generator = Product(plain(m, n, 300)), np.random.default_rng(9)
    a, b = generator.standard_normal((40, 300), np.float32), generator.standard_normal((300, 90), np.float32)
    whole = np.zeros((40, 90), np.float32)
    product({"m": 40, "n": 90}, a, b, whole)
    for rows in (1, 3, 13, 15, 39):
        part = np.zeros((rows, 90), np.float32)
        product({"m": rows, "n": 90}, a, b, part)
        np.testing.assert_array_equal(part, whole[:rows])


@pytest.mark.parametrize("change, message", [
    ({"a": Map(0, 0, (5, 0, 1), guards=(Guard(0, (1, 0, 0), 3),))}, "guards"),
    ({"dtype": "bool"}, "bool"),
    ({"ops": (KernelOp("accumulator", (), "float32"), KernelOp("iota", (), "int64", None, 0))}, "iota"),
])
def test_what_is_not_built_is_named(change: dict, message: str) -> None:
    fields = plain(4, 6, 5).__dict__ | change
    with pytest.raises(Unsupported, match=message):
        emit_contraction(Module(), Contraction(**fields), target("native"), "product")


def test_arm_code_is_made() -> None:
    module = Module()
    emit_contraction(module, plain(Dim.symbol("m"), 50, 70, turn_b=True), target("aarch64"), "product")
    module.add("entry", "define void @entry(ptr %a, i64 %m) #0 {\n  call void @product(ptr %a, ptr %a, ptr %a, i64 %m, "
                        "ptr %a)\n  ret void\n}\n")
    assert b"ELF" in compile_text(module.text(), target("aarch64"))[:4]


@pytest.mark.parametrize("m, n", [(80, 10), (80, 5), ("m", "n")])
def test_unused_lanes_of_a_packed_panel_are_zero(m: int | str, n: int | str) -> None:
    """What lies in scratch memory may be subnormal numbers, with which arithmetic is 20 times slower."""
    sizes = {"m": 80, "n": 3, "k": 40}
    contraction = plain(*(Dim.symbol(x) if isinstance(x, str) else x for x in (m, n)), 40, turn_b=True)
    chosen = blocking(checked(contraction), target("native"))
    product = Product(contraction)
    check(contraction, sizes, flat_arrays(contraction, sizes, np.random.default_rng(4)), product)
    start = layout(contraction, target("native"), chosen).b + product.workspace(sizes)
    panel = np.ctypeslib.as_array((ctypes.c_float * (40 * chosen.columns)).from_address(start))
    columns = n if isinstance(n, int) else sizes["n"]
    assert (panel.reshape(40, -1)[:, columns:] == 0).all() and np.isfinite(panel).all()


def test_text_is_deterministic() -> None:
    texts = [Product(random_case(3)[0]).text for _ in range(2)]
    assert texts[0] == texts[1]


# -- guard pages, in a child process --

def guarded(array: np.ndarray, *, at_end: bool) -> np.ndarray:
    """A copy whose last (or first) byte lies next to a page that nobody may touch."""
    page = mmap.PAGESIZE
    inner = -(-max(array.nbytes, 1) // page) * page
    region = mmap.mmap(-1, inner + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(region))
    libc = ctypes.CDLL(None, use_errno=True)
    for place in (start, start + page + inner):
        assert libc.mprotect(ctypes.c_void_p(place), ctypes.c_size_t(page), 0) == 0
    offset = page + (inner - array.nbytes if at_end else 0)
    copy = np.frombuffer(region, array.dtype, array.size, offset)
    copy[...] = array
    return copy


def half_case(seed: int) -> tuple[Contraction, dict[str, int]]:
    """Operands of 16 bits, which are converted while they are packed."""
    chooser = random.Random(seed)
    values = {name: chooser.choice(LENGTHS) for name in "mnk"}
    m, n, k = (Dim.symbol(x) if chooser.random() < 0.4 else values[x] for x in "mnk")
    return plain(m, n, k, storage=chooser.choice(("float16", "bfloat16")), turn_a=chooser.random() < 0.5,
                 turn_b=chooser.random() < 0.5), values


def run_guarded(name: str, first: int, count: int) -> None:
    for seed in range(first, first + count):
        contraction, sizes = half_case(seed) if seed % 5 == 4 else random_case(seed)
        product = Product(contraction, name)
        arrays = flat_arrays(contraction, sizes, np.random.default_rng(seed))
        size = evaluate(workspace_bytes(contraction, target(name)), sizes)
        for at_end in (True, False):
            scratch = guarded(np.full(-(-size // 64) * 64, 0xFF, np.uint8), at_end=at_end)
            product.workspace = lambda _, place=scratch.ctypes.data: place  # type: ignore[method-assign]
            check(contraction, sizes, arrays, product, [guarded(array, at_end=at_end) for array in arrays])
        print("done", seed, flush=True)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_outside_the_buffers_is_touched(name: str) -> None:
    script = f"import test_contraction as t; t.run_guarded({name!r}, 1000, 40)"
    here = __file__.rsplit("/", 1)[0]
    done = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-2000:]
