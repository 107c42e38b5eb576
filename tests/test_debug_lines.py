"""Lines of the user's program in machine code, as debuggers and profilers find them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
import io
from pathlib import Path
import random
import shutil
import subprocess

from elftools.elf.elffile import ELFFile
import graphc as gc
import numpy as np
import pytest

from codegen.debug import Lines, spoken
from codegen.elf import LinkError, link
from codegen.elf.read import HEADER, RELOCATION, SECTION_HEADER, read_object
from codegen.linkers import COMMANDS
from codegen.text import Function, Module
from graphc.cli import main
from graphc.ir.errors import Loc
from graphc.ir.node import ancestors
from graphc.ir.plan import Kernel, KernelOp, Map
from tests.elf_programs import child, compiled, runs_here, tool
from tests.mutations import mutated
from tests.samples import all_samples

HELPER = """\
import graphc as gc


def squashed(value):
    return gc.tanh(value)  # tanh
"""
MODEL = """\
import graphc as gc
import numpy as np

x = gc.placeholder("float32", ("n", 64), name="x")
i = gc.placeholder("int32", ("n",), name="i")
w = gc.variable(np.ones((64, 32), "float32"), name="w")
old = gc.variable(np.ones((64, 32), "float32"), name="old")
h = squashed(
    x @ w)  # product
