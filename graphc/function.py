"""A compiled function: arrays in, arrays out, variables changed in place, all in one native call.

    step = sess.function([x, t], loss, updates=...)
    step(xs, ts)                 new result arrays
    step(xs, ts, out=buffer)     no allocation

A call whose arguments are plain arrays goes through one native function that checks, allocates and computes
(`codegen.pycall`).  For all others, for the first call, and where Python's objects are not as that function expects
them, the slow path converts the arguments or says what is wrong with them; it means the same.

Calls from several threads are in order: a function that uses variables holds its session's lock, and every call has an
arena of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import ctypes
from typing import Any

import numpy as np

from codegen.pycall import load_call
from codegen.pyobjects import layout_is_known

from .arrays import aligned_array, pointers
from .binding import as_array, bind_sizes, check_out
from .compiler import Compiled
from .home import Home
from .ir.dims import evaluate
from .ir.errors import FeedError, GraphError, SessionError
from .ir.plan import Array, Program
from .ir.types import from_storage, storage_dtype

Arrays = list[np.ndarray[Any, Any]]


class Function:
    """Callable with one argument per input, in order.  Made by `Session.function`."""

    def __init__(self, session: Home, compiled: Compiled, single: bool, where: Callable[[int], str]) -> None:
        self.session = session
        self.compiled = compiled
        self.border = compiled.border
        self.single = single
        self.where = where
        self.state = [session.storage(a.name) for a in self.border.state]
        self.state_pointers = pointers(self.state)
        self.entry: Any = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4,
                                           *[ctypes.c_int64] * len(self.border.symbols))(compiled.address)
        self.arenas: list[np.ndarray[Any, Any]] = []
        self.count = len(self.border.inputs)
        self.converts = any(storage_dtype(a.dtype).name != a.dtype for a in self.border.outputs)
        self.warm = False  # whether it was called before: the native function is made for the second call
        self.made: Callable[..., Any] | None = None
        self.direct: Callable[..., Any] | None = None

    @property
    def program(self) -> Program:
        """The steps that it runs, for those who want to look at them."""
        return self.compiled.program

    @property
    def fast(self) -> Callable[..., Any] | None:
        """The native function, None where Python's objects are not as it expects them."""
        if self.made is None and layout_is_known():
            self.made = self.native_call()
        self.warm = True
        return self.made

    def native_call(self) -> Callable[..., Any]:
        made = load_call(self.compiled.call_image(self.single), self.border.name, self.compiled.loaded,
                         ctypes.addressof(self.state_pointers), (self.compiled, self.state, self.state_pointers))
        if not self.state and not self.converts:
            self.direct = made  # nothing stands between its results and the user's
        return made

    def __repr__(self) -> str:
        inputs = ", ".join(f"{a.name}: {a.dtype}[{', '.join(map(str, a.shape))}]" for a in self.border.inputs)
        return f"<graphc function {self.border.name}({inputs})>"

    def __call__(self, *args: Any, out: Any = None) -> Any:
        """Runs once.  `out` is an array, or a list of arrays where there are several outputs.

        Raises FeedError, ShapeError, DTypeError for arguments that do not fit, GraphError for an index out of range.
        """
        direct = self.direct
        if direct is not None and len(args) == self.count and not self.session.is_closed:
            if out is None:
                result = direct(*args)
                if result is not None and type(result) is not int:
                    return result
            elif self.single:
                if direct(*args, out) == 0:
                    return out
            elif type(out) is list and direct(*args, *out) == 0:
                return out
        return self.any_call(args, out)

    def any_call(self, args: Sequence[Any], out: Any) -> Any:
        """The same for any arguments: natively where the native function takes them."""
        if self.session.is_closed:
            raise closed("Session")
        if not self.warm:
            self.warm = True
            return self.slow_call(args, out)
        result, fast = None, self.fast
        if fast is not None and len(args) == self.count:
            if out is None:
                result = self.in_order(fast, args)
            elif self.single:
                result = self.in_order(fast, (*args, out))
            elif type(out) in (list, tuple) and len(out) == len(self.border.outputs):
                result = self.in_order(fast, (*args, *out))
        if result is None:
            return self.slow_call(args, out)
        if type(result) is int:
            return self.checked(result, out)
        return self.converted(result) if self.converts else result

    def in_order(self, call: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """One call; those that use variables wait for one another."""
        if not self.state:
            return call(*arguments)
        with self.session.lock:
            return call(*arguments)

    def slow_call(self, args: Sequence[Any], out: Any) -> Any:
        """The same by conversion, or an error that says what is wrong."""
        program = self.border
        if len(args) != self.count:
            raise FeedError(f"{self!r}: expected {self.count} arguments, got {len(args)}")
        inputs = [as_array(spec, value, lambda k=k: self.where(k))  # type: ignore[misc]
                  for k, (spec, value) in enumerate(zip(program.inputs, args))]
        sizes = bind_sizes(program.inputs, [a.shape for a in inputs], program.checks, self.where)
        outputs = output_arrays(program.outputs, self.single, out, sizes, inputs, self.state)
        self.run(inputs, outputs, sizes)
        if out is not None:
            return out
        results = [shown(a, spec) for a, spec in zip(outputs, program.outputs)]
        return results[0] if self.single else results

    def checked(self, status: int, out: Any) -> Any:
        if status:
            raise GraphError(self.border.messages[status - 1])
        return out

    def converted(self, result: Any) -> Any:
        """What the native function returned, in the dtypes that Python sees."""
        arrays = [result] if self.single else result
        results = [shown(a, spec) if isinstance(a, np.ndarray) else a for a, spec in zip(arrays, self.border.outputs)]
        return results[0] if self.single else results

    def run(self, inputs: Arrays, outputs: Arrays, sizes: dict[str, int]) -> None:
        arena = self.take_arena(evaluate(self.border.arena, sizes))
        arguments = (pointers(inputs), pointers(outputs), self.state_pointers, arena.ctypes.data,
                     *(sizes[s] for s in self.border.symbols))
        if self.state:
            with self.session.lock:
                status = self.entry(*arguments)
        else:
            status = self.entry(*arguments)
        self.arenas.append(arena)
        self.checked(status, None)

    def take_arena(self, nbytes: int) -> np.ndarray[Any, Any]:
        """An arena of at least so many bytes; given back by appending it to `arenas`."""
        try:
            arena = self.arenas.pop()
        except IndexError:
            return aligned_array(nbytes)
        return arena if arena.nbytes >= nbytes else aligned_array(nbytes)


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


def closed(name: str) -> SessionError:
    return SessionError(f"{name}: the session is closed; open another with gc.Session()")
