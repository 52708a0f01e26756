"""The arms of a run learn from equally many examples, and a placebo only beside an arm that learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from looper.agents.loop import Agent, Budget
from looper.agents.prompt import Prompt
from looper.benchmarks.bugs.benchmark import Bugs
from looper.benchmarks.curricula import Split
from looper.errors import ConfigError, ModelError, NothingToLearn
from looper.learning.data.preference import PreferenceData
from looper.learning.dpo import Dpo
from looper.learning.grpo import Grpo
from looper.learning.playbook import Playbook
from looper.learning.sft import Sft
from looper.memory.none import NoMemory
from looper.metrics.summary import ADAPTED, PLACEBO
from looper.models.http_model import HttpModel
from looper.models.nano.model import Nano
from looper.models.replay import Replay
from looper.protocols import Stage
from looper.records import Episode, Example, Exit, Message, Skill, Trajectory, Verdict
from looper.report.learned import learned_notes
from looper.report.progress import Progress
from looper.run import Arm, Parts, Plan, Run
from looper.store import Store
from looper.tracking.guarded import Guarded
from looper.training.mlx_trainer import MlxTrainer
from looper.training.torch_trainer import TorchTrainer
from looper.workspaces.local import LocalWorkspace
from tests.learning.sessions import made_from, session
from tests.models.loopback import asking, serving
from tests.models.test_http import echo, model_at
from tests.recordings import write_recording


class Solved:
    """Data: one example of every resolved session."""

    native = True
    rejects = False
    demonstrates = False

    def examples(self, episodes: Sequence[Episode], seed: int, *materials: Any) -> list[Example]:
        return [
            Example(task=e.task, episode=e.digest, messages=(Message(role="user", content=e.digest),), weights=(0.0,))
            for e in episodes
            if e.resolved
        ]


class Shown(Solved):
    """Data: the same, said to be reference solutions."""

    demonstrates = True


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Strategy: keeps what its lab says of the stage's sessions."""

    learns: bool = True
    imitates: bool = True
    heard: list[Any] = field(default_factory=list)

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Any) -> Skill:
        self.heard.extend([lab.demonstrated, list(lab.sessions(lab.episodes))])
        return skill


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Strategy: the skill is the number of examples; refuses too few tasks."""

    least: int = 1
    learns: bool = True
    imitates: bool = True

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Any) -> Skill:
        tasks = {example.task for example in examples}
        if len(tasks) < self.least:
            raise NothingToLearn(f"{len(tasks)} tasks")
        return skill.model_copy(update={"playbook": f"learned from {len(examples)}"})


@dataclass(frozen=True, kw_only=True)
class Heedless:
    """Strategy: learns from the stage's sessions, whatever examples it is given."""

    learns: bool = True
    imitates: bool = False

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Any) -> Skill:
        if not any(episode.resolved for episode in lab.episodes):
            raise NothingToLearn("nothing was resolved")
        return skill.model_copy(update={"playbook": "learned"})


def episodes(arm: str, world: str, resolved: int, tries: int = 1) -> list[Episode]:
    made = []
    for i in range(resolved + 1):
        task = f"{arm}/{world}/{i // tries}"
        trajectory = Trajectory(digest=f"{task}#{i}", task=task, messages=(), steps=(), patch="", exit=Exit.DONE)
        verdict = Verdict(resolved=i < resolved)
        digest = trajectory.digest
        made.append(Episode(digest=digest, task=task, family="f", pair="", trajectory=trajectory, verdict=verdict))
    return made


def begun(folder: Path, worlds: Sequence[str], **changed: Any) -> Run:
    return Run(
        parts=Parts(
            **{
                "agent": Agent(prompt=Prompt(), budget=Budget()),
                "benchmark": Bugs(),
                "curriculum": Split(),
                "model": Nano(),
                "knowledge": NoMemory(),
                "data": Solved(),
                "strategy": Counted(),
                "trainer": TorchTrainer(),
                "workspace": LocalWorkspace(),
                **changed,
            }
        ),
        plan=Plan(seed=1, attempts=1, temperature=1.0, parallel=1, learning="counted"),
        store=Store(folder),
        folder=folder,
        progress=Progress(),
        tracker=Guarded(),
        probed=dict.fromkeys(worlds, ()),
    )


def consolidated(
    folder: Path, own: dict[str, int], placebo: dict[str, int], strategy: Any = None, tries: int = 1
) -> Run:
    run = begun(folder, list(own), strategy=strategy or Counted())
    arms = []
    for name, found in ((ADAPTED, own), (PLACEBO, placebo)):
        latest = {world: episodes(name, world, n, tries if name == ADAPTED else 1) for world, n in found.items()}
        work = {key: [Stage(name="f", train=(), held_out=())] for key in found}
        arms.append(Arm(name=name, work=work, skills=dict.fromkeys(found, Skill()), memories={}, latest=latest))
    run._consolidate(arms, 0)
    for arm in arms:
        assert arm.changed == any("skipped" not in row for row in run.learning[arm.name])
        for row in run.learning[arm.name]:
            skill = arm.skills[row["world"]]
            if isinstance(run.parts.strategy, Counted):
                assert skill.playbook == ("" if "skipped" in row else f"learned from {row['examples']}")
    return run


def used(run: Run) -> dict[str, list[int | None]]:
    """Return what each arm learned from, world by world; None where it did not learn."""
    return {arm: [None if "skipped" in row else row["examples"] for row in rows] for arm, rows in run.learning.items()}


