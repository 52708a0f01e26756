"""The `looper` command: run, report, memory, export, doctor, pretrain; thin, they import when they are called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from looper.errors import LooperError
from looper.memory_cli import app as memory_app
from looper.training.formats.targets import Precision, Target

app = typer.Typer(help="A laboratory for agents that learn from their own runs.", no_args_is_help=True)
app.add_typer(memory_app, name="memory")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(context: typer.Context) -> None:
    """Run an experiment: the same as `python -m looper`, with the same arguments."""
    from looper.__main__ import main as run_main

    sys.argv = ["looper", *context.args]
    run_main()


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs (outputs/runs/...).")],
    csv: Annotated[Path | None, typer.Option(help="Also write the table as CSV to this file.")] = None,
) -> None:
    """Show finished runs as one table; runs that are not finished are named."""
    from looper.results import show

    show(runs, csv)


@app.command()
def export(
    adapter: Annotated[Path, typer.Argument(help="Folder of an adapter: PEFT's, mlx-lm's, or adapter.gguf.")],
    to: Annotated[Target, typer.Option(help="gguf is an adapter for llama.cpp, merged a whole model.")],
    out: Annotated[Path, typer.Option(help="New folder for the export.")],
    base: Annotated[
        Path | None, typer.Option(help="Folder of the base model's weights; if not given, the one the adapter names.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="What merged weights are stored in.")] = Precision.base,
) -> None:
    """Write an adapter in another program's format, with a model card."""
    from looper.models.nano.model import NAME, PACKED
    from looper.training.formats.export import export as write

    print(write(adapter, to=to, out=out, base=base, precision=precision, known={NAME: PACKED}))


@app.command()
def doctor() -> None:
    """Say what this machine can do, and what to install for the rest."""
    from looper.doctor import print_findings

    print_findings()


@app.command()
def pretrain(
    out: Annotated[Path, typer.Argument(help="Folder for the corpus, checkpoints and the finished model.")],
    sessions: Annotated[int, typer.Option(help="Oracle sessions in the corpus.")] = 130_000,
    tokens: Annotated[int, typer.Option(help="Tokens to train on.")] = 62_000_000,
    minutes: Annotated[float, typer.Option(help="Wall-clock limit of the training; 0 is none.")] = 0.0,
    processes: Annotated[int, typer.Option(help="One-thread processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the corpus.")] = 11,
) -> None:
    """Make the bundled model from nothing (about 70 minutes on two cores); goes on after a kill."""
    from looper.pretraining.recipe import Recipe, make

    make(out, Recipe(sessions=sessions, tokens=tokens, minutes=minutes, processes=processes, seed=seed))


def main() -> None:
    """Run the command line; looper's own errors are one line and exit status 2."""
    try:
        app()
    except LooperError as error:
        print(f"looper: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
