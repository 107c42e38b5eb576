"""The C header of a compiled library: a description in, C99 text that is also C++ out.

A library `p` has, per entry `e`, `int32_t p_e(sizes..., arrays..., state, workspace)` and
`int64_t p_e_workspace_size(sizes...)`.  All memory belongs to the caller, arrays are row-major and contiguous, and
every function that can fail returns one of the codes of `STATUS`.  Every name is checked: what is no C identifier, is
reserved in C or C++, or is used twice in one scope raises GraphError.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
import re
import textwrap
import zlib

from graphc.ir.errors import GraphError

C_TYPES = {
    "float64": "double", "float32": "float", "float16": "uint16_t", "bfloat16": "uint16_t", "bool": "uint8_t",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
ELEMENT_BYTES = {"double": 8, "float": 4, **{f"{sign}int{bits}_t": bits // 8 for sign in ("", "u")
                                             for bits in (8, 16, 32, 64)}}
STORED_AS = {"float16": "float16 stored as uint16_t", "bfloat16": "bfloat16 stored as uint16_t",
             "bool": "bool stored as uint8_t, 0 or 1"}

ABI_VERSION = 2  # of all that a header declares
DIRECTIONS = ("in", "out", "state")
LONGEST = 1000  # characters of a name; files tell longer ones from damage
WORKSPACE_ALIGN = 64
WIDTH = 100

# (name, value, text): what the functions return, and what strerror says
STATUS = (
    ("OK", 0, "success"),
    ("NULL_POINTER", 1, "a pointer that is needed is NULL"),
    ("BAD_SIZE", 2, "a size is negative, too large, or does not fit the others"),
    ("MISALIGNED", 3, "a pointer is not aligned for its elements, or the workspace not to 64 bytes"),
    ("OUT_OF_RANGE", 4, "an index in an array lies outside the array that it selects from"),
    ("CPU", 5, "the library was made for a processor with more instructions than this one has"),
    ("NO_MEMORY", 6, "there is not enough memory"),
    ("FILE", 7, "a file cannot be opened, read or written"),
    ("BAD_FILE", 8, "a file is damaged, cut off, or not of this library's variables"),
)

KEYWORDS = frozenset("""
    alignas alignof and and_eq asm atomic_cancel atomic_commit atomic_noexcept auto bitand bitor bool break case catch
    char char8_t char16_t char32_t class co_await co_return co_yield compl concept const const_cast consteval constexpr
    constinit continue decltype default delete do double dynamic_cast else enum explicit export extern false float for
    friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected
    public reflexpr register reinterpret_cast requires restrict return short signed sizeof static static_assert
    static_cast struct switch synchronized template this thread_local throw true try typedef typeid typename typeof
    typeof_unqual union unsigned using virtual void volatile wchar_t while xor xor_eq
    NULL linux unix errno assert""".split())
MACROS = frozenset("""
    BUFSIZ DOMAIN EOF FALSE HUGE HUGE_VAL I IN INFINITY M_E M_PI NAN OPTIONAL OUT OVERFLOW PI RAND_MAX TRUE UNDERFLOW
    complex far huge imaginary interface near pascal small stderr stdin stdout""".split())  # of other headers
STDINT = re.compile(r"u?int(_least|_fast)?(8|16|32|64)_t|u?int(ptr|max)_t|size_t|"
                    r"U?INT(_LEAST|_FAST)?(8|16|32|64|PTR|MAX)?_(MAX|MIN|C)|U?INT(8|16|32|64|MAX)_C|"
                    r"(SIZE|PTRDIFF|SIG_ATOMIC|WCHAR|WINT)_(MAX|MIN)")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DIM_NODES = (ast.Expression, ast.BinOp, ast.Constant, ast.Name, ast.Load, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv)


@dataclass(frozen=True)
class CArgument:
    """An array of an entry, or a variable of the state; `shape` has numbers, or sizes written with the entry's dims."""

    name: str
    ctype: str
    shape: tuple[int | str, ...]
    direction: str
    dtype: str
    comment: str = ""


