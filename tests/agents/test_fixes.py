"""Each framework fix: its pathology without it, the cure with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from looper.agents.prompt import Fix, Prompt
from looper.protocols import Box
from looper.records import Exit, Source
from looper.workspaces.local import LocalWorkspace
from tests.agents.scripted import play

LONG = "".join(f"def f{i}(x):\n    return x + {i}\n\n\n" for i in range(150))
FILES = {"a.py": "def f(x):\n    return x - 1\n", "long.py": LONG}
EDIT = '<edit path="a.py">\n    return x - 1\n=======\n    return x + 1\n</edit>'


@pytest.fixture(scope="module")
def workspace() -> LocalWorkspace:
    return LocalWorkspace()


@pytest.fixture
def box(workspace: LocalWorkspace) -> Iterator[Box]:
    with workspace.open(Source(name="r", files=FILES)) as opened:
        yield opened


def without(fix: Fix) -> Prompt:
    return Prompt(without=[fix])


def test_few_shot_puts_a_worked_example_before_the_model() -> None:
    for terse in (False, True):
        with_example, bare = Prompt().system(terse=terse), without(Fix.few_shot).system(terse=terse)
        assert "Example" in with_example
        assert "Example" not in bare
        assert len(with_example) > len(bare)


def test_the_worked_example_is_in_the_tool_language() -> None:
    from looper.actions import Action, parse

    text = Prompt().system(terse=False).split("one call a turn:\n")[1]
    kinds = [parse(call) for call in re.split(r"\n(?=<[a-z])", text)]
    assert all(isinstance(kind, Action) for kind in kinds)
    assert [kind.kind for kind in kinds] == ["bash", "read", "edit", "done"]


def test_line_ranges_keep_whole_files_out_of_the_context(box: Box) -> None:
    ask = ["<read>long.py:5-6</read>", "<done/>"]
    cured, _ = play(box, ask, Prompt())
    sick, _ = play(box, ask, without(Fix.line_ranges))
    assert cured.steps[0].observation == "[long.py lines 5-6 of 600]\ndef f1(x):\n    return x + 1"
    assert len(sick.steps[0].observation) > 4500


def test_pruning_keeps_the_context_under_its_budget_and_the_prefix_stable(box: Box) -> None:
    reads = [f"<read>long.py:{i * 40 + 1}-{i * 40 + 40}</read>" for i in range(12)] + ["<done/>"]
    cured, model = play(box, reads, Prompt(), context=900)
    sick, wild = play(box, reads, without(Fix.prune), context=900)
    assert max(s.prompt_tokens for s in sick.steps) > 1700
    assert max(s.prompt_tokens for s in cured.steps) <= 1000
    assert any(step.pruned for step in cured.steps)
    changes = 0
    for before, after in zip(model.shown, model.shown[1:], strict=False):
        changes += after.messages[: len(before.messages)] != before.messages
    assert 1 <= changes <= 4  # the prefix is rewritten seldom, so that caches stay valid
    assert all(a.messages == b.messages[: len(a.messages)] for a, b in zip(wild.shown, wild.shown[1:], strict=False))


def test_loop_detection_ends_endless_reading(box: Box) -> None:
    cured, _ = play(box, ["<read>a.py</read>"], Prompt())
    sick, _ = play(box, ["<read>a.py</read>"], without(Fix.loop_detection))
    assert (sick.exit, len(sick.steps)) == (Exit.STEPS, 15)
    assert cured.exit is Exit.LOOP
    assert len(cured.steps) <= 5
    assert "read a.py 3 times" in cured.steps[2].observation


def test_loop_detection_lets_an_agent_recover(box: Box) -> None:
    read = "<read>a.py</read>"
    done, _ = play(box, [read, read, read, EDIT, read, "<done/>"], Prompt())
    assert done.exit is Exit.DONE
    assert "x + 1" in done.patch


def test_loop_detection_stops_failed_edits_and_repeated_commands(box: Box) -> None:
    bad = '<edit path="a.py">\n    completely other text here\n=======\n    z\n</edit>'
    edits, _ = play(box, [bad], Prompt())
    assert edits.exit is Exit.LOOP
    assert any("3 edits in a row failed" in s.observation for s in edits.steps)
    commands, _ = play(box, ["<bash>ls</bash>"], Prompt())
    assert commands.exit is Exit.LOOP


def test_reading_on_through_a_file_is_no_loop(box: Box) -> None:
    reads = [f"<read>long.py:{i * 10 + 1}-{i * 10 + 10}</read>" for i in range(8)] + ["<done/>"]
    trajectory, _ = play(box, reads, Prompt())
    assert trajectory.exit is Exit.DONE
    assert all(step.ok for step in trajectory.steps)


def test_skip_verification_says_so() -> None:
    assert "Do not run tests" in Prompt().system(terse=False)
    assert "running the tests" in without(Fix.skip_verification).system(terse=False)
    assert "Skip tests." in Prompt().system(terse=True)
    assert "Run tests." in without(Fix.skip_verification).system(terse=True)


def test_fences_do_not_reach_source_files(box: Box) -> None:
    write = '<write path="a.py">\n```python\ndef f(x):\n    return x + 1\n```\n</write>'
    sick, _ = play(box, [write, "<done/>"], without(Fix.strip_fences))
    assert "no longer parses" in sick.steps[0].observation
    assert "```" in box.read("a.py")
    cured, _ = play(box, [write, "<done/>"], Prompt())
    assert "Warning" not in cured.steps[0].observation
    assert box.read("a.py") == "def f(x):\n    return x + 1\n"


def test_fuzzy_edits_apply_where_exact_ones_fail(box: Box) -> None:
    near = '<edit path="a.py">\n  return  x-1\n=======\n  return x + 1\n</edit>'
    sick, _ = play(box, [near, "<done/>"], without(Fix.fuzzy_edit))
    assert not sick.steps[0].ok
    assert sick.patch == ""
    cured, _ = play(box, [near, "<done/>"], Prompt())
    assert cured.steps[0].ok
    assert "+    return x + 1" in cured.patch


def test_the_edit_tool_can_be_withheld(box: Box) -> None:
    refused, model = play(box, [EDIT, "<done/>"], without(Fix.edit_tool))
    assert "use <write>" in refused.steps[0].observation
    assert "<edit" not in model.shown[0].messages[0].content
    assert "<edit" in Prompt().system(terse=False)


def test_switches_and_names_are_one_and_the_same() -> None:
    for fix in Fix:
        assert replace(Prompt(), **{fix.value: False}) == without(fix)
        assert without(fix).switches() != Prompt().switches()
