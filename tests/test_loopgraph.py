from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from looper.errors import ConfigError
from looper.loopgraph import LoopGraph, ResearchFSClient, Usable
from looper.memory.ranking.settings import Ranking
from looper.memory.rows import Decision, Role
from tests.memory.bundled_train import TRAIN, measure, with_method

GOAL = "improve validation bpb"


class Tinkerer(Usable):
    """Someone else's agent: makes the edits that its prompt offers, or turns a knob if there are none."""

    def __init__(self, code: str) -> None:
        self.code, self.best, self.prompts = code, measure(code), [""]

    def run(self, rounds: int) -> None:
        for number in range(rounds):
            if self.loopgraph:
                self.prompts.append(str(self.loopgraph.before(GOAL, self.code)))
            new = self.edited(self.prompts[-1], number)
            if self.loopgraph and self.loopgraph.proposed(new, seed=1).ruling == "block":
                continue
            metric = measure(new)
            if self.loopgraph:
                self.loopgraph.after(metric)
            if metric < self.best:
                self.code, self.best = new, metric

    def edited(self, prompt: str, number: int) -> str:
        code = self.code.replace("LR = 0.003", f"LR = 0.00{4 + number}")
        for group in prompt.partition("\n## Edits")[2].partition("\n## ")[0].split(":\n")[1:]:
            edits = [json.loads(line) for line in group.splitlines() if line.startswith("{")]
            made = self.code
            for edit in edits:
                assert made.count(edit["search"]) == 1
                made = made.replace(edit["search"], edit["replace"])
            if made not in self.tried:
                self.tried.append(made)
                return made
        return code

    @property
    def tried(self) -> list[str]:
        return self.__dict__.setdefault("_tried", [])


def memory_at(path: Path, **options: object) -> LoopGraph:
    return LoopGraph(path, campaign="night", scope="research/cpu", budget_kind="tokens", budget=1e5, **options)


def test_a_loop_of_someone_else_gets_a_pack_before_each_proposal_and_its_outcomes_are_kept(tmp_path: Path) -> None:
    alone = Tinkerer(TRAIN)
    alone.run(4)
    assert alone.prompts == [""] and not list(tmp_path.iterdir())

    with memory_at(tmp_path / "memory.db") as memory:
        for seed in (1, 2):
            memory.baseline(TRAIN, measure(TRAIN, seed), seed=seed)
        helped = Tinkerer(TRAIN).use(memory)
        helped.run(4)
        store = memory.client.store
        assert len(helped.prompts) == 5 and all("## Methods to try" in prompt for prompt in helped.prompts[1:])
        retrievals, experiments = store.retrievals("night"), store.experiments("night")
        assert len(retrievals) == 4 and len(experiments) == 6
        assert [experiment.retrieval for experiment in experiments[2:]] == [one.id for one in retrievals]
        assert all(Role.PRESENT in experiment.methods.values() for experiment in experiments[2:])
        assert all(any(item.attempted for item in one.items) for one in retrievals)
        outcomes = [store.outcome(experiment.id) for experiment in experiments]
        assert [outcome.metric for outcome in outcomes if outcome][2:] == [measure(code) for code in helped.tried]
        assert all(store.verdict(experiment.id) for experiment in experiments[2:])


def test_a_program_that_is_known_not_to_help_is_blocked_and_the_block_is_noted(tmp_path: Path) -> None:
    worse = with_method("relu_squared")
    with memory_at(tmp_path / "memory.db") as memory:
        for seed in (1, 2, 3):
            memory.baseline(TRAIN, measure(TRAIN, seed), seed=seed)
        memory.before(GOAL, TRAIN)
        assert memory.proposed(worse, seed=1).ruling == "allow"
        logged = memory.after(measure(worse, 1) + 0.1)
        assert logged.verdict is not None and logged.verdict.decision is Decision.DISCARD
        assert "relu_squared" in memory.before(GOAL, TRAIN).brief.partition("## Tried here")[2]
        answer = memory.proposed(worse.replace("hidden =", "hidden  ="), seed=1)
        assert answer.ruling == "block" and answer.evidence == (logged.experiment.id,) and answer.reopens
        blocked = memory.client.store.connection.execute("SELECT count(*) FROM event WHERE kind = 'blocked'")
        assert blocked.fetchone() == (1,)


def test_calls_out_of_order_and_results_that_are_none_say_what_to_do(tmp_path: Path) -> None:
    with memory_at(tmp_path / "memory.db") as memory:
        with pytest.raises(ConfigError, match="before"):
            memory.proposed(TRAIN)
        memory.before(GOAL, TRAIN)
        with pytest.raises(ConfigError, match="baseline"):
            memory.after(2.0)
        memory.proposed(with_method("swiglu"))
        with pytest.raises(ConfigError, match="crash or timeout"):
            memory.after(float("nan"))
        assert memory.client.store.experiments() == []
        logged = memory.after(status="crash", log="out of memory")
        assert logged.verdict is None and "log the baseline" in logged.notes[0]


