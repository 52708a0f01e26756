"""What a result says: how often a change that does nothing is called better, who decided, and what was logged late."""

from __future__ import annotations

import io
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any

import pytest

from looper.errors import ConfigError
from looper.memory.check import check
from looper.memory.client import ResearchFSClient
from looper.memory.experience import Noise, decided
from looper.memory.export import export, restore, results
from looper.memory.rows import Decision, Outcome, Status, Verdict
from looper.memory.store import MemoryStore
from looper.memory.syntax import code_of
from looper.memory.tables import VERDICT

BASE = "LR = 0.1\nDEPTH = 2\n"
WHERE: dict[str, Any] = {"campaign": "night", "scope": "cpu", "budget_kind": "seconds", "budget": 60.0}


@pytest.fixture
def client(tmp_path: Path):
    with ResearchFSClient(tmp_path / "m.db") as client:
        yield client


def program(number: int) -> str:
    return BASE.replace("2", str(number))


def ran(client: ResearchFSClient, metric: float | None, code: str = BASE, before: str = "", **more: Any):
    about = {name: more.pop(name) for name in ("seed", "retrieval", "budget") if name in more}
    done = client.log_experiment(code, before, **{**WHERE, **about})
    return client.log_outcome(done.id, metric, **more)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("gate", [1.0, 2.0])
def test_a_change_that_does_nothing_is_kept_as_rarely_as_the_gate_says(seeds: int, gate: float) -> None:
    luck = random.Random(seeds)
    count = 6000
    found = {Decision.KEEP: 0, Decision.DISCARD: 0, Decision.INCONCLUSIVE: 0}
    paired = dict(found)
    for _ in range(count):
        baselines = [luck.gauss(1.0, 0.01) for _ in range(seeds)]
        noise, result = Noise(sigma=stdev(baselines), freedom=seeds - 1), luck.gauss(1.0, 0.01)
        found[decided(fmean(baselines) - result, noise, seeds, gate)] += 1
        paired[decided(baselines[0] - result, noise, 1, gate)] += 1
    rate = NormalDist().cdf(-gate)
    four_errors = 4.0 * math.sqrt(rate * (1.0 - rate) / count)
    for decision in (Decision.KEEP, Decision.DISCARD):
        assert found[decision] / count == pytest.approx(rate, abs=four_errors)
        assert rate / 3 < paired[decision] / count < rate + four_errors


def test_a_verdict_is_that_decision(client: ResearchFSClient) -> None:
    for seed, metric in enumerate((2.50, 2.51), start=1):
        ran(client, metric, seed=seed)
    near, far = ran(client, 2.46, program(3), BASE), ran(client, 2.30, program(4), BASE)
    assert near.verdict.delta > 6 * near.verdict.sigma and near.verdict.decision is Decision.INCONCLUSIVE
    assert far.verdict.decision is Decision.KEEP and far.verdict.p_improve > NormalDist().cdf(2.0)
    assert far.verdict.freedom == 1 and not far.verdict.decided
    assert client.store.verdict(far.experiment.id) == far.verdict


def test_what_the_caller_decided_stays_when_the_noise_becomes_known(client: ResearchFSClient, tmp_path: Path) -> None:
    ran(client, 2.5, seed=1)
    unsure = ran(client, 0.5, program(3), BASE, decision="inconclusive")
    undecided = ran(client, 0.5, program(4), BASE)
    again = ran(client, 2.5001, seed=2)
    assert set(again.rejudged) == {unsure.experiment.id, undecided.experiment.id}
    kept = client.store.verdict(unsure.experiment.id)
    assert kept.decision is Decision.INCONCLUSIVE and kept.decided and kept.p_improve > 0.99
    assert client.store.verdict(undecided.experiment.id).decision is Decision.KEEP
    assert check(tmp_path / "m.db") == []


