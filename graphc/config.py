"""The switches: one table, read by every part that can be steered.

A row has a name (the keyword of `Session`, `compile_library` and `Options.of`), an environment variable, a default
written as in the environment, the values it takes, and a parser.  A value given by the caller wins over the
environment, which wins over the default; all go through the same parser, so "2" and 2 mean the same everywhere.

    Options.of(threads=2)                   # GRAPHC_MODE=check in the environment
    -> Options(threads=2, target="native", ..., mode="check", ...)

Invariants
1. An `Options` made by `of` holds parsed values only; no reader checks them again.
2. An environment variable set to nothing, and a given None, count as not set.
3. Names that only another part can judge (a target, a pass) are taken as they are, and that part rejects them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
import os
import re
from typing import Any, NamedTuple

from graphc.ir.errors import GraphError

PREFIX = "GRAPHC_"
MODES = ("native", "reference", "check")
WORDS = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
CACHE_NBYTES = 2**30
MAX_THREADS = 1024


@dataclass(frozen=True)
class Switch:
    """A row of the table.  `parse` raises ValueError on what it does not take."""

    name: str
    default: str
    takes: str
    meaning: str
    parse: Callable[[object], object]

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


@dataclass(frozen=True)
class Options:
    """The parsed value of every switch, in the order of the table."""

    threads: int
    target: str
    fast_math: bool
    exact: bool
    check_numerics: bool
    mode: str
    memory_limit: int  # bytes of the arena; 0 is no limit
    verify: bool
    dump: tuple[str, ...]
    dump_dir: str
    time: bool
    stop_after: str
    rules: bool
    cache_dir: str
    cache: int  # the limit in bytes; 0 is no cache

    @classmethod
    def of(cls, **given: object) -> Options:
        """The options for these keywords, the environment and the defaults, in this order of precedence."""
        unknown = [name for name in given if name not in SWITCHES]
        if unknown:
            raise GraphError(f"options: no option {unknown[0]!r}; there are {', '.join(SWITCHES)}")
        values: dict[str, Any] = {name: _setting(switch, given, os.environ).value for name, switch in SWITCHES.items()}
        return cls(**values)

    def dumps(self, name: str) -> bool:
        """Whether the text after this pass is to be written; a folder without a list of passes asks for all."""
        return name in self.dump or "all" in self.dump or bool(self.dump_dir and not self.dump)


class Setting(NamedTuple):
    """The value of a switch and where it came from: "given", "environment" or "default"."""

    switch: Switch
    value: object
    origin: str


def settings(**given: object) -> list[Setting]:
    """Every switch with its value and origin, in the order of the table."""
    return [_setting(switch, given, os.environ) for switch in SWITCHES.values()]


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like a switch and are none: a misspelt switch does nothing, so somebody has to say so."""
    known = {switch.variable for switch in SWITCHES.values()}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def _setting(switch: Switch, given: Mapping[str, object], environment: Mapping[str, str]) -> Setting:
    raw: object
    if given.get(switch.name) is not None:
        raw, origin, where = given[switch.name], "given", switch.name
    elif environment.get(switch.variable):
        raw, origin, where = environment[switch.variable], "environment", switch.variable
    else:
        raw, origin, where = switch.default, "default", switch.name
    try:
        return Setting(switch, switch.parse(raw), origin)
    except ValueError:
        raise GraphError(f"options: {where} is {raw!r}; it takes {switch.takes}") from None


def _truth(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).lower() if isinstance(raw, str | int) else ""
    if word not in WORDS:
        raise ValueError
    return WORDS[word]


def _count(raw: object) -> int:
    if isinstance(raw, str) and raw.lower() == "auto":
        return usable_cores()
    if isinstance(raw, bool) or not isinstance(raw, str | int) or not re.fullmatch(r"[0-9]+", str(raw)):
        raise ValueError
    count = int(raw)
    if not 1 <= count <= MAX_THREADS:
        raise ValueError
    return count


