"""The tokenizer of the bundled model: byte-level BPE in which a word always has the same tokens.

A small model copies names token by token, so a name must look the same wherever it stands. The usual
pre-tokenizers glue a space to the word that follows (" name" and "`name" then differ), and merge
punctuation across the ends of a quoted line. Here letters are always a piece of their own, digits
and underscores too; a space goes with an operator or a comma, else it is a piece; a tag's brackets
never merge with the text that the tag encloses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from looper.chat import CHATML
from looper.errors import ModelError
from looper.models.nano.shape import END, PAD, Shape

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIALS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
"""Special tokens in the order of their ids."""

PIECES = "|".join(
    (
        r"[\p{L}\p{M}]+",  # a word
        r"\p{N}",  # one digit
        r"_+",
        r"\r?\n[ \t]*",  # a newline with the next line's indentation
        r"</?(?=[A-Za-z])",  # a tag opens or closes ...
        r"(?<=[A-Za-z])>(?![= ])",  # ... and ends
        # Operators and commas with one space on either side; indentation after them stays whole.
        r" ?(?:(?!</?[A-Za-z])[=+\-*/<>!%&|^~,:;@#.?\\$])+(?: (?![ \r\n]))?",
        r"[()\[\]{}\"']+",
        r"`",
        r"[ \t]+",
    )
)
"""Regular expression of the pieces that merges never cross."""


def train_tokenizer(texts: Iterable[str], vocab: int = 1024) -> Tokenizer:
    """Train the byte-level BPE on texts; any text encodes, and decodes to itself.

    The result has at most `vocab` tokens (fewer if the texts hold too few merges): 3 specials,
    the 256 bytes, and merges inside pieces. Raises ModelError if `vocab` has no room for the bytes.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + len(SPECIALS)
    if vocab < least:
        raise ModelError(f"vocab {vocab} is too small; {least} tokens are the bytes and specials")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, positions: int = Shape().positions) -> None:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json.

    Load them with `load_tokenizer` or `transformers.PreTrainedTokenizerFast`. Beware of `AutoTokenizer`:
    for a folder with a Qwen2 in it, transformers 5 puts Qwen2's own pre-tokenizer in place of this one,
    whatever the files say, and words no longer have the tokens that the model knows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    start, end, pad = SPECIALS
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": [start],
        "bos_token": None,
        "chat_template": CHATML,
        "clean_up_tokenization_spaces": False,
        "eos_token": end,
        "model_max_length": positions,
        "pad_token": pad,
    }
    generation = {"do_sample": False, "eos_token_id": END, "pad_token_id": PAD}
    for name, content in (("tokenizer_config.json", config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@lru_cache(maxsize=8)
def _loaded(path: str, _stamp: tuple[int, int]) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(path)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder, loaded once while its file is unchanged."""
    path = folder / "tokenizer.json"
    stat = path.stat()
    return _loaded(str(path), (stat.st_mtime_ns, stat.st_size))
