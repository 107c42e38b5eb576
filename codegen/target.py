"""What code is made for: triple, CPU, features and what follows from them (vector width, masks, fused multiply-add).

`target("native")` is this machine, by its feature flags and not by the CPU's name, which virtual machines get wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
import platform
from typing import Any

from graphc.ir.errors import GraphError

from .fingerprint import processor

LINUX, WINDOWS, MACOS = "unknown-linux-gnu", "pc-windows-gnu", "apple-macosx11.0.0"  # ends of triples
WASM = "wasm32-unknown-unknown"
WASM_FEATURES = "+bulk-memory,+bulk-memory-opt,+mutable-globals,+nontrapping-fptoint,+sign-ext,+simd128"
FORMATS = {LINUX: "elf", WINDOWS: "coff", MACOS: "macho", "unknown-unknown": "wasm"}


@dataclass(frozen=True)
class Target:
    """A machine to compile for.  `vector_bits` is the width of the registers that kernels use."""

    name: str
    triple: str
    cpu: str
    features: str
    vector_bits: int
    has_fma: bool
    has_masks: bool  # masked loads and stores are single instructions

    @property
    def architecture(self) -> str:
        return self.triple.split("-")[0]

    @property
    def object_format(self) -> str:
        """elf, coff, macho or wasm."""
        return FORMATS.get(self.triple.partition("-")[2], "elf")

    @property
    def pointer_bytes(self) -> int:
        return 4 if self.architecture == "wasm32" else 8

    @property
    def most_bytes(self) -> int:
        """How long an array can be."""
        return (1 << 8 * self.pointer_bytes) - 1 if self.pointer_bytes < 8 else (1 << 63) - 1

    @property
    def has_half(self) -> bool:
        """Whether single instructions convert from and to half: all that have FMA do so, and none of the others."""
        return self.has_fma

    @property
    def has_avx512(self) -> bool:
        return self.architecture == "x86_64" and self.vector_bits == 512

    def lanes(self, bits: int) -> int:
        """How many elements of so many bits fill a register."""
        return self.vector_bits // bits


def _known() -> Iterator[Target]:
    for name, end in (("", LINUX), ("-windows", WINDOWS), ("-macos", MACOS)):
        for level, bits in (("x86-64-v2", 128), ("x86-64-v3", 256), ("x86-64-v4", 512)):
            if bits < 512 or end != MACOS:  # which hides those registers until they are used, and few such were made
                yield Target(level + name, f"x86_64-{end}", level, "", bits, bits > 128, bits > 128)
        yield Target(f"aarch64{name}", f"aarch64-{end}", "generic", "+neon", 128, True, False)
    yield Target("wasm32", WASM, "generic", WASM_FEATURES, 128, False, False)


KNOWN = {known.name: known for known in _known()}
HOSTS = {  # by architecture: what every processor of the kind can run
    "x86_64": Target("x86-64", f"x86_64-{LINUX}", "x86-64", "", 128, False, False),
    "aarch64": KNOWN["aarch64"], "wasm32": KNOWN["wasm32"],
}


def baseline(chosen: Target) -> Target:
    """What every processor of the target's architecture can run, on the same system."""
    return replace(HOSTS[chosen.architecture], triple=chosen.triple)


@cache
def target(name: str = "native") -> Target:
    """The target of that name.

    Raises GraphError (a ValueError) naming the known ones when there is none.
    """
    if name == "native":
        return _native()
    if name not in KNOWN:
        raise GraphError(f"target: no target {name!r}; there are native, {', '.join(KNOWN)}")
    return KNOWN[name]


def identity(name: str) -> str:
    """What distinguishes the target of that name from all others; LLVM is asked where the system says too little."""
    known = processor() if name == "native" else None
    return known if known is not None else str(target(name))


def _native() -> Target:
    import llvmlite.binding as llvm
    llvm.initialize_all_targets()
    triple = llvm.get_process_triple()
    flags = llvm.get_host_cpu_features()
    features = ",".join(f"{'+' if on else '-'}{flag}" for flag, on in sorted(flags.items()))
    if platform.machine() in ("aarch64", "arm64"):
        return Target("native", triple, "generic", features, 128, True, False)
    has = {flag for flag, on in flags.items() if on}
    wide = {"avx512f", "avx512vl", "avx512dq", "avx512bw"} <= has
    level = "x86-64-v4" if wide else "x86-64-v3" if {"avx2", "fma"} <= has else "x86-64-v2"
    base = KNOWN[level]
    return Target("native", triple, level, features, base.vector_bits, base.has_fma, base.has_masks)


@cache
def machine(chosen: Target) -> Any:
    """LLVM's target machine; optimisation level 2, because level 0 aborts on AVX-512 masks."""
    import llvmlite.binding as llvm
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    return llvm.Target.from_triple(chosen.triple).create_target_machine(
        cpu=chosen.cpu, features=chosen.features, opt=2, codemodel="small",
        reloc="static" if chosen.object_format == "wasm" else "pic")
