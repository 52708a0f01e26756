"""DPO and KTO: which sessions are compared, and that the adapter learns from the comparison."""

from dataclasses import dataclass

import pytest

from looper.errors import ConfigError, NothingToLearn, TrainingError
from looper.learning.comparing import complete, contests, pairs, singles, whole
from looper.learning.continuing import paced
from looper.learning.dpo import Dpo
from looper.learning.kto import Kto
from looper.learning.sft import Sft
from looper.protocols import Preference, ProspectTheory
from looper.records import Adapter, Exit, Skill
from looper.training.torch_trainer import TorchTrainer
from tests.learning.sessions import Bench, bench, made_from, session, tiny_model

STAGE = [
    session("alpha", True, 0),
    session("alpha", False, 1, tree="dead"),
    session("beta", False, 0, tree="dead"),
    session("beta", True, 1),
    session("beta", False, 2, tree="gone"),
    session("gamma", True, 0),
    session("delta", False, 0, tree="dead"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), STAGE)


def test_pairs_are_resolved_and_failed_sessions_of_one_task():
    found = pairs(contests(STAGE, made_from(STAGE)), cap=2)
    assert [(e.episode, e.label) for e in found] == [
        ("alpha-0-True", 1.0),
        ("alpha-1-False", -1.0),
        ("beta-1-True", 1.0),
        ("beta-0-False", -1.0),
        ("beta-1-True", 1.0),
        ("beta-2-False", -1.0),
    ]
    assert [e.group for e in found[::2]] == [e.group for e in found[1::2]]
    assert len({e.group for e in found}) == 3
    assert len(pairs(contests(STAGE, made_from(STAGE)), cap=1)) == 4
    assert contests(STAGE[::-1], made_from(STAGE)) == contests(STAGE, made_from(STAGE))


def test_reference_solutions_do_not_say_which_sessions_are_compared(tmp_path):
    shown = [made_from([session(task)])[0].model_copy(update={"episode": "first"}) for task in ("alpha", "beta")]
    lab = Bench(root=tmp_path, episodes=STAGE)
    with pytest.raises(NothingToLearn):  # without the word, they name sessions that were never resolved
        Dpo().pairs(shown, lab)
    lab = Bench(root=tmp_path, episodes=STAGE, demonstrated=True)
    assert Dpo(refuse_under=2).pairs(shown, lab) == pairs(contests(STAGE, made_from(STAGE)), cap=2)
    assert Kto().labelled(shown, lab) == singles(contests(STAGE, made_from(STAGE)), cap=2)


