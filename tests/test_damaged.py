"""Libraries and files of variables that are damaged, cut off or something else: refused, in words."""

from __future__ import annotations

import json
import os
from pathlib import Path
import random
import shutil
import struct
import tracemalloc

import numpy as np
import pytest

import graphc as gc
from graphc.described import METADATA, contents, described, sealed
from tests.elf_programs import child, runs_here
from tests.test_library import XS
from tests.test_shipping import library as made

pytestmark = runs_here


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return made(tmp_path_factory.mktemp("damaged"), weights="data")


READERS = {"load": gc.load_library, "inspect": gc.inspect_library, "update": lambda path: gc.update_weights(path, {})}


# -- libraries --
LOADED = """
import graphc as gc
path, sizes = sys.argv[1], [int(n) for n in sys.argv[2:]]
data = open(path, "rb").read()
for n in sizes:
    with open(path, "wb") as file:
        file.write(data[:n])
    try:
        gc.load_library(path)
        sys.exit("loaded")
    except gc.GraphError as fault:
        assert "cut off" in str(fault) or "an empty file" in str(fault), fault
print("refused")
"""


def test_a_library_that_is_cut_off_is_not_mapped(built, tmp_path):
    """The system's loader maps what the file does not have, and the process dies of it."""
    path = Path(shutil.copy(built, tmp_path))
    last = max(at + size for _, at, size, _ in described(path, contents(path))[0].segments)
    sizes = (0, 1, 63, 64, 500, 4096, 4097, 8000, last // 2, last - 1)
    assert child(LOADED, path, *sizes) == "refused\n"


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_library_of_ours(reader, tmp_path):
    read = READERS[reader]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("no library")
    (tmp_path / "empty").touch()
    for path, text in ((tmp_path / "pipe", "device or a pipe"), ("/dev/zero", "device or a pipe"),
                       (tmp_path, "a folder"), (tmp_path / "text", "damaged, or cut off at byte 10"),
                       (tmp_path / "empty", "an empty file"), (tmp_path / "none", "No such file"),
                       ("a\0b", "zero byte"), (os.fsencode(tmp_path / "none"), "No such file")):
        with pytest.raises(gc.GraphError, match=text):
            read(path)
    with pytest.raises(TypeError):
        read(None)
    libm = next((p for p in (Path("/lib/x86_64-linux-gnu/libm.so.6"), Path("/lib64/libm.so.6")) if p.exists()), None)
    if libm is not None:
        with pytest.raises(gc.GraphError, match="was not made by compile_library"):
            read(libm)


def test_a_library_for_another_architecture_says_so(tmp_path):
    path = made(tmp_path, target="aarch64")
    with pytest.raises(gc.GraphError, match="is for aarch64, this is x86_64"):
        gc.load_library(path)


def test_a_library_may_be_renamed(built, tmp_path):
    path = shutil.copy(built, tmp_path / "plugin.so.1")
    assert gc.load_library(path).predict(XS).shape == (7, 3) and gc.inspect_library(path).name == "tiny"


def test_a_path_need_not_be_text(built, tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"a b \xff\xfe \xc3\xa9")
    os.mkdir(folder)
    path = os.path.join(folder, b"libtiny.so")
    shutil.copy(built, path)
    lib = gc.load_library(path)
    lib.save_state(os.path.join(folder, b"s\xff"))
    lib.load_state(os.path.join(folder, b"s\xff"))
    gc.update_weights(path, {"scale": np.ones(4, "f")})
    assert gc.inspect_library(path).nbytes == os.path.getsize(path)


def changed(path: Path, **fields: object) -> Path:
    """The library with these fields in its description, which keeps its length."""
    image = contents(path)
    shared, _ = described(path, image)
    address, nbytes = shared.exports[f"tiny{METADATA}"]
    at, data = shared.offset(address, nbytes), bytearray(image)
    about = json.loads(shared.export(f"tiny{METADATA}").rstrip(b"\0")) | fields
    text = sealed(json.dumps({k: v for k, v in about.items() if k != "sum"}, separators=(",", ":"))).encode()
    assert len(text) <= nbytes
    data[at:at + nbytes] = text.ljust(nbytes, b"\0")
    path.write_bytes(data)
    return path


SENSELESS = (
    {"state": 3}, {"weights": None}, {"entries": []}, {"entries": {}}, {"targets": []}, {"targets": [1]},
    {"threads": "x", "weights": []},
    {"state": [{"name": "w", "dtype": "float99", "shape": [4], "initial": True}] * 2},
    {"state": [{"name": "w", "dtype": "float32", "shape": [-4], "initial": True}] * 2},
    {"state": [{"name": "w", "dtype": "float32", "shape": "44", "initial": True}] * 2}, {"entries": {"run": {}}},
    {"entries": {"run": dict(symbols=[], inputs=[], outputs=[], state=[7], single=False, checks=[], messages=[])}},
    {"entries": {"run": dict(symbols=[], inputs=[], outputs=[], state=[], single=True, checks=[], messages=[])}},
    {"entries": {"run": dict(symbols=[], inputs=[{"name": "x", "dtype": "int8", "shape": [[[1, ["n"]]]]}], outputs=[],
                             state=[], single=False, checks=[], messages=[])}})


@pytest.mark.parametrize("fields", SENSELESS)
def test_a_description_that_makes_no_sense_is_refused(built, tmp_path, fields):
    """Its sum is right, so that somebody must have written it."""
    path = changed(Path(shutil.copy(built, tmp_path)), **fields)
    for read in READERS.values():
        with pytest.raises(gc.GraphError, match="its description is damaged: not what this version writes"):
            read(path)


@pytest.mark.parametrize("reader", READERS)
def test_another_abi_version_is_refused(reader, built, tmp_path):
    path = Path(shutil.copy(built, tmp_path))
    changed(path, abi=1)
    with pytest.raises(gc.GraphError, match="has ABI version 1, this graphc needs 2; compile it anew"):
        READERS[reader](path)
    changed(Path(shutil.copy(built, tmp_path)), format=9)
    with pytest.raises(gc.GraphError, match="has format 9"):
        READERS[reader](path)


def test_every_bit_of_the_description_counts(built, tmp_path):
    image = contents(built)
    shared, _ = described(built, image)
    address, nbytes = shared.exports[f"tiny{METADATA}"]
    at, path = shared.offset(address, nbytes), tmp_path / "libtiny.so"
    for k in range(0, nbytes - 1, 7):
        data = bytearray(image)
        data[at + k] ^= 1 << k % 7
        path.write_bytes(data)
        for read in READERS.values():
            with pytest.raises(gc.GraphError, match=r"description|format|ABI version"):
                read(path)


MOST_MORE = 1_000_000  # bytes beyond twice the file: Python's own objects for the headers


def mutated(right: bytes, rng: random.Random, at_most: int) -> bytearray:
    """The file with a bit, a word or a piece of it changed, mostly where its headers and tables are."""
    data, kind = bytearray(right), rng.randrange(5)
    at = rng.randrange(rng.choice((600, min(at_most, len(data)), len(data))) - 8)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[rng.randrange(len(data)):]
    elif kind == 2:
        data[at:at + 8] = rng.randbytes(8)
    elif kind == 3:
        data[at:at + 8] = rng.choice((0, 2**63 - 1, 2**64 - 1, len(data), 64, 1 << 31)).to_bytes(8, "little")
    else:
        other = rng.randrange(len(data) - 8)
        data[at:at + 8] = data[other:other + 8]
    return data


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_libraries_are_read_or_refused(built, tmp_path, count):
    """And what is written into one is written where its weights are, or not at all."""
    right, rng, path = built.read_bytes(), random.Random(count), tmp_path / "libtiny.so"
    image = contents(built)
    shared = described(built, image)[0]
    address = shared.table("tiny_weights")[0]
    at = shared.offset(address, 16)
    value, refused = np.arange(4, dtype="f"), 0
    for _ in range(count):
        data = mutated(right, rng, 6000)
        path.write_bytes(data)
        tracemalloc.start()
        try:
            gc.inspect_library(path)
            gc.update_weights(path, {"scale": value})
            data[at:at + 16] = value.tobytes()
        except gc.GraphError:
            refused += 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * len(data) + MOST_MORE
        assert path.read_bytes() == data
    assert count // 10 < refused < count


@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_name_of_the_description_is_refused(reader, built, tmp_path):
    path = tmp_path / "libtiny.so"
    path.write_bytes(built.read_bytes().replace(b"\0tiny_metadata\0", b"\0tinz_metadata\0"))
    with pytest.raises(gc.GraphError, match="'tinz_metadata' describes a library 'tiny'"):
        READERS[reader](path)


def test_weights_are_written_at_their_own_place_only(built, tmp_path):
    """A table that says that they are elsewhere, where there is room and alignment for them, is not believed."""
    right, path = built.read_bytes(), tmp_path / "libtiny.so"
    shared = described(built, contents(built))[0]
    where, address = shared.exports["tiny_weights"][0], shared.table("tiny_weights")[0]
    row = right.index(struct.pack("<QQq", where, 8, address))
    end = next(start + size for start, _, size, _ in shared.segments if start <= address < start + size)
    for other in range(0, end - 16, 64):
        path.write_bytes(right[:row] + struct.pack("<QQq", where, 8, other) + right[row + 24:])
        before = path.read_bytes()
        if other == address:
            gc.update_weights(path, {"scale": np.zeros(4, "f")})
            continue
        with pytest.raises(gc.GraphError, match=r"the table of the weights' addresses is wrong|not in the file"):
            gc.update_weights(path, {"scale": np.zeros(4, "f")})
        assert path.read_bytes() == before


def test_reading_a_large_library_takes_little_memory(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float32", (1000,), name="x")
        w = gc.variable(np.zeros((5000, 1000), "f"), name="w")
        with gc.Session() as sess:
            path = gc.compile_library(tmp_path, "big", {"run": gc.signature([x], w @ x)}, session=sess, weights="data")
    right, rng = path.read_bytes(), random.Random(0)
    for k in range(30):
        data = mutated(right, rng, 2000) if k else right
        path.write_bytes(data)
        tracemalloc.start()
        try:
            gc.inspect_library(path)
        except gc.GraphError as fault:
            assert k, fault
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (len(data) if k else MOST_MORE)


# -- files of variables --
@pytest.fixture
def lib(built):
    return gc.load_library(built)


KINDS = """
lib = CDLL(sys.argv[1])
import signal, stat
signal.alarm(20)  # a pipe must not be waited for
os.chdir(sys.argv[2])
os.mkfifo("pipe")
os.symlink("good", "link")
state, other = c_void_p(), c_void_p()
assert lib.tiny_new(byref(state)) == 0 and lib.tiny_save(state, b"good") == 0
paths = [b"pipe", b"/dev/zero", b"/dev/full", b"/dev/null", b".", b"/proc/self/mem"]
try:
    os.mknod("device", 0o20666, os.makedev(1, 7))
    paths.append(b"device")
except PermissionError:
    pass
for path in paths:
    before = os.lstat(path)
    assert lib.tiny_load(state, path) == 8, path
    assert lib.tiny_map(byref(other), path) == 8, path
    if not path.startswith(b"/"):
        assert lib.tiny_save(state, path) == 7, path
        assert os.lstat(path)[:2] == before[:2]
for path in (b"", b"none/x", b"x" * 5000, b"good/x"):
    assert {lib.tiny_load(state, path), lib.tiny_map(byref(other), path), lib.tiny_save(state, path)} == {7}, path
assert lib.tiny_save(state, b"link") == 0 and lib.tiny_load(state, b"link") == 0
right = open("good", "rb").read()
for n in range(len(right)):
    with open("cut", "wb") as file:
        file.write(right[:n])
    assert lib.tiny_load(state, b"cut") == 8 and lib.tiny_map(byref(other), b"cut") == 8
for pointer in (state.value + 4, addressof(other) + 1):
    assert {lib.tiny_load(c_void_p(pointer), b"good"), lib.tiny_save(c_void_p(pointer), b"x"),
            lib.tiny_copy(state, c_void_p(pointer)), lib.tiny_copy(c_void_p(pointer), state),
            lib.tiny_new(c_void_p(pointer)), lib.tiny_map(c_void_p(pointer), b"good")} == {3}
print(sorted(set(os.listdir()) - {"device"}))
"""


def test_pipes_devices_and_folders_are_no_files_of_variables(built, tmp_path):
    assert child(KINDS, built, tmp_path) == "['cut', 'good', 'link', 'pipe']\n"


SAVERS = """
import threading
lib = CDLL(sys.argv[1])
states, faults = [], []
for k in range(2):
    state = c_void_p()
    assert lib.tiny_new(byref(state)) == 0
    memset(cast(state, POINTER(c_void_p))[0], k + 1, 48)
    states.append(state)
path = os.path.join(sys.argv[2], "s").encode()
lib.tiny_save(states[0], path)
children = [pid for pid in (os.fork(), ) if pid == 0]
def save(state):
    for _ in range(40):
        if lib.tiny_save(state, path):
            faults.append("save")
threads = [threading.Thread(target=save, args=(state,)) for state in states]
for thread in threads: thread.start()
mine = c_void_p()
lib.tiny_new(byref(mine))
while any(t.is_alive() for t in threads):
    if lib.tiny_load(mine, path):
        faults.append("load")
for thread in threads: thread.join()
assert not faults, faults
if children:
    os._exit(0)
assert os.wait()[1] == 0
print(os.listdir(sys.argv[2]))
"""


def test_saves_at_the_same_time_leave_a_whole_file(built, tmp_path):
    """Two threads in each of two processes write to one path, and a reader always finds one of their files."""
    assert child(SAVERS, built, tmp_path) == "['s']\n"


def test_a_refused_file_of_variables_is_explained(built, lib, tmp_path):
    path = tmp_path / "s"
    lib.save_state(path)
    right = path.read_bytes()
    with gc.Graph():
        w, z = gc.variable(np.zeros((5, 3), "f"), name="layer/w"), gc.variable(np.zeros(3, "f"), name="layer/b")
        other = gc.load_library(gc.compile_library(tmp_path, "tiny", {
            "run": gc.signature([], [], updates={w: w + 1, z: z + 1})}))
    other.save_state(tmp_path / "shape")
    gc.load_library(made(tmp_path, "other")).save_state(tmp_path / "library")
    (tmp_path / "cut").write_bytes(right[:-8])
    (tmp_path / "damaged").write_bytes(right[:-20] + b"\1" * 20)
    (tmp_path / "text").write_text("some text")
    (tmp_path / "less").write_bytes(right.replace(b"layer/b", b"layer/c"))
    for name, text in (("shape", r"has 'layer/w' as F32\[5, 3\], expected F32\[4, 3\]"),
                       ("library", "it is of the library 'other', expected 'tiny'"),
                       ("cut", rf"has {len(right) - 8} bytes, expected {len(right)}"),
                       ("damaged", "its data are damaged"),
                       ("text", "it has 9 bytes and does not begin with the header"),
                       ("less", "has no variable 'layer/b'"), (".", "it is a folder")):
        with pytest.raises(gc.GraphError, match=f"load_state .*: a file is damaged.*: {text}"):
            lib.load_state(tmp_path / name)
    for name, text in (("none", "No such file"), ("", "zero byte"), ("a\0b", "zero byte")):
        with pytest.raises(gc.GraphError, match=text):
            lib.load_state(name)
    with pytest.raises(gc.GraphError, match="No such file or directory"):
        lib.save_state(tmp_path / "none" / "s")


def test_saving_follows_links_and_replaces_no_device(lib, tmp_path):
    (tmp_path / "link").symlink_to("real")
    lib.save_state(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").is_file()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(gc.GraphError, match="device or a pipe"):
        lib.save_state(tmp_path / "pipe")
    with gc.Graph():
        with pytest.raises(OSError, match="no file"):
            gc.save_graph(tmp_path / "pipe", gc.placeholder("float32", (3,), name="x") * 2)
    assert (tmp_path / "pipe").is_fifo()


WEIGHTS = """
import random, resource
lib, folder, count = CDLL(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng, path = random.Random(count), os.path.join(folder, "w").encode()
right = open(os.path.join(folder, "big.safetensors"), "rb").read()
state = c_void_p()
assert lib.big_map(byref(state), os.path.join(folder, "big.safetensors").encode()) == 0
members = cast(state, POINTER(c_void_p))
before = string_at(members[0], 64)
pages = int(open("/proc/self/statm").read().split()[0])
file = open(path, "w+b")
file.write(right)
file.flush()
most = pages * resource.getpagesize() + 2 * len(right) + (1 << 19)
head = 8 + int.from_bytes(right[:8], "little")
for k in range(count):
    at = rng.randrange(rng.choice((head, len(right)))) if k else 0
    new = rng.choice((rng.randbytes(8), b"\\xff" * 8, bytes(8), bytes([right[at] ^ 1 << rng.randrange(8)])))
    old = right[at:at + len(new)]
    new = new[:len(old)] if k else old
    length = len(right) if rng.random() < 0.8 or not k else rng.choice((rng.randrange(head), at, len(right) + 8))
    file.seek(at)
    file.write(new)
    file.truncate(length)
    file.flush()
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    other, wanted = c_void_p(), 0 if new == old and length == len(right) else 8
    got = lib.big_map(byref(other), path), lib.big_load(state, path)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert got == (wanted, wanted), (got, wanted, at, length)
    lib.big_free(other)
    assert string_at(members[0], 64) == before
    file.seek(at)
    file.write(old)
    if length != len(right):
        file.seek(0)
        file.write(right)
        file.truncate(len(right))
print("good")
"""


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_weights_are_refused_within_twice_the_memory(tmp_path, count):
    """The file of weights="file", mapped and loaded in a process that may take twice its size more, and no more."""
    with gc.Graph():
        x = gc.placeholder("float32", (128,), name="x")
        w = gc.variable(np.random.default_rng(0).standard_normal((1024, 128)).astype("f"), name="w")
        mask = gc.variable(np.ones(1024, bool), name="mask")
        with gc.Session() as sess:
            path = gc.compile_library(tmp_path, "big", {"run": gc.signature([x], gc.where(mask, w @ x, 0))},
                                      session=sess, weights="file")
    assert child(WEIGHTS, path, tmp_path, count) == "good\n"


SHORT = """
import resource, signal
lib = CDLL(sys.argv[1])
os.chdir(sys.argv[2])
CDLL(None).mallopt(-3, 1 << 17)  # M_MMAP_THRESHOLD: what is large is never kept by malloc
def within(kind, most, *calls):
    # The results of the calls in a process that may have no more than this.
    old = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, old[1]))
    found = [call() for call in calls]
    resource.setrlimit(kind, old)
    return found
state, other = c_void_p(), c_void_p()
save, load = lambda: lib.odd_save(state, b"s"), lambda: lib.odd_load(state, b"s")
map_, new = lambda: lib.odd_map(byref(other), b"s"), lambda: lib.odd_new(byref(other))
assert new() == 0 and lib.odd_new(byref(state)) == 0 and lib.odd_up(state, None) == 0 and save() == 0
right, files = open("s", "rb").read(), sorted(os.listdir())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
assert within(resource.RLIMIT_FSIZE, 100_000, save) == [7]
free = os.open("/", os.O_RDONLY)
assert within(resource.RLIMIT_NOFILE, free, save, load, map_) == [7, 7, 7]
pages = int(open("/proc/self/statm").read().split()[0])
assert within(resource.RLIMIT_AS, pages * resource.getpagesize(), new, load, save, map_) == [6, 6, 6, 6]
assert open("s", "rb").read() == right and sorted(os.listdir()) == files
lib.odd_free(other)
assert map_() == 0 and lib.odd_up(other, None) == 0 and lib.odd_save(other, b"s") == 0 and load() == 0
assert lib.odd_up(state, None) == 0 and lib.odd_copy(other, state) == 0
lib.odd_free(other)
print(save())
"""


def test_states_without_disk_files_or_memory(tmp_path):
    """Variables of all widths, empty ones and scalars: a call that fails leaves files and variables as they were."""
    kinds = [((), "int64"), ((0, 2), "float32"), ((3,), "bool"), ((5,), "bfloat16"), ((7, 3), "float16"),
             ((9,), "uint8"), ((1000, 500), "float64"), ((0,), "float64"), ((), "bool")]
    with gc.Graph():
        variables = [gc.variable(np.ones(shape), name=f"v{k}", dtype=dtype) for k, (shape, dtype) in enumerate(kinds)]
        updates = {v: ~v if v.dtype == "bool" else v + 1 for v in variables}
        path = gc.compile_library(tmp_path, "odd", {"up": gc.signature([], [], updates=updates)})
    (tmp_path / "s").mkdir()
    assert child(SHORT, path, tmp_path / "s") == "0\n"
    lib = gc.load_library(path)
    lib.load_state(tmp_path / "s" / "s")
    for v, (shape, dtype) in zip(variables, kinds):
        value = lib.state[v.name]
        assert value.shape == shape and (value == {"bool": False, "bfloat16": 0x4080}.get(dtype, 4)).all()


def test_a_refused_index_changes_no_variable(tmp_path):
    """Also where it is found in what was computed, after variables could have got their new values."""
    with gc.Graph():
        x, i = gc.placeholder("float32", ("n", 8), name="x"), gc.placeholder("int64", ("n",), name="i")
        ws = [gc.variable(0.5 * np.eye(8, dtype="f"), name=f"w{k}") for k in range(3)]
        h = x
        for w in ws:
            h = gc.tanh(h @ w)
        loss = gc.mean(h ** 2)
        slopes = gc.gradients(loss, ws)
        late = gc.take(slopes[0] @ ws[1], gc.cumsum(gc.cumsum(i)), axis=0)
        lib = gc.load_library(gc.compile_library(tmp_path, "late", {"step": gc.signature(
            [x, i], [loss, late], updates={w: w - 0.1 * d for w, d in zip(ws, slopes)})}))
    before = {name: value.tobytes() for name, value in lib.state.items()}
    with pytest.raises(gc.GraphError, match="an index in an array lies outside"):
        lib.step(np.ones((3, 8)), [1, 5, 60])
    assert {name: value.tobytes() for name, value in lib.state.items()} == before
    lib.step(np.ones((3, 8)), [0, 1, 0])
    assert {name: value.tobytes() for name, value in lib.state.items()} != before
