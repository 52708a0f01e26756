"""Where looper's own files lie."""

from __future__ import annotations

from pathlib import Path

from looper.errors import ConfigError


def config_folder() -> Path:
    """Return the folder of the YAML files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    for folder in (package.parent / "conf", package / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"no configuration files beside or inside {package}: install looper again")