@pytest.mark.parametrize(
    ("own", "placebo", "expected"),
    [
        ([9, 4], [5, 7], {"adapted": [4, 4], "placebo": [4, 4]}),
        ([9, 0], [5, 7], {"adapted": [5, None], "placebo": [5, None]}),
        ([9, 4], [5, 0], {"adapted": [4, 4], "placebo": [4, None]}),
        ([0, 0], [5, 7], {"adapted": [None, None], "placebo": [None, None]}),
    ],
)
def test_arms_are_matched_and_a_placebo_never_learns_alone(
    tmp_path: Path, own: list[int], placebo: list[int], expected: dict[str, list[int | None]]
) -> None:
    worlds = ("A", "B")
    run = consolidated(tmp_path, dict(zip(worlds, own, strict=True)), dict(zip(worlds, placebo, strict=True)))
    assert used(run) == expected
    told = " ".join(learned_notes(run.learning))
    assert ("Not matched" in told) == (placebo == [5, 0])
    assert ("compared with learned nothing there" in told) == (0 in own)


def test_a_placebo_is_not_trained_where_the_own_arm_had_too_few_tasks(tmp_path: Path) -> None:
    run = consolidated(tmp_path, {"": 6}, {"": 6}, Counted(least=3), tries=6)
    assert used(run) == {"adapted": [None], "placebo": [None]}


@pytest.mark.parametrize("data", [Solved(), Shown()], ids=["own", "reference"])
def test_own_sessions_are_not_taken_from_reference_solutions(tmp_path: Path, data: Solved) -> None:
    strategy = Listening()
    run = begun(tmp_path, [""], strategy=strategy, data=data)
    work = {"": [Stage(name="f", train=(), held_out=())]}
    latest = {"": [session("alpha", True), session("beta", False)]}
    run._consolidate([Arm(name=ADAPTED, work=work, skills={"": Skill()}, memories={}, latest=latest)], 0)
    demonstrated, found = strategy.heard
    assert demonstrated == data.demonstrates
    assert found == (made_from(latest[""]) if demonstrated else data.examples(latest[""], 0))


def test_nor_by_a_strategy_that_chooses_its_own_sessions(tmp_path: Path) -> None:
    run = consolidated(tmp_path, {"": 0}, {"": 6}, Heedless())
    assert used(run) == {"adapted": [None], "placebo": [None]}
    assert "compared with learned nothing there" in " ".join(learned_notes(run.learning))


def test_examples_in_another_format_are_marked_where_they_are_imitated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Solved, "native", False)
    for strategy, marked in ((Counted(), True), (Heedless(), False)):
        run = consolidated(tmp_path, {"": 3}, {"": 3}, strategy)
        assert all(("native" in row) == marked for rows in run.learning.values() for row in rows)
        assert ("Format mismatch" in " ".join(learned_notes(run.learning))) == marked


def test_what_cannot_end_well_is_refused_before_any_session(tmp_path: Path) -> None:
    write_recording(tmp_path / "replies.jsonl")
    work = {ADAPTED: {"": [Stage(name="f", train=(), held_out=())]}}
    remote = {"model": Replay(path=str(tmp_path / "replies.jsonl"))}
    for strategy in (Sft(), Grpo()):
        with pytest.raises(ModelError, match="cannot be trained here: choose strategy=none, strategy=playbook"):
            begun(tmp_path, [""], strategy=strategy, **remote)._check(work)
    begun(tmp_path, [""], strategy=Sft(), **remote)._check({})  # nothing to work on: an evaluation
    with pytest.raises(ConfigError, match="strategy=dpo needs the objective of preference pairs, which trainer=mlx"):
        begun(tmp_path, [""], strategy=Dpo(), trainer=MlxTrainer())._check(work)
    with pytest.raises(ConfigError, match="strategy=sft would imitate them"):
        begun(tmp_path, [""], strategy=Sft(), data=PreferenceData())._check(work)
    for place in ("model", "writer", "supervisor"):
        keyed = {place: HttpModel(name="m", key_variable="NO_KEY_OF_THIS_NAME")}
        with pytest.raises(ConfigError, match="export NO_KEY_OF_THIS_NAME="):
            begun(tmp_path, [""], strategy=Sft(), **keyed)._check({})
    with pytest.raises(ConfigError, match="the benchmark has no tasks"):
        begun(tmp_path, [""]).execute([])
    stages = [Stage(name="f", train=(), held_out=())]
    run = begun(tmp_path, [""], strategy=Playbook(), **remote)
    run.probed[""] = stages
    run._check(work)
    run.probed[""] = [*stages, *stages]
    with pytest.raises(ConfigError, match="adapted arm 1 stages and the probes 2; give placebo=false"):
        run._check(work)


class Asking(Solved):
    """Data: asks the writer one question about each resolved session."""

    def examples(self, episodes: Sequence[Episode], seed: int, *materials: Any) -> list[Example]:
        asked = [asking(e.digest, seed=seed) for e in episodes if e.resolved]
        replies = materials[0].writer.reply(asked)
        return [
            Example(task="t", episode="e", messages=(Message(role="assistant", content=r.text),), weights=(1.0,))
            for r in replies
        ]


def test_what_a_model_wrote_is_not_asked_for_again(tmp_path: Path) -> None:
    arm = Arm(name=ADAPTED, work={"": [Stage(name="f", train=(), held_out=())]}, skills={}, memories={})
    found = episodes(ADAPTED, "", 3)
    with serving(echo) as server:
        told = []
        for _ in range(2):  # a second run, as after a kill
            run = begun(tmp_path, [""], data=Asking(), writer=model_at(server))
            told.append([e.messages[0].content for e in run._examples(arm, "", 0)(found)])
        assert told[0] == told[1] == [e.digest.upper() for e in found if e.resolved]
        assert server.count("/v1/chat/completions") == 3
        run = begun(tmp_path, [""], data=Asking(), writer=model_at(server, revision="2"))
        run._examples(arm, "", 0)(found)
        assert server.count("/v1/chat/completions") == 6, "another model is asked anew"
