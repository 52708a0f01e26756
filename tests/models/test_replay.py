"""Recorded conversations are played back turn by turn; what is not recorded is an error."""

import pytest

from looper.errors import ModelError
from looper.models.replay import Replay, key_of, record
from looper.protocols import Model
from looper.records import Adapter, Conversation, Message, Skill


def talk(issue, *turns):
    messages = [Message(role="system", content="Fix."), Message(role="user", content=issue)]
    for i, text in enumerate(turns):
        messages += [Message(role="assistant", content=text), Message(role="user", content=f"seen {i}")]
    return tuple(messages)


@pytest.fixture
def path(tmp_path):
    record(tmp_path / "deep" / "replies.jsonl", [talk("one", "a", "b"), talk("two", "ü\n")])
    return str(tmp_path / "deep" / "replies.jsonl")


def test_replies_follow_the_turn_of_the_conversation(path):
    model: Model = Replay(path=path)
    batch = [Conversation(id="x", messages=talk("two")), Conversation(id="y", messages=talk("one", "whatever"))]
    assert [reply.text for reply in model.reply(batch)] == ["ü\n", "b"]
    assert model.reply(batch)[0].prompt_tokens > 0
    assert model.id == Replay(path=path).id and model.with_skill(Skill()) is model
    model.forget("x")


def test_what_is_not_recorded_is_an_error(path):
    with pytest.raises(ModelError, match=rf"'z' .*{key_of(talk('three'))}.* holds 2 conversations"):
        Replay(path=path).reply([Conversation(id="z", messages=talk("three"))])
    with pytest.raises(ModelError, match="'z' asks for reply 2, but 1 are recorded"):
        Replay(path=path).reply([Conversation(id="z", messages=talk("two", "ü"))])
    with pytest.raises(ModelError, match="cannot take adapters"):
        Replay(path=path).with_skill(Skill(adapters=(Adapter(path="p", digest="d", base="b"),)))


def test_files_that_cannot_be_played_are_named(tmp_path):
    with pytest.raises(ModelError, match="no recording at"):
        _ = Replay(path=str(tmp_path / "none")).id
    (tmp_path / "bad").write_text('{"task": "a", "replies": []}\n{"replies": 1}\n')
    with pytest.raises(ModelError, match="bad:2 is not"):
        _ = Replay(path=str(tmp_path / "bad")).id
    (tmp_path / "twice").write_text('{"task": "a", "replies": ["x"]}\n{"task": "a", "replies": ["y"]}\n')
    with pytest.raises(ModelError, match="twice:2 records other replies for a"):
        _ = Replay(path=str(tmp_path / "twice")).id
    with pytest.raises(ModelError, match="same user message"):
        record(tmp_path / "two", [talk("one", "a"), talk("one", "b")])
