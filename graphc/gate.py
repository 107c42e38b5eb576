"""What the calls of one session or library share: the lock of its variables, and memory that is free to use.

Native calls look at the same words (`codegen.pyruntime.GATE`).  One that finds `held` at 0 has the variables for itself
for as long as it keeps the GIL; one that gives it up takes the lock.  Arenas that no call uses are in a list, so that
calls of the same sizes reuse the same memory, whichever function they are of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import ctypes
import threading

from codegen.cache import Cache
from codegen.jit import Loaded, loaded_image
from codegen.pyobjects import call_symbols, layout_is_known
from codegen.pyruntime import GATE, Runtime, runtime
from codegen.pytype import set_words

from .arrays import aligned_array


class Gate:
    """A reentrant lock, used as `with gate:`, and arenas."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.lock = threading.RLock()
        self.acquire, self.release = self.lock.acquire, self.lock.release  # objects that native calls refer to
        self.words = (ctypes.c_int64 * len(GATE))()
        self.address = ctypes.addressof(self.words)
        self.runtime: Runtime | None = None

    def __enter__(self) -> None:
        self.lock.acquire()
        self.words[GATE["held"]] += 1  # only who has the lock writes here

    def __exit__(self, *_: object) -> None:
        self.words[GATE["held"]] -= 1
        self.lock.release()

    def opened(self) -> Runtime | None:
        """What native calls have in common; None where Python's objects are not as they expect them."""
        if self.runtime is None and layout_is_known():
            self.runtime = runtime(self.cache)
        return self.runtime

    def loaded(self, image: bytes) -> Loaded:
        """The code of a native call."""
        return loaded_image(image, call_symbols() | runtime(self.cache).addresses)

    def connect(self, instance: object, loaded: Loaded, name: str, **words: int) -> None:
        """Lets Python call the code; the instance keeps it and what its words refer to."""
        set_words(instance, gate=self.address, acquire=id(self.acquire), release=id(self.release), **words)
        set_words(instance, vectorcall=loaded.addresses[name])

    def disconnect(self, instance: object) -> None:
        """Leaves all calls to the method `slow` of the instance."""
        native = self.opened()
        if native is not None:
            set_words(instance, vectorcall=native.addresses["graphc_slow"])

    @contextmanager
    def arena(self, nbytes: int) -> Iterator[int]:
        """The address of so many bytes on a cache line."""
        native = self.opened()
        if native is None:  # the list needs a GIL
            room = aligned_array(nbytes)
            yield room.ctypes.data
            return
        address = native.take(self.address, nbytes)
        if not address:
            raise MemoryError(f"no memory for {nbytes} bytes of intermediate values")
        try:
            yield address
        finally:
            native.give(self.address, address)

    def free(self) -> None:
        """Frees the arenas that no call uses."""
        if self.runtime is not None:
            self.runtime.free(self.address)

    def __del__(self) -> None:
        self.free()
