"""The files of a library: the shared one, and those beside it for compilers, pkg-config and CMake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import os
from pathlib import Path
import secrets
import shutil

from codegen.formats import Format, format_of
from codegen.jit import assembly_text
from codegen.library import Linked
from codegen.target import Target

from .ir.errors import GraphError
from .ir.files import Chunk, write_whole

PC = """prefix=${{pcfiledir}}

Name: {name}
Description: functions compiled by graphc
Version: {version}
Libs: -L${{prefix}} -l{name}
Cflags: -I${{prefix}}
"""
CMAKE = """# {name}: functions compiled by graphc; find_package({name}) makes the target {name}::{name}.
if(NOT TARGET {name}::{name})
  add_library({name}::{name} SHARED IMPORTED)
  set_target_properties({name}::{name} PROPERTIES
    IMPORTED_LOCATION "${{CMAKE_CURRENT_LIST_DIR}}/{shared}"
    {link}
    INTERFACE_INCLUDE_DIRECTORIES "${{CMAKE_CURRENT_LIST_DIR}}")
endif()
"""
CMAKE_LINK = {  # by object format: what CMake must know to link with the library
    "elf": 'IMPORTED_SONAME "{shared}"', "macho": 'IMPORTED_SONAME "@rpath/{shared}"',
    "coff": 'IMPORTED_IMPLIB "${{CMAKE_CURRENT_LIST_DIR}}/{imports}"'}


def file_names(name: str, target: Target) -> tuple[str, ...]:
    """The library's own files, the shared one first, and those that are texts."""
    return (*format_of(target).files(name), *text_files(name, "", target))


def text_files(name: str, header: str, target: Target) -> dict[str, str]:
    """The header, and what tells pkg-config and CMake where it and the library are, where these know such libraries."""
    form = format_of(target)
    found = {f"{name}.h": header}
    if form.is_found:
        found |= {f"{name}.pc": PC.format(name=name, version="1"),
                  f"{name}-config.cmake": cmake_text(name, form, target)}
    return found


def cmake_text(name: str, form: Format, target: Target) -> str:
    shared, *imports = form.files(name)
    link = CMAKE_LINK[target.object_format].format(shared=shared, imports="".join(imports))
    return CMAKE.format(name=name, shared=shared, link=link)


def more_files(name: str, linked: Linked, emit: Sequence[str]) -> dict[str, bytes]:
    """The files beside the library that were asked for, by their names."""
    found: dict[str, bytes] = {}
    if "a" in emit:
        found[f"lib{name}.a"] = linked.archive(f"lib{name}.a")
    if "o" in emit:
        found |= {f"{name}_{file}": data for file, data in linked.objects()}
    for unit in linked.units:
        if "ll" in emit:
            found[f"{name}_{unit.label}.ll"] = unit.text.encode()
        if "s" in emit:
            found[f"{name}_{unit.label}.s"] = assembly_text(unit.text, unit.target).encode()
    return found


def write_files(place: Path, name: str, linked: Linked, linker: str, data: Mapping[str, Iterable[Chunk]]) -> Path:
    """All files under temporary names first, then their own: where anything fails, nothing has changed.

    `data` are the files beside those that linking makes, by their names.
    """
    shared, *others = format_of(linked.target).files(name)
    mark = f".{secrets.token_hex(8)}.tmp"
    is_elf = linked.target.object_format == "elf"
    made = {} if is_elf else {file: [content] for file, content in linked.files(name).items()}
    files = {**made, **data}
    try:
        place.mkdir(parents=True, exist_ok=True)
        try:
            if is_elf:
                linked.write(place / (shared + mark), shared, linker)
            for file, chunks in files.items():
                write_whole(place / (file + mark), chunks)
            replace_all(place, [*data, *others, shared], mark)
        finally:
            for file in (shared, *files):
                (place / (file + mark)).unlink(missing_ok=True)
    except OSError as fault:
        raise GraphError(f"compile_library: cannot write to {os.fspath(place)!r}: {fault.strerror or fault}") from fault
    return place / shared


def replace_all(place: Path, files: Sequence[str], mark: str) -> None:
    """Gives the files that have the mark behind their names these names; where one cannot have it, none has."""
    old, replaced = mark + ".old", []
    try:
        for file in files:
            if (place / file).exists():
                keep(place / file, place / (file + old))
        try:
            for file in files:
                os.replace(place / (file + mark), place / file)
                replaced.append(file)
        except OSError:
            for file in replaced:
                if (place / (file + old)).exists():
                    os.replace(place / (file + old), place / file)
                else:
                    (place / file).unlink()
            raise
    finally:
        for file in files:
            (place / (file + old)).unlink(missing_ok=True)


def keep(file: Path, under: Path) -> None:
    """The file under another name too."""
    try:
        os.link(file, under)
    except OSError:  # not every file system has a second name for a file
        shutil.copy2(file, under)
