"""Plan -> text of LLVM IR -> machine code, object files, shared objects, C headers."""

import graphc.ir  # noqa: F401  (first: `graphc` itself imports this package)