def test_a_result_that_was_logged_before_its_baseline_is_judged_when_that_comes(
    client: ResearchFSClient, tmp_path: Path
) -> None:
    early = ran(client, 0.5, program(3), BASE)
    decision = ran(client, 0.5, program(4), BASE, decision="discard")
    crash = ran(client, None, program(5), BASE, status="crash")
    other = ran(client, 0.5, program(6), program(7))
    assert early.verdict is None and "log the baseline" in early.notes[0]
    first, second = ran(client, 2.5, seed=1), ran(client, 2.5001, seed=2)
    assert set(first.rejudged) == {early.experiment.id, decision.experiment.id, crash.experiment.id}
    assert set(second.rejudged) == {early.experiment.id, decision.experiment.id}
    found = client.store.verdict(early.experiment.id)
    assert found.decision is Decision.KEEP and found.baseline == first.experiment.id
    assert found.delta == pytest.approx(2.00005)
    assert client.store.verdict(decision.experiment.id).decision is Decision.DISCARD
    assert client.store.verdict(crash.experiment.id).decision is Decision.CRASH
    assert client.store.verdict(other.experiment.id) is None
    assert "same conditions" in client.propose(BASE, program(3), **WHERE).reason
    assert check(tmp_path / "m.db") == []


def test_a_baseline_of_another_budget_does_not_judge_and_its_own_does(client: ResearchFSClient) -> None:
    ran(client, 2.5, seed=1)
    longer = ran(client, 2.0, program(3), BASE, budget=120.0)
    assert longer.verdict.delta is None
    done = ran(client, 2.4, budget=120.0)
    assert done.rejudged == (longer.experiment.id,)
    assert client.store.verdict(longer.experiment.id).delta == pytest.approx(0.4)


def test_who_decided_survives_an_export_and_a_file_without_it_is_read_and_written_as_before(
    client: ResearchFSClient, tmp_path: Path
) -> None:
    ran(client, 2.5, seed=1)
    ran(client, 2.51, seed=2)
    done = ran(client, 2.4, program(3), BASE, decision="keep")
    waiting = ran(client, 0.5, program(6), program(7))
    out = io.StringIO()
    export(client.store, out)
    restore(out.getvalue().splitlines(), tmp_path / "again.db")
    with MemoryStore.open(tmp_path / "again.db") as store:
        assert store.verdict(done.experiment.id) == done.verdict and done.verdict.decided
        assert store.program_before(waiting.experiment.id) == code_of(program(7)).digest
        assert len(results(store, "night").splitlines()) == 1 + 3, "what waits for its baseline was not kept"
        old = Verdict(experiment=done.experiment.id, baseline="", decision=Decision.KEEP)
        store.add_verdict(old)
        told = store.connection.execute("SELECT data FROM event ORDER BY id DESC LIMIT 1").fetchone()[0]
        assert set(json.loads(told)) == {*VERDICT.columns}
        assert store.verdict(done.experiment.id) == old


@pytest.mark.parametrize("wrong", [{"cost": -1.0}, {"steps": -1}, {"wall": -3.0}, {"memory": math.inf}])
def test_a_price_that_cannot_be_is_refused_and_one_that_is_stored_already_does_no_harm(
    client: ResearchFSClient, wrong: dict[str, float]
) -> None:
    experiment = client.log_experiment(BASE, **WHERE)
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}=.*from 0 on"):
        client.log_outcome(experiment.id, 2.5, **wrong)
    assert client.store.outcome(experiment.id) is None
    for seed, wall in ((1, 1.0), (2, 1.0)):
        ran(client, 2.5, seed=seed, wall=wall)
    old = client.log_experiment("def norm(x):\n    return F.rms_norm(x)\n", **WHERE)
    client.store.add_outcome(Outcome(experiment=old.id, status=Status.OK, metric=1.0, wall=-2.0))
    assert client.store.outcome(old.id).wall == -2.0
    assert client.suggest_query("improve validation bpb", BASE, scope="cpu").pack


def test_numbers_of_experiments_and_draws_are_taken_once_by_two_processes(tmp_path: Path) -> None:
    file = tmp_path / "m.db"
    ResearchFSClient(file).close()
    script = (
        "import sys\nfrom looper.memory.client import ResearchFSClient\n"
        "with ResearchFSClient(sys.argv[1]) as client:\n"
        "    for n in range(12):\n"
        "        client.log_experiment('A = 1', campaign='c')\n"
        "        if n < 3: client.suggest_query('goal', campaign='c')\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(file)]) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    with ResearchFSClient(file, read_only=True) as client:
        assert [one.number for one in client.store.experiments("c")] == list(range(24))
        assert len({one.seed for one in client.store.retrievals("c")}) == 6
