"""What code is made for: triple, CPU, features and what follows from them (vector width, masks, fused multiply-add).

`target("native")` is this machine, by its feature flags and not by the CPU's name, which virtual machines get wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
import platform
from typing import Any

from graphc.ir.errors import GraphError

from .fingerprint import processor

X86 = "x86_64-unknown-linux-gnu"
ARM = "aarch64-unknown-linux-gnu"


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
    def has_avx512(self) -> bool:
        return self.architecture == "x86_64" and self.vector_bits == 512

    def lanes(self, bits: int) -> int:
        """How many elements of so many bits fill a register."""
        return self.vector_bits // bits


KNOWN = {
    "x86-64-v2": Target("x86-64-v2", X86, "x86-64-v2", "", 128, False, False),
    "x86-64-v3": Target("x86-64-v3", X86, "x86-64-v3", "", 256, True, True),
    "x86-64-v4": Target("x86-64-v4", X86, "x86-64-v4", "", 512, True, True),
    "aarch64": Target("aarch64", ARM, "generic", "+neon", 128, True, False),
}
HOSTS = {  # by architecture: what every processor of the kind can run
    "x86_64": Target("x86-64", X86, "x86-64", "", 128, False, False),
    "aarch64": KNOWN["aarch64"],
}


def baseline(chosen: Target) -> Target:
    """What every processor of the target's architecture can run."""
    return HOSTS[chosen.architecture]


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
        cpu=chosen.cpu, features=chosen.features, opt=2, reloc="pic", codemodel="small")