@dataclass(frozen=True)
class CPattern:
    """Which entries of a matrix the output `name` has, in CSR form: row r has those from indptr[r] to indptr[r + 1]."""

    name: str
    shape: tuple[int, int]
    indptr: tuple[int, ...]
    indices: tuple[int, ...]


@dataclass(frozen=True)
class CFunction:
    """An entry; `arguments` of direction "state" say which variables of the library it uses."""

    name: str
    dims: tuple[str, ...]
    arguments: tuple[CArgument, ...]
    comment: str = ""
    patterns: tuple[CPattern, ...] = ()
    sizes: Mapping[str, str] = field(default_factory=dict)  # what is said of the dims


@dataclass(frozen=True)
class CLibrary:
    """The library; its name is the prefix of all that the header declares."""

    name: str
    functions: tuple[CFunction, ...]
    state: tuple[CArgument, ...] = ()
    comment: str = ""
    abi_version: int = ABI_VERSION
    has_files: bool = True  # functions that make, copy, save and load a state, for which it needs libc

    @property
    def interface(self) -> int:
        """A number of all that callers must know: functions, arguments with dtypes and shapes, patterns, the state."""
        rows = [f"{f.name} {f.dims} {[_known_of(item) for item in f.arguments]} {f.patterns}" for f in self.functions]
        text = f"{self.abi_version} {self.has_files} {rows} {[_known_of(item) for item in self.state]}"
        return zlib.crc32(text.encode()) & 0x7FFFFFFF


def _known_of(item: CArgument) -> tuple[object, ...]:
    return item.name, item.dtype, item.shape, item.direction


def c_argument(name: str, dtype: str, shape: Sequence[int | str], direction: str, comment: str = "") -> CArgument:
    """An argument with the C type that belongs to its dtype."""
    if dtype not in C_TYPES:
        raise GraphError(f"header: {name!r}: no C type for dtype {dtype!r}")
    return CArgument(name, C_TYPES[dtype], tuple(shape), direction, dtype, comment)


# -- the text --

def header_text(library: CLibrary) -> str:
    """The header; raises GraphError for names and types that C cannot have."""
    check(library)
    prefix, guard = library.name, f"{library.name.upper()}_H"
    blocks = [_block_comment([library.comment or f"Library {library.name}.", GENERAL]),
              f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n"
              f"#define {prefix.upper()}_ABI_VERSION {library.abi_version}\n"
              f"#define {prefix.upper()}_INTERFACE {library.interface}\n\n"
              '#ifdef __cplusplus\nextern "C" {\n#endif',
              _status_text(prefix)]
    if library.state:
        blocks.append(_state_text(library))
    blocks += [_function_text(library, function) for function in library.functions]
    blocks.append(f'#ifdef __cplusplus\n}}\n#endif\n\n#endif /* {guard} */')
    return "\n\n".join(blocks) + "\n"


GENERAL = ("All arrays belong to the caller, are contiguous and row-major, and must be aligned for their elements. "
           "Outputs and the arrays of a state must not overlap inputs or one another. The functions keep nothing "
           "between calls: different threads may call them at the same time with different outputs, states and "
           "workspaces.")


def _status_text(prefix: str) -> str:
    upper = prefix.upper()
    rows = "\n".join(f"    {upper}_{name} = {value}{',' if (name, value, text) != STATUS[-1] else ''}"
                     f" /* {_plain(text)} */" for name, value, text in STATUS)
    return "\n\n".join((
        f"/* What the functions return. */\nenum {prefix}_status {{\n{rows}\n}};",
        f"/* The meaning of a status, in English; never NULL. */\nconst char *{prefix}_strerror(int32_t status);",
        _block_comment([f"The ABI version that the library was made with: compare with {upper}_ABI_VERSION."])
        + f"\nint32_t {prefix}_abi_version(void);",
        _block_comment([f"A number of all that this header declares, its arrays with their shapes included: compare "
                        f"with {upper}_INTERFACE. Where they differ, the library is of another header."])
        + f"\nint32_t {prefix}_interface(void);",
        _block_comment([f"Whether this processor can run the library: {upper}_OK or {upper}_CPU."])
        + f"\nint32_t {prefix}_check_cpu(void);"))


