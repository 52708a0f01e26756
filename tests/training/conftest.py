"""A tiny random model with a real tokenizer, and examples of a few tasks."""

import pytest

from looper.models.nano.shape import Shape
from looper.models.nano.tokenizer import save_tokenizer, train_tokenizer
from looper.pretraining.export import save
from looper.pretraining.network import Network
from looper.records import Example, Message


def conversation(task, replies, weights=None):
    """An example with the given assistant turns."""
    messages = [Message(role="system", content="You fix bugs."), Message(role="user", content=f"Issue: {task} is wrong")]
    for i, reply in enumerate(replies):
        messages += [Message(role="assistant", content=reply), Message(role="user", content=f"seen {i}")]
    given = iter(weights or [1.0] * len(replies))
    loss = tuple(next(given) if m.role == "assistant" else 0.0 for m in messages)
    return Example(task=task, episode=f"episode-{task}", messages=tuple(messages), weights=loss)


@pytest.fixture(scope="session")
def examples():
    return [conversation(f"t{i}", [f"<read>main/f{i}.py</read>", "<done/>"]) for i in range(12)]


@pytest.fixture(scope="session")
def model(tmp_path_factory, examples):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer((m.content for e in examples for m in e.messages), vocab=320)
    save_tokenizer(tokenizer, folder)
    shape = Shape(hidden=32, layers=2, heads=2, kv_heads=1, ff=64, vocab=320, positions=256)
    save(Network(shape, seed=0), folder)
    return folder
