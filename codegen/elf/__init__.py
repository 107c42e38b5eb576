"""Our own linker: relocatable ELF64 objects for x86-64 and aarch64 into a shared object, without any tool."""

from .link import Blob, link, write_library
from .read import LinkError

__all__ = ["Blob", "LinkError", "link", "write_library"]
