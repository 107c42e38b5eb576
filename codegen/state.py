"""The variables of a library as memory of its own, and as files.

    i32  <lib>_new(ptr state_out)            a state with the first values, zeros where there are none
    void <lib>_free(ptr state)               gives it up; null is allowed
    i32  <lib>_copy(ptr to, ptr from)        the values of one state to another
    i32  <lib>_save(ptr state, ptr path)     a file that is whole or not there
    i32  <lib>_load(ptr state, ptr path)     all values or none
    i32  <lib>_map(ptr state_out, ptr path)  a state whose arrays are the file's own pages; changes stay in memory

A state is one block: 64 bytes with the address and length of a mapping, zeros where there is none; the struct of
pointers that entries take; then the arrays, 64-byte aligned, which a mapped state leaves out.  A file has the
safetensors format, and its header is the same text for every state of a library, so that it is compared and not parsed:

    8 bytes      length of the header
    header       JSON: {"__metadata__": {"library": .., "sums": 32 digits}, "w": {"dtype": "F32", "shape": [64, 10],
                 "data_offsets": [0, 2560]}, ..}, padded with blanks to a multiple of 64 bytes
    data         the arrays, widest elements first, then zeros to a multiple of 8 bytes

`sums` are two sums of the data as 64-bit words w0, w1 ..: of w_k and of (k + 1) w_k, modulo 2^64, in hexadecimal; a
change of one word cannot go unseen.  A file of any other length, header or sum is refused before anything changes.

A file is written under a name that no other thread or process on this machine uses at the same time, and renamed when
it is whole.  Devices and pipes are never waited for, and never replaced.

The functions come from libc: malloc's kin, open, read, write and rename.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
import json
from math import prod
from typing import Any

import numpy as np

from graphc.ir.errors import GraphError
from graphc.ir.plan import Array
from graphc.ir.types import SAFETENSORS, itemsize

from .elf.layout import round_up
from .literals import bytes_literal
from .text import Function, Int, Module

Step = Callable[[], object]

ALIGN = 64
SUMS = "0" * 32  # the place of the two sums in the header
ENDS = ("new", "free", "copy", "save", "load", "map")
IMPORTS = ("aligned_alloc", "close", "free", "fsync", "ftruncate", "getpid", "lseek", "malloc", "mmap", "munmap",
           "open", "read", "rename", "strlen", "unlink", "write")
HIDDEN = 64  # bytes before the struct
READ_WRITE, PRIVATE = 3, 2  # of mmap
# open's flags on Linux: to create is write-only and cut to nothing; nothing is waited for, no terminal becomes ours
READ_ONLY, WRITE_ONLY, CREATE, ALWAYS = 0, 1, 0o1101, 0o2000000 | 0o4000 | 0o400
FROM_START, FROM_END = 0, 2
PIECE = 1 << 22  # bytes that are copied at a time
PART = (".", 16, ".part")  # after a file's name until it is whole; between them so many digits
PART_SIZE = len(PART[0]) + PART[1] + len(PART[2]) + 1


@dataclass(frozen=True)
class Layout:
    """Where a library's variables lie: in the block of a state, and in the data of a file; bytes."""

    arrays: tuple[Array, ...]
    nbytes: tuple[int, ...]
    in_block: tuple[int, ...]
    in_file: tuple[int, ...]
    block: int
    data: int
    header: bytes

    @property
    def total(self) -> int:
        """Bytes of a file."""
        return len(self.header) + self.data

    @property
    def sums_at(self) -> int:
        return self.header.index(SUMS.encode())

    def file(self, values: Sequence[np.ndarray[Any, Any]]) -> Iterator[bytes]:
        """A file with these values, as native code holds them, in pieces; never a copy of the whole."""
        found, first = (0, 0), 0
        for piece in self.pieces(values):
            found, first = sums_of(piece, first, found), first + len(piece) // 8
        yield self.header.replace(SUMS.encode(), "".join(f"{value:016x}" for value in found).encode())
        yield from self.pieces(values)

    def pieces(self, values: Sequence[np.ndarray[Any, Any]]) -> Iterator[bytes]:
        """The data in pieces of a multiple of 8 bytes."""
        rest = b""
        for k in sorted(range(len(values)), key=self.in_file.__getitem__):
            flat = np.ascontiguousarray(values[k]).reshape(-1).view(np.uint8)
            for start in range(0, len(flat), PIECE):
                piece = rest + flat[start:start + PIECE].tobytes()
                cut = len(piece) // 8 * 8
                rest = piece[cut:]
                yield piece[:cut]
        if rest:
            yield rest.ljust(8, b"\0")


