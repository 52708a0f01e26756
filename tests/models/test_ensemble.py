"""Several recordings as one model: whole sessions by member, or a vote on every turn."""

import pytest
from hydra import compose, initialize_config_dir

from looper.config import read, values_of
from looper.errors import ConfigError, ModelError
from looper.models.ensemble import Ensemble, Joined, Rule
from looper.models.http_model import HttpModel
from looper.models.replay import Replay, record
from looper.places import config_folder
from looper.protocols import Model
from looper.records import Adapter, Conversation, Message, Skill


def talk(issue, *turns):
    messages = [Message(role="system", content="Fix."), Message(role="user", content=issue)]
    for i, text in enumerate(turns):
        messages += [Message(role="assistant", content=text), Message(role="user", content=f"seen {i}")]
    return tuple(messages)


@pytest.fixture
def member(tmp_path):
    def made(name, *replies):
        path = tmp_path / f"{name}.jsonl"
        record(path, [talk("one", *replies), talk("two", *replies)])
        return Replay(path=str(path))

    return made


def asked(*turns, id="s", issue="one"):
    return Conversation(id=id, messages=talk(issue, *turns))


def test_the_action_that_most_members_want_is_taken(member):
    joined: Model = Ensemble(rule=Rule.majority).of(
        {
            "a": member("a", "<read>x.py</read>", "<done/>"),
            "b": member("b", "Look: <bash>ls</bash>", "nothing"),
            "c": member("c", "<bash> ls </bash>", "<bash>pwd</bash>"),
        }
    )
    first, second = joined.reply([asked(), asked(issue="two")])
    assert first.text == second.text == "Look: <bash>ls</bash>"
    assert first.completion_tokens == sum(
        -(-len(t) // 4) for t in ("<read>x.py</read>", first.text, "<bash> ls </bash>")
    )
    assert joined.reply([asked("turn")])[0].text == "<done/>"  # a tie goes to the first member; no action, no vote


def test_without_any_action_the_first_member_speaks(member):
    joined = Ensemble().of({"b": member("b", "hm"), "a": member("a", "what")})
    assert joined.reply([asked()])[0].text == "what"


def test_a_session_stays_with_one_member_and_members_share_the_sessions(member):
    joined = Ensemble(rule=Rule.union).of({n: member(n, f"{n} first", f"{n} second") for n in "abc"})
    batch = [asked(id=f"session {i}") for i in range(60)]
    first = [reply.text.split()[0] for reply in joined.reply(batch)]
    second = [reply.text.split()[0] for reply in joined.reply([asked("x", id=c.id) for c in batch[::-1]])]
    assert first == second[::-1]
    assert {n: first.count(n) >= 10 for n in "abc"} == dict.fromkeys("abc", True)


def test_identity_names_rule_and_members(member):
    a, b = member("a", "x"), member("b", "y")
    union = Ensemble(rule=Rule.union).of({"a": a, "b": b})
    assert union.id == f"union({a.id}, {b.id})" != Ensemble().of({"a": a, "b": b}).id
    assert union.knows_protocol and union.weights is None and union.tokens("abcde") == 2
    union.forget("s")


def test_what_an_ensemble_cannot_do_is_said(member):
    one = Ensemble().of({"a": member("a", "x")})
    assert one.with_skill(Skill(playbook="p")) is one
    with pytest.raises(ModelError, match="cannot take the adapter"):
        one.with_skill(Skill(adapters=(Adapter(path="p", digest="d", base="b"),)))
    with pytest.raises(ConfigError, match="without members"):
        Joined(members=(), rule=Rule.union)


def test_members_are_options_of_their_own():
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose(
            "config", ["model=ensemble", "+model@members.b=nano", "+model@members.a=http", "model.rule=union"]
        )
        alone = compose("config", ["model=ensemble"])
    joined = read(config).parts["model"]
    assert [(part.place, type(part.model).__name__) for part in joined.members] == [
        ("members.a", "HttpModel"),
        ("members.b", "Nano"),
    ]
    assert joined.rule is Rule.union
    with pytest.raises(ConfigError, match="without members"):
        read(alone)
    assert values_of(joined)["members"][0][0] == "HttpModel" and values_of(joined)["rule"] == "union"
    patient = Joined(members=(HttpModel(retries=9), joined.members[1]), rule=Rule.union)
    assert values_of(patient) == values_of(joined)
