"""The table of switches: precedence, parsing, errors."""

import os
from pathlib import Path
import re

import pytest

from graphc.config import (
    CACHE_NBYTES,
    SWITCHES,
    TABLE,
    Options,
    granted_cores,
    settings,
    unknown_variables,
    usable_cores,
)
from graphc.ir.errors import GraphError


@pytest.fixture(autouse=True)
def _no_switches(monkeypatch):
    for switch in TABLE:
        monkeypatch.delenv(switch.variable, raising=False)


def test_defaults():
    options = Options.of()
    assert options.threads == usable_cores()
    assert (options.target, options.mode) == ("native", "native")
    assert options.verify is True
    assert (options.fast_math, options.check_numerics, options.time, options.rules) == (False,) * 4
    assert (options.dump, options.dump_dir, options.stop_after) == ((), "", "")
    assert options.cache == CACHE_NBYTES


def test_the_variables_are_those_of_the_documents():
    assert [switch.variable for switch in TABLE] == [
        "GRAPHC_THREADS", "GRAPHC_TARGET", "GRAPHC_FAST_MATH", "GRAPHC_EXACT", "GRAPHC_CHECK_NUMERICS", "GRAPHC_MODE",
        "GRAPHC_MEMORY_LIMIT", "GRAPHC_VERIFY", "GRAPHC_DUMP", "GRAPHC_DUMP_DIR", "GRAPHC_TIME", "GRAPHC_STOP_AFTER",
        "GRAPHC_RULES", "GRAPHC_CACHE_DIR", "GRAPHC_CACHE"]


def test_a_share_of_time_counts_as_cores(tmp_path):
    path = tmp_path / "cpu.max"
    for text, cores in (("max 100000", 1024), ("250000 100000", 3), ("1000 100000", 1), ("", 1024)):
        path.write_text(text)
        assert granted_cores(str(path)) == cores
    assert granted_cores(str(tmp_path / "none")) == 1024 and usable_cores() >= 1


def test_given_wins_over_environment_over_default(monkeypatch):
    assert Options.of().mode == "native"
    monkeypatch.setenv("GRAPHC_MODE", "check")
    assert Options.of().mode == "check"
    assert Options.of(mode="reference").mode == "reference"


def test_a_given_value_hides_a_bad_environment(monkeypatch):
    monkeypatch.setenv("GRAPHC_THREADS", "many")
    assert Options.of(threads=3).threads == 3


def test_none_counts_as_not_given(monkeypatch):
    monkeypatch.setenv("GRAPHC_MODE", "check")
    assert Options.of(mode=None, threads=None) == Options.of()
    assert settings(mode=None)[5].origin == "environment"


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "")
    assert Options.of().verify is True


GOOD = [
    ("threads", "4", 4), ("threads", 4, 4), ("threads", "AUTO", usable_cores()),
    ("target", "x86-64-v3", "x86-64-v3"),
    ("fast_math", "1", True), ("fast_math", True, True), ("fast_math", "No", False), ("fast_math", 0, False),
    ("check_numerics", "on", True), ("mode", "check", "check"), ("verify", "off", False),
    ("dump", "fuse, memory", ("fuse", "memory")), ("dump", ["fuse"], ("fuse",)), ("dump", "", ()),
    ("dump_dir", "", ""), ("stop_after", "fuse", "fuse"), ("time", "yes", True), ("rules", "TRUE", True),
    ("cache", "off", 0), ("cache", False, 0), ("cache", 0, 0), ("cache", "1", CACHE_NBYTES),
    ("cache", True, CACHE_NBYTES),
    ("cache", "500MB", 500_000_000), ("cache", "2 GiB", 2**31), ("cache", 4096, 4096),
]


@pytest.mark.parametrize(("name", "raw", "value"), GOOD)
def test_values(name, raw, value):
    parsed = getattr(Options.of(**{name: raw}), name)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(("name", "raw", "value"), [row for row in GOOD if isinstance(row[1], str) and row[1]])
def test_the_environment_is_read_alike(monkeypatch, name, raw, value):
    monkeypatch.setenv(SWITCHES[name].variable, raw)
    assert getattr(Options.of(), name) == value


BAD = [
    ("threads", 0), ("threads", "-1"), ("threads", 2.0), ("threads", True), ("threads", 10**9), ("threads", "²"),
    ("target", ""), ("target", "a b"), ("fast_math", "maybe"), ("fast_math", 2), ("mode", "debug"),
    ("verify", "ja"), ("dump", 3), ("dump", "a b"), ("dump", [1]),
    ("dump_dir", 3), ("dump_dir", b"x"), ("dump_dir", "a\0"),
    ("stop_after", "a,b"), ("cache", "lots"), ("cache", "5 parsecs"), ("cache", -1), ("cache", 1.5),
]


@pytest.mark.parametrize(("name", "raw"), BAD)
def test_a_bad_value_names_itself_and_the_valid_ones(name, raw):
    with pytest.raises(GraphError) as caught:
        Options.of(**{name: raw})
    assert str(caught.value) == f"options: {name} is {raw!r}; it takes {SWITCHES[name].takes}"


def test_a_bad_variable_is_named(monkeypatch):
    monkeypatch.setenv("GRAPHC_MODE", "debug")
    with pytest.raises(GraphError, match=r"GRAPHC_MODE is 'debug'; it takes native \| reference \| check"):
        Options.of()


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(GraphError, match="no option 'thread'; there are threads, target, fast_math"):
        Options.of(thread=2)


def test_options_are_frozen_and_hashable():
    options = Options.of(dump="fuse")
    assert hash(options) == hash(Options.of(dump=("fuse",)))
    with pytest.raises(AttributeError):
        options.mode = "check"


@pytest.mark.parametrize(("given", "name", "dumped"), [
    ({}, "fuse", False), ({"dump": "fuse"}, "fuse", True), ({"dump": "fuse"}, "memory", False),
    ({"dump": "all"}, "memory", True),
    ({"dump_dir": "x"}, "memory", True), ({"dump_dir": "x", "dump": "fuse"}, "memory", False)])
def test_which_passes_are_dumped(given, name, dumped):
    assert Options.of(**given).dumps(name) is dumped


def test_folders_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Options.of(dump_dir="here").dump_dir == str(tmp_path / "here")
    assert Options.of(cache_dir=tmp_path / "c").cache_dir == str(tmp_path / "c")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Options.of(cache_dir="~/c").cache_dir == str(tmp_path / "c")


def test_the_cache_folder_follows_the_xdg_rules(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert Options.of().cache_dir == str(tmp_path / ".cache" / "graphc")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert Options.of().cache_dir == str(tmp_path / ".cache" / "graphc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert Options.of().cache_dir == str(tmp_path / "x" / "graphc")


def test_settings_tell_where_a_value_came_from(monkeypatch):
    monkeypatch.setenv("GRAPHC_TIME", "1")
    rows = {setting.switch.name: setting for setting in settings(mode="check")}
    assert (rows["time"].value, rows["time"].origin) == (True, "environment")
    assert (rows["mode"].value, rows["mode"].origin) == ("check", "given")
    assert (rows["verify"].value, rows["verify"].origin) == (True, "default")


def test_misspelt_variables_are_found():
    assert unknown_variables({"GRAPHC_VERFIY": "0", "GRAPHC_TIME": "1", "PATH": os.defpath}) == ["GRAPHC_VERFIY"]


def test_the_readme_lists_every_switch():
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| `(GRAPHC_\w+)`", readme, re.MULTILINE)
    assert sorted(listed) == sorted(switch.variable for switch in TABLE)