s = gc.exp(h) + 2  # exp
z = s / gc.sum(s, axis=1, keepdims=True)  # quotient
z = z * 3  # scaled
picked = gc.take(w, i, axis=0)  # index
q = gc.placeholder("float64", (2,), name="q")
sine, cosine = gc.sin(q), gc.cos(q)  # turn
tip = gc.stack([cosine[0] * cosine[1] - sine[0] * sine[1], sine[0] * cosine[1]])  # tip
slope = gc.jacobian(tip, q)  # slope
again = gc.placeholder("float32", ("n", 32), name="again")
more = gc.placeholder("float32", ("n", 32), name="more")
entries = {
    "predict": gc.signature([x], [z]),  # predict
    "picking": gc.signature([i], [picked], updates={old: w}),  # picking
    "arm": gc.signature([q], [tip, slope]),  # arm
    "first": gc.signature([again], [gc.log(again)]),  # first
    "second": gc.signature([more], [gc.log(more)]),  # second
}
"""


def line_of(mark: str, source: str = MODEL) -> int:
    return next(k for k, line in enumerate(source.splitlines(), 1) if line.endswith(f"# {mark}"))


def library(folder: Path, sources: str = "/src", **options: object) -> Path:
    """The library of the model, as if its files lay in the folder `sources`."""
    names: dict[str, object] = {}
    with gc.Graph():
        exec(compile(HELPER, f"{sources}/lib/helper.py", "exec"), names)
        exec(compile(MODEL, f"{sources}/model.py", "exec"), names)
        return gc.compile_library(folder, "m", names["entries"], **options)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return library(tmp_path_factory.mktemp("lines"), debug=True, targets=["x86-64-v3"], emit=["a", "o", "ll", "s"])


Row = tuple[int, str, int]  # address, file, line


class Image:
    """What a library tells debuggers."""

    def __init__(self, path: Path) -> None:
        self.file = ELFFile(io.BytesIO(path.read_bytes()))
        self.dwarf = self.file.get_dwarf_info()
        code = self.file.get_section_by_name(".text")
        self.code = range(code["sh_addr"], code["sh_addr"] + code["sh_size"])
        self.rows = sorted({row for unit in self.dwarf.iter_CUs() for row in self.unit_rows(unit)})
        self.symbols = {s.name: s["st_value"] for s in self.file.get_section_by_name(".symtab").iter_symbols()
                        if s["st_info"]["type"] == "STT_FUNC"}
        self.functions: dict[str, int] = {}  # the line of those that are described
        self.spans: dict[str, list[range]] = {}  # where the code of each is
        self.inlined: list[range] = []
        for unit in self.dwarf.iter_CUs():
            for entry in unit.iter_DIEs():
                self.see(unit, entry)

    def see(self, unit, entry) -> None:
        if entry.tag == "DW_TAG_subprogram" and "DW_AT_name" in entry.attributes:
            self.functions[entry.attributes["DW_AT_name"].value.decode()] = entry.attributes["DW_AT_decl_line"].value
        if entry.tag not in ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine"):
            return
        is_instance = "DW_AT_abstract_origin" in entry.attributes
        about = entry.get_DIE_from_attribute("DW_AT_abstract_origin") if is_instance else entry
        found = list(self.ranges(unit, entry))
        self.spans.setdefault(about.attributes["DW_AT_name"].value.decode(), []).extend(found)
        self.inlined += found if entry.tag == "DW_TAG_inlined_subroutine" else []

    def ranges(self, unit, entry) -> Iterator[range]:
        if "DW_AT_ranges" in entry.attributes:
            base = unit.get_top_DIE().attributes["DW_AT_low_pc"].value
            for part in self.dwarf.range_lists().get_range_list_at_offset(entry.attributes["DW_AT_ranges"].value):
                yield range(base + part.begin_offset, base + part.end_offset)
        elif "DW_AT_low_pc" in entry.attributes:
            start = entry.attributes["DW_AT_low_pc"].value
            yield range(start, start + entry.attributes["DW_AT_high_pc"].value)

    def unit_rows(self, unit) -> Iterator[Row]:
        program = self.dwarf.line_program_for_CU(unit)
        folders = [b"", *program["include_directory"]]
        files = [b"/".join(filter(None, (folders[f.dir_index], f.name))).decode() for f in program["file_entry"]]
        for entry in program.get_entries():
            if entry.state is not None and not entry.state.end_sequence:
                yield entry.state.address, files[entry.state.file - 1], entry.state.line

    def lines(self, name: str) -> set[tuple[str, int]]:
        """The lines of a function, wherever it is inlined, and without what is inlined there."""
        def within(address: int, spans: list[range]) -> bool:
            return any(address in span for span in spans)
        inner = [] if name.startswith("kernel_") else self.inlined
        return {(file, line) for address, file, line in self.rows
                if line and within(address, self.spans[name]) and not within(address, inner)}

    def named(self, end: str) -> str:
        return next(name for name in self.functions if name.startswith("kernel_") and name.endswith(end))


def check(path: Path, sources: str = "/src/") -> Image:
    """The lines of the model's functions are where they should be."""
    image = Image(path)
    assert image.rows and all(address in image.code for address, _, _ in image.rows)
    model, helper = f"{sources}model.py", f"{sources}lib/helper.py"
    product, tanh, exp = ((model, line_of("product")), (helper, line_of("tanh", HELPER)), (model, line_of("exp")))
    epilogue = image.lines(image.named("matmul_tanh_exp_add_epilogue"))
    assert {product, tanh, exp} == epilogue
    assert image.lines(image.named("matmul_tanh_exp_add")) == {product}
    tiles = [name for name in image.functions if name.startswith("tile_")]
    assert tiles and all(image.lines(name) == {product} for name in tiles)
    assert {(model, line_of("quotient")), (model, line_of("scaled"))} == image.lines(image.named("sum_div_mul"))
    # Where a kernel is inlined, nothing is left of its call.
    own = {product, (model, line_of("predict"))}
    assert own <= image.lines("m__predict__0") <= own | {(model, line_of("scaled"))}
    assert image.lines("m_predict") == {(model, line_of("predict"))}
    assert {(model, line_of("index")), (model, line_of("picking"))} <= image.lines("m__picking__0")
    assert image.lines(image.named("sin_cos_mul_sub_add_neg")) == {
        (model, line_of(mark)) for mark in ("turn", "tip", "slope")}
    assert all(image.functions.values())
    assert all(spans[0].start == image.symbols[name] for name, spans in image.spans.items() if name in image.symbols)
    return image


