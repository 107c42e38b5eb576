"""Text IR -> object -> machine code in this process.

LLVM makes a relocatable object, our linker (`elf.link`) makes an image of it, and our loader (`elf.load`) maps that.
Only the first step needs LLVM, which takes a while to start: it is imported where it is used, so that a process that
finds its code in the cache never waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import ctypes
from dataclasses import dataclass, field
import hashlib
from typing import Any

from graphc.ir.errors import GraphError, VerifyError

from .cache import Cache
from .elf import link
from .elf.load import HOST, Mapped, load_image
from .elf.read import UNDEFINED, read_object
from .fingerprint import llvm_build
from .target import Target, machine
from .text import INLINE


def compile_text(text: str, target: Target) -> bytes:
    """The relocatable object of a module."""
    data: bytes = machine(target).emit_object(parsed(text, target))
    return data


def assembly_text(text: str, target: Target) -> str:
    """The assembly of a module, for people."""
    assembly: str = machine(target).emit_assembly(parsed(text, target))
    return assembly


def parsed(text: str, target: Target) -> Any:
    """LLVM's module for the target, with the calls inlined that ask for it."""
    import llvmlite.binding as llvm
    try:
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(machine(target).target_data)
        module.verify()
        if INLINE in text:
            inline(module, target)
    except RuntimeError as fault:
        raise VerifyError(f"code generation made a module that LLVM refuses; please report it: {fault}") from fault
    return module


def inline(module: Any, target: Target) -> None:
    """Inlines the calls that ask for it, and drops what nobody calls any more."""
    import llvmlite.binding as llvm
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine(target), llvm.create_pipeline_tuning_options(speed_level=0)))


def object_of(text: str, target: Target, cache: Cache) -> bytes:
    """The relocatable object of a module, compiled if need be."""
    return cache.made("code", content_key(text, target), lambda: compile_text(text, target))


def made_image(text: str, names: Sequence[str], target: Target) -> bytes:
    """The image of a module."""
    return image_of(compile_text(text, target), names)


def image_of(data: bytes, names: Sequence[str]) -> bytes:
    """An object ready to be loaded; `names` are what it exports, and what it lacks is looked up then."""
    missing = {s.name for s in read_object(data, "code").symbols if s.section == UNDEFINED}
    return link([data], exports=names, imports=missing)


def content_key(text: str, target: Target) -> str:
    return hashlib.sha256(f"{llvm_build()} {target}\n{text}".encode()).hexdigest()


@dataclass
class Loaded:
    """Machine code in this process; it lives as long as this object does."""

    addresses: dict[str, int]
    memory: Mapped = field(repr=False)
    kept: object = field(default=None, repr=False)

    def function(self, name: str, result: object, *arguments: object) -> object:
        """The ctypes function of an exported symbol."""
        return ctypes.CFUNCTYPE(result, *arguments)(self.addresses[name])  # type: ignore[arg-type]


def load(data: bytes, names: Sequence[str], target: Target, symbols: Mapping[str, int] = {},
         kept: object = None) -> Loaded:
    """Links an object into this process; `symbols` are addresses of what it leaves open, `kept` is to stay alive."""
    check_runs_here(target)
    return loaded_image(image_of(data, names), symbols, kept)


def loaded_image(image: bytes, symbols: Mapping[str, int] = {}, kept: object = None) -> Loaded:
    mapped = load_image(image, symbols)
    return Loaded(mapped.addresses, mapped, kept)


def check_runs_here(target: Target) -> None:
    if target.architecture != HOST or target.object_format != "elf":
        raise GraphError(f"target: code for {target.name} cannot run here, on {HOST}; compile_library writes it to a "
                         "file")
