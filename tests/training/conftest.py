"""A tiny random model with a real tokenizer, and examples of a few tasks."""

import pytest

from looper.models.nano.shape import Shape
from looper.models.nano.tokenizer import save_tokenizer, train_tokenizer
from looper.pretraining.export import save
from looper.pretraining.network import Network
from looper.training.reproducible import reproducible
from looper.training.schedule import Precision
from looper.training.torch_trainer import TorchTrainer
from tests.training.conversations import conversation


@pytest.fixture(scope="session")
def examples():
    return [conversation(f"t{i}", [f"<read>main/f{i}.py</read>", "<done/>"]) for i in range(12)]


@pytest.fixture(scope="session")
def model(tmp_path_factory, examples):
    folder = tmp_path_factory.mktemp("model")
    code = ["def f():\n    return 1\n"] * 200  # so that a newline and its indentation become one token
    tokenizer = train_tokenizer([*code, *(m.content for e in examples for m in e.messages)], vocab=320)
    save_tokenizer(tokenizer, folder)
    shape = Shape(hidden=32, layers=2, heads=2, kv_heads=1, ff=64, vocab=320, positions=256)
    network = Network(shape, seed=0)
    network.embed.data.mul_(10.0)  # tied to the output: the initial scale leaves an adapter little to move
    save(network, folder)
    return folder


@pytest.fixture(scope="session")
def adapters(model, examples, tmp_path_factory):
    """Two adapters of the model that are not alike."""
    folder = tmp_path_factory.mktemp("adapters")
    trainer = TorchTrainer(lr=2e-2, batch=6, epochs=2, rank=4, alpha=8, held_out=0.0, precision=Precision.fp32)
    for name, seed, part in (("a", 0, examples[:6]), ("b", 1, examples[6:])):
        trainer.fit(model, part, start=None, out=folder / name, seed=seed)
    return folder / "a", folder / "b"


@pytest.fixture
def fixed():
    """Threads, seeds and the libraries' notices as in a training, for tests that use its parts."""
    with reproducible(1, 0):
        yield
