"""Text IR -> object -> machine code in this process; objects are kept on disk by content.

An object is named by the hash of its text, target and LLVM's version, so a file is right or absent: it is written
beside its place and renamed, and several processes may do so at once.  The oldest files go when the folder outgrows
its limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import ctypes
from dataclasses import dataclass, field
from functools import cache
import hashlib
import itertools
import os
from pathlib import Path
import threading

import llvmlite
import llvmlite.binding as llvm

from graphc.ir.errors import VerifyError
from graphc.ir.files import write_whole

from .target import Target, machine

COUNTER = itertools.count()
LOCK = threading.Lock()
SUFFIX = ".o"


def compile_text(text: str, target: Target) -> bytes:
    """The relocatable object of a module."""
    try:
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(machine(target).target_data)
        module.verify()
    except RuntimeError as fault:
        raise VerifyError(f"code generation made a module that LLVM refuses; please report it: {fault}") from fault
    data: bytes = machine(target).emit_object(module)
    return data


def assembly_text(text: str, target: Target) -> str:
    """The assembly of a module, for people."""
    module = llvm.parse_assembly(text)
    module.triple = target.triple
    assembly: str = machine(target).emit_assembly(module)
    return assembly


@dataclass
class Cache:
    """Objects on disk.  `limit` in bytes, 0 to keep nothing."""

    folder: Path
    limit: int
    hits: int = 0
    misses: int = 0

    def object_of(self, text: str, target: Target) -> bytes:
        """The object of a module, compiled if need be."""
        path = self.folder / (content_key(text, target) + SUFFIX)
        if self.limit:
            try:
                data = path.read_bytes()
                os.utime(path)
                self.hits += 1
                return data
            except OSError:
                pass
        self.misses += 1
        data = compile_text(text, target)
        if self.limit:
            self.keep(path, data)
        return data

    def keep(self, path: Path, data: bytes) -> None:
        """Writes a file and makes room; a folder that cannot be written is no error, only no cache."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, [data], mode=0o600, durable=False)
            self.trim()
        except OSError:
            return

    def files(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of every object, oldest first."""
        found = []
        for path in self.folder.glob("*" + SUFFIX):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process was faster
            found.append((status.st_mtime, status.st_size, path))
        return sorted(found)

    def trim(self) -> None:
        files = self.files()
        excess = sum(size for _, size, _ in files) - self.limit
        for _, size, path in files:
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size

    def clear(self) -> int:
        """Removes every object; returns how many there were."""
        files = self.files()
        for _, _, path in files:
            path.unlink(missing_ok=True)
        return len(files)


def content_key(text: str, target: Target) -> str:
    about = f"{llvmlite.__version__} {llvm.llvm_version_info} {target}\n"
    return hashlib.sha256((about + text).encode()).hexdigest()


@cache
def jit(target: Target) -> llvm.LLJIT:
    compiler_machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small", jit=True)
    return llvm.create_lljit_compiler(compiler_machine, use_jit_link=True, suppress_errors=False)


@dataclass
class Loaded:
    """Machine code in this process; it lives as long as this object does."""

    addresses: dict[str, int]
    tracker: object = field(repr=False)
    kept: object = field(default=None, repr=False)

    def function(self, name: str, result: object, *arguments: object) -> object:
        """The ctypes function of an exported symbol."""
        return ctypes.CFUNCTYPE(result, *arguments)(self.addresses[name])  # type: ignore[arg-type]


def load(data: bytes, names: Sequence[str], target: Target, symbols: Mapping[str, int] = {},
         kept: object = None) -> Loaded:
    """Links an object into this process; `symbols` are addresses of what it leaves open, `kept` is to stay alive."""
    with LOCK:
        builder = llvm.JITLibraryBuilder().add_object_img(data).add_current_process()
        for name, address in symbols.items():
            builder.import_symbol(name, address)
        for name in names:
            builder.export_symbol(name)
        library = builder.link(jit(target), f"graphc{next(COUNTER)}")
    return Loaded({name: library[name] for name in names}, library, kept)
