"""Whole studies over a simulated benchmark: real boxes, sessions and memories, scores drawn instead of trained."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from looper.agents.loop import Agent, Budget
from looper.agents.prompt import ResearchPrompt
from looper.benchmarks.research.benchmark import Research
from looper.benchmarks.research.measurement import Measurement
from looper.campaigns.options import ArmName, Campaign
from looper.campaigns.running import CampaignRun, alone
from looper.campaigns.study import free
from looper.campaigns.trials import Played
from looper.errors import ModelError, StoreError
from looper.memory.check import check
from looper.memory.client import ResearchFSClient
from looper.memory.ranking.settings import Cost, Ranking
from looper.models.recipe import Recipe
from looper.protocols import Workspace
from looper.records import Conversation, Reply, Skill
from looper.session import Actor
from looper.store import Store
from looper.workspaces.local import LocalWorkspace

WORKSPACE = LocalWorkspace()


@dataclass(frozen=True, kw_only=True)
class Simulated(Research):
    """Every program has a true score drawn from its text, and noise drawn from its text and seed."""

    asked: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, Any]:
        return {"simulated": 1, "split": self.corpus_split}

    def measure(self, train: str, *, seed: int, workspace: Workspace) -> Measurement:
        text = hashlib.sha256(train.encode()).hexdigest()
        self.asked.append((text, seed, self.corpus_split))
        time.sleep(0.02)  # long enough for two campaigns to want the same at once
        true = 0.0 if train == self.files()["train.py"] else Random(text).gauss(0.0, 0.03)
        score = 4.0 + true + Random(f"{text}/{seed}/{self.corpus_split}").gauss(0.0, 0.006)
        return Measurement(status="ok", val_bpb=score, steps=1, train_seconds=1.0, wall_seconds=2.0)


class Silent:
    def event(self, kind: str, data: dict[str, Any]) -> None:
        pass

    def finish(self, metrics: dict[str, Any]) -> None:
        pass


class Scripted:
    """A chat model that says what a function says for the number of its turn."""

    id, knows_protocol, weights = "scripted", True, None

    def __init__(self, say: Callable[[int], str]) -> None:
        self.say = say

    def tokens(self, text: str) -> int:
        return len(text) // 4

    def reply(self, conversations: list[Conversation]) -> list[Reply]:
        return [Reply(text=self.say(sum(m.role == "assistant" for m in one.messages))) for one in conversations]

    def with_skill(self, skill: Skill) -> Scripted:
        return self

    def forget(self, conversation: str) -> None:
        pass


def run(
    place: Path,
    *,
    model: Any = None,
    benchmark: Any = None,
    seed: int = 1,
    learning: Any = None,
    **options: Any,
) -> Any:
    chosen = {"arms": [ArmName.stateful], "experiments": 3, "baselines": 3, "finals": 2, "earlier": 1, **options}
    actor = Actor(
        agent=Agent(prompt=ResearchPrompt(), budget=Budget(steps=40, tokens=16000, context=24000)),
        workspace=WORKSPACE,
        store=Store(place / "outputs"),
        model=model or Recipe(),
        skill=Skill(),
    )
    made = CampaignRun(
        options=Campaign(**chosen),
        benchmark=benchmark or Simulated(),
        ranking=Ranking(cost=Cost.FREE),
        actor=actor,
        folder=place / "run",
        seed=seed,
        temperature=0.0,
        parallel=2,
        tracker=Silent(),
        learning=learning,
    )
    return made.execute()


ALL = list(ArmName)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Simulated, Any]:
    place, benchmark = tmp_path_factory.mktemp("study"), Simulated()
    metrics, trials = run(place, benchmark=benchmark, arms=ALL, replicates=2, earlier=2, experiments=1)
    assert set(trials) == {f"{arm.value}-{i}" for arm in ALL for i in (1, 2)}
    return place, benchmark, metrics


def test_arms_of_a_replicate_share_seeds_and_baselines_and_nothing_is_run_twice(study: Any) -> None:
    _, benchmark, metrics = study
    assert len(set(benchmark.asked)) == len(benchmark.asked)
    for replicate in (1, 2):
        rows = [one for one in metrics["campaigns"] if one["replicate"] == replicate]
        assert len({one["seed"] for one in rows}) == 1
        assert len({one["baseline"] for one in rows}) == 1
        began = {one["arm"]: len(one["earlier"]) for one in rows}
        assert began == {arm.value: 2 if arm.value in ("memory", "shuffled") else 0 for arm in ALL}
    assert len({one["seed"] for one in [*metrics["campaigns"], *metrics["earlier"]]}) == 2 + 4
    assert metrics["arms"]["memory"]["earlier"]["campaigns"] == 4
    assert len(metrics["comparisons"]) == 11
    assert all(row["n"] == 2 for row in metrics["comparisons"])


def test_a_memory_begins_with_earlier_campaigns_and_its_placebo_with_the_same(study: Any) -> None:
    place, _, _ = study
    for arm in ("memory", "shuffled"):
        with ResearchFSClient(place / "run" / "memory" / f"{arm}-1.db", read_only=True) as client:
            campaigns = {one.campaign for one in client.store.experiments()}
            scopes = {one.scope for one in client.store.experiments() if one.campaign == "earlier-1-2"}
        assert campaigns == {"earlier-1-1", "earlier-1-2", f"{arm}-1"}
        assert scopes == {"research/cpu/153600-tokens/split2"}


def test_a_study_is_read_back_and_a_lost_part_is_played_again_to_the_same_end(study: Any) -> None:
    place, benchmark, metrics = study
    count = len(benchmark.asked)
    again, _ = run(place, benchmark=benchmark, arms=ALL, replicates=2, earlier=2, experiments=1)
    for lost in ("earlier-1-2", "memory-2", "tpe-1"):  # killed after the memory file, before the record
        (record,) = (place / "run" / "campaigns").glob(f"{lost}-*.json")
        record.unlink()
    third, _ = run(place, benchmark=benchmark, arms=ALL, replicates=2, earlier=2, experiments=1)
    assert again == metrics == third
    assert len(benchmark.asked) == count


@pytest.mark.parametrize(
    "command",
    [
        "rm train.py",
        "rm train.py; mkdir train.py; echo x > train.py/x",
        "head -c 9000000 /dev/zero | tr '\\0' x > train.py",
    ],
    ids=["gone", "folder", "huge"],
)
def test_no_proposal_stops_a_campaign(tmp_path: Path, command: str) -> None:
    model = Scripted(lambda turn: f"<bash>{command}</bash>" if turn == 0 else "<think>oops</think><done/>")
    metrics, trials = run(tmp_path, model=model, experiments=1)
    (trial,) = trials["stateful-1"]
    assert trial["fate"] in ("refused", "crash")
    assert trial["reason"]
    assert metrics["infrastructure"]["total"] == 0


def test_a_server_that_is_away_is_no_result_and_is_asked_again(tmp_path: Path) -> None:
    def away(turn: int) -> str:
        raise ModelError("the server is away")

    metrics, trials = run(tmp_path, model=Scripted(away), experiments=9)
    assert metrics["infrastructure"]["total"] > 0
    assert len(trials["stateful-1"]) == 3, "it stops instead of asking for ever"
    assert "the server is away" in metrics["campaigns"][0]["stopped"]
    back, _ = run(tmp_path, model=Recipe(), experiments=2)
    assert back["infrastructure"]["total"] == 0


def test_what_a_failed_session_left_is_tried_and_its_error_is_kept(tmp_path: Path) -> None:
    def breaking(turn: int) -> str:
        if turn:
            raise ModelError("the server\nwent away")
        return '<edit path="train.py">\nLR = 0.003\n=======\nLR = 0.002\n</edit>'

    metrics, trials = run(tmp_path, model=Scripted(breaking), experiments=1, baselines=2)
    (trial,) = trials["stateful-1"]
    assert trial["score"] is not None
    assert "the session failed: the server\nwent away" in trial["log"]
    with ResearchFSClient(tmp_path / "run" / "memory" / "stateful-1.db", read_only=True) as client:
        (tried,) = [one for one in client.store.experiments("stateful-1") if one.description.startswith("a change")]
        outcome = client.store.outcome(tried.id)
    assert outcome is not None and "the server\nwent away" in outcome.log
    assert metrics["infrastructure"]["total"] == 1


def test_a_log_that_belongs_to_an_older_memory_file_is_not_added_to_the_new_one(tmp_path: Path) -> None:
    run(tmp_path, model=Scripted(lambda turn: "<done/>"), experiments=1)
    file = tmp_path / "run" / "memory" / "stateful-1.db"
    log = file.with_name(f"{file.name}-wal")
    with ResearchFSClient(file) as client:  # another program writes, and is killed before its log is emptied
        client.log_experiment("LR = 1\n", "", campaign="other", scope="s", seed=1, budget_kind="steps", budget=1)
        kept = log.read_bytes()
    log.write_bytes(kept)
    assert kept
    (record,) = (tmp_path / "run" / "campaigns").glob("*.json")
    record.unlink()
    run(tmp_path, model=Scripted(lambda turn: "<done/>"), experiments=1)
    assert check(file) == []
    with ResearchFSClient(file, read_only=True) as client:
        assert {one.campaign for one in client.store.experiments()} == {"stateful-1"}


def test_one_process_at_a_time_plays_a_run(tmp_path: Path) -> None:
    with alone(tmp_path / "run"), pytest.raises(StoreError, match="another process plays the run"):
        run(tmp_path)


def test_what_a_run_leaves_is_written_while_no_other_process_can_play_it(tmp_path: Path) -> None:
    refused = list[bool]()

    class Watched(Simulated):
        @property
        def branches(self) -> str:  # asked when a campaign's files are written
            with pytest.raises(StoreError, match="another process plays the run"), alone(tmp_path / "run"):
                pass
            refused.append(True)
            return ""

    run(tmp_path, model=Scripted(lambda turn: "<done/>"), benchmark=Watched(), experiments=1)
    assert refused


def test_the_memory_of_an_arm_is_the_past_of_the_same_arm_in_another_run(tmp_path: Path) -> None:
    idle = {"model": Scripted(lambda turn: "<done/>"), "arms": [ArmName.memory], "experiments": 1, "proposals": 1}
    run(tmp_path / "1", earlier=0, **idle)
    for i in (2, 3):
        past = tmp_path / str(i - 1) / "run" / "memory" / "memory-1.db"
        metrics, _ = run(tmp_path / str(i), past=str(past), **idle)
    again, _ = run(tmp_path / "3", past=str(past), **idle)
    assert again == metrics, "it is read back"
    made = tmp_path / "3" / "run"
    with ResearchFSClient(made / "memory" / "memory-1.db", read_only=True) as client:
        rows = client.store.experiments()
        asked = {one.campaign for one in client.store.retrievals()}
    assert {one.campaign for one in rows} == asked == {"memory-1", "memory-1+2", "memory-1+3"}
    assert all(one.id.startswith(f"{one.campaign}:") for one in rows)
    lines = (made / "campaigns" / "memory-1" / "results.tsv").read_text().splitlines()
    assert len(lines) == 1 + 3, "a header and its own baselines, none of the past"
    (record,) = (made / "campaigns").glob("memory-1-*.json")
    known = Played.model_validate_json(record.read_text())
    assert (known.name, known.label) == ("memory-1", "memory-1+3")


def test_a_name_is_free_or_numbered() -> None:
    assert free("memory-1", []) == free("memory-1", ["memory-2", "memory-1+2"]) == "memory-1"
    assert free("memory-1", ["memory-1", "memory-1+2"]) == "memory-1+3"


@pytest.mark.slow
def test_an_interrupted_study_stops_before_the_next_training(tmp_path: Path) -> None:
    began = threading.Event()

    @dataclass(frozen=True, kw_only=True)
    class Interrupted(Simulated):
        def measure(self, train: str, *, seed: int, workspace: Workspace) -> Measurement:
            if len(self.asked) >= 6:  # two campaigns at once may pass the sixth together
                began.set()
                raise KeyboardInterrupt
            return super().measure(train, seed=seed, workspace=workspace)

    benchmark = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, benchmark=benchmark, arms=[ArmName.stateful, ArmName.random], experiments=8)
    assert began.is_set()
    assert len(benchmark.asked) <= 8, "the other campaign ended too"
    metrics, _ = run(tmp_path, arms=[ArmName.stateful, ArmName.random], experiments=2)
    assert metrics["costs"]["campaigns"] == 2


@pytest.mark.slow
def test_the_past_is_a_file_of_the_users_and_its_content_counts(tmp_path: Path) -> None:
    run(tmp_path / "before", arms=[ArmName.stateful, ArmName.random], experiments=2)
    memories = tmp_path / "before" / "run" / "memory"
    past = tmp_path / "past.db"
    past.write_bytes((memories / "stateful-1.db").read_bytes())
    metrics, _ = run(tmp_path, arms=[ArmName.memory], past=str(past))
    assert metrics["earlier"] == []
    past.write_bytes((memories / "random-1.db").read_bytes())
    other, _ = run(tmp_path, arms=[ArmName.memory], past=str(past))
    assert other != metrics, "the same name, another content"


def test_no_program_is_run_twice_by_an_arm_that_remembers(tmp_path: Path) -> None:
    replies = ['<edit path="train.py">\nLR = 0.003\n=======\nLR = 0.002\n</edit>', "<think>slower</think><done/>"]
    model = Scripted(lambda turn: replies[min(turn, 1)])
    benchmark = Simulated()
    metrics, trials = run(tmp_path, model=model, benchmark=benchmark, experiments=3, proposals=2)
    kept = [trial for trial in trials["stateful-1"] if trial["fate"] == "keep"]
    ran = [trial for trial in trials["stateful-1"] if trial["fate"] != "none"]
    assert len(ran) == 1 or kept, "the same change of the same program is tried once"
    assert sum("this very program was proposed before" in trial["reason"] for trial in trials["stateful-1"]) == 3 - len(
        ran
    )
    assert metrics["infrastructure"]["total"] == 0
