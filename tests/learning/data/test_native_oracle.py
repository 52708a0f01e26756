"""Reference patches as sessions: what the real agent loop prints for the same calls, and the same patch."""

from __future__ import annotations

from pathlib import Path

import pytest

from looper.agents.loop import Agent, Budget
from looper.agents.prompt import Prompt
from looper.benchmarks.bugs.draw import draw
from looper.benchmarks.bugs.family import mix_family, natural_family
from looper.errors import ConfigError, TrainingError
from looper.learning.data.oracle import OracleData
from looper.learning.data.oracle_native import OracleNative
from looper.learning.patches import changed_paths, parse_patch
from looper.models.replay import Replay, record
from looper.pretraining.box import MemoryBox
from looper.protocols import Box, Materials
from looper.records import Episode, Example, Exit, Message, Recall, Skill, Source, Task, Tests, Trajectory, Verdict
from looper.workspaces.local import LocalWorkspace

TREE = {
    "pkg/__init__.py": "",
    "pkg/cart.py": (
        "RATE = 2\n\n\ndef total(items):\n"
        "    out = 0\n    for item in items:\n        out += item\n    return out\n\n\n"
        "def count(items):\n    out = 0\n    for item in items:\n        out += 1\n    return out\n"
    ),
    "pkg/old.py": "def total_old(items):\n    return 0\n",
    "pkg/shape.py": "class Box:\n    size = 1\n\n    def area(self):\n        return self.size\n",
    "notes.txt": "one\ntwo\nthree\n",
}
AFTER = {
    "pkg/__init__.py": "from pkg.cart import total\n",
    "pkg/cart.py": (
        "RATE = 3\n\n\ndef total(items):\n"
        "    out = 0\n    for item in items:\n        out += item\n    return out * RATE\n"
        "\n\ndef count(items):\n    out = 0\n    for item in items:\n        if item:\n            out += 1\n"
        "    return out\n"
    ),
    "pkg/new.py": "def fresh():\n    return 1\n\n\nclass Box:  # git grep does not see it\n    pass\n",
    "pkg/shape.py": "class Box:\n    size = 2\n\n    def area(self):\n        return self.size\n",
    "notes.txt": "one\nthree\n",
}


def episode_of(task: Task, prompt: Prompt, *, terse: bool = True) -> Episode:
    """Return a session that was given up at once: only its prompt matters."""
    opening = Agent(prompt=prompt, budget=Budget()).opening(task, Recall(), terse=terse)
    trajectory = Trajectory(digest="d", task=task.id, messages=tuple(opening), steps=(), patch="", exit=Exit.TOKENS)
    return Episode(
        digest="d", task=task.id, family="f", pair=task.id, trajectory=trajectory, verdict=Verdict(resolved=False)
    )


def example_of(task: Task, prompt: Prompt, *, terse: bool = True) -> Example:
    episode = episode_of(task, prompt, terse=terse)
    (example,) = OracleNative(steps=40).examples([episode], 0, Materials(tasks={task.id: task}))
    return example


def replayed(example: Example, task: Task, prompt: Prompt, box: Box, folder: Path, *, terse: bool = True) -> Trajectory:
    """Let the real agent make the example's calls."""
    path = folder / "replies.jsonl"
    record(path, [example.messages])
    model = Replay(path=str(path), knows_protocol=terse)
    agent = Agent(prompt=prompt, budget=Budget(steps=40))
    return agent.run(task, box, model, recall=Recall(), skill=Skill(), digest="replayed")


@pytest.fixture(scope="module")
def task(workspace: LocalWorkspace) -> Task:
    """A task over several files, whose reference patch git wrote."""
    source = Source(name="shop", files=TREE)
    with workspace.open(source) as box:
        for path, text in AFTER.items():
            box.write(path, text)
        box.run("rm pkg/old.py", seconds=10)
        gold = box.diff()
    return Task(id="t", family="f", issue="totals are wrong", source=source, tests=Tests(), gold=gold)


@pytest.mark.parametrize("family", [mix_family(3), natural_family(2), natural_family(7)], ids=lambda f: f.name)
def test_in_generated_repositories_the_agent_sees_what_the_example_says(family, tmp_path: Path) -> None:
    for index in range(5):
        drawn = draw(family, index)
        for prompt in (Prompt(), Prompt(line_ranges=False), Prompt(edit_tool=False)):
            example = example_of(drawn.task, prompt)
            box = MemoryBox(drawn.task.source.files)
            found = replayed(example, drawn.task, prompt, box, tmp_path)
            assert found.messages == example.messages
            site = drawn.bug.site
            assert box.read(site.path).split("\n")[site.line - 1] == site.fixed
            assert all(step.ok for step in found.steps) and found.exit is Exit.DONE


