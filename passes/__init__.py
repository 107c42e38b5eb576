"""Graph -> graph, and graph -> plan: simplify, stabilise, fold, differentiate, fuse, schedule, memory."""

import graphc.ir  # noqa: F401  (first: `graphc` itself imports this package)
