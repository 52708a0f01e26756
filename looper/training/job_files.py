"""A training's job as JSON, for a process that is given it: settings, examples, paths, what is minimised."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import TypeAdapter

from looper.protocols import Fit, Objective, Penalty
from looper.records import Example
from looper.training.schedule import TorchSchedule

if TYPE_CHECKING:
    from looper.training.lora import Job

PARTS = {kind.__name__: kind for kind in (TorchSchedule, *get_args(Penalty), *get_args(Objective))}
"""What is written by the name of its class and its values."""


def written(trainer: TorchSchedule, job: Job) -> dict[str, Any]:
    """Return a job and the settings it is trained with, as what `read` takes."""
    return {
        "trainer": _told(trainer, TorchSchedule),
        "model": str(job.model),
        "examples": [example.model_dump(mode="json") for example in job.examples],
        "start": job.start and str(job.start),
        "out": str(job.out),
        "seed": job.seed,
        "under": [str(path) for path in job.under],
        "penalty": job.penalty and _told(job.penalty, type(job.penalty)),
        "objective": job.objective and _told(job.objective, type(job.objective)),
        "inputs": job.inputs,
    }


def read(data: dict[str, Any]) -> tuple[TorchSchedule, Job]:
    """Return the settings and the job that were written."""
    from looper.training.lora import Job

    return _heard(data["trainer"]), Job(
        model=Path(data["model"]),
        examples=[Example.model_validate(example) for example in data["examples"]],
        start=data["start"] and Path(data["start"]),
        out=Path(data["out"]),
        seed=data["seed"],
        under=[Path(path) for path in data["under"]],
        penalty=data["penalty"] and _heard(data["penalty"]),
        objective=data["objective"] and _heard(data["objective"]),
        inputs=data["inputs"],
    )


def written_fit(fit: Fit) -> dict[str, Any]:
    """Return what a training did, as what `read_fit` takes."""
    return {**dataclasses.asdict(fit), "adapter": str(fit.adapter)}


def read_fit(data: dict[str, Any]) -> Fit:
    """Return what was written of a training."""
    return Fit(**{**data, "adapter": Path(data["adapter"]), "history": tuple(data["history"])})


def _told(part: Any, kind: type[Any]) -> dict[str, Any]:
    values = {field.name: getattr(part, field.name) for field in dataclasses.fields(kind)}
    return {"type": kind.__name__, "values": TypeAdapter(dict[str, Any]).dump_python(values, mode="json")}


def _heard(data: dict[str, Any]) -> Any:
    return TypeAdapter(PARTS[data["type"]]).validate_python(data["values"])