def test_two_copies_are_told_apart_by_the_reference_patch(sessions) -> None:
    examples = OracleNative().examples(sessions.episodes, 0, sessions.materials)
    assert [e.task for e in examples] == [d.task.id for d in sessions.draws]
    for example, drawn in zip(examples, sessions.draws, strict=True):
        assert f'<edit path="{drawn.bug.site.path}">' in example.messages[-3].content
        assert example.messages[2].content.startswith("<bash>git grep -n ")
    assert examples == OracleNative().examples(sessions.episodes[::-1], 5, sessions.materials)


@pytest.mark.parametrize(
    "prompt", [Prompt(), Prompt(line_ranges=False), Prompt(edit_tool=False)], ids=["fixes", "whole_files", "no_edit"]
)
@pytest.mark.parametrize("terse", [True, False])
def test_a_patch_over_several_files_is_played_as_a_real_checkout_answers(task, prompt, terse, workspace, tmp_path):
    example = example_of(task, prompt, terse=terse)
    with workspace.open(task.source) as box:
        found = replayed(example, task, prompt, box, tmp_path, terse=terse)
    assert found.messages == example.messages
    assert found.patch == task.gold
    assert example.weights == tuple(float(m.role == "assistant") for m in example.messages)
    assert ("<edit path=" in "".join(m.content for m in example.messages[2:])) == prompt.edit_tool


def test_without_the_tree_the_patchs_own_context_is_read(task, workspace, tmp_path) -> None:
    bare = task.model_copy(update={"source": Source(name="shop", repository="elsewhere", commit="0" * 40)})
    # A file of one line has no context that tells where its first line is to stand; git's patch of it has no old lines.
    assert "@@ -0,0" in task.gold
    kept = [part for part in task.gold.split("diff --git ")[1:] if "__init__" not in part]
    bare = bare.model_copy(update={"gold": "".join(f"diff --git {part}" for part in kept)})
    example = example_of(bare, Prompt())
    with workspace.open(task.source) as box:
        found = replayed(example, task, Prompt(), box, tmp_path)
    assert found.messages == example.messages
    assert found.patch == bare.gold


def test_what_cannot_be_played_is_left_out(task, caplog) -> None:
    def left_out(**changes: object) -> str:
        changed = task.model_copy(update=changes)
        caplog.clear()
        with caplog.at_level("INFO", logger="looper.learning"):
            materials = Materials(tasks={task.id: changed})
            assert OracleNative().examples([episode_of(changed, Prompt())], 0, materials) == ()
        return caplog.text

    assert "without a reference patch" in left_out(gold="")
    assert "does not fit the tree" in left_out(source=Source(name="s", files={"pkg/cart.py": "x = 1\n"}))
    assert "damaged hunk" in left_out(gold="--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\n-b\n")
    bare = f"{task.gold.rstrip()}\ndiff --git a/x.py b/x.py\nnew file mode 100644\nindex 0000000..e69de29\n"
    assert "a file without hunks" in left_out(gold=bare)
    assert "a file without hunks" in left_out(gold=bare[bare.rindex("diff --git") :])
    heading = "--- a/notes.txt\n+++ b/notes.txt\n@@ -1,2 +1,2 @@\n one\n-=======\n+-------\n"
    tree = Source(name="s", files={"notes.txt": "one\n=======\n"})
    assert "tool language cannot say" in left_out(gold=heading, source=tree)
    with pytest.raises(TrainingError, match="not at hand"):
        OracleNative().examples([episode_of(task, Prompt())], 0, Materials())
    with pytest.raises(ConfigError, match=r"data.steps=2"):
        OracleNative(steps=2)


def test_a_diff_answers_the_sessions_own_prompt(sessions) -> None:
    examples = OracleData().examples(sessions.episodes, 0, sessions.materials)
    assert not OracleData().native and OracleNative().native
    assert [e.task for e in examples] == [d.task.id for d in sessions.draws]
    for example, drawn in zip(examples, sessions.draws, strict=True):
        first = next(e for e in sessions.episodes if e.task == example.task)
        assert example.messages[:2] == first.trajectory.messages[:2]
        assert example.messages[2] == Message(role="assistant", content=drawn.task.gold.strip("\n"))
        assert example.weights == (0.0, 0.0, 1.0)


def test_a_patch_is_read_by_its_counts() -> None:
    patch = "--- a/q.sql\n+++ b/q.sql\n@@ -1,2 +1,2 @@ select\n---- x\n+--- y\n z\n\\ No newline at end of file\n"
    (file,) = parse_patch(patch)
    assert file.hunks[0].old == ("--- x", "z") and file.hunks[0].new == ("--- y", "z")
    assert not file.hunks[0].newline
    assert changed_paths(patch) == ("q.sql",)