def _state_text(library: CLibrary) -> str:
    members = "\n".join(f"{_member_comment(item)}\n    {item.ctype} *{item.name};" for item in library.state)
    origin = f"of the caller, of {library.name}_new or {library.name}_map" if library.has_files else "of the caller"
    head = _block_comment([f"The variables: each member points to an array {origin}. Entries that take the state "
                           "read these arrays, and update those that they say they update."])
    functions = [_state_function(library, *row) for row in STATE_FUNCTIONS] if library.has_files else []
    return "\n\n".join([f"{head}\nstruct {library.name}_state {{\n{members}\n}};", *functions])


STATE_FUNCTIONS = (  # result, last part of the name, parameters, comment; P is the library's name
    ("int32_t", "new", ("struct P_state **state",),
     "A new state with the variables' first values, zeros where there are none; all of it is one block of memory."),
    ("void", "free", ("struct P_state *state",), "Gives up what P_new or P_map made; NULL is allowed."),
    ("int32_t", "copy", ("const struct P_state *to", "const struct P_state *from"),
     "Copies the values of all variables."),
    ("int32_t", "save", ("const struct P_state *state", "const char *path"),
     "Writes all variables to a file in the safetensors format. It is written under a name of its own first, the path "
     "with 16 digits and .part after it, so the path has the old file or the new one and nothing between. A symbolic "
     "link is replaced; a device or a pipe is refused."),
    ("int32_t", "load", ("const struct P_state *state", "const char *path"),
     "Reads what P_save wrote, of this library or another one with the same name and variables. A file that is "
     "damaged, cut off or of other variables is refused before any variable changes."),
    ("int32_t", "map", ("struct P_state **state", "const char *path"),
     "A new state whose arrays are the pages of a file that P_save wrote: nothing is copied. What is changed in it "
     "stays in memory; the file must not change while the state is in use."),
)


def _state_function(library: CLibrary, result: str, end: str, parameters: Sequence[str], comment: str) -> str:
    named = [text.replace("P_", f"{library.name}_") for text in (comment, *parameters)]
    return f"{_block_comment([named[0]])}\n{_prototype(result, f'{library.name}_{end}', named[1:])}"


def _member_comment(item: CArgument) -> str:
    text = f"{_plain(_described(item))}; {_nbytes(item)} bytes */"
    return "\n".join(textwrap.wrap(text, WIDTH, initial_indent="    /* ", subsequent_indent="     * "))


def _nbytes(item: CArgument) -> int:
    return prod(int(dim) for dim in item.shape) * ELEMENT_BYTES[item.ctype]


def _function_text(library: CLibrary, function: CFunction) -> str:
    name, sizes = f"{library.name}_{function.name}", [f"int64_t {dim}" for dim in function.dims]
    size = _prototype("int64_t", f"{name}_workspace_size", sizes)
    call = _prototype("int32_t", name, _parameters(library, function))
    lines = [function.comment or f"Computes {function.name}.", *_argument_lines(library, function),
             f"Returns {library.name.upper()}_OK (0), or the reason why nothing was computed."]
    before = _block_comment([f"Bytes of workspace that {name} needs for these sizes; -1 where a size is not valid."])
    return "\n\n".join([f"{before}\n{size}", f"{_block_comment(lines)}\n{call}",
                        *(_pattern_text(name, pattern) for pattern in function.patterns)])


def _pattern_text(function: str, pattern: CPattern) -> str:
    """The pattern of a sparse output, as constants that a compiler can see through."""
    name, (rows, columns) = f"{function}_{pattern.name}", pattern.shape
    kind = "int32_t" if max(*pattern.shape, len(pattern.indices)) < 2**31 else "int64_t"
    head = _block_comment([f"{pattern.name} of {function} has the entries of a matrix of {rows} rows and {columns} "
                           f"columns, in CSR form: entry k of row r is in column {name}_indices[k], for k from "
                           f"{name}_indptr[r] to {name}_indptr[r + 1] - 1."])
    lines = [f"#define {name.upper()}_ROWS {rows}", f"#define {name.upper()}_COLUMNS {columns}",
             f"#define {name.upper()}_ENTRIES {len(pattern.indices)}"]
    return "\n".join([head, *lines, _numbers(kind, f"{name}_indptr", pattern.indptr),
                      _numbers(kind, f"{name}_indices", pattern.indices)])


