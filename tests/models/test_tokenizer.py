"""A word has the same tokens wherever it stands, and every text survives the round trip."""

import json
import random
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looper.chat import CHATML
from looper.errors import ModelError
from looper.models.nano.shape import END, PAD, START
from looper.models.nano.tokenizer import SPECIALS, save_tokenizer, train_tokenizer

CONTEXTS = [
    "§", " §", "`§`", "'§'", '"§"', "(§)", "(§, x)", "(x, §)", "[§]", "x.§", "§.x", "§:", "def §(", "-§",
    "x = §", "§ = x", "x=§", "_§_", "\n§\n", "\n    §", "    §", "\t§", "<old>§</old>", "<old>    §</old>",
    "<§>", "a<§", "a < §", "/§.py", "@§", "# §", "1§2", "{§}", "x+§", "*§", "**§", "$§", "é1§", "§\r\n",
    "I said §, and §; §!", "<|im_start|>§<|im_end|>",
]  # fmt: skip


def test_a_word_has_one_tokenisation(tokenizer):
    stream = random.Random(1)
    for _ in range(60):
        word = "".join(stream.choices("abcdefghijklmnopqrstuvwxyzABC", k=stream.randint(1, 12)))
        alone = tokenizer.encode(word).ids
        for context in CONTEXTS:
            at, found = context.index("§"), tokenizer.encode(context.replace("§", word))
            inside = [i for i, (a, b) in zip(found.ids, found.offsets, strict=True) if at <= a and b <= at + len(word)]
            assert inside == alone, (word, context)


def test_the_edges_of_a_quoted_line_do_not_merge(tokenizer):
    stream = random.Random(2)
    lines = ["    if a <= b:", "return f(x)", "    x = [1]", "    # note", "    return -1", "    @wraps", "x += y,"]
    for line in lines:
        alone = tokenizer.encode(line).ids
        text = f"<edit><old>{line}</old><new>{stream.random()}</new></edit>"
        ids = tokenizer.encode(text).ids
        assert any(ids[i : i + len(alone)] == alone for i in range(len(ids))), line


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_training_is_deterministic(tokenizer, lines):
    assert train_tokenizer(lines, 400).to_str() == tokenizer.to_str()
    assert [tokenizer.token_to_id(s) for s in SPECIALS] == [START, END, PAD]


def test_transformers_loads_it_and_has_the_template(tokenizer, tmp_path, lines):
    from transformers import PreTrainedTokenizerFast

    save_tokenizer(tokenizer, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = "<|im_start|>user\n" + lines[0] + "<|im_end|>\n"
    assert loaded(text)["input_ids"] == tokenizer.encode(text).ids
    assert (loaded.eos_token_id, loaded.pad_token_id, loaded.chat_template) == (END, PAD, CHATML)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == END


def test_a_vocabulary_without_room_is_refused():
    with pytest.raises(ModelError, match="vocab 100 is too small; 259 tokens"):
        train_tokenizer(["x"], 100)