@pytest.mark.parametrize("options", [
    {"targets": ["x86-64-v3"]}, {"targets": ["x86-64-v2"], "threads": 2}, {"targets": ["aarch64"]}])
def test_machine_code_belongs_to_the_lines_of_the_model(tmp_path, options):
    image = check(library(tmp_path, debug=True, **options))
    records = [e for e in image.dwarf.CFI_entries() if "initial_location" in e.header]  # how to unwind the stack
    starts = {record.header["initial_location"] for record in records}
    assert {address for name, address in image.symbols.items() if name in image.functions} <= starts


def test_a_shared_kernel_has_the_line_of_its_first_step_and_calls_their_own(built):
    image = Image(built)
    log, = (name for name in image.functions if name.startswith("kernel_") and name.endswith("_log"))
    assert image.lines(log) == image.lines("m__first__0") == {("/src/model.py", line_of("first"))}
    assert image.lines("m__second__0") == {("/src/model.py", line_of("second"))}


def loaded_sections(path: Path) -> list[object]:
    """What of the objects beside a library is loaded; symbols have other numbers and names where debuggers are told."""
    objects = [read_object(path.with_name(file).read_bytes(), file) for file in ("m_code0.o", "m_entries.o")]
    return [(s.name, s.data, [(row.offset, row.kind, row.addend) for row in s.relocations])
            for item in objects for s in item.sections if s.is_allocated and s.size]


def test_without_debug_nothing_is_told_and_with_it_no_instruction_changes(tmp_path, built):
    plain = library(tmp_path, targets=["x86-64-v3"], emit=["o"])
    names = [section.name for section in ELFFile(io.BytesIO(plain.read_bytes())).iter_sections()]
    assert not [name for name in names if name.startswith(".debug")]
    assert loaded_sections(plain) == loaded_sections(built)
    values = np.linspace(-1, 1, 5 * 64, dtype="float32").reshape(5, 64)
    a, b = (gc.load_library(path) for path in (plain, built))
    assert a.predict(values).tobytes() == b.predict(values).tobytes()


def test_files_named_from_a_folder_do_not_tell_where_it_is(tmp_path):
    found = []
    for place in ("here", "there"):
        sources = tmp_path / place
        sources.mkdir()
        made = library(tmp_path / f"of_{place}", str(sources), debug=sources, targets=["x86-64-v2"])
        check(made, "")
        assert str(tmp_path).encode() not in made.read_bytes()
        found.append(made.read_bytes())
    assert found[0] == found[1]
    with pytest.raises(gc.GraphError, match=r"debug='.*nowhere' is no folder"):
        library(tmp_path, debug=tmp_path / "nowhere")


@pytest.mark.parametrize("linker", ["cc", "ld", "lld"])
def test_other_linkers_tell_the_same(tmp_path, built, linker):
    if shutil.which(COMMANDS[linker][0]) is None:
        pytest.skip(f"no {linker} here")
    image, own = check(library(tmp_path, debug=True, targets=["x86-64-v3"], linker=linker)), Image(built)
    assert {name: image.lines(name) for name in own.functions} == {name: own.lines(name) for name in own.functions}


def test_objects_and_texts_tell_it_too(built):
    assert ELFFile(io.BytesIO(built.with_name("m_code0.o").read_bytes())).has_dwarf_info()
    assert ".loc\t" in built.with_name("m_code0.s").read_text()
    assert f"line: {line_of('product')}" in built.with_name("m_code0.ll").read_text()


def test_the_command_line_tells_lines_of_a_saved_model(tmp_path, capsys):
    names: dict[str, object] = {}
    with gc.Graph():
        exec(compile(HELPER, "/src/helper.py", "exec"), names)
        exec(compile(MODEL, "/src/model.py", "exec"), names)
        gc.save_graph(tmp_path / "m.gcm", names["z"])
    assert main(["compile", str(tmp_path / "m.gcm"), "-o", str(tmp_path), "--debug", "--target", "x86-64-v3"]) == 0
    capsys.readouterr()
    image = Image(tmp_path / "libm.so")
    assert ("model.py", line_of("product")) in image.lines(image.named("matmul_tanh_exp_add"))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v4"])
