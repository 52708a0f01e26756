"""Batched generation with transformers: prompts computed one by one, replies decoded in rows of one fixed width.

What a reply depends on is computed alone: a conversation's prompt in a batch of one, its draws from its own random
stream. Together are only the decoding steps, where rows share matrix products of a fixed shape and an attention
whose padding is as long as the longest row asks for. A reply's own tokens are not kept: they are computed again as a
part of the next prompt, so that what the cache holds does not depend on how it came there.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from looper.errors import MachineError, ModelError
from looper.models.jobs import Job, Jobs, common, drawn, draws_of, rows_of
from looper.records import Adapter, Conversation, Reply

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOG = logging.getLogger(__name__)

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, (1, heads, T, head) each."""


class Engine:
    """One model in memory; any sum of adapters of it answers, one batch at a time."""

    def __init__(
        self,
        folder: Path,
        tokenizer: Tokenizer,
        *,
        template: str,
        device: str,
        dtype: str,
        four_bit: bool,
        width: int,
        cache: int,
    ) -> None:
        """Load the weights. Raises ModelError or MachineError where that fails."""
        self._device = device
        self._width = width
        self._keep = cache
        self._model = _loaded(folder, device=device, dtype=dtype, four_bit=four_bit)
        self._jobs = Jobs(folder, tokenizer, template)
        self._adapters: set[str] = set()
        self._spoilt = ""
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], tuple[list[int], Layers]] = OrderedDict()
        self._forgotten: deque[str] = deque()
        self._lock = threading.Lock()

    def reply(self, conversations: Sequence[Conversation], adapters: tuple[Adapter, ...]) -> list[Reply]:
        """Answer a batch under the sum of some adapters. Raises ContextOverflow before anything is computed."""
        jobs = [self._jobs.opened(conversation) for conversation in conversations]
        names = tuple(adapter.digest for adapter in adapters)
        if self._spoilt:
            raise ModelError(f"{self._spoilt}; the weights in memory are no longer the base's: run the command again")
        with self._lock, torch.inference_mode(), self._under(adapters):
            while self._forgotten:
                gone = self._forgotten.popleft()
                for key in [key for key in self._kept if key[0] == gone]:
                    del self._kept[key]
            for start in range(0, len(jobs), self._width):
                group = jobs[start : start + self._width]
                for job in group:
                    self._prefill(job, names)
                self._decode(group)
        return [self._jobs.closed(job) for job in jobs]

    def forget(self, conversation: str) -> None:
        """Free a finished conversation's cache."""
        self._forgotten.append(conversation)  # dropped before the next batch: nobody waits for the one under way

    def _prefill(self, job: Job, names: tuple[str, ...]) -> None:
        """Compute the prompt's keys and values but for the last token, which is the first one decoded."""
        target = job.prompt[:-1]
        key = (job.conversation.id, names)
        ids, layers = self._kept.pop(key, ([], []))
        known = job.cached = common(ids, target)
        cache = _cache([(k[:, :, :known], v[:, :, :known]) for k, v in layers])
        if known < len(target):
            new = torch.tensor([target[known:]], device=self._device)  # (1, T)
            self._model(
                input_ids=new,
                past_key_values=cache,
                attention_mask=torch.ones((1, len(target)), dtype=torch.long, device=self._device),
                position_ids=torch.arange(known, len(target), device=self._device)[None],
                use_cache=True,
                logits_to_keep=1,
            )
        job.computed = [(layer.keys, layer.values) for layer in cache.layers]
        if self._keep:
            self._kept[key] = (target, job.computed)
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)

    def _decode(self, group: list[Job]) -> None:
        """Decode replies together; rows without a conversation repeat the first one's, and are thrown away."""
        rows = rows_of(group, self._width)
        lengths = [len(job.prompt) - 1 for job in rows]
        longest = max(lengths)
        cache = _cache(_stacked([job.computed for job in rows], lengths, longest)) if longest else _cache([])
        for job in group:
            job.computed = None
        columns = torch.arange(longest, device=self._device)
        mask = (columns >= torch.tensor([[longest - n] for n in lengths], device=self._device)).long()  # (B, longest)
        at = torch.tensor(lengths, device=self._device)[:, None]  # (B, 1)
        token = torch.tensor([[job.prompt[-1]] for job in rows], device=self._device)
        draws = draws_of(group, len(rows))
        heat = torch.tensor([job.conversation.temperature for job in rows], device=self._device)
        for step in range(draws.shape[1]):
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            made = self._model(
                input_ids=token, past_key_values=cache, attention_mask=mask, position_ids=at + step, use_cache=True
            )
            token = drawn(made.logits[:, -1], heat, draws[:, step])[:, None]  # (B, 1)
            self._jobs.take(group, token.flatten().tolist())
            if all(job.done for job in group):
                return

    @contextmanager
    def _under(self, adapters: tuple[Adapter, ...]) -> Iterator[None]:
        """Make exactly these adapters count; PEFT adds what each of them gives to the base's output.

        Of adapters only the latest are kept in memory: a run has one after every stage.
        """
        for adapter in adapters:
            if adapter.digest not in self._adapters:
                try:
                    self._model = _with(self._model, adapter)
                except ModelError as error:
                    self._spoilt = str(error)  # a part of it may be in the base's layers now
                    raise
                self._adapters.add(adapter.digest)
        if adapters:
            names = [adapter.digest for adapter in adapters]
            self._model.base_model.set_adapter(names)
            for stale in sorted(self._adapters.difference(names)):
                self._model.delete_adapter(stale)
                self._adapters.remove(stale)
            yield
        elif self._adapters:
            with self._model.disable_adapter():
                yield
        else:
            yield