def test_the_face_is_light_and_its_client_is_the_memory_s(tmp_path: Path) -> None:
    script = (
        "import sys, looper.cli, looper.loopgraph\n"
        "print({'torch', 'numpy', 'scipy', 'pydantic', 'transformers', 'mcp'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"
    with ResearchFSClient(tmp_path / "researchfs.db") as client:
        assert client.method("swiglu").name.startswith("SwiGLU")
    assert [path.name for path in tmp_path.iterdir()] == ["researchfs.db"]


def test_a_refused_result_leaves_nothing_behind_and_can_be_given_again(tmp_path: Path) -> None:
    with memory_at(tmp_path / "memory.db") as memory:
        for seed in (1, 2):
            memory.baseline(TRAIN, measure(TRAIN, seed), seed=seed)
        with pytest.raises(ConfigError, match="cost=-1"):
            memory.baseline(TRAIN, 2.5, seed=3, cost=-1.0)
        memory.before(GOAL, TRAIN)
        memory.proposed(with_method("swiglu"), seed=1)
        for wrong in ({"decision": "keep"}, {"decision": "maybe"}, {"wall": -1.0}, {"metric_name": 3}):
            with pytest.raises(ValueError if "metric_name" in wrong else ConfigError):
                memory.after(status="crash", **wrong)
        counts = memory.client.stats().counts
        assert (counts["experiment"], counts["outcome"]) == (2, 2)
        logged = memory.after(2.0)
        assert logged.verdict is not None and logged.verdict.delta is not None
        assert memory.client.stats().counts["experiment"] == 3


def test_a_second_question_takes_the_place_of_the_first(tmp_path: Path) -> None:
    with memory_at(tmp_path / "memory.db") as memory:
        memory.baseline(TRAIN, 2.5, seed=1)
        memory.before(GOAL, TRAIN)
        memory.proposed(with_method("swiglu"), seed=1)
        again = memory.before(GOAL, TRAIN)
        with pytest.raises(ConfigError, match="has to follow proposed"):
            memory.after(2.4)
        memory.proposed(with_method("rope"), seed=1)
        logged = memory.after(2.4)
        assert logged.experiment.retrieval == again.retrieval and "rope" in logged.experiment.methods


def test_a_query_that_won_is_asked_again_and_then_tires(tmp_path: Path) -> None:
    with memory_at(tmp_path / "memory.db", ranking=Ranking(thompson=False)) as memory:
        for seed, metric in enumerate([2.50, 2.515] * 3, start=1):
            memory.baseline(TRAIN, metric, seed=seed)
        first = memory.before(GOAL, TRAIN)
        better = with_method("swiglu")
        memory.proposed(better, seed=1)
        assert memory.after(2.45).verdict.decision is Decision.KEEP
        again = [memory.before(GOAL, better) for _ in range(12)]
        assert again[0].reused and again[0].query == first.query
        assert f'"{first.query}" (asked before' in again[0].brief
        assert not again[-1].reused and again[-1].query != first.query


def test_the_noise_and_the_effects_of_another_metric_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with memory_at(path, ranking=Ranking(thompson=False)) as memory:
        for seed in (1, 2):
            memory.baseline(TRAIN, measure(TRAIN, seed), seed=seed)
        memory.before(GOAL, TRAIN)
        memory.proposed(with_method("swiglu"), seed=1)
        memory.after(1.5)
    with memory_at(path, metric_name="val_loss", limit=40, ranking=Ranking(thompson=False)) as memory:
        assert "assumed, not measured" in memory.before(GOAL, TRAIN).brief
        for seed in (1, 2):
            memory.baseline(TRAIN, 5.0 + seed, seed=seed)
        found = memory.before(GOAL, TRAIN)
        assert "noise of one result: 0.707 (measured from 2 results" in found.brief
        swiglu = next(entry for entry in found.pack if entry.method == "swiglu")
        assert swiglu.tries == 1 and swiglu.mean_effect is None
        memory.proposed(with_method("swiglu"), seed=1)
        assert memory.after(5.5).verdict.delta == pytest.approx(0.5)


def test_a_result_is_judged_though_its_baseline_comes_later(tmp_path: Path) -> None:
    with memory_at(tmp_path / "memory.db") as memory:
        memory.before(GOAL, TRAIN)
        memory.proposed(with_method("swiglu"), seed=1)
        early = memory.after(1.0)
        assert early.verdict is None
        assert memory.baseline(TRAIN, 2.5, seed=1).rejudged == (early.experiment.id,)
        assert memory.baseline(TRAIN, 2.501, seed=2).rejudged == (early.experiment.id,)
        assert memory.client.store.verdict(early.experiment.id).decision is Decision.KEEP