def test_no_instruction_of_any_op_changes(tmp_path, target):
    ops = dict.fromkeys(name for name, _, _ in all_samples())
    for op in ops:
        with gc.Graph():
            nodes = [build() for name, _, build in all_samples() if name == op]
            entries = {f"e{k}": gc.signature([n for n in ancestors([node]) if n.op.name == "placeholder"], [node])
                       for k, node in enumerate(nodes) if node.op.kind != "leaf"}
            made = [gc.compile_library(tmp_path / str(debug), "m", entries, emit=["o"], targets=[target], debug=debug)
                    for debug in (False, True)]
        assert loaded_sections(made[0]) == loaded_sections(made[1]), op
        assert "No errors." in verified(made[1]), op
    assert len(ops) > 80


# -- by the tools --
def verified(path: Path) -> str:
    return tool(next(filter(shutil.which, ("llvm-dwarfdump", "llvm-dwarfdump-14")), "llvm-dwarfdump"), "--verify", path)


def test_readelf_and_addr2line_and_dwarfdump(built):
    image = Image(built)
    decoded = tool("readelf", "--debug-dump=decodedline", built)
    assert f"model.py {line_of('exp')} " in " ".join(decoded.split())
    assert "DW_CFA" in tool("readelf", "--debug-dump=frames", built)
    name = image.named("sum_div_mul")
    assert tool("addr2line", "-e", built, "-f", hex(image.spans[name][0].start)).split()[:2] in [
        [name, f"/src/model.py:{line_of(mark)}"] for mark in ("quotient", "scaled")]
    assert "No errors." in verified(built)


def test_stripped_of_it_the_library_works(built, tmp_path):
    shutil.copy(built, tmp_path / "libm.so")
    tool("strip", "-g", tmp_path / "libm.so")
    assert not ELFFile(io.BytesIO((tmp_path / "libm.so").read_bytes())).has_dwarf_info()
    assert child("print(CDLL(sys.argv[1]).m_abi_version() > 0)", tmp_path / "libm.so") == "True\n"


CALLER = """
#include "m.h"
#include <stdlib.h>
int main(void)
{
    double q[2] = {1, 2}, tip[2], slope[4];
    float *x = calloc(5 * 64 - MISSING, sizeof *x), z[5 * 32];
    float w[64 * 32] = {0};
    struct m_state state = {0};
    char *room = malloc(1 << 20);
    state.w = w;
    if (m_arm(q, tip, slope, 0)) return 1;
    return m_predict(5, x, z, &state, room + (64 - (unsigned long)room % 64));
}
"""


def caller(built: Path, folder: Path, missing: int) -> Path:
    (folder / "main.c").write_text(CALLER)
    tool("cc", "-g", f"-DMISSING={missing}", "-I", built.parent, folder / "main.c", built, f"-Wl,-rpath,{built.parent}",
         "-o", folder / "main")
    return folder / "main"


@runs_here
def test_gdb_stops_at_a_line_of_the_model(built, tmp_path):
    program = caller(built, tmp_path, 0)
    name = Image(built).named("sum_div_mul")
    if shutil.which("gdb") is None:
        pytest.skip("no gdb here")
    done = subprocess.run(["gdb", "-batch", "-ex", "set breakpoint pending on", "-ex", f"break {name}", "-ex", "run",
                           "-ex", "bt", program], capture_output=True, text=True, check=False, timeout=60,
                          env={"PATH": "/usr/bin:/bin", "DEBUGINFOD_URLS": ""})
    if f"in main () at {tmp_path}/main.c" not in done.stdout:
        pytest.skip(f"gdb runs no program here: {done.stdout[-300:]} {done.stderr[-300:]}")
    assert f"#0  {name} () at /src/model.py:" in done.stdout
    assert f"m__predict__0 () at /src/model.py:{line_of('scaled')}" in done.stdout


