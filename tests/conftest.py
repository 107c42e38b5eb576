"""What every test shares: the `golden` fixture, the `slow` marker, the Hypothesis profile, a cache folder of our own.

A golden file holds the text expected of one test: `tests/golden/<module>/<test>.txt`, where the brackets of a
parametrised test are part of the name.  `pytest --update-golden` writes what the tests got; read the diff before you
commit it.
"""

import difflib
import os
from pathlib import Path
import re
import shutil
import tempfile

import hypothesis
import pytest

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
CACHE = pytest.StashKey[str]()

hypothesis.settings.register_profile("graphc", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("graphc")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write the golden files instead of comparing")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_configure(config):
    # Child processes must meet the checkout under test, and no test may read or fill the user's cache.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    if "GRAPHC_CACHE_DIR" not in os.environ:
        config.stash[CACHE] = os.environ["GRAPHC_CACHE_DIR"] = tempfile.mkdtemp(prefix="graphc-tests-")


def pytest_unconfigure(config):
    if CACHE in config.stash:
        shutil.rmtree(config.stash[CACHE], ignore_errors=True)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: give --slow"))


class Golden:
    """Compares texts with the files of one test; a second text in a test needs a name."""

    def __init__(self, stem: Path, update: bool):
        self.stem, self.update, self.seen = stem, update, set()

    def __call__(self, text: str, name: str = "", suffix: str = ".txt") -> None:
        path = self.stem.with_name(self.stem.name + ("-" + name if name else "") + suffix)
        assert path not in self.seen, f"{path.name} was compared already: give the second text a name"
        self.seen.add(path)
        got = text if text.endswith("\n") else text + "\n"
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(got, encoding="utf-8", newline="\n")
            return
        assert path.exists(), f"no golden file {path}: run with --update-golden and read it. The text is\n{got}"
        expected = path.read_text(encoding="utf-8")
        if got != expected:
            diff = difflib.unified_diff(expected.splitlines(), got.splitlines(), str(path), "got", lineterm="")
            pytest.fail("the text differs from the golden file\n" + "\n".join(diff), pytrace=False)


@pytest.fixture
def golden(request):
    name = re.sub(r"[^\w.=+-]+", "_", request.node.name).strip("_")
    stem = GOLDEN / request.node.path.stem.removeprefix("test_") / name.removeprefix("test_")
    return Golden(stem, request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def host_folder(tmp_path_factory):
    """Where programs are that run libraries of other systems."""
    return tmp_path_factory.mktemp("host")