def _numbers(kind: str, name: str, values: Sequence[int]) -> str:
    """An array of constants; C has none without elements."""
    shown = textwrap.fill(", ".join(map(str, values or (0,))), WIDTH, initial_indent="    ", subsequent_indent="    ")
    return f"static const {kind} {name}[{len(values) or 1}] = {{\n{shown}\n}};"


def _argument_lines(library: CLibrary, function: CFunction) -> list[str]:
    lines = [f"- {dim}: size, at least 0{'; ' + text if (text := function.sizes.get(dim, '')) else ''}"
             for dim in function.dims]
    lines += [f"- {item.name} ({item.direction}): {_described(item)}" for item in function.arguments
              if item.direction != "state"]
    if used := [item.name for item in function.arguments if item.direction == "state"]:
        lines.append(f"- state: the variables, of which it uses {', '.join(used)}")
    size = f"{library.name}_{function.name}_workspace_size({', '.join(function.dims)})"
    lines.append(f"- workspace: {size} bytes, aligned to {WORKSPACE_ALIGN}; may be NULL where that is 0")
    return lines


def _described(item: CArgument) -> str:
    kind = STORED_AS.get(item.dtype, item.dtype)
    shape = f"[{', '.join(str(dim) for dim in item.shape)}] row-major" if item.shape else "one element"
    return f"{kind}, {shape}{'; ' + item.comment if item.comment else ''}"


def _parameters(library: CLibrary, function: CFunction) -> list[str]:
    listed = [f"int64_t {dim}" for dim in function.dims]
    listed += [f"{'const ' if item.direction == 'in' else ''}{item.ctype} *{item.name}"
               for item in function.arguments if item.direction != "state"]
    if any(item.direction == "state" for item in function.arguments):
        # The struct itself is never written, only what its members point to.
        listed.append(f"const struct {library.name}_state *state")
    return [*listed, "void *workspace"]


