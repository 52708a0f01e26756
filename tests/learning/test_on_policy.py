"""Strategies that try again: GRPO, rejection sampling and self-distillation."""

import statistics

import pytest

from looper.errors import ConfigError, NothingToLearn
from looper.learning.grpo import EPSILON, Grpo, advantages, compared
from looper.learning.patches import folders, parse_patch
from looper.learning.rejection_sampling import RejectionSampling, banded, easy_first, solved_share
from looper.learning.sdft import Sdft, Sessions, solution
from looper.learning.sft import Sft
from looper.records import Exit, Skill
from tests.learning.sessions import Bench, bench, diff, made_from, session, tiny_model

MIXED = [
    *(session("alpha", i == 0, i, tree=f"tree{i}") for i in range(4)),
    *(session("beta", i < 3, i, tree=f"tree{i}") for i in range(4)),
]
SOLVED = [session("alpha", True, i) for i in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), MIXED)


def test_advantages_against_a_computation_by_hand():
    assert advantages([1.0, 1.0, 1.0]) == advantages([0.0] * 3) == [0.0] * 3
    assert advantages([]) == [] and advantages([1.0]) == [0.0]
    # mean 1/4, sample deviation sqrt((9/16 + 3 * 1/16) / 3) = 1/2
    assert advantages([1, 0, 0, 0]) == pytest.approx([0.75 / (0.5 + EPSILON), *[-0.25 / (0.5 + EPSILON)] * 3])
    rewards = [0.2, 0.5, 0.9]
    expected = [(r - statistics.mean(rewards)) / (statistics.stdev(rewards) + EPSILON) for r in rewards]
    assert advantages(rewards) == pytest.approx(expected)


def test_groups_without_a_signal_and_spoiled_attempts_are_dropped():
    update = compared([*MIXED, session("gamma", True), session("alpha", False, 9, exit=Exit.ERROR)])
    assert (update.groups, update.silent) == (3, 1)
    assert update.reward == pytest.approx(5 / 9)
    assert len(update.examples) == 8 and {e.group for e in update.examples} == {"alpha", "beta"}
    by_task = {task: sum(e.label for e in update.examples if e.task == task) for task in ("alpha", "beta")}
    assert by_task == pytest.approx({"alpha": 0.0, "beta": 0.0}, abs=1e-9)
    assert all(sum(e.weights) == 4 for e in update.examples)
    assert compared([]).reward == 0.0


def test_grpo_updates_the_adapter_and_counts_updates_without_signal(tmp_path, model):
    lab = bench(tmp_path / "grpo", model, waves=[MIXED, SOLVED, MIXED])
    learned = Grpo(updates=3, group=4, temperature=0.8).learn(Skill(), [], lab)
    names, attempts, temperatures, skills = zip(*lab.asked, strict=True)
    assert names == ("grpo-0", "grpo-1", "grpo-2") and set(attempts) == {4} and set(temperatures) == {0.8}
    assert set(lab.drawn) == {4}
    assert skills[0] != skills[1] == skills[2] != learned.digest  # the silent update changed nothing
    assert [row["reward"] for row in lab.notes["updates"]] == [0.5, 1.0, 0.5]
    assert lab.notes["skipped_updates"] == 1
    assert (lab.notes["examples"], lab.notes["tasks"]) == (16, 2)  # what it learned from, not what it was given
    assert len(learned.adapters) == 1
    plain = Sft().learn(Skill(), made_from(MIXED), bench(tmp_path / "sft", model))
    assert plain.digest != learned.digest
    resolved, failed = [[e for e in MIXED if e.resolved is r and e.task == "alpha"] for r in (True, False)]

    def gap(skill):
        found = [compared([*resolved, *failed]).examples[i] for i in range(4)]
        losses = lab.trainer.losses(lab.model_path, found, [a.path for a in skill.adapters])
        return sum(losses[1:]) / 3 - losses[0]

    assert gap(learned) > gap(Skill())


def test_grpo_without_any_signal_has_nothing_to_learn(tmp_path, model):
    with pytest.raises(NothingToLearn, match=r"none of 2 updates .* rewards 1.00 to 1.00"):
        Grpo(updates=2).learn(Skill(), [], bench(tmp_path, model, waves=[SOLVED, SOLVED]))
    for wrong in (
        {"group": 1},
        {"updates": 0},
        {"temperature": 0.0},
        {"clip": 0.0},
        {"tasks": -1},
        {"epochs": 0},
        {"lr_scale": 0.0},
        {"beta": -1.0},
    ):
        with pytest.raises(ConfigError, match=f"strategy.{next(iter(wrong))}"):
            Grpo(**wrong)


