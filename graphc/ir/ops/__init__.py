"""The op table, one module per family; importing this package fills `graphc.ir.node.OPS`."""

from . import choices, contractions, elementwise, indexing, leaves, movement, reductions, scans, user

__all__ = ["choices", "contractions", "elementwise", "indexing", "leaves", "movement", "reductions", "scans", "user"]
