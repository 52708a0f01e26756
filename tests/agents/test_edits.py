import pytest

from looper.agents.edits import Edited, apply_edit, strip_fences
from looper.agents.indentation import Refused

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


@pytest.mark.parametrize("fuzzy", [True, False])
def test_a_text_that_stands_several_times_inside_lines_is_refused(fuzzy: bool) -> None:
    done = apply_edit("x = foo(1)\ny = foo(1) + foo(2)\n", "foo(1)", "foo(3)", fuzzy=fuzzy)
    assert done == Refused(reason="the old text stands 2 times: copy the whole line")


def test_a_line_without_its_indentation_is_found_though_it_stands_inside_another() -> None:
    done = apply_edit("def f(a):\n    if a:\n        return 1\n    return 12\n", "return 1", "return 3", fuzzy=True)
    assert isinstance(done, Edited)
    assert done.text == "def f(a):\n    if a:\n        return 3\n    return 12\n"


TABS = "def f():\n\tif a:\n\t\treturn 1\n"
DEEPER = "def f():\n\tif a:\n\t\tif b:\n\t\t\treturn 1\n"


@pytest.mark.parametrize(
    ("text", "old", "new", "made"),
    [
        (TABS, "    if a:\n        return 1", "    if a:\n        if b:\n            return 1", DEEPER),
        (TABS, "  if a:\n    return 1", "  if a:\n    if b:\n      return 1", DEEPER),
        (TABS, "        if a:\n            return 1", "        if a:\n            return 2", TABS.replace("1", "2")),
        (TABS, "if a:\n\treturn 1", "if a:\n\tif b:\n\t\treturn 1", DEEPER),
        (
            TABS,
            "def f():\n    if a:\n        return 1",
            "def f():\n    if a:\n        return 2",
            TABS.replace("1", "2"),
        ),
        (TABS, "def f( ):", "def f(a):", TABS.replace("f()", "f(a)")),
        (TABS.expandtabs(4), "\tif a:\n\t\treturn 1", "\tif a:\n\t\treturn 2", TABS.expandtabs(4).replace("1", "2")),
        (
            TABS,
            "    if a:\n        return 1",
            "    if a:\n\n        return 2",
            TABS.replace("\t\t", "\n\t\t").replace("1", "2"),
        ),
    ],
)
def test_new_lines_are_indented_as_the_file_is(text: str, old: str, new: str, made: str) -> None:
    done = apply_edit(text, old, new, fuzzy=True)
    assert isinstance(done, Edited)
    assert done.text == made


@pytest.mark.parametrize("new", ["    if a:\n         return (1,\n                 2)", "    if a:\n\t    return 2"])
def test_an_indentation_that_is_no_number_of_levels_is_refused(new: str) -> None:
    done = apply_edit(TABS, "    if a:\n        return 1", new, fuzzy=True)
    assert isinstance(done, Refused) and "indented with tabs" in done.reason
