"""The generator: pure, disjoint from the evaluated families, and varied."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from looper.benchmarks.bugs import words
from looper.benchmarks.bugs.draw import Draw, draw
from looper.benchmarks.bugs.family import (
    NATURAL_LAYOUTS,
    NATURAL_NAMING,
    conventions_family,
    mix_family,
    natural_family,
    two_copy_mix_family,
)
from looper.benchmarks.bugs.mutate import Kind
from looper.errors import ConfigError
from looper.records import digest_of

GOLDEN = {
    "mix0/0": "50aa6f9b917d9053bfb1c8a749113e2a",
    "mix7/123456": "af72e809e69f9cfb21253f41ca8faef0",
    "natural2/1000003": "c3cc99158f420015520e99ef3f073223",
    "twin5/11": "95f2d58b5cb3d53aea4931fb8dc6c9b1",
    "pair/1000002": "41ab1ad1f32a909a730f41a1bd93450c",
}
"""Digests of whole tasks; a change here means that the shipped weights were trained on other text."""


def goldens() -> dict[str, Draw]:
    return {
        "mix0/0": draw(mix_family(0), 0),
        "mix7/123456": draw(mix_family(7), 123456),
        "natural2/1000003": draw(natural_family(2), 1000003),
        "twin5/11": draw(two_copy_mix_family(5), 11),
        "pair/1000002": draw(conventions_family(("main", "backup")), 1000002, world="B"),
    }


@pytest.fixture(scope="module")
def mix() -> list[Draw]:
    begun = time.perf_counter()
    draws = [draw(two_copy_mix_family(i) if i % 2 else mix_family(i % 48), i) for i in range(2000)]
    print(f"{(time.perf_counter() - begun) / len(draws) * 1e3:.2f} ms a draw")
    return draws


def everything(d: Draw) -> str:
    files = d.task.source.files
    return "\n".join([d.task.issue, *files, *files.values()])


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r" \1", text).lower()))


def test_draws_are_golden():
    assert {name: digest_of(d.task) for name, d in goldens().items()} == GOLDEN


def test_draws_do_not_depend_on_the_hash_seed():
    code = (
        "from looper.benchmarks.bugs.draw import draw\n"
        "from looper.benchmarks.bugs.family import mix_family\n"
        "from looper.records import digest_of\n"
        "print(digest_of(draw(mix_family(7), 123456).task))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.stdout.strip() == GOLDEN["mix7/123456"], done.stderr


def test_nothing_of_the_evaluated_families_occurs_in_the_mix(mix):
    evaluated = words.RESERVED | words._NATURAL
    for d in mix:
        found = words_of(everything(d)) & evaluated
        assert not found, f"{d.task.id}: {found}"
        assert not any(
            path.startswith(("python/", "packages/")) or path.endswith("/impl.py") for path in d.task.source.files
        )
        assert "divmod(" not in everything(d) and "zip(" not in everything(d)
    assert not {mix_family(k).layout for k in range(500)} & set(NATURAL_LAYOUTS)
    assert not {mix_family(k).naming for k in range(500)} & set(NATURAL_NAMING)


def test_all_kinds_occur_and_issues_vary(mix):
    kinds = Counter(d.bug.kind for d in mix)
    assert set(kinds) == {kind.value for kind in Kind}
    assert min(kinds.values()) > 0.02 * len(mix)
    frames = Counter(re.sub(r"`[^`]*`|\(.*?\)|\d+", "", d.task.issue) for d in mix)
    assert len(frames) > 0.7 * len(mix)
    assert max(len(d.task.issue) for d in mix) < 260


def test_the_issue_names_the_function_but_no_path(mix):
    for d in mix:
        assert f"`{d.bug.function}" in d.task.issue
        assert ".py" not in d.task.issue
        assert not any(tree in d.task.issue.lower() for tree in d.trees or ())


def test_a_function_is_defined_once_a_tree_and_sites_are_its_lines(mix):
    for d in mix:
        files = d.task.source.files
        hits = [
            path for path, text in files.items() if f"def {d.bug.function}(" in text and not path.startswith("tests/")
        ]
        assert len(hits) == (2 if d.trees else 1)
        for site in (d.bug.site, *([d.bug.other] if d.bug.other else []), *d.bug.decoys):
            lines = files[site.path].splitlines()
            assert lines[site.line - 1] == site.broken != site.fixed
            start = max(i for i in range(site.line) if lines[i].startswith("def "))
            assert lines[start].startswith(f"def {d.bug.function}(")
            assert site.line - 1 - start < 10


def test_negative_indexes_and_unknown_worlds_are_refused():
    with pytest.raises(ConfigError, match="index -1"):
        draw(mix_family(0), -1)
    with pytest.raises(ConfigError, match="no world 'A'"):
        draw(mix_family(0), 1, world="A")
    with pytest.raises(ConfigError, match="choose one of 'A', 'B'"):
        draw(conventions_family(("main", "backup")), 1)
    with pytest.raises(ConfigError, match="main/backup"):
        conventions_family(("up", "down"))


def test_repositories_differ_between_indexes():
    tasks = [draw(mix_family(3), i).task for i in range(60)]
    assert len({digest_of(task.public()) for task in tasks}) == 60
