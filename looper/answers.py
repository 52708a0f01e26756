"""A model whose answers are kept: whoever asks the same again, after a kill too, gets them from the store."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from looper.errors import LooperError, MachineError, StoreError
from looper.models.front import Front
from looper.protocols import Model
from looper.records import Conversation, Reply, digest_of
from looper.store import Store

WIDTH = 16
"""Conversations that a model is asked at once where it does not say how many it takes together."""


class Kept(Front):
    """A model in front of a store; for questions that are asked once each, such as those for synthetic examples.

    An answer's address is the model's identity and everything that is asked, so that runs and jobs share them. It is
    kept as soon as it is there: a served model (one with a `concurrency`) is asked for single replies in parallel, any
    other for batches of its width, and a kill costs at most what was under way.
    """

    def __init__(self, model: Model, store: Store) -> None:
        """Wrap a model; its answers go to `store`."""
        super().__init__(model)
        self._store = store

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Answer a batch, from the store where it can. Raises what the model raises, when all others are kept."""
        who = self._model.id
        keys = [digest_of([who, c.model_dump(mode="json", exclude={"id"})]) for c in conversations]
        found = {key: reply for key in keys if (reply := self._store.reply(key)) is not None}
        missing = {key: c for key, c in zip(keys, conversations, strict=True) if key not in found}
        together = 1 if hasattr(self._model, "concurrency") else int(getattr(self._model, "width", WIDTH))
        rows = list(missing.items())
        groups = [rows[i : i + together] for i in range(0, len(rows), together)]
        at_once = int(getattr(self._model, "concurrency", 1))
        with ThreadPoolExecutor(at_once, thread_name_prefix="looper-answer") as pool:
            outcomes = list(pool.map(self._ask, groups))
        for outcome in outcomes:
            if isinstance(outcome, LooperError):
                raise outcome
            found |= outcome
        return [found[key] for key in keys]

    def _ask(self, group: Sequence[tuple[str, Conversation]]) -> dict[str, Reply] | LooperError:
        try:
            replies = self._model.reply([conversation for _, conversation in group])
        except (MachineError, StoreError):  # no other question would fare better: those that wait are not asked
            raise
        except LooperError as error:
            return error
        answered = {key: reply for (key, _), reply in zip(group, replies, strict=True)}
        for key, reply in answered.items():
            self._store.add_reply(key, reply)
        return answered
