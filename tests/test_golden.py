"""The `golden` fixture: writes when asked to, compares otherwise, and fails with a diff."""

from conftest import GOLDEN, Golden
import pytest


def test_a_missing_file_is_no_success(tmp_path):
    with pytest.raises(AssertionError, match=r"no golden file .*x\.txt: run with --update-golden"):
        Golden(tmp_path / "x", update=False)("text")


def test_what_was_written_compares_equal_and_a_change_does_not(tmp_path):
    Golden(tmp_path / "a" / "x", update=True)("one\ntwo")
    Golden(tmp_path / "a" / "x", update=False)("one\ntwo\n")
    with pytest.raises(pytest.fail.Exception, match=r"-two\n\+three"):
        Golden(tmp_path / "a" / "x", update=False)("one\nthree")


def test_a_second_text_needs_a_name(tmp_path):
    golden = Golden(tmp_path / "x", update=True)
    golden("one")
    golden("two", "later", ".ll")
    assert (tmp_path / "x-later.ll").read_text() == "two\n"
    with pytest.raises(AssertionError, match="compared already"):
        golden("three")


@pytest.mark.parametrize("case", ["a b/c"])
def test_the_path_follows_the_test(golden, case):
    assert golden.stem == GOLDEN / "golden" / "the_path_follows_the_test[a b/c]".replace("[", "_").replace(
        "]", "").replace(" ", "_").replace("/", "_")