def usable_cores() -> int:
    """The cores this process may use, which in a container are often fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, granted_cores(), MAX_THREADS)


def granted_cores(path: str = "/sys/fs/cgroup/cpu.max") -> int:
    """The cores whose time the container is given, rounded up; MAX_THREADS where there is no limit."""
    try:
        with open(path, encoding="ascii") as file:
            granted, period = file.read().split()
        return MAX_THREADS if granted == "max" else max(1, -(-int(granted) // int(period)))
    except (OSError, ValueError):
        return MAX_THREADS


def _mode(raw: object) -> str:
    if not isinstance(raw, str) or raw not in MODES:
        raise ValueError
    return raw


def _name(raw: object) -> str:
    if not isinstance(raw, str) or not re.fullmatch(r"[\w.+-]+", raw):
        raise ValueError
    return raw


def _name_or_none(raw: object) -> str:
    return "" if raw == "" else _name(raw)


def _names(raw: object) -> tuple[str, ...]:
    """A list of names: "fuse,memory", or any iterable of them."""
    if isinstance(raw, str):
        return tuple(_name(part.strip()) for part in raw.split(",") if part.strip())
    if not isinstance(raw, Iterable):
        raise ValueError
    return tuple(_name(part) for part in raw)


def _folder(raw: object) -> str:
    if not isinstance(raw, str | os.PathLike):
        raise ValueError
    path = os.fspath(raw)
    if not isinstance(path, str) or "\0" in path:
        raise ValueError
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def _cache_folder(raw: object) -> str:
    return _folder(raw) or os.path.join(_user_cache(), "graphc")


def _user_cache() -> str:
    """Where the user keeps caches; the XDG rules say that a relative path there is to be ignored."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return named if os.path.isabs(named) else os.path.join(os.path.expanduser("~"), ".cache")


def _cache_limit(raw: object) -> int:
    """A truth value, or a size: 1 is "on" and not one byte, which would hold nothing."""
    if isinstance(raw, bool) or str(raw).lower() in WORDS:
        return CACHE_NBYTES if _truth(raw) else 0
    return _nbytes(raw)


def _memory_limit(raw: object) -> int:
    """A size; nothing is 0 and no limit."""
    if raw == "":
        return 0
    found = _nbytes(raw)
    if found == 0:
        raise ValueError
    return found


def _nbytes(raw: object) -> int:
    is_size = isinstance(raw, str | int) and not isinstance(raw, bool)
    found = re.fullmatch(r"([0-9]+) *([A-Za-z]*)", str(raw)) if is_size else None
    if found is None or found[2].upper() not in UNITS:
        raise ValueError
    return int(found[1]) * UNITS[found[2].upper()]


_TRUTH = "on or off (1, true, yes; 0, false, no)"

TABLE = (
    Switch("threads", "auto", f"a whole number from 1 to {MAX_THREADS}, or auto",
           "threads of a native call; auto is one for each core this process may use", _count),
    Switch("target", "native", "the name of a target, such as native, x86-64-v3 or aarch64",
           "the machine to compile for", _name),
    Switch("fast_math", "off", _TRUTH, "allow rewrites that are true of real numbers and not of floats", _truth),
    Switch("exact", "off", _TRUTH, "multiply matrices in the order in which they are written", _truth),
    Switch("check_numerics", "off", _TRUTH, "fail at the first node that makes NaN or infinity", _truth),
    Switch("mode", "native", " | ".join(MODES),
           "run native code, the NumPy meaning of every node, or both and compare", _mode),
    Switch("memory_limit", "", "a number of bytes, or a size such as 500MB or 2GiB",
           "compute values again where a call would need more beside inputs, outputs and variables", _memory_limit),
    Switch("verify", "on", _TRUTH, "check the graph or plan after every pass", _truth),
    Switch("dump", "", "names of passes with commas between, or all", "write the text after these passes", _names),
    Switch("dump_dir", "", "a folder", "write dumps to files there instead of to standard error", _folder),
    Switch("time", "off", _TRUTH, "print the time that each pass takes", _truth),
    Switch("stop_after", "", "the name of a pass", "stop the pipeline after this pass", _name_or_none),
    Switch("rules", "off", _TRUTH, "print how often each rewrite rule fired", _truth),
    Switch("cache_dir", "", "a folder", "where compiled code is kept; by default graphc in the user's cache folder",
           _cache_folder),
    Switch("cache", "on", "on, off, or a size such as 500MB or 2GiB", "keep compiled code on disk, up to this size",
           _cache_limit),
)

SWITCHES: dict[str, Switch] = {switch.name: switch for switch in TABLE}

assert tuple(SWITCHES) == tuple(field.name for field in fields(Options))