def _prototype(result: str, name: str, parameters: Sequence[str]) -> str:
    head = f"{result} {name}("
    # Lines break between parameters, not inside one: textwrap does not break at no-break spaces.
    listed = ", ".join(parameter.replace(" ", "\xa0") for parameter in parameters) or "void"
    lines = textwrap.wrap(f"{head}{listed});", WIDTH, break_long_words=False, break_on_hyphens=False,
                          subsequent_indent=" " * min(len(head), WIDTH // 2))
    return "\n".join(lines).replace("\xa0", " ")


def _plain(text: str) -> str:
    """Text that can stand in a C comment: no comment marks, trigraphs, control or bidirectional characters."""
    text = " ".join(text.split()).encode("ascii", "backslashreplace").decode()
    text = "".join(c if c.isprintable() else "?" for c in text)
    for mark in ("*/", "/*", "??"):
        while mark in text:
            text = text.replace(mark, f"{mark[0]} {mark[1]}")
    return text


def _block_comment(paragraphs: Iterable[str]) -> str:
    lines = []
    for paragraph in paragraphs:
        indent = "   " if paragraph.startswith("- ") else " "
        lines += textwrap.wrap(_plain(paragraph), WIDTH - 4, initial_indent=" ", subsequent_indent=indent)
    return "/*\n" + "\n".join(f" *{line}" for line in lines) + "\n */"


# -- the checks --

def check(library: CLibrary) -> None:
    """Raises GraphError where the description cannot become C."""
    prefix = library.name
    _check_identifier(prefix, "library", macros=())
    macros = [f"{prefix.upper()}_H", f"{prefix.upper()}_ABI_VERSION", f"{prefix.upper()}_INTERFACE",
              *(f"{prefix}_{f.name}_{p.name}_{end}".upper() for f in library.functions for p in f.patterns
                for end in ("rows", "columns", "entries"))]
    names = [f"{prefix}_{last}" for last in ("strerror", "abi_version", "interface", "check_cpu", "status", "state",
                                            "metadata", "initial", "weights")]
    names += [f"{prefix}_{end}" for _, end, _, _ in STATE_FUNCTIONS if library.state and library.has_files]
    names += [*macros, *(f"{prefix.upper()}_{name}" for name, _, _ in STATUS)]
    for function in library.functions:
        _check_identifier(f"{prefix}_{function.name}", f"{prefix}: function", macros=())
        names += [f"{prefix}_{function.name}", f"{prefix}_{function.name}_workspace_size"]
        names += [f"{prefix}_{function.name}_{p.name}_{end}" for p in function.patterns
                  for end in ("indptr", "indices")]
    _check_distinct(names, f"library {prefix}")
    for item in library.state:
        _check_argument(item, f"{prefix}: state", dims=(), macros=macros)
        if item.direction != "state":
            raise GraphError(f"header: {prefix}: state: {item.name!r} has direction {item.direction!r}")
    _check_distinct([item.name for item in library.state], f"state of {prefix}")
    for function in library.functions:
        _check_function(library, function, macros)


def _check_function(library: CLibrary, function: CFunction, macros: Sequence[str]) -> None:
    where = f"{library.name}_{function.name}"
    variables = {item.name: item for item in library.state}
    for dim in function.dims:
        _check_identifier(dim, f"{where}: size", macros=(*macros, *MACROS))
    for item in function.arguments:
        _check_argument(item, where, dims=function.dims, macros=macros)
        if item.direction == "state":
            known = variables.get(item.name)
            if known is None or (known.dtype, known.shape) != (item.dtype, item.shape):
                there = f"{known.dtype}{list(known.shape)}" if known else "no such variable"
                raise GraphError(f"header: {where}: uses state {item.name!r} of {item.dtype}{list(item.shape)}; "
                                 f"the library has {there}")
    arrays = [item.name for item in function.arguments if item.direction != "state"]
    _check_distinct([*function.dims, *arrays, "state", "workspace"], where)
    _check_distinct([item.name for item in function.arguments if item.direction == "state"], f"state used by {where}")


def _check_argument(item: CArgument, where: str, *, dims: Sequence[str], macros: Sequence[str]) -> None:
    _check_identifier(item.name, f"{where}: argument", macros=(*macros, *MACROS))
    if item.direction not in DIRECTIONS:
        raise GraphError(f"header: {where}: {item.name!r}: direction {item.direction!r}, expected one of {DIRECTIONS}")
    if C_TYPES.get(item.dtype) != item.ctype:
        raise GraphError(f"header: {where}: {item.name!r}: dtype {item.dtype!r} is {C_TYPES.get(item.dtype)!r} in C, "
                         f"not {item.ctype!r}")
    for dim in item.shape:
        if not (dim >= 0 if isinstance(dim, int) else _is_size(dim, dims)):
            raise GraphError(f"header: {where}: {item.name!r}: size {dim!r} of shape {item.shape} is neither a number "
                             f"nor made of the sizes {tuple(dims)}")


def _is_size(text: str, dims: Sequence[str]) -> bool:
    """Whether the text is made of these sizes and of numbers by + - * //."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError):
        return False
    return all(isinstance(node, DIM_NODES) and (not isinstance(node, ast.Name) or node.id in dims)
               and (not isinstance(node, ast.Constant) or type(node.value) is int) for node in nodes)


def _check_identifier(name: str, where: str, *, macros: Sequence[str]) -> None:
    if len(name) > LONGEST:
        raise GraphError(f"header: {where} {name[:40] + '..'!r} has {len(name)} characters, more than {LONGEST}")
    if not IDENTIFIER.fullmatch(name):
        raise GraphError(f"header: {where} {name!r} is no C identifier")
    if name in KEYWORDS or STDINT.fullmatch(name) or name in macros:
        raise GraphError(f"header: {where} {name!r} is a word of C, C++ or <stdint.h>")
    if name.startswith("_") or "__" in name or name.endswith("_"):
        raise GraphError(f"header: {where} {name!r} is reserved in C++ (underscore first or last, or two together)")


def _check_distinct(names: Sequence[str], where: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise GraphError(f"header: {where}: used twice: {', '.join(map(repr, twice))}")
