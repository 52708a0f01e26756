"""Replay: what a buffer keeps, what is drawn from it, and the adapters that come of it."""

from itertools import combinations

import numpy as np
import pytest

from looper.errors import ConfigError
from looper.learning.buffers import Priority, by_coverage, by_recency, by_value, kept, replayed
from looper.learning.full_replay import FullReplay
from looper.learning.partial_replay import PartialReplay, issue
from looper.learning.sft import Sft
from looper.protocols import Past
from looper.records import Message, Skill
from tests.learning.continual import STAGES, Bench, line, stage, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    """Plain fine-tuning over two stages: what replay is compared with."""
    return line(Sft(), STAGES[:2], Bench(model_path=model, root=tmp_path_factory.mktemp("sft")))


def bench(model, tmp_path, **settings):
    return Bench(model_path=model, root=tmp_path / "line", **settings)


def test_rankings_evict_in_the_stated_order():
    assert by_recency(4) == [3, 2, 1, 0]
    assert by_value([0.5, 2.0, 0.1, 2.0]) == [3, 1, 0, 2]  # of two equal ones the newer is kept
    assert kept([3, 1, 0, 2], 2) == [1, 3]  # in their order of time
    assert kept([1, 0], 5) == [0, 1] and kept([1, 0], 0) == []


def test_coverage_takes_one_of_each_cluster_before_a_second_of_any():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    points = np.concatenate([centres, centres + 0.1, centres])
    ranking = by_coverage(points)
    assert sorted(ranking) == list(range(12))
    assert {i % 4 for i in ranking[:4]} == {0, 1, 2, 3}
    assert all(i < 4 for i in ranking[-4:])  # exact duplicates go first, and of those the older
    assert by_coverage(np.zeros((0, 3))) == [] and by_coverage(np.zeros((3, 2))) == [2, 1, 0]


def test_coverage_is_within_twice_the_best_radius():
    points = np.random.default_rng(0).normal(size=(12, 3))

    def radius(chosen):
        return max(min(np.linalg.norm(p - points[i]) for i in chosen) for p in points)

    for k in (2, 3):
        best = min(radius(chosen) for chosen in combinations(range(12), k))
        assert best <= radius(by_coverage(points)[:k]) <= 2 * best


def test_the_share_of_replayed_examples_is_the_mix():
    assert len(replayed(30, 100, 0.5, 0)) == 30
    assert len(replayed(30, 100, 0.25, 0)) == 10
    assert replayed(30, 100, 0.0, 0) == [] and replayed(30, 0, 0.5, 0) == []
    assert replayed(30, 5, 0.5, 0) == [0, 1, 2, 3, 4]
    drawn = replayed(30, 100, 0.5, 0)
    assert drawn == replayed(30, 100, 0.5, 0) == sorted(set(drawn)) != replayed(30, 100, 0.5, 1)


def test_the_buffer_is_pruned_stage_by_stage(model, tmp_path):
    past = tuple(Past(examples=tuple(examples), skill=Skill()) for examples in STAGES)
    lab = bench(model, tmp_path, past=past)
    everything = [e.task for examples in STAGES for e in examples]
    assert [e.task for e in PartialReplay().buffer(lab)] == everything
    assert [e.task for e in PartialReplay(size=5).buffer(lab)] == everything[-5:]
    assert PartialReplay(size=0, priority=Priority.diversity).buffer(lab) == []


def test_the_issue_is_read_without_recalled_notes():
    told = "Notes from past sessions:\n- look at Issue: 3\nIssue: x fails\nIssue: y too"
    example = stage("a")[0]
    with_notes = example.model_copy(update={"messages": (Message(role="user", content=told),)})
    assert issue(with_notes) == "x fails\nIssue: y too"
    assert issue(example) == "a 0 is wrong"


def test_full_replay_trains_anew_on_everything(model, plain, tmp_path):
    (first, _), (second, lab) = line(FullReplay(), STAGES[:2], bench(model, tmp_path))
    assert first.digest == plain[0][0].digest
    assert second.digest != plain[1][0].digest and lab.notes["replayed"] == 4
    at_once = Sft().learn(Skill(), [*STAGES[0], *STAGES[1]], bench(model, tmp_path / "at_once"))
    assert second.digest == at_once.digest


def test_partial_replay_goes_on_and_is_plain_without_a_buffer(model, plain, tmp_path):
    (first, _), (second, lab) = line(PartialReplay(), STAGES[:2], bench(model, tmp_path / "half"))
    assert first.digest == plain[0][0].digest
    assert second.digest != plain[1][0].digest and len(second.adapters) == 1
    assert lab.notes["buffer"] == lab.notes["replayed"] == 4
    for name, without in {"mix": PartialReplay(mix=0.0), "size": PartialReplay(size=0)}.items():
        assert line(without, STAGES[:2], bench(model, tmp_path / name))[1][0].digest == plain[1][0].digest


def test_the_buffer_is_chosen_with_losses_and_embeddings(model, plain, tmp_path):
    skill = plain[0][0]
    examples = (*STAGES[0], *STAGES[1])
    lab = bench(model, tmp_path, past=(Past(examples=examples, skill=skill),))
    losses = lab.trainer.losses(model, examples, [plain[0][1].out("adapter")])
    order = sorted(range(8), key=lambda i: losses[i])
    hard = PartialReplay(size=3, priority=Priority.difficulty).buffer(lab)
    easy = PartialReplay(size=3, priority=Priority.confidence).buffer(lab)
    assert hard == [examples[i] for i in sorted(order[-3:])]
    assert easy == [examples[i] for i in sorted(order[:3])]
    twice = bench(model, tmp_path, past=(Past(examples=(*STAGES[0], *STAGES[0]), skill=skill),))
    assert PartialReplay(size=4, priority=Priority.diversity).buffer(twice) == STAGES[0]


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"strategy\.size=-1"):
        PartialReplay(size=-1)
    with pytest.raises(ConfigError, match=r"strategy\.mix=1\.0"):
        PartialReplay(mix=1.0)
