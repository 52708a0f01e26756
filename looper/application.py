"""The Hydra application: one configuration in, one finished run out; grids end in one table."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

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
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
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
    if "arms" in metrics:
        headline = next(iter(metrics["arms"].values()))["gain"]
    return float(headline["estimate"]) if headline else None


def _guard(hydra_config: Any) -> None:
    """Refuse what Hydra would silently ignore. Raises ConfigError."""
    params = OmegaConf.select(hydra_config, "sweeper.params")
    if params and hydra_config.mode != RunMode.MULTIRUN:
        keys = ", ".join(str(key) for key in params)
        raise ConfigError(f"the experiment is a grid over {keys}, but this is a single run: add -m")


def answer(words: Sequence[str]) -> None:
    """Run the application; where Hydra refuses the command line, say why in one message instead of a traceback.

    With HYDRA_FULL_ERROR=1 the traceback is shown, as Hydra does.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        application()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra prints what it catches, and only an exit status is left
    try:
        application()
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        if composed and not isinstance(error, HydraException):
            raise  # no mistake in the command line, which was accepted
        unknown = meant(words) if "is not in struct" in str(error.__cause__) else []
        for line in unknown or [refusal(error)]:
            print(f"looper: {line}", file=sys.stderr)
        raise SystemExit(FAILED) from None
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def refusal(error: Exception) -> str:
    """Return in one line why a command line was refused, what there is instead, and where to look."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        close = difflib.get_close_matches(option, error.options, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        there = f"there is no {group}/{option}" if option else f"{group}= names no option"
        return f"{there}{hint}; {group} has: {', '.join(error.options)}"
    text = str(error).partition("Config search path")[0]
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read: it is KEY=VALUE, every bracket and quote in it is closed, and a text "
            f"with = or commas is quoted twice: 'name=\"a,b\"'"
        )
    if text.startswith("Ambiguous value"):
        word = text.split("'")[1]
        key, _, values = word.partition("=")
        listed = "" if (config_folder() / key).is_dir() else f", or give a list, {key}=[{values}]"
        return f"{word} gives several values: add -m to run one after the other{listed}"
    lines = [line.strip().rstrip(".") for line in (text or type(error).__name__).splitlines() if line.strip()]
    return f"{'; '.join(lines)} (python -m looper --help shows what can be given)"


def meant(words: Sequence[str]) -> list[str]:
    """Return a line on each key of a command line that there is not, with the keys that were probably meant."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    keys = [word.lstrip("+~").split("=", 1)[0] for word in words if "=" in word and not word.startswith("-")]
    GlobalHydra.instance().clear()
    groups = [path.name for path in config_folder().iterdir() if path.is_dir()]
    options = {f"{path.parent.name}={path.stem}" for path in config_folder().glob("*/*.yaml")}
    chosen = [word for word in words if word.lstrip("+") in options]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config: Any = compose("config", overrides=chosen)
    known = list(dict.fromkeys([*_paths(config, ""), *groups]))
    lines = []
    for key in keys:
        if key not in known and not key.startswith(("hydra", "exp", "tracker@", "model@")):
            close = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            group, _, leaf = key.partition(".")
            if owners := [path.stem for path in sorted(config_folder().glob(f"{group}/*.yaml")) if _has(path, leaf)]:
                hint = f" with this {group}; it is a key of {group}={' or '.join(owners)}"
            lines.append(f"there is no {key}{hint} (python -m looper --cfg job shows all keys)")
    return lines


def _has(path: Path, key: str) -> bool:
    return key in OmegaConf.load(path)


def _paths(node: Any, prefix: str) -> list[str]:
    out = []
    for key in node:
        path = f"{prefix}{key}"
        out.append(path)
        if OmegaConf.is_dict(node) and OmegaConf.is_dict(node._get_node(key)):
            out += _paths(node[key], f"{path}.")
    return out