@contextmanager
def _no_bar() -> Iterator[None]:
    """Keep transformers' progress bar out of the run's own display."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _loaded(folder: Path, *, device: str, dtype: str, four_bit: bool) -> Any:
    from transformers import AutoModelForCausalLM

    LOG.info("loading %s in %s on %s", folder, "4 bits" if four_bit else dtype, device)

    settings: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if four_bit:
        if find_spec("bitsandbytes") is None:
            raise MachineError("model.four_bit=true needs bitsandbytes; pip install bitsandbytes")
        from transformers import BitsAndBytesConfig

        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
        )
        settings["device_map"] = {"": 0}
    try:
        with _no_bar():
            model, loaded = AutoModelForCausalLM.from_pretrained(
                str(folder), local_files_only=True, output_loading_info=True, **settings
            )
        if lost := sorted([*loaded["missing_keys"], *map(str, loaded["mismatched_keys"])]):
            raise ModelError(
                f"{folder} lacks {lost[0]} ({len(lost)} such tensors), which transformers would fill at random; give a "
                "folder with all weights of the model that its config.json describes"
            )
        return (model if four_bit else model.to(device)).eval()
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"{folder} in {dtype} does not fit the memory of {device}; give model.four_bit=true (on CUDA), "
            "model.dtype=bfloat16, or a smaller model"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise ModelError(f"{folder} is no causal model that transformers can load ({reason})") from error


def _with(model: Any, adapter: Adapter) -> Any:
    """Return the PEFT model with one more adapter, named by its digest."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    folder = Path(adapter.path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT calls what transformers has renamed; what matters is checked below
            if isinstance(model, PeftModel):
                model.load_adapter(str(folder), adapter_name=adapter.digest)
            else:
                model = PeftModel.from_pretrained(model, str(folder), adapter_name=adapter.digest)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"adapter {folder} does not fit this model ({str(error)[:300]}); train it anew") from error
    with safe_open(str(folder / "adapter_model.safetensors"), "pt") as stored:
        wrong = sorted(set(stored.keys()) ^ set(get_peft_model_state_dict(model, adapter_name=adapter.digest)))
    if wrong:
        raise ModelError(
            f"adapter {folder} does not fit this model: {wrong[0]} is missing or extra ({len(wrong)} such tensors); "
            "train it anew"
        )
    return model.eval()


def _cache(layers: Layers) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    for index, (keys, values) in enumerate(layers):
        cache.update(keys, values, index)
    return cache


def _stacked(rows: list[Layers], lengths: list[int], longest: int) -> Layers:
    """Return keys and values of all rows, (B, heads, longest, head), padded with zeros on the left."""
    out: Layers = []
    for layer in range(max(len(row) for row in rows)):
        like = next(row[layer] for row in rows if row)
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        for row, length in zip(rows, lengths, strict=True):
            for which in (0, 1):
                whole = like[which].new_zeros(1, like[which].shape[1], longest, like[which].shape[3])
                if length:
                    whole[:, :, longest - length :] = row[layer][which]
                parts[which].append(whole)
        out.append((torch.cat(parts[0]), torch.cat(parts[1])))
    return out
