"""What a strategy works with: examples matched in number, and the distance to the base model."""

import pytest

from looper.errors import ModelError
from looper.lab import DRIFT_EXAMPLES, LearningLab, drift, matched
from looper.protocols import Past
from looper.records import Adapter, Router, Skill
from looper.training.torch_trainer import TorchTrainer
from tests.learning.continual import STAGES, stage, tiny_model


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    trainer = TorchTrainer(rank=4, alpha=8, lr=1e-2, batch=2, epochs=1, held_out=0.0)
    return LearningLab(trainer=trainer, weights=tiny_model(folder), model_id="tiny", seed=0, root=folder)


@pytest.fixture(scope="module")
def skill(lab):
    fit = lab.trainer.fit(lab.model_path, STAGES[0], start=None, out=lab.out("adapter"), seed=0)
    return Skill(adapters=(Adapter(path=str(fit.adapter), digest="d", base="tiny"),))


def test_one_of_each_task_is_taken_before_a_second_of_any():
    examples = [e for e in stage("a") for _ in range(3)]
    assert [e.task for e in matched(examples, 4, 0)] == ["a0", "a1", "a2", "a3"]
    assert sorted(e.task for e in matched(examples, 9, 0))[:3] == ["a0", "a0", "a1"]
    assert matched(examples, 99, 0) == examples and matched(examples, 0, 0) == []
    few = [tuple(e.task for e in matched(examples, 2, seed)) for seed in range(6)]
    assert len(set(few)) > 1 and few[0] == tuple(e.task for e in matched(examples, 2, 0))


def test_examples_of_one_group_stay_together():
    examples = [e.model_copy(update={"group": f"pair of {e.task}"}) for e in stage("a", 3) for _ in range(2)]
    assert [len(matched(examples, count, 0)) for count in range(7)] == [0, 0, 2, 2, 4, 4, 6]
    assert all(sum(e.group == kept.group for e in matched(examples, 3, 0)) == 2 for kept in matched(examples, 3, 0))


def test_the_distance_to_the_base_is_measured_on_new_and_on_old_examples(lab, skill):
    past = Past(examples=tuple(stage("b", 2 * DRIFT_EXAMPLES)), skill=skill)
    later = LearningLab(**{**vars(lab), "past": (past,)})
    found = drift(later, skill, STAGES[0])
    folders = [lab.out("adapter")]
    old = matched(past.examples, DRIFT_EXAMPLES, 0)
    for name, examples in (("kl_new", STAGES[0]), ("kl_old", old)):  # in one call as in one each
        assert [found[name]] == lab.trainer.divergence(lab.model_path, [examples], folders)
    assert found["kl_new"] > 0.0
    assert set(drift(lab, skill, STAGES[0])) == {"kl_new"} and drift(lab, Skill(), STAGES[0]) == {}
    mixture = skill.model_copy(update={"router": Router(path="r", digest="r")})
    assert drift(lab, mixture, STAGES[0]) == {}


def test_what_cannot_be_measured_is_said_and_stops_nothing(lab, skill):
    silent = [e.model_copy(update={"weights": (0.0, 0.0, 0.0)}) for e in STAGES[0]]
    found = drift(lab, skill, silent)
    assert set(found) == {"no_kl_new"} and "none of 4 examples can be trained on" in found["no_kl_new"]
    later = LearningLab(**{**vars(lab), "past": (Past(examples=tuple(stage("b")), skill=skill),)})
    assert set(drift(later, skill, silent)) == {"no_kl_new", "kl_old"}, "one group does not take the other with it"
    lost = LearningLab(**{**vars(later), "weights": lab.root / "lost"})
    assert set(drift(lost, skill, STAGES[0])) == {"no_kl_new", "no_kl_old"}


def test_a_model_without_weights_cannot_be_trained(lab):
    remote = LearningLab(**{**vars(lab), "weights": None})
    with pytest.raises(ModelError, match="tiny cannot be trained here"):
        _ = remote.model_path
    assert drift(remote, Skill(), STAGES[0]) == {}
    with pytest.raises(ModelError, match="no run behind it"):
        lab.rollout(Skill(), attempts=1, temperature=1.0, name="x")
    with pytest.raises(ModelError, match="no run behind it"):
        lab.sessions([])


def test_a_strategy_cannot_note_what_the_run_itself_says(lab):
    with pytest.raises(ValueError, match="adapters, which the run itself fills"):
        lab.note({"loss": 1.0, "adapters": 3})
    assert "loss" not in lab.notes
