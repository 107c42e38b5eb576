"""Runs the Python of README.md and docs/*.md: the blocks of a file in order, in one namespace, in an empty folder.

The blocks of a file become one program with every line at its own number, blank elsewhere; so a traceback and the
errors of graphc name the line of the Markdown file.  A fence must say what it holds: only `python` is run, the others
of `LANGUAGES` are not, and anything else is a fault, lest a block escape by a slip of the pen.
"""

from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = ("python", "text", "sh", "c", "cpp", "rust", "js", "cmake", "toml", "json", "llvm", "html")
FENCE = re.compile(r"^( *)(```+|~~~+) *([^`]*?) *$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$")
SECONDS = 300


def blocks(text):
    """(language, line number of the first line, the lines without the fence's indent) of every fenced block."""
    found, fence, indent = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if not fence and match:
            fence, indent = match[2], len(match[1])
            found.append((match[3], number + 1, []))
        elif fence and match and match[2].startswith(fence) and not match[3]:
            fence = ""
        elif fence:
            found[-1][2].append(line[min(indent, len(line) - len(line.lstrip(" "))):])
    if fence:
        raise ValueError(f"line {found[-1][1] - 1}: a block that does not end")
    return found


def program(text):
    """The Python of a page, every line at its own number."""
    lines = [""] * len(text.splitlines())
    for language, first, body in blocks(text):
        if language == "python":
            lines[first - 1:first - 1 + len(body)] = body
    return "\n".join(lines) + "\n"


def run(source, name, folder):
    """Run a program under the name of its page, in a process and a folder of its own."""
    main = "import sys; exec(compile(sys.stdin.read(), sys.argv[1], 'exec'), {'__name__': '__main__'})"
    return subprocess.run([sys.executable, "-c", main, name], input=source, cwd=folder, capture_output=True, text=True,
                          timeout=SECONDS, check=False)


def plain(text):
    """The page without its blocks, where a bracket is no link."""
    kept, inside = [], ""
    for line in text.splitlines():
        match = FENCE.match(line)
        if match and (not inside or (match[2].startswith(inside) and not match[3])):
            inside = "" if inside else match[2]
        elif not inside:
            kept.append(re.sub(r"`[^`]*`", "", line))
    return kept


def anchors(text):
    """The names that a page's headings get: lower case, blanks to hyphens, punctuation dropped."""
    headings = [match[1] for line in text.splitlines() if (match := HEADING.match(line))]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page):
    dead = []
    for line in plain(page.read_text("utf-8")):
        for link in (first or second for first, second in LINK.findall(line)):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
                dead.append(link)
    return dead


def named(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_python_of_a_page_runs(page, tmp_path):
    source = program(page.read_text("utf-8"))
    if not source.strip():
        return
    done = run(source, named(page), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_says_what_it_holds(page):
    found = blocks(page.read_text("utf-8"))
    wrong = [(first - 1, language) for language, first, _ in found if language not in LANGUAGES]
    assert not wrong, f"{named(page)}: (line, language) {wrong}; a block holds one of {', '.join(LANGUAGES)}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_inside_the_project_leads_somewhere(page):
    assert dead_links(page) == []


PAGE = """# A page

```python
a = 1
```
- a point
  ```python
  if a:
      b = a + 1
  ```
```text
not python at all
```
````python
c = '''
```
'''
assert (a, b, c) == (1, 2, "\\n```\\n"), (a, b, c)
````
"""


def test_the_blocks_share_a_namespace_and_keep_their_lines(tmp_path):
    firsts = [(language, first) for language, first, _ in blocks(PAGE)]
    assert firsts == [("python", 4), ("python", 8), ("text", 12), ("python", 15)]
    done = run(program(PAGE), "page.md", tmp_path)
    assert done.returncode == 0, done.stderr
    wrong = run(program(PAGE.replace("b = a + 1", "b = a + 2")), "page.md", tmp_path)
    assert wrong.returncode == 1
    assert 'File "page.md", line 18' in wrong.stderr and "AssertionError: (1, 3," in wrong.stderr


def test_a_page_may_not_be_cut_short():
    with pytest.raises(ValueError, match="line 3: a block that does not end"):
        blocks("# A\n\n```python\nx = 1\n")


def test_a_block_runs_in_its_own_folder(tmp_path):
    done = run("open('made', 'w').close()", "page.md", tmp_path)
    assert done.returncode == 0 and (tmp_path / "made").exists()


def test_dead_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One Two!\n[a](page.md#one-two) [b](#one-two) [c](https://x.invalid) ![d](no.svg) [e](#three)\n"
                    "`[f](g)`\n```text\n[h](i)\n```\n[j](no.md)\n")
    assert dead_links(page) == ["no.svg", "#three", "no.md"]
