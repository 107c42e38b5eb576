"""What a compiled function needs of the session that made it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from .config import Options
from .ir.node import Node


class Home(Protocol):
    """Where variables have their values."""

    is_closed: bool
    lock: Any
    options: Options

    def check_open(self) -> None: ...
    def storage(self, name: str) -> np.ndarray[Any, Any]: ...
    def store(self, variable: Node, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]: ...
