"""Types whose instances Python calls without any code between: instances hold the address of their native function.

    Python class `base`  <-  heap type of the same name, with room for WORDS behind the fields of `base`

The first word is the `vectorcall` function, `ptr f(ptr self, ptr args, i64 nargs, ptr kwnames)`, see PEP 590; the
others are what an emitted call needs.  The type is made through the C API (PyType_FromSpecWithBases), because a class
statement cannot ask for vectorcall; attributes, methods and `__init__` are those of `base`.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from .pyobjects import OBJECT, P, layout_is_known, python_address, python_api

# entry, arena: native code.  state: table of variables.  gate: see `pyruntime`.  acquire, release: methods of its lock.
NAMES = ("vectorcall", "entry", "arena", "state", "gate", "acquire", "release")
WORDS = {name: place for place, name in enumerate(NAMES)}
HAVE_VECTORCALL, DEFAULT = 1 << 11, 1 << 18  # of tp_flags
TP_CALL, TP_MEMBERS = 50, 72
READONLY_SIZE = (19, 1)  # T_PYSSIZET, READONLY


class Plain:
    """Stands for every class without slots."""


WORDS_AT = Plain.__basicsize__  # bytes from the start of an instance to its words


class Slot(ctypes.Structure):
    _fields_ = [("slot", ctypes.c_int), ("value", P)]


class Member(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("type", ctypes.c_int), ("offset", ctypes.c_ssize_t),
                ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)]


class Spec(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("basicsize", ctypes.c_int), ("itemsize", ctypes.c_int),
                ("flags", ctypes.c_uint), ("slots", P)]


def callable_type(base: Any) -> Any:
    """The type to make instances of; `base` itself where objects are not as emitted calls expect them."""
    return made_type(base)


@cache
def made_type(base: Any) -> Any:
    if not layout_is_known() or base.__basicsize__ != WORDS_AT:
        return base
    kind, flags = READONLY_SIZE
    members = (Member * 2)(Member(b"__vectorcalloffset__", kind, WORDS_AT, flags, None))
    slots = (Slot * 3)(Slot(TP_MEMBERS, ctypes.addressof(members)), Slot(TP_CALL, python_address("PyVectorcall_Call")))
    spec = Spec(f"{base.__module__}.{base.__qualname__}".encode(), WORDS_AT + 8 * len(WORDS), 0,
                DEFAULT | HAVE_VECTORCALL, ctypes.addressof(slots))
    made: Any = python_api("PyType_FromSpecWithBases", OBJECT, P, OBJECT)(ctypes.addressof(spec), (base,))
    made.__doc__ = base.__doc__
    return made


def set_words(instance: object, **words: int) -> None:
    """Writes words of an instance of such a type."""
    table = (ctypes.c_int64 * len(WORDS)).from_address(id(instance) + WORDS_AT)
    for name, value in words.items():
        table[WORDS[name]] = value
