"""Bytes as text of LLVM IR."""

from __future__ import annotations


def escaped(data: bytes) -> str:
    """What stands between the quotation marks of a string."""
    return "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in data)


def bytes_literal(data: bytes) -> str:
    """An array of the bytes, its type in front."""
    return f'[{len(data)} x i8] c"{escaped(data)}"'
