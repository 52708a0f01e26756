"""Sessions advance together: replies asked for at the same time are answered in one batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from looper.errors import ModelError
from looper.models.front import Front
from looper.protocols import Model
from looper.records import Conversation, Reply

GATHER_SECONDS = 0.003
"""Wait for one more conversation before a batch starts: a fuller batch costs the model no more time."""

_Request = tuple[Conversation, "Future[Reply]"]


class BatchingModel(Front):
    """A model front for many threads; one thread of its own asks the real model in batches.

    Which conversations meet in a batch depends on timing; the model's contract (company does not
    change an answer) makes that invisible. Use as a context manager.
    """

    def __init__(self, model: Model, *, width: int) -> None:
        """Wrap a model; at most `width` conversations are answered in one call."""
        super().__init__(model)
        self._width = width
        self._queue: queue.Queue[_Request | None] = queue.Queue()
        self._thread = threading.Thread(target=self._serve, name="looper-model", daemon=True)

    def __enter__(self) -> BatchingModel:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Queue conversations and wait for their answers."""
        futures: list[Future[Reply]] = []
        for conversation in conversations:
            future: Future[Reply] = Future()
            self._queue.put((conversation, future))
            futures.append(future)
        return [future.result() for future in futures]

    def _serve(self) -> None:
        while (request := self._queue.get()) is not None:
            batch, closing = [request], False
            while len(batch) < self._width and not closing:
                try:
                    more = self._queue.get(timeout=GATHER_SECONDS)
                except queue.Empty:
                    break
                if more is None:
                    closing = True
                else:
                    batch.append(more)
            self._answer(batch)
            if closing:
                return

    def _answer(self, batch: list[_Request]) -> None:
        """Answer a batch; if it fails, halve it, so that in the end only the culprit's session fails."""
        try:
            replies = self._model.reply([conversation for conversation, _ in batch])
            if len(replies) != len(batch):
                raise ModelError(f"{self._model.id} gave {len(replies)} replies to {len(batch)} conversations")
        except BaseException as error:  # whatever it is, a session waits for it
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                half = len(batch) // 2
                self._answer(batch[:half])
                self._answer(batch[half:])
            return
        for (_, future), reply in zip(batch, replies, strict=True):
            future.set_result(reply)