def layout(library: str, arrays: Sequence[Array]) -> Layout:
    nbytes = [prod(int(size) for size in a.shape) * itemsize(a.dtype) for a in arrays]
    at, in_block = HIDDEN + round_up(8 * len(arrays), ALIGN), []
    for n in nbytes:
        in_block.append(at)
        at += round_up(n, ALIGN)
    order = sorted(range(len(arrays)), key=lambda k: (-itemsize(arrays[k].dtype), k))
    in_file, end = dict.fromkeys(order, 0), 0
    for k in order:
        in_file[k] = end
        end += nbytes[k]
    return Layout(tuple(arrays), tuple(nbytes), tuple(in_block), tuple(in_file[k] for k in range(len(arrays))), at,
                  round_up(end, 8), header_of(library, arrays, order, nbytes, end))


def header_of(library: str, arrays: Sequence[Array], order: Sequence[int], nbytes: Sequence[int], end: int) -> bytes:
    """The file's head, its length included; the padding of the data is an array of bytes without a meaning."""
    if reserved := {"__metadata__", "__padding__"} & {a.name for a in arrays}:
        raise GraphError(f"library: a variable cannot be named {reserved.pop()!r}: files of states use that name")
    rows: dict[str, object] = {"__metadata__": {"library": library, "sums": SUMS}}
    at = 0
    for k in order:
        rows[arrays[k].name] = {"dtype": SAFETENSORS[arrays[k].dtype], "shape": [int(n) for n in arrays[k].shape],
                                "data_offsets": [at, at + nbytes[k]]}
        at += nbytes[k]
    if end % 8:
        rows["__padding__"] = {"dtype": "U8", "shape": [-end % 8], "data_offsets": [end, end + -end % 8]}
    text = json.dumps(rows, separators=(",", ":")).encode("ascii")
    text += b" " * (-(8 + len(text)) % ALIGN)
    return len(text).to_bytes(8, "little") + text


