"""Who imports whom: `codegen -> graphc.ir <- passes`, the rest of graphc above them, no circles, imports at the top.

The checks read the files with `ast` and import nothing; each returns its faults as `file:line: what`, and each is
proved on a small tree that breaks it.  An import may stand inside a function only when it loads something slow or
optional: sympy, networkx, llvmlite, a library of an extra, or a module of ours that loads one of the slow ones at its
own top.
"""

import ast
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
import subprocess
import sys
import textwrap
import tomllib

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("graphc", "passes", "codegen")
ALLOWED = {  # the part that imports: the parts it may import
    "graphc.ir": {"graphc.ir"},
    "passes": {"passes", "graphc.ir"},
    "codegen": {"codegen", "graphc.ir"},
    "graphc": {"graphc", "graphc.ir", "passes", "codegen"},
}
SLOW = {"sympy", "mpmath", "networkx", "llvmlite"}  # mpmath comes with sympy
CORE = {"numpy"} | SLOW
OPTIONAL = {"onnx", "ziglang", "mpi4py", "dask", "sklearn", "scipy", "resvg_py"}


@dataclass(frozen=True)
class Import:
    """One name imported by a module: the absolute module it comes from, the line, and how."""

    target: str
    line: int
    is_late: bool
    is_relative: bool


@dataclass(frozen=True)
class Source:
    """A file of one of the packages under its module name."""

    name: str
    path: str
    is_package: bool
    text: str


def read_tree(root):
    """Every file of the three packages by module name."""
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    sources = [source_of(str(path.relative_to(root)), path.read_text("utf-8")) for path in files]
    return {source.name: source for source in sources}


def source_of(path, text):
    parts = Path(path).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    return Source(".".join(parts[:-1] if is_package else parts), path, is_package, text)


def fake_tree(files):
    return {source.name: source for source in (source_of(path, textwrap.dedent(text)) for path, text in files.items())}


def imports_of(source, names):
    """Every import of a file; `names` are the modules that exist, to tell a module from a name inside one."""
    tree = ast.parse(source.text, source.path)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    late = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in late, False)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(source, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in names else base, node.lineno, id(node) in late, node.level > 0)


def absolute(source, node):
    if not node.level:
        return node.module
    package = source.name.split(".") if source.is_package else source.name.split(".")[:-1]
    above = package[: len(package) - (node.level - 1)]
    return ".".join(above + ([node.module] if node.module else []))


def part_of(name):
    return "graphc.ir" if (name + ".").startswith("graphc.ir.") else name.split(".")[0]


def every_import(tree):
    for source in tree.values():
        for found in imports_of(source, tree):
            yield source, found


def wrong_arrows(tree):
    return [f"{source.path}:{found.line}: {part_of(source.name)} imports {found.target}"
            for source, found in every_import(tree)
            if part_of(found.target) in ALLOWED and part_of(found.target) not in ALLOWED[part_of(source.name)]]


def unrelative(tree):
    """Absolute imports inside passes and codegen of their own modules."""
    return [f"{source.path}:{found.line}: write {found.target} as a relative import"
            for source, found in every_import(tree)
            if part_of(source.name) in ("passes", "codegen") and part_of(found.target) == part_of(source.name)
            and not found.is_relative]


def undeclared(tree):
    """Libraries that are neither Python's nor one of the core four, imported where everybody pays for them."""
    known = set(sys.stdlib_module_names) | CORE | set(PACKAGES)
    return [f"{source.path}:{found.line}: imports {found.target}" for source, found in every_import(tree)
            if found.target.split(".")[0] not in (known | OPTIONAL if found.is_late else known)]


def edges(tree):
    """Module -> the modules of ours that it imports at its top, `if TYPE_CHECKING:` included."""
    graph = {name: [] for name in tree}
    for source, found in every_import(tree):
        if not found.is_late and found.target in tree and found.target != source.name:
            graph[source.name].append(found.target)
    return graph


def circle(tree):
    """One circle of files that import each other at their top, or nothing."""
    try:
        TopologicalSorter(edges(tree)).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def slow_modules(tree):
    """Modules of ours that load sympy, networkx, llvmlite or mpmath when they are imported."""
    slow = {source.name for source, found in every_import(tree)
            if not found.is_late and found.target.split(".")[0] in SLOW}
    graph, before = edges(tree), -1
    while before != len(slow):
        before = len(slow)
        slow |= {name for name, targets in graph.items() if any(target in slow for target in targets)}
    return slow


def needless_late(tree):
    may = slow_modules(tree)
    return [f"{source.path}:{found.line}: import {found.target} at the top of the file"
            for source, found in every_import(tree)
            if found.is_late and found.target not in may and found.target.split(".")[0] not in SLOW | OPTIONAL]


def not_at_top(tree):
    """Imports at module level that stand below other statements; `if` and `try` around imports are allowed."""
    faults = []
    for source in tree.values():
        body_began = False
        for node in ast.parse(source.text).body:
            is_import = isinstance(node, ast.Import | ast.ImportFrom) or (
                isinstance(node, ast.If | ast.Try) and isinstance(node.body[0], ast.Import | ast.ImportFrom))
            if is_import and body_began:
                faults.append(f"{source.path}:{node.lineno}: an import below other statements")
            body_began |= not is_import and not is_docstring(node)
    return faults


def is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


CHECKS = [wrong_arrows, unrelative, undeclared, circle, needless_late, not_at_top]


