from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from looper.errors import ConfigError
from looper.loopgraph import LoopGraph, ResearchFSClient, Usable
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
