"""Examples as token ids with a loss weight each, tokenised as the model meets them."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.chat import CHATML, spans, stated_template
from looper.errors import TrainingError
from looper.records import Example

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Tokenised:
    """One example, cut after its last token that carries weight."""

    task: str
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    """Weight of predicting that token; 0 outside of the trained turns."""
    index: int = 0
    """Place among the examples that were given."""
    label: float = 1.0
    """The example's label: wanted or not, or its advantage."""
    group: str = ""
    """Examples that are compared with one another."""

    @property
    def weight(self) -> float:
        """Sum of the weights that count: nothing predicts a first token."""
        return sum(self.weights[1:])


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An example that cannot be trained on, and why."""

    index: int
    reason: str
    """The kind of reason, to count by."""
    text: str
    """The example's name and its own reason."""


class Tokeniser:
    """The tokenizer, chat template and length limit of a model folder."""

    def __init__(self, model: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer: Any = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.template = chat_template(model)
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        self.limit = int(config.get("max_position_embeddings", 0))
        """Most tokens the model takes; 0 if it does not say."""

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens, without any that the tokenizer adds by itself."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def read(self, example: Example, index: int = 0) -> Tokenised | LeftOut:
        """Tokenise an example, or say why it cannot be trained on."""
        from jinja2 import TemplateError

        where = f"the example of task {example.task!r} (episode {example.episode!r})"
        try:
            parts = spans(example.messages, example.weights, template=self.template)
        except (ValueError, TemplateError) as error:
            text = f"{where} does not fit the model's chat template: {error}"
            return LeftOut(index=index, reason="does not fit the chat template", text=text)
        ids: list[int] = []
        weights: list[float] = []
        for part in parts:
            piece = self.encode(part.text)
            ids += piece
            weights += [part.weight] * len(piece)
        if text := self._differs(ids, "".join(part.text for part in parts)):
            return LeftOut(index=index, reason="other tokens turn by turn than as a whole", text=f"{where} {text}")
        last = max((i for i, weight in enumerate(weights) if weight), default=0)
        if last == 0:
            text = f"{where} has no token to learn: all weights are 0; leave it out"
            return LeftOut(index=index, reason="no token to learn", text=text)
        if self.limit and last + 1 > self.limit:
            text = f"{where} has {last + 1} tokens, the model takes {self.limit}; leave it out or prune its session"
            return LeftOut(index=index, reason="longer than the model takes", text=text)
        return Tokenised(
            task=example.task,
            ids=tuple(ids[: last + 1]),
            weights=tuple(weights[: last + 1]),
            index=index,
            label=example.label,
            group=example.group,
        )

    def _differs(self, ids: list[int], text: str) -> str:
        """Say where a text's tokens are not those of its parts; '' if they are."""
        whole = self.encode(text)
        if ids == whole:
            return ""
        at = next((i for i, (a, b) in enumerate(zip(ids, whole, strict=False)) if a != b), min(len(ids), len(whole)))
        near = self.tokenizer.decode(whole[max(0, at - 4) : at + 4], skip_special_tokens=False)
        return (
            f"has other tokens turn by turn than as a whole, from token {at} on ({near!r}); "
            "give the turn that begins or ends there weight 0"
        )


def chat_template(model: Path) -> str:
    """Return the chat template of a model folder; ChatML if it states none."""
    config = model / "tokenizer_config.json"
    settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return stated_template(model, settings) or CHATML


def tokenise(model: Path, examples: Sequence[Example]) -> list[Tokenised]:
    """Tokenise examples with the tokenizer and the chat template of a model folder.

    Raises TrainingError for an example whose turns, tokenised one by one as in a session, are not the tokens of the
    whole text, that is too long for the model, or in which nothing carries weight.
    """
    tokeniser = Tokeniser(model)
    found = [tokeniser.read(example, i) for i, example in enumerate(examples)]
    for one in found:
        if isinstance(one, LeftOut):
            raise TrainingError(one.text)
    return [one for one in found if isinstance(one, Tokenised)]


def usable(model: Path, examples: Sequence[Example]) -> tuple[list[Tokenised], Mapping[str, int]]:
    """Tokenise the examples that can be trained on; return them and how many were left out for which reason.

    Every reason is logged once, with the first example that it holds for. Raises TrainingError, naming the first
    reason, if none can be trained on.
    """
    tokeniser = Tokeniser(model)
    found = [tokeniser.read(example, i) for i, example in enumerate(examples)]
    return kept(found)


def usable_or_why(model: Path, examples: Sequence[Example]) -> list[Tokenised] | TrainingError:
    """Return the examples that `usable` finds, or the error that says why there are none."""
    if not examples:
        return TrainingError("there are no examples to measure on")
    try:
        return usable(model, examples)[0]
    except TrainingError as error:
        return error


def kept(found: Sequence[Tokenised | LeftOut]) -> tuple[list[Tokenised], Mapping[str, int]]:
    """Part what can be trained on from what cannot, as `usable` does."""
    good = [one for one in found if isinstance(one, Tokenised)]
    bad = [one for one in found if isinstance(one, LeftOut)]
    if bad and not good:
        raise TrainingError(f"none of {len(found)} examples can be trained on; {bad[0].text}")
    counts = Counter(one.reason for one in bad)
    for reason, count in counts.items():
        first = next(one.text for one in bad if one.reason == reason)
        LOG.warning("%d of %d examples are left out: %s (first: %s)", count, len(found), reason, first)
    return good, dict(sorted(counts.items()))