def sums_of(data: bytes, first: int = 0, before: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """The two sums of data in whole words, of which `first` went before it, with these sums."""
    words = np.frombuffer(data, "<u8")
    places = np.arange(first + 1, first + len(words) + 1, dtype=np.uint64)
    sums = words.sum(dtype=np.uint64), (words * places).sum(dtype=np.uint64)
    return (before[0] + int(sums[0])) % 2**64, (before[1] + int(sums[1])) % 2**64


# -- code --
def emit_state(module: Module, library: str, arrays: Sequence[Array], codes: dict[str, int]) -> list[str]:
    """Adds the functions to the module; returns their names.  `codes` are the values of the statuses."""
    _Writer(module, library, layout(library, arrays), codes).write()
    return [f"{library}_{end}" for end in ENDS]


class _Writer:
    """Writes the functions of one library."""

    def __init__(self, module: Module, library: str, places: Layout, codes: dict[str, int]) -> None:
        self.module, self.library, self.places, self.codes = module, library, places, codes
        self.f = Function(module, "")

    def write(self) -> None:
        part = PART[0] + "0" * PART[1] + PART[2] + "\0"
        for name, data in ((self.header, self.places.header), (self.part, part.encode())):
            self.module.add_global(name, f"@{name} = internal constant {bytes_literal(data)}")
        self.emit_sums()
        for end, result, parameters, body in (
                ("new", "i32", "ptr %out", self.new), ("free", "void", "ptr %state", self.free),
                ("copy", "i32", "ptr %to, ptr %from", self.copy), ("save", "i32", "ptr %state, ptr %path", self.save),
                ("load", "i32", "ptr %state, ptr %path", self.load),
                ("map", "i32", "ptr %out, ptr %path", self.map)):
            name = f"{self.library}_{end}"
            self.f = Function(self.module, f"define {result} @{name}({parameters}) #0")
            body()
            self.module.add(name, self.f.text())

    @property
    def header(self) -> str:
        return f"{self.library}__state_header"

    @property
    def part(self) -> str:
        return f"{self.library}__part"

    # -- small pieces --
    def leave(self, status: str) -> None:
        self.f.emit(f"ret i32 {self.codes[status]}")

    def leave_if(self, condition: str, status: str, before: Step | None = None) -> None:
        """Returns the status where the condition holds; `before` is what is to be given up first."""
        f, leave, after = self.f, self.f.new_label("leave"), self.f.new_label("on")
        f.branch_if(condition, leave, after)
        f.place(leave)
        if before is not None:
            before()
        self.leave(status)
        f.place(after)

    def null(self, pointer: str) -> str:
        return self.f.value(f"icmp eq ptr {pointer}, null")

    def need(self, *pointers: str) -> None:
        for pointer in pointers:
            self.leave_if(self.null(pointer), "NULL_POINTER")

    def need_aligned(self, *pointers: str) -> None:
        """Pointers to pointers: states, and where they are to be put."""
        self.need(*pointers)
        for pointer in pointers:
            low = self.f.value(f"and i64 {self.f.value(f'ptrtoint ptr {pointer} to i64')}, 7")
            self.leave_if(self.f.value(f"icmp ne i64 {low}, 0"), "MISALIGNED")

    def members(self, state: str) -> list[str]:
        """The arrays of a state, none of which may be null where it has elements."""
        f = self.f
        found = [f.value(f"load ptr, ptr {f.element('ptr', state, k)}, align 8")
                 for k in range(len(self.places.arrays))]
        for pointer, nbytes in zip(found, self.places.nbytes):
            if nbytes:
                self.leave_if(self.null(pointer), "NULL_POINTER")
        return found

    def move(self, to: str, source: str, nbytes: Int) -> None:
        self.f.call("void", "llvm.memcpy.p0.p0.i64", ("ptr", to), ("ptr", source), ("i64", nbytes), ("i1", "false"))

    # -- memory --
    def block(self, nbytes: int, before: Step | None = None) -> tuple[str, str]:
        """Zeroed memory for a state, and the struct in it."""
        f = self.f
        block = f.call("ptr", "aligned_alloc", ("i64", ALIGN), ("i64", nbytes))
        self.leave_if(self.null(block), "NO_MEMORY", before)
        f.call("void", "llvm.memset.p0.i64", ("ptr", block), ("i8", 0), ("i64", nbytes), ("i1", "false"))
        return block, f.element("i8", block, HIDDEN)

    def new(self) -> None:
        f, places = self.f, self.places
        self.need_aligned("%out")
        block, state = self.block(places.block)
        for k, (at, nbytes) in enumerate(zip(places.in_block, places.nbytes)):
            array = f.element("i8", block, at)
            f.emit(f"store ptr {array}, ptr {f.element('ptr', state, k)}, align 8")
            first = f.value(f"load ptr, ptr {f.element('ptr', f'@{self.library}_initial', k)}, align 8")
            f.when(f.value(f"icmp ne ptr {first}, null"), partial(self.move, array, first, nbytes))
        f.emit(f"store ptr {state}, ptr %out, align 8")
        self.leave("OK")

    def free(self) -> None:
        f = self.f

        def unmap(start: str, nbytes: str) -> None:
            f.call("i32", "munmap", ("ptr", start), ("i64", nbytes))

        def give_up() -> None:
            block = f.element("i8", "%state", -HIDDEN)
            start = f.value(f"load ptr, ptr {block}, align 8")
            nbytes = f.value(f"load i64, ptr {f.element('i64', block, 1)}, align 8")
            f.when(f.value(f"icmp ne ptr {start}, null"), partial(unmap, start, nbytes))
            f.call("void", "free", ("ptr", block))
        f.when(f.value("icmp ne ptr %state, null"), give_up)
        f.emit("ret void")

    def copy(self) -> None:
        self.need_aligned("%to", "%from")
        for to, source, nbytes in zip(self.members("%to"), self.members("%from"), self.places.nbytes):
            same = self.f.value(f"icmp eq ptr {to}, {source}")
            self.f.when(self.f.value(f"xor i1 {same}, true"), partial(self.move, to, source, nbytes))
        self.leave("OK")

    # -- files --
    def save(self) -> None:
        f, places = self.f, self.places
        self.need_aligned("%state")
        self.need("%path")
        arrays = self.members("%state")
        self.leave_if(self.has_other_kind(), "FILE")
        total = places.total
        length = f.call("i64", "strlen", ("ptr", "%path"))
        name = self.taken(f.add(length, PART_SIZE))
        image = self.taken(total, name)
        give_up: Step = partial(self.release, name, image)
        self.move(name, "%path", length)
        self.move(f.element("i8", name, length), f"@{self.part}", PART_SIZE)
        f.call("void", self.digits, ("i64", self.own_number(image)),
               ("ptr", f.element("i8", name, f.add(length, len(PART[0])))))
        self.move(image, f"@{self.header}", len(places.header))
        data = f.element("i8", image, len(places.header))
        if places.data:  # the padding at the end
            f.emit(f"store i64 0, ptr {f.element('i8', data, places.data - 8)}, align 8")
        for array, at, nbytes in zip(arrays, places.in_file, places.nbytes):
            self.move(f.element("i8", data, at), array, nbytes)
        f.call("void", self.sums, ("ptr", data), ("ptr", f.element("i8", image, places.sums_at)))
        file = self.open(name, CREATE)
        self.leave_if(f.value(f"icmp slt i32 {file}, 0"), "FILE", give_up)
        done = self.transfer("write", file, image, total)
        synced = f.value(f"icmp eq i32 {f.call('i32', 'fsync', ('i32', file))}, 0")
        closed = f.value(f"icmp eq i32 {f.call('i32', 'close', ('i32', file))}, 0")
        good = f.value(f"and i1 {done}, {f.value(f'and i1 {synced}, {closed}')}")

        def rename() -> list[Int]:
            return [f.value(f"icmp eq i32 {f.call('i32', 'rename', ('ptr', name), ('ptr', '%path'))}, 0")]
        whole = f.choose(good, ["i1"], rename, lambda: [0])[0]

        def remove() -> None:
            f.call("i32", "unlink", ("ptr", name))
            give_up()
        self.leave_if(f.value(f"xor i1 {whole}, true"), "FILE", remove)
        give_up()
        self.leave("OK")

    def own_number(self, block: str) -> str:
        """What no other thread or process has at the same time: 22 bits of its number, 42 of a block's address."""
        f = self.f
        process = f.value(f"zext i32 {f.call('i32', 'getpid')} to i64")
        place = f.value(f"lshr i64 {f.value(f'ptrtoint ptr {block} to i64')}, 5")  # a block has 32 bytes and more
        return f.value(f"xor i64 {f.value(f'shl i64 {process}, 42')}, {place}")

    def has_other_kind(self) -> str:
        """An i1: whether there is something at `path` that is no file, and so has no place or cannot be shortened."""
        f = self.f

        def wrong(can_write: bool, file: str) -> str:
            end = f.call("i64", "lseek", ("i32", file), ("i64", 0), ("i32", FROM_END))
            found = f.value(f"icmp slt i64 {end}, 0")
            if can_write:  # a change to the length that it has
                status = f.call("i32", "ftruncate", ("i32", file), ("i64", end))
                found = f.value(f"or i1 {found}, {f.value(f'icmp ne i32 {status}, 0')}")
            f.call("i32", "close", ("i32", file))
            return found

        def tried(flags: int, otherwise: Callable[[], Sequence[Int]]) -> Sequence[Int]:
            file = self.open("%path", flags)
            return f.choose(f.value(f"icmp sge i32 {file}, 0"), ["i1"], lambda: [wrong(flags == WRITE_ONLY, file)],
                            otherwise)
        # A pipe that nobody reads can only be opened for reading.
        return str(tried(WRITE_ONLY, lambda: tried(READ_ONLY, lambda: ["false"]))[0])

    def opened(self) -> tuple[str, Step]:
        """The file at `path` where its length is right, and what closes it."""
        f = self.f
        file = self.open("%path", READ_ONLY)
        self.leave_if(f.value(f"icmp slt i32 {file}, 0"), "FILE")
        close: Step = partial(f.call, "i32", "close", ("i32", file))
        end = f.call("i64", "lseek", ("i32", file), ("i64", 0), ("i32", FROM_END))
        self.leave_if(f.value(f"icmp ne i64 {end}, {self.places.total}"), "BAD_FILE", close)
        f.call("i64", "lseek", ("i32", file), ("i64", 0), ("i32", FROM_START))
        return file, close

    def map(self) -> None:
        f, places = self.f, self.places
        self.need_aligned("%out")
        self.need("%path")
        file, close = self.opened()
        image = f.call("ptr", "mmap", ("ptr", "null"), ("i64", places.total), ("i32", READ_WRITE), ("i32", PRIVATE),
                       ("i32", file), ("i64", 0))
        close()
        self.leave_if(f.value(f"icmp eq i64 {f.value(f'ptrtoint ptr {image} to i64')}, -1"), "NO_MEMORY")
        unmap: Step = partial(f.call, "i32", "munmap", ("ptr", image), ("i64", places.total))
        self.leave_if(self.differs(image), "BAD_FILE", unmap)
        block, state = self.block(HIDDEN + round_up(8 * len(places.arrays), ALIGN), unmap)
        f.emit(f"store ptr {image}, ptr {block}, align 8")
        f.emit(f"store i64 {places.total}, ptr {f.element('i64', block, 1)}, align 8")
        data = f.element("i8", image, len(places.header))
        for k, at in enumerate(places.in_file):
            f.emit(f"store ptr {f.element('i8', data, at)}, ptr {f.element('ptr', state, k)}, align 8")
        f.emit(f"store ptr {state}, ptr %out, align 8")
        self.leave("OK")

    def load(self) -> None:
        f, places = self.f, self.places
        self.need_aligned("%state")
        self.need("%path")
        arrays = self.members("%state")
        total = places.total
        file, close = self.opened()
        image = f.call("ptr", "malloc", ("i64", total))
        self.leave_if(self.null(image), "NO_MEMORY", close)
        done = self.transfer("read", file, image, total)
        close()
        give_up: Step = partial(self.release, image)
        self.leave_if(f.value(f"xor i1 {done}, true"), "FILE", give_up)
        self.leave_if(self.differs(image), "BAD_FILE", give_up)
        data = f.element("i8", image, len(places.header))
        for array, at, nbytes in zip(arrays, places.in_file, places.nbytes):
            self.move(array, f.element("i8", data, at), nbytes)
        give_up()
        self.leave("OK")

    def differs(self, image: str) -> str:
        """An i1: whether the header is another one, with the sums of this data in their place, or a bool is none."""
        f, places = self.f, self.places
        room = f.value(f"alloca [{len(SUMS)} x i8], align 8")
        data = f.element("i8", image, len(places.header))
        f.call("void", self.sums, ("ptr", data), ("ptr", room))
        first, last = places.sums_at, places.sums_at + len(SUMS)
        parts = [(image, f"@{self.header}", first), (f.element("i8", image, first), room, len(SUMS)),
                 (f.element("i8", image, last), f.element("i8", f"@{self.header}", last), len(places.header) - last)]
        wrong: Int = 0
        for a, b, count in parts:
            wrong = f.loop(0, count, 1, [("i8", wrong)], partial(self.unlike, a, b))[0]
        for array, at, nbytes in zip(places.arrays, places.in_file, places.nbytes):
            if array.dtype == "bool":
                start = f.element("i8", data, at)
                wrong = f.loop(0, nbytes, 1, [("i8", wrong)], partial(self.no_bool, start))[0]
        return f.value(f"icmp ne i8 {wrong}, 0")

    def byte(self, pointer: str, index: Int) -> str:
        return self.f.value(f"load i8, ptr {self.f.element('i8', pointer, index)}, align 1")

    def unlike(self, a: str, b: str, index: Int, wrong: list[str]) -> list[Int]:
        different = self.f.value(f"xor i8 {self.byte(a, index)}, {self.byte(b, index)}")
        return [self.f.value(f"or i8 {wrong[0]}, {different}")]

    def no_bool(self, pointer: str, index: Int, wrong: list[str]) -> list[Int]:
        return [self.f.value(f"or i8 {wrong[0]}, {self.f.value(f'and i8 {self.byte(pointer, index)}, -2')}")]

    def open(self, path: str, flags: int) -> str:
        # `open` takes its third argument as one of a variable number, which x86-64 calls with a count in al.
        self.f.module.declare("i32 @open(ptr, i32, ...)")
        return self.f.value(f"call i32 (ptr, i32, ...) @open(ptr {path}, i32 {flags | ALWAYS}, i32 {0o666})")

    def transfer(self, function: str, file: str, memory: str, total: int) -> str:
        """Reads or writes until all is done; an i1: whether it was."""
        f = self.f
        before, head = f.block, f.new_label("head")
        more, after = f.new_label("more"), f.new_label("done")
        f.branch(head)
        f.place(head)
        at, advanced = f.register(), f.register()
        place = len(f.lines)
        f.lines.append(None)
        f.branch_if(f.value(f"icmp ult i64 {at}, {total}"), more, after)
        f.place(more)
        count = f.call("i64", function, ("i32", file), ("ptr", f.element("i8", memory, at)),
                       ("i64", f.value(f"sub i64 {total}, {at}")))
        f.emit(f"{advanced} = add i64 {at}, {count}")
        f.branch_if(f.value(f"icmp sgt i64 {count}, 0"), head, after)
        f.lines[place] = f"  {at} = phi i64 [0, %{before}], [{advanced}, %{more}]"
        f.place(after)
        return f.value(f"icmp eq i64 {at}, {total}")

    def taken(self, nbytes: Int, *others: str) -> str:
        block = self.f.call("ptr", "malloc", ("i64", nbytes))
        self.leave_if(self.null(block), "NO_MEMORY", lambda: self.release(*others))
        return block

    def release(self, *blocks: str) -> None:
        for block in blocks:
            self.f.call("void", "free", ("ptr", block))

    # -- sums --
    @property
    def sums(self) -> str:
        return f"{self.library}__sums"

    @property
    def digits(self) -> str:
        return f"{self.library}__digits"

    def emit_sums(self) -> None:
        """`void sums(ptr data, ptr text)`: the two sums of the data as 32 digits."""
        f = Function(self.module, f"define internal void @{self.sums}(ptr %data, ptr %text) #0")

        def step(index: Int, sums: list[str]) -> list[str]:
            word = f.value(f"load i64, ptr {f.element('i64', '%data', index)}, align 1")
            term = f.value(f"mul i64 {word}, {f.value(f'add i64 {index}, 1')}")
            return [f.value(f"add i64 {sums[0]}, {word}"), f.value(f"add i64 {sums[1]}, {term}")]
        found = f.loop(0, self.places.data // 8, 1, [("i64", 0), ("i64", 0)], step)
        for k, value in enumerate(found):
            f.call("void", self.digits, ("i64", value), ("ptr", f.element("i8", "%text", 16 * k)))
        f.emit("ret void")
        self.module.add(self.sums, f.text())
        self.emit_digits()

    def emit_digits(self) -> None:
        """`void digits(i64 value, ptr text)`: the 16 digits of a number in hexadecimal."""
        f = Function(self.module, f"define internal void @{self.digits}(i64 %value, ptr %text) #0")

        def write(digit: Int, _: list[str]) -> list[Int]:
            shift = f.value(f"sub i64 60, {f.value(f'shl i64 {digit}, 2')}")
            high = f.value(f"lshr i64 %value, {shift}")
            nibble = f.value(f"trunc i64 {f.value(f'and i64 {high}, 15')} to i8")
            letter = f.value(f"icmp ugt i8 {nibble}, 9")
            base = f.value(f"select i1 {letter}, i8 {ord('a') - 10}, i8 {ord('0')}")
            f.emit(f"store i8 {f.value(f'add i8 {nibble}, {base}')}, ptr {f.element('i8', '%text', digit)}, align 1")
            return []
        f.loop(0, 16, 1, [], write)
        f.emit("ret void")
        self.module.add(self.digits, f.text())