@runs_here
def test_valgrind_names_the_line_that_reads_too_far(built, tmp_path):
    program = caller(built, tmp_path, 3)
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind here")
    done = subprocess.run(["valgrind", "--error-exitcode=3", program], capture_output=True, text=True, check=False,
                          timeout=120)
    assert done.returncode == 3 and "Invalid read" in done.stderr
    assert f"(model.py:{line_of('product')})" in done.stderr, done.stderr


# -- the parts --
def test_lines_are_no_part_of_what_a_kernel_is():
    def kernel(line: int) -> Kernel:
        loc = Loc("model.py", line)
        return Kernel((4,), ("float32",) * 2, (KernelOp("load", (), map=Map(0, 0, (1,)), loc=loc),
                                               KernelOp("store", (0,), map=Map(1, 0, (1,)), loc=loc)))
    assert kernel(1) == kernel(2) and hash(kernel(1)) == hash(kernel(2)) and repr(kernel(1)) == repr(kernel(2))
    assert replace(kernel(3).ops[1], dtype="float64").loc == Loc("model.py", 3)


def test_names_say_what_is_computed():
    ops = (KernelOp("load", map=Map(0, 0, (1,))), KernelOp("reduce", (0,), value=("fastmax", (0,))),
           KernelOp("sub", (0, 1)), KernelOp("exp", (2,)), KernelOp("reduce", (3,), value=("add", (0,))),
           KernelOp("sub", (3, 4)))
    assert spoken(Kernel((4,), ("float32",), ops), "div") == "max_sub_exp_sum"
    assert spoken(Kernel((4,), ("float32",), ops[:1]), "transpose+pad") == "transpose_pad"
    many = tuple(KernelOp(f"operation{k}") for k in range(9))
    assert len(spoken(Kernel((4,), ("float32",), many), "")) <= 48


def described(loc: Loc) -> bytes:
    """An object with a function of that line."""
    module = Module(debug=Lines())
    with module.at(loc):
        f = Function(module, "define void @f() #0")
        f.emit("ret void")
        module.add("f", f.text())
    return compiled(module.text())


def test_metadata_of_strange_names():
    unit = next(ELFFile(io.BytesIO(described(Loc('a "b"\\ü.py', 7)))).get_dwarf_info().iter_CUs())
    assert unit.get_top_DIE().attributes["DW_AT_name"].value.decode() == 'a "b"\\ü.py'
    assert "!llvm" not in Module(debug=Lines()).text()


def patched(data: bytes, section: str, *, kind: int | None = None, place: int | None = None) -> bytes:
    """The object with the first relocation of a section changed."""
    image = bytearray(data)
    index = [s.name for s in read_object(data, "object").sections].index(f".rela{section}")
    row = SECTION_HEADER.unpack_from(image, HEADER.unpack_from(image)[6] + SECTION_HEADER.size * index)[4]
    where, info, addend = RELOCATION.unpack_from(image, row)
    RELOCATION.pack_into(image, row, where if place is None else place,
                         info if kind is None else info >> 32 << 32 | kind, addend)
    return bytes(image)


@pytest.mark.parametrize(("change", "message"), [
    ({"kind": 2}, "relocation type 2 is not known in such a section"), ({"place": 1 << 20}, "beyond the section's")])
def test_damaged_sections_for_debuggers_are_refused(change, message):
    code = described(Loc("model.py", 3))
    assert link([code], exports=["f"])
    with pytest.raises(LinkError, match=message):
        link([patched(code, ".debug_info", **change)], exports=["f"])


def test_mutated_sections_for_debuggers_are_linked_or_refused():
    code, source, outcomes = described(Loc("model.py", 3)), random.Random(4), []
    for _ in range(400):
        try:
            link([mutated(code, source)], exports=["f"])
            outcomes.append(True)
        except LinkError:
            outcomes.append(False)
    assert outcomes.count(False) > 50 and outcomes.count(True) > 20
