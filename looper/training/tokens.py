"""Examples as token ids with a loss weight each, tokenised as the model meets them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.chat import CHATML, spans
from looper.errors import TrainingError
from looper.records import Example


@dataclass(frozen=True, kw_only=True)
class Tokenised:
    """One example, cut after its last token that carries weight."""

    task: str
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    """Weight of predicting that token; 0 outside of the trained turns."""

    @property
    def weight(self) -> float:
        """Sum of the weights that count: nothing predicts a first token."""
        return sum(self.weights[1:])


def chat_template(model: Path) -> str:
    """Return the chat template of a model folder; ChatML if it states none."""
    separate, config = model / "chat_template.jinja", model / "tokenizer_config.json"
    if separate.is_file():
        return separate.read_text(encoding="utf-8")
    template = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    if isinstance(template, list):  # several named ones
        template = next((row["template"] for row in template if row.get("name") == "default"), None)
    return template or CHATML


def tokenise(model: Path, examples: Sequence[Example]) -> list[Tokenised]:
    """Tokenise examples with the tokenizer and the chat template of a model folder.

    Raises TrainingError for an example whose turns, tokenised one by one as in a session, are not the tokens of the
    whole text, that is too long for the model, or in which nothing carries weight.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    template = chat_template(model)
    limit = int(json.loads((model / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings", 0))
    return [_tokenise(tokenizer, template, limit, example) for example in examples]


def _tokenise(tokenizer: Any, template: str, limit: int, example: Example) -> Tokenised:
    where = f"the example of task {example.task!r} (episode {example.episode!r})"
    try:
        parts = spans(example.messages, example.weights, template=template)
    except ValueError as error:
        raise TrainingError(f"{where} does not fit the model's chat template: {error}") from error
    ids: list[int] = []
    weights: list[float] = []
    for part in parts:
        piece = tokenizer.encode(part.text, add_special_tokens=False).ids
        ids += piece
        weights += [part.weight] * len(piece)
    whole = tokenizer.encode("".join(part.text for part in parts), add_special_tokens=False).ids
    if ids != whole:
        at = next((i for i, (a, b) in enumerate(zip(ids, whole, strict=False)) if a != b), min(len(ids), len(whole)))
        raise TrainingError(
            f"{where} has other tokens turn by turn than as a whole, from token {at} on "
            f"({tokenizer.decode(whole[max(0, at - 4) : at + 4], skip_special_tokens=False)!r}); "
            "give the turn that begins or ends there weight 0"
        )
    last = max((i for i, weight in enumerate(weights) if weight), default=0)
    if last == 0:
        raise TrainingError(f"{where} has no token to learn: all weights are 0; leave it out")
    if limit and last + 1 > limit:
        raise TrainingError(
            f"{where} has {last + 1} tokens, the model takes {limit}; leave it out or prune its session"
        )
    return Tokenised(task=example.task, ids=tuple(ids[: last + 1]), weights=tuple(weights[: last + 1]))
