import pytest

from looper.agents.edits import Edited, Refused, apply_edit, strip_fences

TEXT = "def f(a):\n    if a:\n        return 1\n    return 2\n\n\ndef g(a):\n    return 2\n"


def test_exact_lines_are_replaced() -> None:
    done = apply_edit(TEXT, "        return 1", "        return 3", fuzzy=False)
    assert isinstance(done, Edited)
    assert (done.text, done.line, done.exact) == (TEXT.replace("return 1", "return 3"), 3, True)


def test_a_line_that_stands_twice_is_refused_with_both_places() -> None:
    done = apply_edit(TEXT, "    return 2", "    return 3", fuzzy=True)
    assert isinstance(done, Refused)
    assert "lines 4, 8" in done.reason


def test_a_widened_edit_tells_twins_apart() -> None:
    done = apply_edit(TEXT, "def g(a):\n    return 2", "def g(a):\n    return 3", fuzzy=False)
    assert isinstance(done, Edited)
    assert done.text.endswith("def g(a):\n    return 3\n")


def test_part_of_a_line_is_replaced_if_it_is_unique() -> None:
    done = apply_edit(TEXT, "def f(a)", "def f(b)", fuzzy=False)
    assert isinstance(done, Edited)
    assert done.text.startswith("def f(b):")


def test_empty_new_text_deletes_the_lines() -> None:
    done = apply_edit("a\nb\nc\n", "b", "", fuzzy=False)
    assert isinstance(done, Edited)
    assert done.text == "a\nc\n"


def test_wrong_indentation_is_mended_only_when_fuzzy() -> None:
    assert isinstance(apply_edit(TEXT, "return 1", "return 3", fuzzy=False), Edited)  # unique inside its line
    old, new = "  if a:\n      return 1", "  if not a:\n      return 1"
    assert isinstance(apply_edit(TEXT, old, new, fuzzy=False), Refused)
    done = apply_edit(TEXT, old, new, fuzzy=True)
    assert isinstance(done, Edited)
    assert done.text == TEXT.replace("if a:", "if not a:")
    assert not done.exact


@pytest.mark.parametrize(
    ("old", "applies"), [("    return one_total + twa", True), ("    completely different text", False)]
)
def test_nearly_right_text_applies_and_other_text_does_not(old: str, applies: bool) -> None:
    text = "x = 1\n    return one_total + two\ny = 2\n"
    done = apply_edit(text, old, "    return two", fuzzy=True)
    assert isinstance(done, Edited if applies else Refused)


def test_two_equally_near_stretches_are_refused() -> None:
    assert isinstance(apply_edit("value = 1\nother\nvalue = 2\n", "value = 3", "z", fuzzy=True), Refused)


def test_fences_are_stripped_only_around_the_whole() -> None:
    assert strip_fences("```python\nx = 1\n```\n") == "x = 1\n"
    assert strip_fences("```\nx\n```") == "x"
    inside = "text\n```\ncode\n```\nmore\n"
    assert strip_fences(inside) == inside
