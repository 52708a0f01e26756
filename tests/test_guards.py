"""Parts that do not fit together are refused before any session, by what they declare of themselves."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from looper.build import build
from looper.errors import ConfigError, TrainingError
from looper.guards import answering, fitting_together, option_of
from looper.learning.adaptive_rank import AdaptiveRank
from looper.learning.ewc import Ewc
from looper.learning.mole import Category, Mole
from looper.learning.o_lora import OLora
from looper.learning.sft import Sft
from looper.models.ensemble import Ensemble
from looper.models.http_model import HttpModel
from looper.models.hugging_face import Device, HuggingFace
from looper.models.nano.model import PACKED, Nano
from looper.places import config_folder
from looper.training.mlx_trainer import MlxTrainer
from looper.training.torch_trainer import TorchTrainer

OPTIONS = [
    (group, path.stem)
    for group in ("strategy", "data", "trainer")
    for path in sorted((config_folder() / group).glob("*.yaml"))
]
STRATEGIES = sorted(name for group, name in OPTIONS if group == "strategy")
BEYOND = {
    "dpo": "objective of preference pairs",
    "kto": "objective of KTO",
    "sdft": "self-distillation",
    "skill_to_lora": "self-distillation",
    "grpo": "policy gradient",
    "ewc": "Fisher information and the quadratic penalty",
    "o_lora": "overlap with past adapters",
}
"""Strategies that plain cross-entropy is not enough for, and the words that say why."""
COMPARING = {"dpo", "kto", "grpo", "sdft", "skill_to_lora", "none", "playbook"}
"""Strategies that rejected examples do no harm to."""


def made(group: str, name: str):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return build(compose("config", overrides=[f"{group}={name}"])[group], group)


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_a_part_is_called_as_it_is_chosen(group: str, name: str) -> None:
    assert option_of(made(group, name)) == name


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_trainer_that_lacks_what_the_strategy_asks_for_is_refused(name: str) -> None:
    strategy, data = made("strategy", name), made("data", "trajectory")
    fitting_together(Nano(), data, strategy, TorchTrainer(), stages=2)
    if name not in BEYOND:
        return fitting_together(Nano(), data, strategy, MlxTrainer(), stages=2)
    with pytest.raises(ConfigError, match=BEYOND[name]) as caught:
        fitting_together(Nano(), data, strategy, MlxTrainer(), stages=2)
    for word in (f"strategy={name} needs", "which trainer=mlx does not know", "give trainer=torch", "strategy=sft"):
        assert word in str(caught.value)


def test_what_is_only_asked_for_in_later_stages_is_not_asked_for_in_the_first() -> None:
    data = made("data", "trajectory")
    for strategy in (OLora(), OLora(lam=0.0), Ewc(lam=0.0)):
        fitting_together(Nano(), data, strategy, MlxTrainer(), stages=1)
    with pytest.raises(ConfigError, match="needs the Fisher information, which trainer=mlx"):
        fitting_together(Nano(), data, Ewc(), MlxTrainer(), stages=1)


def test_a_model_that_cannot_run_what_is_trained_is_refused_before_it_is() -> None:
    def fit(model: Any, strategy: Any, stages: int = 2) -> None:
        fitting_together(model, made("data", "trajectory"), strategy, TorchTrainer(), stages=stages)

    served = {"name": "m", "folder": str(PACKED)}
    for model, strategy in (
        (Nano(), Mole()),
        (Nano(scale=0.5), Mole(experts=1)),
        (HuggingFace(name=str(PACKED)), OLora()),
        (HttpModel(**served, lora=True), Sft()),
        (HttpModel(**served, lora=True), OLora()),
    ):
        fit(model, strategy, 1)
    for model, strategy, words in (
        (Nano(scale=0.5), Mole(), "strategy=mole ends in a mixture of adapters, and nano"),
        (HuggingFace(name=str(PACKED), device=Device.cpu), Mole(), "takes a sum of several adapters, one adapter"),
        (HttpModel(**served, lora=True), OLora(), "ends in a sum of several adapters, and http-m-.* takes one adapter"),
        (HttpModel(**served), Sft(), "takes no adapter .*; give strategy=none"),
    ):
        with pytest.raises(ConfigError, match=words):
            fit(model, strategy)


def test_a_trainer_whose_settings_the_strategy_cannot_use_is_refused() -> None:
    data = made("data", "trajectory")
    family, narrow = Mole(category=Category.family), TorchTrainer(rank=3, alpha=3)
    for strategy, trainer in ((family, TorchTrainer()), (Mole(experts=1), narrow), (Mole(), narrow)):
        fitting_together(Nano(), data, strategy, trainer, stages=2)
    with pytest.raises(TrainingError, match=r"trainer\.rank=3 cannot be split among 4 experts"):
        fitting_together(Nano(), data, family, narrow, stages=2)
    with pytest.raises(TrainingError, match=r"trainer\.alpha=31 .* gives no whole alpha"):
        fitting_together(Nano(), data, AdaptiveRank(), TorchTrainer(alpha=31), stages=2)


@pytest.mark.parametrize("name", STRATEGIES)
def test_rejected_examples_are_refused_where_they_would_be_imitated(name: str) -> None:
    strategy = made("strategy", name)
    for data in (data for group, data in OPTIONS if group == "data"):
        if data != "preference" or name in COMPARING:
            fitting_together(Nano(), made("data", data), strategy, TorchTrainer(), stages=1)
            continue
        with pytest.raises(ConfigError, match=f"data=preference .* strategy={name} would imitate them; give data=traj"):
            fitting_together(Nano(), made("data", data), strategy, TorchTrainer(), stages=1)


def test_a_missing_key_is_said_of_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEY_OF_TEST", raising=False)
    keyed, free = HttpModel(name="m", key_variable="KEY_OF_TEST"), HttpModel(name="m")
    answering(free, Nano(), None)
    for lacking, place in ((keyed, "model"), (Ensemble().of({"a": Nano(), "b": keyed}), r"members\.b")):
        with pytest.raises(ConfigError, match=rf"KEY_OF_TEST is not set; export KEY_OF_TEST=.*{place}\.key_variable"):
            answering(Nano(), lacking)
    with pytest.raises(ConfigError, match="export KEY_OF_TEST="):
        _ = HttpModel(key_variable="KEY_OF_TEST").id  # its name is asked of the server
    monkeypatch.setenv("KEY_OF_TEST", "sk-secret")
    answering(keyed)
