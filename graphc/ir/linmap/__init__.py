"""Linear maps with structure: what derivatives are made of.  See `term` for the data."""

from .compose import (NamedView, add, compose, covector, diagonal, identity, linear_map, relabel, settled, transposed,
                      vector)
from .dense import dense_node
from .local import local_maps
from .merge import merged
from .term import ZERO, LinMap, Opaque, Term, View

__all__ = ["ZERO", "LinMap", "NamedView", "Opaque", "Term", "View", "add", "compose", "covector", "dense_node",
           "diagonal", "identity", "linear_map", "local_maps", "merged", "relabel", "settled", "transposed", "vector"]
