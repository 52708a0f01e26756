"""Batched generation with mlx-lm's models: prompts computed one by one, replies decoded in rows of one fixed width.

As in the engine of `hf`, and with its draws: a conversation's prompt is computed in a batch of one, its tokens are
drawn by its own random stream, and only the decoding steps are shared. One thread of the engine's own computes:
MLX's streams belong to a thread, and the threads that ask come and go.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import torch
from mlx_lm.models.cache import BatchKVCache, KVCache, make_prompt_cache

from looper import mlx_layers
from looper.errors import ModelError
from looper.lora_files import CONFIG, PREFIX, WEIGHTS, beyond, part_of, scale_of
from looper.models.jobs import Job, Jobs, common, drawn, draws_of, rows_of
from looper.records import Adapter, Conversation, Reply

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOG = logging.getLogger(__name__)

CHUNK = 2048
"""Tokens of a prompt that go through the model at once."""


class MlxEngine:
    """One model in memory; any sum of adapters of it answers, one batch at a time."""

    def __init__(
        self, folder: Path, tokenizer: Tokenizer, *, template: str, dtype: str, width: int, cache: int
    ) -> None:
        """Load the weights. Raises ModelError where that fails."""
        self._width, self._keep = width, cache
        self._jobs = Jobs(folder, tokenizer, template)
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], tuple[list[int], list[Any]]] = OrderedDict()
        self._forgotten: deque[str] = deque()
        self._wrapped: tuple[tuple[str, ...], dict[str, Any]] = ((), {})
        self._active: tuple[str, ...] = ()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="looper-mlx")
        self._thread.submit(self._load, folder, dtype).result()

    def _load(self, folder: Path, dtype: str) -> None:
        LOG.info("loading %s in %s with MLX", folder, dtype)
        try:
            self._model = mlx_layers.load(folder, getattr(mx, dtype))
        except (ValueError, FileNotFoundError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{folder} is no model that mlx-lm can load ({reason}); give a complete folder, another model, "
                "or model=hf"
            ) from error
        if not all(type(cache) is KVCache for cache in make_prompt_cache(self._model)):
            raise ModelError(
                f"{folder} has layers without full attention, whose state cannot be kept from turn to turn here; "
                "choose another model, or serve it with mlx_lm.server (model=mlx_server)"
            )
        self._base = mlx_layers.linear_layers(self._model)

    def reply(self, conversations: Sequence[Conversation], adapters: tuple[Adapter, ...]) -> list[Reply]:
        """Answer a batch under the sum of some adapters. Raises ContextOverflow before anything is computed."""
        jobs = [self._jobs.opened(conversation) for conversation in conversations]
        self._thread.submit(self._compute, jobs, adapters).result()
        return [self._jobs.closed(job) for job in jobs]

    def forget(self, conversation: str) -> None:
        """Free a finished conversation's cache."""
        self._forgotten.append(conversation)  # dropped before the next batch: nobody waits for the one under way

    def _compute(self, jobs: list[Job], adapters: tuple[Adapter, ...]) -> None:
        while self._forgotten:
            gone = self._forgotten.popleft()
            for key in [key for key in self._kept if key[0] == gone]:
                del self._kept[key]
        self._use(adapters)
        for start in range(0, len(jobs), self._width):
            group = jobs[start : start + self._width]
            for job in group:
                self._prefill(job)
            self._decode(group)
        mx.clear_cache()

    def _use(self, adapters: tuple[Adapter, ...]) -> None:
        """Make exactly these adapters count. The matrices of the latest ones stay in memory."""
        names = tuple(adapter.digest for adapter in adapters)
        if names == self._active:
            return
        if names and names != self._wrapped[0]:
            wrapped: dict[str, Any] = {}
            for adapter in adapters:
                _wrap(wrapped, self._base, Path(adapter.path))
            mlx_layers.put(self._model, self._base, self._wrapped[1])
            self._wrapped = names, wrapped
        mlx_layers.put(self._model, self._wrapped[1] if names else self._base, self._wrapped[1])
        self._active = names

    def _prefill(self, job: Job) -> None:
        """Compute the prompt's keys and values but for the last token, which is the first one decoded."""
        target = job.prompt[:-1]
        key = (job.conversation.id, self._active)
        ids, kept = self._kept.pop(key, ([], []))
        known = job.cached = common(ids, target)
        caches = [_beginning(cache, known) for cache in kept] if known else make_prompt_cache(self._model)
        for start in range(known, len(target), CHUNK):
            self._model(mx.array([target[start : min(start + CHUNK, len(target))]]), cache=caches)
            mx.eval([(cache.keys, cache.values) for cache in caches])  # and not the logits, which nobody reads
        job.computed = caches
        if self._keep:
            self._kept[key] = (target, caches)
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)

    def _decode(self, group: list[Job]) -> None:
        """Decode replies together; rows without a conversation repeat the first one's, and are thrown away."""
        rows = rows_of(group, self._width)
        caches = [BatchKVCache.merge(list(layer)) for layer in zip(*(job.computed for job in rows), strict=True)]
        for job in group:
            job.computed = None
        draws = draws_of(group, len(rows))
        heat = torch.tensor([job.conversation.temperature for job in rows])
        token = [job.prompt[-1] for job in rows]
        for step in range(draws.shape[1]):
            logits = self._model(mx.array(token)[:, None], cache=caches)[:, -1].astype(mx.float32)  # (B, V)
            token = drawn(torch.from_numpy(np.array(logits)), heat, draws[:, step]).tolist()
            self._jobs.take(group, token)
            if all(job.done for job in group):
                return


def _beginning(cache: Any, known: int) -> Any:
    """Return a cache of the first tokens of another one, which stays as it is."""
    fresh = KVCache()
    fresh.keys, fresh.values, fresh.offset = cache.keys[..., :known, :], cache.values[..., :known, :], known
    return fresh


def _wrap(wrapped: dict[str, Any], base: Mapping[str, Any], folder: Path) -> None:
    """Put an adapter (a folder in PEFT's format) around what stands at its places, the base's layers or adapters."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if more := beyond(config):
        raise ModelError(f"adapter {folder} has {more}; only plain LoRA can be summed")
    tensors: Any = mx.load(str(folder / WEIGHTS))
    for name in sorted(tensors):
        module, part = part_of(name) or ("", "")
        if part == "B" and f"{PREFIX}{module}.lora_A.weight" in tensors:
            continue
        lora_b = tensors.get(f"{PREFIX}{module}.lora_B.weight")
        fits = part == "A" and lora_b is not None and module in base
        if not fits or mlx_layers.size(base[module]) != (lora_b.shape[0], tensors[name].shape[1]):
            raise ModelError(
                f"adapter {folder} holds {name}, which fits no linear layer of this model; train it anew on this model"
            )
        matrices = (tensors[name].T.astype(mx.float32), lora_b.T.astype(mx.float32))
        wrapped[module] = mlx_layers.around(wrapped.get(module, base[module]), *matrices, scale_of(config))
