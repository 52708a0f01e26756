"""The Hydra application: one configuration in, one finished run out; grids end in one table."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from looper.config import read
from looper.errors import ConfigError, LooperError
from looper.places import config_folder

FAILED = 2
"""Exit status of a run that stopped with an error of looper's own."""

composed: list[bool] = []
"""Not empty once Hydra has accepted a command line; a later failure is none of spelling."""


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")
def application(config: DictConfig) -> float | None:
    """Run one composed configuration; returns the headline for sweepers (None where there is none)."""
    from looper.launch import launch, leave_mark

    composed.append(True)
    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    try:
        _guard(hydra_config)
        metrics = launch(read(config), overrides=overrides)
    except LooperError as error:
        print(f"looper: {error}", file=sys.stderr)
        if hydra_config.mode != RunMode.MULTIRUN:
            raise SystemExit(FAILED) from error
        leave_mark({"error": str(error), "overrides": overrides})  # the grid's other jobs go on
        return None
    headline = metrics.get("transfer_over_placebo") or metrics.get("forward_transfer")
    return float(headline["estimate"]) if headline else None


def _guard(hydra_config: Any) -> None:
    """Refuse what Hydra would silently ignore. Raises ConfigError."""
    params = OmegaConf.select(hydra_config, "sweeper.params")
    if params and hydra_config.mode != RunMode.MULTIRUN:
        keys = ", ".join(str(key) for key in params)
        raise ConfigError(f"the experiment is a grid over {keys}, but this is a single run: add -m")


def explain(words: Sequence[str]) -> None:
    """After Hydra refused the command line: suggest the keys that were probably meant."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    if composed:
        return
    keys = [word.lstrip("+~").split("=", 1)[0] for word in words if "=" in word and not word.startswith("-")]
    if not keys:
        return
    GlobalHydra.instance().clear()
    groups = [path.name for path in config_folder().iterdir() if path.is_dir()]
    options = {f"{path.parent.name}={path.stem}" for path in config_folder().glob("*/*.yaml")}
    chosen = [word for word in words if word in options]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config: Any = compose("config", overrides=chosen)
    known = _paths(config, "")
    for key in keys:
        if key not in known and key not in groups and not key.startswith(("hydra", "exp", "tracker@", "model@")):
            close = difflib.get_close_matches(key, [*known, *groups], n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            print(f"looper: there is no {key}{hint} (python -m looper --cfg job shows all keys)", file=sys.stderr)


def _paths(node: Any, prefix: str) -> list[str]:
    out = []
    for key in node:
        path = f"{prefix}{key}"
        out.append(path)
        if OmegaConf.is_dict(node) and OmegaConf.is_dict(node._get_node(key)):
            out += _paths(node[key], f"{path}.")
    return out
