"""Controls: sessions whose turns belong to other tasks, and sessions without names."""

import re

import pytest

from looper.actions import parse
from looper.errors import NothingToLearn
from looper.learning.format_only import FormatOnly, hidden
from looper.learning.random_trajectory import RandomTrajectory, dealt
from looper.learning.sft import Sft
from looper.records import Skill
from tests.learning.sessions import Bench, bench, made_from, session, tiny_model

NAMES = [f"task{i}" for i in range(6)]
STAGE = [session(name) for name in NAMES]
EXAMPLES = made_from(STAGE)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), STAGE)


def replies(example):
    return [m.content for m, w in zip(example.messages, example.weights, strict=True) if w]


def test_shuffled_turns_fit_no_task_but_keep_number_kinds_and_weights():
    shuffled, stayed = dealt(EXAMPLES, 0)
    assert stayed == 0 and len(shuffled) == len(EXAMPLES)
    for before, after in zip(EXAMPLES, shuffled, strict=True):
        assert [parse(r).kind for r in replies(after)] == [parse(r).kind for r in replies(before)]
        assert before.weights == after.weights
        assert not any(before.task in reply for reply in replies(after))
        assert [m for m in after.messages if m.role != "assistant"] == [
            m for m in before.messages if m.role != "assistant"
        ]
    assert sorted(r for e in shuffled for r in replies(e)) == sorted(r for e in EXAMPLES for r in replies(e))
    assert dealt(EXAMPLES, 0) == dealt(EXAMPLES, 0) != dealt(EXAMPLES, 1)


def test_a_task_that_holds_most_turns_keeps_some_and_they_are_counted():
    many = made_from([session("task0", attempt=i, tree=f"t{i}") for i in range(3)] + STAGE[1:2])
    _, stayed = dealt(many, 0)
    assert 0 < stayed < sum(len(replies(e)) for e in many)


def test_names_are_hidden_alike_in_what_is_seen_and_said():
    turns = [
        ('<bash>git grep -n "def pay_total"</bash>', True),
        ("<read>live/shop/cart.py:10-19</read>", True),
        ('<edit path="live/shop/cart.py">\n    return pay_total + 0x1f\n=======\n    return -pay_total\n</edit>', True),
        ("<done/>", True),
    ]
    example = made_from([session("pay_total", turns=turns)])[0]
    after, lost = hidden(example, 0)
    assert lost == 0 and after.weights == example.weights
    assert after.messages[0] == example.messages[0]
    said = replies(after)
    assert [parse(r).kind for r in said] == ["bash", "read", "edit", "done"]
    name = re.fullmatch(r'<bash>git grep -n "def (w\d+)"</bash>', said[0])[1]
    assert after.messages[1].content == f"Issue: {name}"
    assert re.fullmatch(r"<read>w\d+/w\d+/w\d+\.py:10-19</read>", said[1])
    assert said[2].endswith(f"    return {name} + 0x1f\n=======\n    return -{name}\n</edit>")
    assert not any(word in " ".join(said) for word in ("live", "shop", "cart", "pay"))
    others = {hidden(e, 0)[0].messages[1].content for e in EXAMPLES}
    assert len(others) > 1  # one name, another placeholder in every session


def test_many_names_get_placeholders_of_their_own():
    words = " ".join(f"name{i}" for i in range(1200))
    example = made_from([session("t", turns=[(f"<bash>echo {words}</bash>", True)])])[0]
    found = re.findall(r"w\d+", replies(hidden(example, 0)[0])[0])
    assert len(found) == len(set(found)) == 1200


def test_controls_train_other_adapters_than_the_sessions_themselves(tmp_path, model):
    plain = Sft().learn(Skill(), EXAMPLES, bench(tmp_path / "sft", model))
    found = {plain.digest}
    for name, option in (("random", RandomTrajectory()), ("format", FormatOnly())):
        lab = bench(tmp_path / name, model)
        learned = option.learn(Skill(), EXAMPLES, lab)
        assert len(learned.adapters) == 1
        found.add(learned.digest)
    assert len(found) == 3
    assert lab.notes["turns_without_form"] == 0


def test_one_task_cannot_be_shuffled(tmp_path):
    with pytest.raises(NothingToLearn, match="1 tasks with usable examples"):
        RandomTrajectory().learn(Skill(), EXAMPLES[:1], Bench(root=tmp_path))
    with pytest.raises(NothingToLearn, match="0 tasks"):
        FormatOnly().learn(Skill(), [], Bench(root=tmp_path))
