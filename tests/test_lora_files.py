"""What makes an adapter more than plain LoRA: one list for all that merge, sum or convert adapters."""

from __future__ import annotations

import json
import math

import pytest
from peft import LoraConfig

from looper.errors import LooperError
from looper.learning.consolidation import rank_of
from looper.lora_files import BEYOND, CONFIG, beyond, digest, scale_of
from looper.models.nano.weights import low_rank
from looper.training.formats import peft_folder
from looper.training.merging import plain_scale

PLAIN = {"peft_type": "LORA", "r": 16, "lora_alpha": 8}
OTHERS = {
    "use_dora": True,
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"q_proj": 2},
    "modules_to_save": ["lm_head"],
    "bias": "all",
    "lora_bias": True,
    "fan_in_fan_out": True,
    "trainable_token_indices": [1],
    "layer_replication": [[0, 1]],
    "target_parameters": ["experts"],
    "alora_invocation_tokens": [1],
    "init_lora_weights": "pissa",
    "peft_type": "IA3",
}


@pytest.mark.parametrize("key", OTHERS)
def test_every_reader_refuses_it_and_names_it(key, tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps(PLAIN | {key: OTHERS[key]}))
    readers = (rank_of, plain_scale, lambda folder: list(low_rank({}, folder)))
    for read in readers:
        with pytest.raises(LooperError, match=key) as caught:
            read(tmp_path)
        assert "only plain LoRA" in str(caught.value) and str(tmp_path) in str(caught.value)
    with pytest.raises(LooperError, match=key):
        peft_folder.refuse(PLAIN | {key: OTHERS[key]}, tmp_path)


def test_the_list_is_of_settings_that_peft_has_and_its_defaults_are_plain():
    settings = LoraConfig(task_type="CAUSAL_LM").to_dict()
    assert not beyond(settings)
    assert set(BEYOND) <= set(settings)
    assert set(OTHERS) == {*BEYOND, "init_lora_weights", "peft_type"}


def test_the_scale_and_the_identity_follow_the_settings_that_decide_them(tmp_path):
    assert scale_of(PLAIN) == 0.5 and scale_of(PLAIN | {"use_rslora": True}) == 8 / math.sqrt(16)
    found = set()
    for more in ({}, {"lora_alpha": 16}, {"use_rslora": True}, {"base_model_name_or_path": "elsewhere"}):
        (tmp_path / CONFIG).write_text(json.dumps(PLAIN | more))
        (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
        found.add(digest(tmp_path))
    assert len(found) == 3
