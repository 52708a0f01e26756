"""Repeats are found by tree, settings and wording, and neighbours with another value are no repeats."""

import pytest

from looper.memory.duplicates import Likeness, compare, diff_shingles, duplicates, word_shingles
from looper.memory.guard import proposed
from looper.memory.rows import Experiment
from tests.memory.sample import TRAIN, edited

LONGER = edited(("WARMDOWN = 0.5", "WARMDOWN = 0.7"))


def tried(id: str, after: str, **about: object) -> Experiment:
    return proposed(TRAIN, after, **about).model_copy(update={"id": id})  # type: ignore[arg-type]


def test_the_same_program_in_other_layout_is_found_by_its_tree() -> None:
    found = duplicates(
        proposed(TRAIN, LONGER), [tried("a", edited(("DEPTH = 8", "DEPTH = 9"))), tried("b", LONGER + "# x\n")]
    )
    assert [(one.experiment, one.likeness, one.exact) for one in found] == [("b", Likeness.TREE, True)]


def test_the_same_settings_written_otherwise_are_found_by_their_hash() -> None:
    folded = edited(("DIM = DEPTH * ASPECT_RATIO", "DIM = ASPECT_RATIO * DEPTH"))
    found = compare(proposed(TRAIN, folded), tried("b", TRAIN))
    assert found is not None and found.likeness is Likeness.CONFIG and found.exact


def test_settings_without_the_rest_of_the_code_are_only_alike() -> None:
    def logged(id: str) -> Experiment:
        return Experiment(id=id, at=0.0, config={"lr": 0.04, "depth": 8})

    found = compare(logged("a"), logged("b"))
    assert found is not None and found.likeness is Likeness.SETTINGS and not found.exact


def test_equal_code_that_ran_with_other_settings_is_another_experiment() -> None:
    one = tried("a", LONGER).model_copy(update={"config": {"SEED": 1}})
    other = tried("b", LONGER).model_copy(update={"config": {"SEED": 2}, "diff": ""})
    assert compare(one, other) is None


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("set the matrix learning rate to 0.04", "Set the matrix learning rate to .040", True),
        ("set the matrix learning rate to 0.04", "set the matrix learning rate to 0.03", False),
        ("replace relu squared with SwiGLU in the MLP", "replace relu squared with SwiGLU in the mlp!", True),
        ("replace relu squared with SwiGLU in the MLP", "replace relu squared with GELU in the MLP", False),
        ("baseline", "baseline", False),
    ],
)
def test_descriptions_are_alike_by_their_words_and_numbers(one: str, other: str, alike: bool) -> None:
    found = [Experiment(id=text, at=0.0, description=text) for text in (one, other)]
    assert (compare(found[0], found[1].model_copy(update={"id": "other"})) is not None) is alike


def test_the_same_lines_on_another_parent_are_alike_by_their_diff() -> None:
    deeper = edited(("DEPTH = 8", "DEPTH = 9"))
    later = proposed(deeper, deeper.replace("WARMDOWN = 0.5", "WARMDOWN = 0.70"))
    found = compare(later, tried("a", LONGER))
    assert found is not None and found.likeness is Likeness.TEXT and "diffs" in found.reason
    assert compare(proposed(TRAIN, edited(("WARMDOWN = 0.5", "WARMDOWN = 0.6"))), tried("a", LONGER)) is None


def test_the_strongest_likeness_comes_first_then_the_latest() -> None:
    lines = tried("text", edited(("WARMDOWN = 0.5", "WARMDOWN = 0.70"), ("def _unused(x):\n    return x\n", "")))
    prior = [tried("old", LONGER), lines, tried("new", LONGER)]
    assert [one.experiment for one in duplicates(proposed(TRAIN, LONGER), prior, near=0.2)] == ["new", "old", "text"]


def test_empty_texts_have_no_shingles() -> None:
    assert not word_shingles("") and not diff_shingles("") and not diff_shingles("--- a/x\n+++ b/x\n+# note\n")