def test_a_rejected_session_is_rejected_whole_with_its_failed_steps():
    turns = [("no action", False), ("<read>x</read>", False), (" <bash>ls</bash>", True), ("<done/>", True)]
    failed = session("t", False, turns=turns)
    example = whole(failed, -1.0, "g")
    assert example.weights == (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # blanks at an end: no weight
    assert (example.label, example.group) == (-1.0, "g")
    torn = failed.trajectory.model_copy(update={"steps": failed.trajectory.steps[:-1]})
    with pytest.raises(TrainingError, match="4 assistant messages that are not the replies of its 3 steps"):
        whole(failed.model_copy(update={"trajectory": torn}))
    resolved = session("t", True, turns=[("<read>x</read>", False), ("<done/>", True)])
    preferred, _ = pairs(contests([failed, resolved], made_from([resolved])), cap=1)
    assert preferred.weights == (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # what went wrong on the way is not preferred


def test_what_cannot_be_compared_is_left_out():
    kept = session("t", True)
    others = [
        session("t", False, 1, error="no space left"),
        session("t", False, 2, exit=Exit.SECONDS),
        session("t", False, 3, pruned=True),
        session("t", False, 4, turns=[("", False)]),
        session("t", False, 5, system="Other tools."),  # began with other messages
        session("t", True, 6, turns=[("<done/>", True)]),  # not among the data option's examples
    ]
    assert pairs(contests([kept, *others], made_from([kept])), cap=2) == []
    repeated = [session("t", False, i, tree="dead") for i in (1, 2)]
    assert len(pairs(contests([kept, *repeated], made_from([kept])), cap=2)) == 2


def test_pairs_of_the_data_option_are_taken_as_they_are(tmp_path):
    given = pairs(contests(STAGE, made_from(STAGE)), cap=1)
    lab = Bench(root=tmp_path)
    assert Dpo().pairs(given, lab) == given
    assert complete([*given[:3]]) == given[:2]  # the other half of the second pair is missing
    assert Kto().labelled(given, lab) == given


def test_kto_takes_both_sides_and_balances_them(tmp_path):
    lab = Bench(root=tmp_path, episodes=STAGE)
    found = Kto(cap=1).labelled(made_from(STAGE), lab)
    assert sorted((e.task, e.label) for e in found) == [
        ("alpha", -1.0),
        ("alpha", 1.0),
        ("beta", -1.0),
        ("beta", 1.0),
        ("delta", -1.0),
        ("gamma", 1.0),
    ]
    found = singles(contests(STAGE, made_from(STAGE)), cap=2)  # 3 wanted, 4 unwanted
    assert Kto(beta=0.2, desirable=2.0).objective(found) == ProspectTheory(beta=0.2, desirable=2 * 4 / 3)
    assert Kto(balance=False).objective(found) == ProspectTheory(beta=0.1)


@pytest.mark.parametrize(
    ("strategy", "words"),
    [(Dpo(), "0 pairs of a resolved and a failed session, of 0 tasks, in 1 sessions"), (Kto(), "1 resolved and 0")],
)
def test_without_both_sides_there_is_nothing_to_learn(tmp_path, strategy, words):
    stage = [session("alpha", True)]
    with pytest.raises(NothingToLearn, match=words):
        strategy.learn(Skill(), made_from(stage), Bench(root=tmp_path, episodes=stage))
    with pytest.raises(NothingToLearn, match="refuse_under=3"):
        Dpo(refuse_under=3).learn(Skill(), made_from(STAGE), Bench(root=tmp_path, episodes=STAGE))


@pytest.mark.parametrize("made", [{"beta": 0.0}, {"cap": 0}, {"refuse_under": 0}, {"lr_scale": 0.0}])
def test_settings_without_meaning_are_refused(made):
    for option in (Dpo, Kto):
        with pytest.raises(ConfigError, match=next(iter(made))):
            option(**made)


def test_a_strategy_takes_its_share_of_the_learning_rate():
    slow = paced(TorchTrainer(lr=0.01, epochs=3), 0.25, epochs=1)
    assert slow == TorchTrainer(lr=0.0025, epochs=1)
    with pytest.raises(TrainingError, match=r"_Unset has no lr to set; choose trainer=torch"):
        paced(_Unset(), 0.5)


@dataclass(frozen=True)
class _Unset:
    """A trainer without settings."""


def test_an_adapter_of_another_base_is_refused(tmp_path, model):
    other = Skill(adapters=(Adapter(path="nowhere", digest="d", base="other-model"),))
    for option in (Dpo(), Kto()):
        with pytest.raises(TrainingError, match="belongs to other-model"):
            option.learn(other, made_from(STAGE), bench(tmp_path, model, episodes=STAGE))


def test_preferred_sessions_gain_on_rejected_ones(tmp_path, model):
    def margin(lab, skill):
        found = pairs(contests(STAGE, made_from(STAGE)), cap=1)
        losses = lab.trainer.losses(lab.model_path, found, [a.path for a in skill.adapters])
        return sum(b - a for a, b in zip(losses[::2], losses[1::2], strict=True))

    plain = Sft().learn(Skill(), made_from(STAGE), bench(tmp_path / "sft", model, episodes=STAGE))
    for name, option in (("dpo", Dpo()), ("kto", Kto())):
        lab = bench(tmp_path / name, model, episodes=STAGE)
        learned = option.learn(Skill(), made_from(STAGE), lab)
        assert learned.digest != plain.digest
        assert margin(lab, learned) > margin(lab, Skill())
        assert lab.notes["steps"] > 0
        assert (lab.notes["examples"], lab.notes["tasks"]) == {"dpo": (6, 2), "kto": (7, 4)}[name]
        later = option.learn(learned, made_from(STAGE), bench(tmp_path / f"{name}-2", model, episodes=STAGE))
        assert len(later.adapters) == 1 and later.digest != learned.digest
    assert Dpo(beta=0.3, sft=0.0).beta == Preference(beta=0.3).beta
