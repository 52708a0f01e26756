"""`python -m looper`: compose a configuration, build its parts, run it. The only Hydra application."""

from __future__ import annotations

import sys

HELP = """\
looper: a laboratory for agents that learn from their own runs

  python -m looper                                     the pilot: bundled model, bundled benchmark
  python -m looper +exp=framework_fixes                a study from conf/exp
  python -m looper seed=2 benchmark.family=natural     any value, any option
  python -m looper -m seed=1,2,3 prompt=fixes,bare     a grid (needs -m), one table
  python -m looper --cfg job                           print the configuration and stop

  looper run | doctor | report                         the same as python -m looper, this machine, results
  looper memory | export | pretrain                    the research memory, adapters, the bundled model

A tracker is added with +tracker@trackers.wandb=wandb, a second model with +model@synthesizer=NAME (writes examples),
+model@supervisor=NAME (judges steps) or +model@learner=NAME (learns from a research campaign's sessions).

Groups and their options ({folder}):
{groups}
"""

FLAGS = (
    *("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p", "--package", "-r", "--run"),
    *("-m", "--multirun", "-sc", "--shell-completion", "-cp", "--config-path", "-cn", "--config-name"),
    *("-cd", "--config-dir", "--experimental-rerun", "-i", "--info"),
)
"""What Hydra takes beside settings."""
COMMANDS = ("run", "report", "memory", "doctor", "export", "pretrain")
"""Commands of `looper`, which `python -m looper` has not."""


def main() -> None:
    """Answer --help at once; hand everything else to Hydra."""
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        print(_help(), end="")
        return
    from looper.errors import LooperError

    try:
        _check_words(sys.argv[1:])
        _check_writable(sys.argv[1:])
        _run()
    except LooperError as error:
        print(f"looper: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        print("looper: stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


def _check_words(words: list[str]) -> None:
    """Refuse words that Hydra answers with its own traceback. Raises ConfigError."""
    from looper.errors import ConfigError
    from looper.places import config_folder

    for word in words:
        key, _, value = word.partition("=")
        if word.startswith("-") and not any(flag == key or (key[2:] and flag.startswith(key)) for flag in FLAGS):
            listed = ", ".join(flag for flag in FLAGS if flag.startswith("--"))
            raise ConfigError(f"there is no flag {key}; -m runs a grid, --cfg job prints the settings; all: {listed}")
        group = key.lstrip("+~")
        chosen = group not in ("exp", "tracker", "campaign", "ranking", "") and (config_folder() / group).is_dir()
        if chosen and (key != group or value == "null"):
            raise ConfigError(f"{word}: one {group} is always chosen; give {group}=NAME (python -m looper --help)")
        if not key.strip("+~ "):
            raise ConfigError(f"{word!r} names no key: give KEY=VALUE (python -m looper --help)")
        if key == "exp":
            raise ConfigError(f"an experiment is added, not overridden: give +exp={value}")
        if group == "tracker":
            raise ConfigError(f"trackers are added, not overridden: give +tracker@trackers.{value}={value}")
        if word in COMMANDS:
            raise ConfigError(f"{word} is no setting: the command is `looper {word}`")


def _check_writable(words: list[str]) -> None:
    """Refuse an output folder that cannot be written before Hydra stumbles over it.

    Raises ConfigError for an empty one, StoreError for one that cannot be made.
    """
    if any(word in ("--cfg", "-c", "--info", "-i") for word in words):
        return
    from pathlib import Path

    from looper.errors import ConfigError, StoreError
    from looper.store import write_whole

    named = [word.partition("=")[2] for word in words if word.startswith("out=")]
    out = named[-1] if named else "outputs"
    if not out.strip("'\" "):
        raise ConfigError("out= is empty; give out=FOLDER, or leave it out for outputs")
    try:
        write_whole(Path(out) / ".writable", "")
    except StoreError as error:
        why = error.__cause__.strerror if isinstance(error.__cause__, OSError) else ""
        raise StoreError(f"out={out} cannot be used ({why or error}); give out=FOLDER that can be written") from error


def _run() -> None:
    """Hand the command line to Hydra; where it refuses, say why in its place, and which keys were probably meant."""
    from looper.application import answer

    words = sys.argv[1:]  # Hydra takes no word after a flag that stands between words
    sys.argv[1:] = sorted(words, key=lambda word: word not in ("-m", "--multirun"))
    answer(sys.argv[1:])


def _help() -> str:
    from looper.places import config_folder

    folder = config_folder()
    lines = []
    for group in sorted(path for path in folder.iterdir() if path.is_dir()):
        options = ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
        added = group.name in ("exp", "campaign", "ranking")
        lines.append(f"  {'+' * added + group.name:<12} {options}")
    return HELP.format(folder=folder.name, groups="\n".join(lines))


if __name__ == "__main__":
    main()