def test_difficulty_is_the_share_of_attempts_that_solved_a_task():
    share = solved_share([*MIXED, session("gamma", False, exit=Exit.SECONDS)])
    assert share == {"alpha": 0.25, "beta": 0.75}
    examples = made_from(MIXED)
    assert [e.task for e in easy_first(examples, share)] == ["beta"] * 3 + ["alpha"]
    assert [len(part) for part in banded(examples, 3)] == [1, 2, 1]
    assert [len(part) for part in banded(examples[:2], 5)] == [1, 1] and banded([], 2) == []


def test_rejection_sampling_fits_on_verified_attempts(tmp_path, model):
    stage = [session("alpha", False)]
    lab = bench(tmp_path / "rejection", model, episodes=stage, waves=[MIXED])
    learned = RejectionSampling(attempts=4, cap=2).learn(Skill(), [], lab)
    assert lab.asked == [("rejection-0", 4, 1.0, Skill().digest)]
    (row,) = lab.notes["rounds"]
    assert (row["attempts"], row["resolved"], row["examples"]) == (8, 4, 3)
    assert (lab.notes["examples"], lab.notes["tasks"]) == (3, 2)
    # A stage that held these very sessions gives plain fine-tuning the same adapter.
    same = RejectionSampling(cap=2).verified([*stage, *MIXED], lab)
    assert learned.digest == Sft().learn(Skill(), same, bench(tmp_path / "sft", model)).digest
    lab = bench(tmp_path / "bands", model, episodes=stage, waves=[MIXED, MIXED])
    in_bands = RejectionSampling(bands=2, rounds=2).learn(Skill(), [], lab)
    assert in_bands.digest != learned.digest and len(in_bands.adapters) == 1
    assert lab.asked[0][3] != lab.asked[1][3]  # the second round samples with what the first one learned
    lab = bench(tmp_path / "none", model, waves=[stage])
    with pytest.raises(NothingToLearn, match="0 tasks"):
        RejectionSampling().learn(Skill(), [], lab)
    assert lab.notes["rounds"] == [{"attempts": 1, "resolved": 0, "examples": 0}]  # why, for the report
    with pytest.raises(ConfigError, match=r"strategy.temperature=0.0"):
        RejectionSampling(temperature=0.0)


def test_patches_are_read_line_by_line():
    patch = (
        diff("src/live/a.py", "-- old", "++ new")
        + "diff --git a/b.txt b/b.txt\ndeleted file mode 100644\n--- a/b.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n"
        + "diff --git a/c.txt b/c.txt\n--- /dev/null\n+++ b/c.txt\n@@ -0,0 +1 @@\n+new\n\\ No newline at end of file\n"
    )
    assert [(c.path, c.removed, c.added) for c in parse_patch(patch)] == [
        ("src/live/a.py", ("-- old",), ("++ new",)),
        ("b.txt", ("gone",), ()),
        ("c.txt", (), ("new",)),
    ]
    assert folders(patch) == ["src", "live"] and parse_patch("") == [] and parse_patch("noise\n@@ -1 +1 @@\n") == []


def test_the_teacher_is_shown_the_solution_of_another_session(tmp_path):
    first, second = session("alpha", True, 0), session("alpha", True, 1, tree="other")
    stage = [first, second, session("beta", False), session("gamma", True, patch="")]
    lab = Bench(root=tmp_path, episodes=stage)
    taught = Sdft().taught(Skill(), made_from(stage), lab)
    assert [e.task for e in taught] == ["alpha", "alpha"]  # gamma's solution is empty
    assert taught[0].privileged == solution(second, 600) != taught[1].privileged
    assert taught[1].privileged == (
        "Notes from past sessions:\n- this issue was solved: in live/alpha.py replace `a` by `b`\n"
    )
    tried = Bench(root=tmp_path, episodes=stage, waves=[[session("alpha", False, 7), session("beta", False, 7)]])
    (student,) = Sdft(sessions=Sessions.on_policy, attempts=3).taught(Skill(), [], tried)
    assert (student.episode, student.privileged) == ("alpha-7-False", solution(first, 600))
    assert tried.asked == [("sdft", 3, 1.0, Skill().digest)]
    with pytest.raises(NothingToLearn, match="0 of 1 sessions were resolved"):
        Sdft().learn(Skill(), [], Bench(root=tmp_path, episodes=[session("beta", False)]))


def test_self_distillation_differs_from_plain_fine_tuning(tmp_path, model):
    examples = made_from(MIXED)
    learned = Sdft().learn(Skill(), examples, bench(tmp_path / "sdft", model, episodes=MIXED))
    plain = Sft().learn(Skill(), examples, bench(tmp_path / "sft", model))
    assert len(learned.adapters) == 1 and learned.digest != plain.digest
