"""A compiled function: arrays in, arrays out, variables changed in place, all in one native call.

    step = sess.function([x, t], loss, updates=...)
    step(xs, ts)                 new result arrays
    step(xs, ts, out=buffer)     no allocation

Python calls native code directly, which checks the arguments, makes the results and computes (`codegen.pycall`).  For
arguments that are not plain arrays or numbers, for the first call, and where Python's objects are not as that code
expects them, the slow path converts the arguments or says what is wrong with them; it means the same.

Calls from several threads are in order: one that uses variables has them for itself, and every call has memory of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
import ctypes
from typing import Any

import numpy as np

from codegen.jit import Loaded
from codegen.pytype import callable_type

from .arrays import pointers
from .binding import as_array, bind_sizes, check_out
from .compiler import Compiled
from .home import Home
from .ir.dims import evaluate
from .ir.errors import FeedError, GraphError
from .ir.memory import Memory
from .ir.plan import Array, Program
from .ir.types import from_storage, storage_dtype
from .lowlevel import low_level_callable

Arrays = list[np.ndarray[Any, Any]]


class Function:
    """Callable with one argument per input, in order.  Made by `Session.function`."""

    def __new__(cls, *_: Any) -> Function:
        made: Function = object.__new__(callable_type(cls))
        return made

    def __init__(self, home: Home, compiled: Compiled, single: bool, where: Callable[[int], str]) -> None:
        self.home = home
        self.compiled = compiled
        self.border = compiled.border
        self.single = single
        self.where = where
        self.state = [home.storage(a.name) for a in self.border.state]
        self.state_pointers = pointers(self.state)
        self.entry: Any = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4,
                                           *[ctypes.c_int64] * len(self.border.symbols))(compiled.address)
        self.warm = False  # whether it was called before: the native call is made for the second one
        self.native: Loaded | None = None  # the code of the native call
        self.__name__ = self.border.name
        self.__doc__ = call_line(self.border.name, self.border.inputs, self.border.outputs)
        self.disconnect()
        home.functions.add(self)

    @property
    def program(self) -> Program:
        """The steps that it runs, for those who want to look at them."""
        return self.compiled.program

    @property
    def memory(self) -> Memory:
        """The bytes that a call needs, by their place, known before it runs; `memory.at(batch=64)` for symbolic sizes.

        Example::

            >>> import graphc as gc
            >>> with gc.Graph():
            ...     x = gc.placeholder("float32", ("n", 4), name="x")
            ...     gc.Session().function([x], gc.nn.softmax(x)).memory.at(n=10)
            Memory(inputs=160, outputs=160, state=0, constants=0, arena=0)
        """
        return self.compiled.memory

    def __repr__(self) -> str:
        return f"<graphc function {self.__doc__}>"

    def __call__(self, *args: Any, out: Any = None) -> Any:
        """Runs once.  `out` is an array, or a list or tuple of arrays where there are several outputs.

        Raises FeedError, ShapeError, DTypeError for arguments that do not fit, GraphError for an index out of range.
        """
        return self.slow(*args, out=out)  # native types of this class do not come here

    # -- for C --
    @property
    def address(self) -> int:
        """The native function: `int f(void **inputs, void **outputs, void **state, void *arena, int64_t size..)`."""
        return self.compiled.address

    def as_low_level_callable(self, *bound: Any, kind: str | None = None) -> Any:
        """A `scipy.LowLevelCallable` of the first inputs; `bound` are the arrays of the last ones.

        kind: "scalar", "vector" (both for `scipy.integrate`) or "filter" (`scipy.ndimage.generic_filter`); the one of
        the first two that fits where it is not given.  Raises GraphError where the function does not fit.
        """
        return low_level_callable(self.compiled, self.state_pointers, kind, bound)

    # -- the native call --
    def connect(self) -> None:
        """Makes the native call, if there can be one."""
        gate = self.home.lock
        with gate.lock:
            if self.native is None and gate.opened() is not None:
                self.native = gate.loaded(self.compiled.call_image(self.single))
                gate.connect(self, self.native, self.compiled.call_name, entry=self.compiled.address,
                             arena=self.compiled.arena_function, state=ctypes.addressof(self.state_pointers))

    def disconnect(self) -> None:
        """Leaves all calls to the method `slow`."""
        self.home.lock.disconnect(self)

    def __del__(self) -> None:
        self.disconnect()  # objects that go away with this one may still call it

    # -- what native calls leave to Python --
    def slow(self, *args: Any, out: Any = None) -> Any:
        """The same as a call, by conversion, or an error that says what is wrong."""
        self.home.check_open()
        if self.warm and self.native is None:
            self.connect()
            if self.native is not None:
                return self(*args, out=out)
        self.warm = True
        border = self.border
        if len(args) != len(border.inputs):
            raise FeedError(f"{self!r}: expected {len(border.inputs)} arguments, got {len(args)}")
        inputs = [as_array(spec, value, lambda k=k: self.where(k))  # type: ignore[misc]
                  for k, (spec, value) in enumerate(zip(border.inputs, args))]
        sizes = bind_sizes(border.inputs, [a.shape for a in inputs], border.checks, self.where)
        outputs = output_arrays(border.outputs, self.single, out, sizes, inputs, self.state)
        self.run(inputs, outputs, sizes)
        return out if out is not None else shown_results(outputs, border.outputs, self.single)

    def refused(self, status: int) -> None:
        """Raises what a status of the native code means."""
        raise GraphError(self.border.messages[status - 1])

    def converted(self, results: Any) -> Any:
        """New results of the native call, in the dtypes that Python sees."""
        return shown_results([results] if self.single else results, self.border.outputs, self.single)

    def run(self, inputs: Arrays, outputs: Arrays, sizes: dict[str, int]) -> None:
        with self.home.lock.arena(self.compiled.arena_bytes(sizes)) as arena, \
                self.home.lock if self.state else nullcontext():
            status = self.entry(pointers(inputs), pointers(outputs), self.state_pointers, arena,
                                *(sizes[s] for s in self.border.symbols))
        if status:
            self.refused(status)


def output_arrays(specs: Sequence[Array], single: bool, out: Any, sizes: Mapping[str, int], inputs: Arrays,
                  state: Sequence[np.ndarray[Any, Any]]) -> Arrays:
    """New arrays, or the caller's after a check; inputs that share memory with those are replaced by copies."""
    shapes = [tuple(evaluate(size, sizes) for size in spec.shape) for spec in specs]
    if out is None:
        return [np.empty(shape, storage_dtype(spec.dtype)) for spec, shape in zip(specs, shapes)]
    given = [out] if single else list(out)
    if len(given) != len(shapes):
        raise FeedError(f"out: expected {len(shapes)} arrays, got {len(given)}")
    for spec, array, shape in zip(specs, given, shapes):
        check_out(spec, array, shape)
    for k, array in enumerate(given):
        if any(np.may_share_memory(array, other) for other in [*given[:k], *state]):
            raise FeedError("out: a buffer shares memory with another one or with a variable")
        for position, value in enumerate(inputs):
            if np.may_share_memory(array, value):
                inputs[position] = value.copy()
    return given


def shown(array: np.ndarray[Any, Any], spec: Array) -> Any:
    """A result as the user gets it: a NumPy scalar where the rank is 0."""
    return from_storage(array, spec.dtype)[()]


def shown_results(arrays: Sequence[Any], specs: Sequence[Array], single: bool) -> Any:
    """The same for all results."""
    results = [shown(np.asarray(a), spec) for a, spec in zip(arrays, specs)]
    return results[0] if single else results


def call_line(name: str, inputs: Sequence[Array], outputs: Sequence[Array]) -> str:
    """How it is called, and what comes out."""
    given, found = (", ".join(f"{a.name}: {a.dtype}[{', '.join(map(str, a.shape))}]" for a in arrays)
                    for arrays in (inputs, outputs))
    return f"{name}({given}) -> {found or 'nothing'}"
