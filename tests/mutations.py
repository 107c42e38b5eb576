"""What tests of files share: values with every special number, comparison by bits, and files that are mutated."""

import random
import tracemalloc

import numpy as np

import graphc as gc
from graphc.ir.types import as_dtype, is_float, numpy_dtype

PEAK = 2_000_000  # bytes that a reader may use for a file of a few kilobytes


def values(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    if is_float(dtype):
        array = rng.standard_normal(shape) * 100
        array = np.where(rng.uniform(size=shape) < 0.2, rng.choice([np.nan, np.inf, -np.inf, -0.0], shape), array)
        return as_dtype(array, dtype)
    return rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(numpy_dtype(dtype))


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def mutated(data, rng):
    """The bytes with a few of them changed, cut, doubled or set to what breaks sizes."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[place:place + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[place:place + rng.choice([1, 2, 8, 100])]
            case 2:
                data[place:place] = rng.randbytes(rng.choice([1, 2, 8]))
            case 3:
                data[place:place + 8] = rng.choice([b"\xff" * 8, b"\xff" * 4, b"\0" * 8, b"\xff" * 7 + b"\x7f"])
            case 4:
                data[place:place] = data[place:place + rng.choice([4, 30, 60])]
            case _:
                del data[place:]
        data = data or bytearray(b"x")
    return bytes(data)


def read_mutations(path, make_data, read, count):
    """Reads `count` mutated files; what is not refused is given to `accept`.  Nothing else may happen."""
    refused = 0
    tracemalloc.start()
    try:
        for seed in range(count):
            path.write_bytes(make_data(random.Random(seed)))
            tracemalloc.reset_peak()
            try:
                yield seed, read(path)
            except gc.GraphError as error:
                refused += 1
                assert path.name in str(error), f"seed {seed}: {error}"
            assert tracemalloc.get_traced_memory()[1] < PEAK, f"seed {seed}"
    finally:
        tracemalloc.stop()
    assert refused > count // 2
