"""A validated experiment becomes a folder of results: manifest first, metrics.json last."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from looper.agents.loop import Agent
from looper.config import SECOND, Experiment, values_of
from looper.errors import LooperError, StoreError
from looper.guards import answering
from looper.models.placed import Placed
from looper.records import Skill, Task, digest_of
from looper.run import Entry, Parts, Plan, Run
from looper.session import FORMAT, Actor
from looper.store import Store, write_json, write_whole

if TYPE_CHECKING:
    from looper.protocols import Model, Tracker
    from looper.tracking.guarded import Guarded


def launch(experiment: Experiment, *, overrides: list[str]) -> dict[str, Any]:
    """Carry out an experiment, or show it if it is done; return its metrics."""
    folder = Path(experiment.settings.out) / "runs" / experiment.run_id
    if "campaign" in experiment.parts:
        return _launch_campaign(experiment, folder, overrides)
    benchmark, seed = experiment.parts["benchmark"], experiment.settings.seed
    tasks = benchmark.load(seed)
    gathers = experiment.parts["strategy"].learns or experiment.parts["retrieval"].remembers
    wanted = experiment.placebo and gathers
    placebo = benchmark.placebo(seed) if wanted else ()
    ground = _ground(experiment, (*tasks, *placebo))
    metrics = _finished(folder / "metrics.json", ground)
    if metrics is None:
        metrics = _carry_out(experiment, folder, overrides, tasks, placebo, ground)
    _show(Console(), folder, metrics, experiment.parts["model"].weights)
    leave_mark({"run": str(folder.resolve()), "overrides": overrides})
    return metrics


def _launch_campaign(experiment: Experiment, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Carry out a run of research campaigns, or show it if it is done; return its metrics."""
    from looper.campaigns.running import past_of, why_lines

    parts = experiment.parts
    past = past_of(parts["campaign"])
    ground = digest_of(
        [FORMAT, parts["model"].id, dict(parts["workspace"].identity), parts["benchmark"].identity, past]
        + [model.id for name in SECOND if (model := _second(parts, name))]
    )
    metrics = _finished(folder / "metrics.json", ground)
    if metrics is None:
        metrics = _campaigns(experiment, folder, overrides, ground)
    learner = parts.get("learner") or parts["model"]
    lines = (*why_lines(metrics, folder), *_adapter_lines(folder, metrics, learner.weights))
    _tell(Console(), metrics, (*lines, f"report: {folder / 'report.html'}"))
    leave_mark({"run": str(folder.resolve()), "overrides": overrides})
    return metrics


def _campaigns(experiment: Experiment, folder: Path, overrides: list[str], ground: str) -> dict[str, Any]:
    from looper.campaigns.learning import Learning
    from looper.campaigns.running import CampaignRun
    from looper.memory.ranking.settings import Cost, Ranking
    from looper.report.campaign_page import campaign_page

    settings, parts = experiment.settings, experiment.parts
    learner = _second(parts, "learner")
    answering(parts["model"], learner)
    learning = None
    if parts["strategy"].learns:
        learning = Learning(
            learner=learner or parts["model"],
            data=parts["data"],
            strategy=parts["strategy"],
            trainer=parts["trainer"],
            ground=_learning(parts),
        )
        learning.check()
    facts = _begin(experiment, folder, overrides)
    for note in parts["benchmark"].notes:
        print(f"note: {note}", file=sys.stderr)
    with tracked(experiment.trackers, folder) as tracker:
        tracker.event("start", facts)
        run = CampaignRun(
            options=parts["campaign"],
            benchmark=parts["benchmark"],
            ranking=parts.get("ranking") or Ranking(cost=Cost.FREE),
            actor=Actor(
                agent=Agent(prompt=parts["prompt"], budget=parts["budget"]),
                workspace=parts["workspace"],
                store=Store(Path(settings.out)),
                model=parts["model"],
                skill=Skill(),
            ),
            folder=folder,
            seed=settings.seed,
            temperature=settings.temperature,
            parallel=settings.parallel,
            tracker=tracker,
            learning=learning,
        )
        metrics, trials = run.execute()
        metrics = {**metrics, "ground": ground}
        title = f"looper: {facts['run']}"
        told = {**facts, **({"trackers": tracker.notes} if tracker.notes else {})}
        write_whole(folder / "report.html", campaign_page(metrics, facts=told, trials=trials, title=title))
        write_json(folder / "metrics.json", metrics)
    tracker.finish(metrics)
    return metrics


