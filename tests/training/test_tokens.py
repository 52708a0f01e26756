"""Loss masks, token by token."""

import pytest
from tokenizers import Tokenizer

from looper.chat import render
from looper.errors import TrainingError
from looper.training.tokens import tokenise
from tests.training.conversations import conversation


def test_the_loss_covers_the_weighted_turns_and_nothing_else(model):
    example = conversation("t1", ["<read>a.py</read>", "<bash>ls</bash>", "<done/>"], [1.0, 0.0, 0.5])
    (found,) = tokenise(model, [example])
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    whole = tokenizer.encode(render(example.messages)).ids
    assert list(found.ids) == whole[: len(found.ids)]
    text = {w: "" for w in (0.0, 0.5, 1.0)}
    for token, weight in zip(found.ids, found.weights, strict=True):
        text[weight] += tokenizer.decode([token], skip_special_tokens=False)
    assert text[1.0] == "<read>a.py</read><|im_end|>"
    assert text[0.5] == "<done/><|im_end|>"
    assert "<bash>ls</bash>" in text[0.0] and "You fix bugs." in text[0.0]
    assert found.ids[-1] == tokenizer.token_to_id("<|im_end|>")  # what follows the last turn is cut off
    assert found.weight == sum(found.weights)


@pytest.mark.parametrize(
    ("reply", "weight", "message"),
    [
        ("    <done/>", 1.0, "other tokens turn by turn than as a whole"),
        ("<done/>", 0.0, "no token to learn"),
        ("<bash>" + "x" * 900 + "</bash>", 1.0, "the model takes 256"),
    ],
)
def test_an_example_that_cannot_be_trained_on_is_named(model, reply, weight, message):
    with pytest.raises(TrainingError, match=message) as caught:
        tokenise(model, [conversation("t7", [reply], [weight])])
    assert "'t7' (episode 'episode-t7')" in str(caught.value)