@pytest.mark.parametrize("check", CHECKS)
def test_the_tree(check):
    tree = read_tree(ROOT)
    assert {"graphc.ir.errors", "passes", "codegen"} <= set(tree)
    faults = check(tree)
    assert not faults, "\n".join(faults)


BROKEN = [
    (wrong_arrows, {"passes/a.py": "from codegen import b", "codegen/b.py": ""}),
    (wrong_arrows, {"codegen/a.py": "import passes.b", "passes/b.py": ""}),
    (wrong_arrows, {"graphc/ir/a.py": "from ..config import Options", "graphc/config.py": ""}),
    (wrong_arrows, {"graphc/ir/a.py": "from passes.b import c", "passes/b.py": ""}),
    (wrong_arrows, {"passes/a.py": "import graphc", "graphc/__init__.py": ""}),
    (wrong_arrows, {"passes/a.py": "from graphc import placeholder", "graphc/__init__.py": ""}),
    (wrong_arrows, {"passes/a.py": "def f():\n    from graphc.session import Session", "graphc/session.py": ""}),
    (unrelative, {"passes/a.py": "from passes.b import c", "passes/b.py": ""}),
    (unrelative, {"codegen/a.py": "from codegen import b", "codegen/b.py": ""}),
    (undeclared, {"graphc/a.py": "import pandas"}),
    (undeclared, {"graphc/a.py": "import onnx"}),
    (undeclared, {"graphc/a.py": "def f():\n    import pandas"}),
    (circle, {"passes/a.py": "from .b import c", "passes/b.py": "from . import a"}),
    (circle, {"graphc/a.py": "import graphc.b", "graphc/b.py": "from graphc.c import x",
              "graphc/c.py": "from .a import y"}),
    (circle, {"graphc/__init__.py": "from .a import x", "graphc/a.py": "from graphc import y"}),
    (circle, {"graphc/a.py": "if TYPE_CHECKING:\n    from .b import x", "graphc/b.py": "from .a import y"}),
    (needless_late, {"graphc/a.py": "def f():\n    import json"}),
    (needless_late, {"graphc/a.py": "class A:\n    def f(self):\n        from .b import c", "graphc/b.py": ""}),
    (needless_late, {"graphc/a.py": "def f():\n    import b", "graphc/b.py": "def f():\n    import sympy"}),
    (not_at_top, {"graphc/a.py": "x = 1\nimport json"}),
    (not_at_top, {"graphc/a.py": "def f(): ...\ntry:\n    import json\nexcept ImportError:\n    pass"}),
]


@pytest.mark.parametrize(("check", "files"), BROKEN)
def test_each_check_finds_a_broken_tree(check, files):
    assert check(fake_tree(files))


SOUND = {
    "graphc/__init__.py": """
        '''Doc.'''
        from __future__ import annotations
        from .session import Session
        from graphc.ir import node
        """,
    "graphc/session.py": """
        from graphc.ir.node import Node
        from passes import simplify
        def f():
            import sympy.core
            import sklearn
            from codegen.emit import emit
            from graphc.draw import draw
        """,
    "graphc/draw.py": "import networkx as nx",
    "graphc/ir/__init__.py": "",
    "graphc/ir/node.py": "import numpy as np\nfrom .types import Type",
    "graphc/ir/types.py": "try:\n    import tomllib\nexcept ImportError:\n    pass\nx = 1",
    "passes/__init__.py": "import graphc.ir",
    "passes/simplify.py": "from graphc.ir import node\nfrom .rules import RULES",
    "passes/rules.py": "from graphc.ir.node import Node",
    "codegen/__init__.py": "",
    "codegen/emit.py": "from . import target",
    "codegen/target.py": "import llvmlite.binding as llvm\nimport graphc.ir.node",
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_sound_tree_has_no_faults(check):
    assert check(fake_tree(SOUND)) == []


def test_late_imports_of_our_own_slow_modules_are_the_exception():
    assert slow_modules(fake_tree(SOUND)) == {"graphc.draw", "codegen.target", "codegen.emit"}


def test_the_core_libraries_are_those_of_the_project_file():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert {text.split(">")[0].strip() for text in declared} | {"mpmath"} == CORE


def child(program, *arguments):
    """What a fresh interpreter prints, run in the checkout."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_graphc_loads_none_of_the_slow_libraries():
    loaded = child("import graphc, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))")
    assert "graphc" in loaded and "numpy" in loaded
    assert not SLOW & set(loaded), f"import graphc loads {SLOW & set(loaded)}"


def test_importing_graphc_costs_a_quarter_of_a_second_above_numpy():
    program = "import time, numpy; start = time.process_time(); import graphc; print(time.process_time() - start)"
    assert min(float(child(program)[0]) for _ in range(3)) <= 0.25


@pytest.mark.parametrize("stride", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_any_module_may_be_imported_first(stride):
    """A module of passes or codegen starts graphc, which imports that module: the packages must stand that."""
    program = """
        import importlib, sys
        import numpy, sympy, networkx, llvmlite.binding
        for name in sys.argv[1:]:
            for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] in ("graphc", "passes", "codegen")]:
                del sys.modules[loaded]
            try:
                importlib.import_module(name)
            except ImportError as error:
                print(name, "first:", error)
        """
    names = [name for name in read_tree(ROOT) if not name.endswith("__main__")]
    assert " ".join(child(program, *names[::stride])) == ""