def _begin(experiment: Experiment, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Say what is run and where, write the manifest, and return the facts that the report shows."""
    facts = _facts(experiment, overrides)
    print(
        f"run {experiment.run_id}: sandbox {facts['sandbox']}, model {facts['model']}, results in {folder}",
        file=sys.stderr,
    )
    for level, why in facts["stronger_sandboxes"].items():
        print(f"sandbox {level} cannot be had: {why}", file=sys.stderr)
    with suppress(FileNotFoundError, NotADirectoryError):
        (folder / "metrics.json").unlink()  # of other ground, or of a machine that failed: no result of this manifest
    write_json(folder / "manifest.json", facts)
    return facts


def _ground(experiment: Experiment, tasks: Sequence[Task]) -> str:
    """Return a digest of what decides a run's result beside its configuration.

    That is the version of the sessions' course, the tasks with their tests, the models' weights, the sandbox and its
    limits, and Python's version; other changes of looper's code are not seen.
    """
    parts = experiment.parts
    met = [task.model_dump(mode="json") for task in tasks]
    second = [model.id for name in SECOND if (model := _second(parts, name))]
    return digest_of(
        [FORMAT, parts["model"].id, dict(parts["workspace"].identity), platform.python_version(), met, *second]
    )


def _second(parts: Mapping[str, Any], name: str) -> Model | None:
    """Return a second model, whose errors name its place; None where there is none."""
    return Placed(model=parts[name], place=name) if name in parts else None


def _finished(path: Path, ground: str) -> dict[str, Any] | None:
    """Return the metrics of a finished run; the file is written last, so its being there means completion.

    None if there are none, if they stand on other ground, or if the machine failed in some of the sessions:
    these are tried again.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is unreadable ({error}); delete it and give the same command again") from error
    if not isinstance(metrics, dict):
        raise StoreError(f"{path} holds no metrics; delete it and give the same command again")
    good = metrics.get("ground") == ground and not metrics.get("infrastructure", {}).get("total")
    return metrics if good else None


def _carry_out(
    experiment: Experiment,
    folder: Path,
    overrides: list[str],
    tasks: Sequence[Task],
    placebo: Sequence[Task],
    ground: str,
) -> dict[str, Any]:
    from looper.report.progress import Progress
    from looper.tracking.guarded import Guarded

    settings, parts = experiment.settings, experiment.parts
    progress = Progress()
    run = Run(
        parts=Parts(
            agent=Agent(prompt=parts["prompt"], budget=parts["budget"]),
            benchmark=parts["benchmark"],
            curriculum=parts["curriculum"],
            model=parts["model"],
            knowledge=parts["retrieval"],
            data=parts["data"],
            strategy=parts["strategy"],
            trainer=parts["trainer"],
            workspace=parts["workspace"],
            writer=_second(parts, "synthesizer"),
            supervisor=_second(parts, "supervisor"),
        ),
        plan=Plan(
            seed=settings.seed,
            attempts=settings.attempts,
            temperature=settings.temperature,
            parallel=settings.parallel,
            learning=_learning(parts),
        ),
        store=Store(Path(settings.out)),
        folder=folder,
        progress=progress,
        tracker=Guarded(),
    )
    run.check(tasks, placebo)
    facts = _begin(experiment, folder, overrides)
    with tracked(experiment.trackers, folder) as run.tracker, progress:
        run.tracker.event("start", facts)
        metrics = {**run.execute(tasks, placebo), "ground": ground}
        ended = {"trackers": run.tracker.notes, "adapters": _adapters(folder, metrics)}
        _report(folder, metrics, {**facts, **{k: v for k, v in ended.items() if v}}, run.entries)
        write_json(folder / "metrics.json", metrics)
    run.tracker.finish(metrics)
    return metrics


@contextmanager
def tracked(parts: Mapping[str, Any], folder: Path) -> Iterator[Guarded]:
    """Open trackers for a run, which finishes them itself when it is done.

    Whatever else ends it, an interrupt too, they get the event `failed` and are finished without metrics: a tracker
    that is left open loses lines, and in a grid the next job's would go to it.
    """
    from looper.tracking.guarded import Guarded

    opened: dict[str, Tracker] = {}
    tracker = Guarded()
    try:
        for name, part in parts.items():
            opened[name] = part.open(folder)
            tracker = Guarded(**opened)
        yield tracker
    except BaseException as error:
        tracker.event("failed", {"error": f"{type(error).__name__}: {error}".removesuffix(": ")})
        tracker.finish({})
        raise


def _facts(experiment: Experiment, overrides: list[str]) -> dict[str, Any]:
    return {
        "run": experiment.run_id,
        "seed": experiment.settings.seed,
        "model": experiment.parts["model"].id,
        "sandbox": experiment.parts["workspace"].level,
        "stronger_sandboxes": dict(experiment.parts["workspace"].reasons),
        "git": _commit(),
        "overrides": overrides,
        "config": experiment.config,
    }


def _commit() -> str:
    """Return looper's own commit, '' where it is not run from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent.parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _report(folder: Path, metrics: dict[str, Any], facts: dict[str, Any], entries: list[Entry]) -> None:
    from looper.report.export import csv_text
    from looper.report.page import page

    lines = [
        json.dumps({"arm": e.arm, "stage": e.stage, "task": e.episode.task, "episode": e.episode.digest})
        for e in entries
    ]
    write_whole(folder / "episodes.jsonl", "\n".join(lines) + "\n")
    write_whole(folder / "results.csv", csv_text([({}, metrics)]))
    sessions = [(e.arm, e.stage, e.episode) for e in entries]
    write_whole(folder / "report.html", page(metrics, facts=facts, sessions=sessions, title=f"looper: {facts['run']}"))


def _adapters(folder: Path, metrics: dict[str, Any]) -> list[str]:
    """Return the folders of the adapters that a run ended with."""
    from looper.report.learned import adapters_of

    return [str(folder.parent.parent / adapter) for adapter in adapters_of(metrics)]


def _adapter_lines(folder: Path, metrics: dict[str, Any], base: Path | None) -> list[str]:
    """Return what can be done with the adapters that a run ended with."""
    return [
        f"adapter: {adapter} (looper export {adapter} --to merged --base {base or 'MODEL'} --out FOLDER)"
        for adapter in _adapters(folder, metrics)
    ]


def _show(console: Console, folder: Path, metrics: dict[str, Any], base: Path | None) -> None:
    _tell(console, metrics, (*_adapter_lines(folder, metrics, base), f"report: {folder / 'report.html'}"))


def _tell(console: Console, metrics: dict[str, Any], lines: Sequence[str]) -> None:
    from looper.report.table import run_table

    console.print(run_table(metrics))
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def leave_mark(mark: dict[str, Any]) -> None:
    """Tell a sweep's closing table where this job's results are, or why there are none."""
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        job = Path(HydraConfig.get().runtime.output_dir)
        try:
            write_json(job / "run.json", mark)
        except LooperError as error:
            print(f"looper: {error}", file=sys.stderr)


def _learning(parts: Mapping[str, Any]) -> str:
    """Return the digest of what decides learning beside the sessions."""
    return digest_of([_named(parts[key]) for key in ("data", "strategy", "trainer")])


def _named(part: Any) -> list[Any]:
    """Return a component's class and values."""
    return [type(part).__name__, values_of(part)]
