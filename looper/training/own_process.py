"""A training in a process of its own, whose end gives all memory of the graphics card back.

The model that plays the sessions and the one that is trained want the same card, and what a process has ever taken of
it stays in pieces with that process. Only `fit` goes this way: losses, Fisher information, embeddings and divergence
are computed where they are asked for. The child does what would be done here, so that its adapter is the same bits: it
gets the job as a private file, takes the adapter's lock itself, and tells on a pipe what is logged and how it ended.
It ends with its parent, however that ends.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from looper import errors
from looper.errors import LooperError, MachineError, TrainingError
from looper.protocols import Fit
from looper.training import job_files
from looper.training.schedule import Process, TorchSchedule

if TYPE_CHECKING:
    from looper.training.crew import Crew
    from looper.training.lora import Job

LOG = logging.getLogger(__name__)


def wanted(trainer: TorchSchedule, job: Job, crew: Crew) -> bool:
    """Return whether a job is trained in a process of its own."""
    import torch

    from looper.training.adapted import SMALL

    if crew.count > 1:
        if trainer.process is Process.own and crew.main:
            LOG.warning(
                "trainer.process=own is for one process, and this launch has %d: they train as they are", crew.count
            )
        return False
    if trainer.process is not Process.auto:
        return trainer.process is Process.own
    card = torch.cuda.is_available() or torch.backends.mps.is_available()
    return card and _parameters(job.model) >= SMALL


def once(trainer: TorchSchedule, job: Job) -> Fit:
    """Train an adapter in a process of its own, unless that was done before.

    Raises what the training raises, TrainingError too if its process was killed, and MachineError if it cannot start.
    """
    from looper.training import adapters

    with adapters.alone(job.out):  # given up before the child takes it
        done = adapters.finished(job.out, job.inputs)
    if done is not None:
        return done
    _give_back()
    with _started(trainer, job) as process:
        said = _heard(process)
    if "fit" in said:
        return job_files.read_fit(said["fit"])
    raise _failure(*said["error"]) if "error" in said else TrainingError(_end(process.returncode, job))


def _parameters(model: Path) -> int:
    """Return how many numbers a model's weights hold, by the heads of their files."""
    from safetensors import safe_open

    count = 0
    for path in model.glob("*.safetensors"):
        with safe_open(str(path), "pt") as stored:
            count += sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())
    return count


def _give_back() -> None:
    """Return to the card what this process no longer uses of it."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextmanager
def _started(trainer: TorchSchedule, job: Job) -> Iterator[subprocess.Popen[str]]:
    """Start the child with this process's warnings and places to import from; it ends with the block.

    Raises MachineError if it cannot be started.
    """
    level = min(logging.getLogger(name).getEffectiveLevel() for name in ("", "looper"))
    given = json.dumps({"level": level, "job": job_files.written(trainer, job)})
    places = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
    options = [f"-W{option}" for option in sys.warnoptions]
    with ExitStack() as stack:
        try:
            handle, path = tempfile.mkstemp(prefix="looper-job-", suffix=".json")  # nobody else may read it
            stack.callback(Path(path).unlink, missing_ok=True)
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(given)
            process = subprocess.Popen(
                [sys.executable, "-P", *options, "-m", "looper.training.own_process", path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": places},
                encoding="utf-8",
            )
        except OSError as error:
            raise MachineError(
                f"no process can be started for the training ({error.strerror or error}); free memory, or space in "
                f"{tempfile.gettempdir()}, or give trainer.process=here"
            ) from error
        stack.enter_context(process)
        try:
            yield process
        except BaseException:  # an interrupt, most of all
            process.kill()
            raise


def _heard(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Pass on what the child logs until it ends, and return how it ended; empty if it could not say."""
    said: dict[str, Any] = {}
    assert process.stdout is not None
    for line in process.stdout:
        message: dict[str, Any] = json.loads(line) if line.endswith("\n") else {}  # cut off by a kill
        if "log" in message:
            record = logging.makeLogRecord(message["log"])
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        else:
            said |= message
    process.wait()
    return said


def _failure(name: str, text: str) -> LooperError:
    """Return the error that the child raised."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, LooperError):
        return kind(text)
    return TrainingError(f"the training's own process failed ({name}: {text}); its traceback is on stderr")


def _end(code: int, job: Job) -> str:
    """Return what is said of a child that ended without a word."""
    from looper.training import checkpoints

    state = job.out.with_name(job.out.name + ".part") / checkpoints.STATE
    more = "goes on from its last checkpoint" if state.is_file() else "starts it anew: it had no checkpoint yet"
    try:
        how = f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        how = f"ended with code {code}"
    if code == -signal.SIGKILL:
        how += ", as a machine that runs out of memory does (lower trainer.batch_tokens then)"
    return f"the training's own process {how}; the same command {more}"


class _Told(logging.Handler):
    """Passes on what is logged."""

    def __init__(self, channel: TextIO) -> None:
        super().__init__()
        self.channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record with its words put together."""
        text = self.format(record)
        kept = ("name", "levelno", "levelname", "created", "pathname", "filename", "lineno", "funcName", "process")
        _say(self.channel, "log", {**{key: getattr(record, key) for key in kept}, "msg": text})


def _say(channel: TextIO, what: str, value: Any) -> None:
    channel.write(json.dumps({what: value}) + "\n")
    channel.flush()


def _end_with_parent() -> None:
    """End this process when its standard input does, of which only the parent holds the other end."""
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Train the job in the file that is named on the command line, and say on standard output how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, which gets it too, ends this process
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no part of what is said
    threading.Thread(target=_end_with_parent, daemon=True).start()
    path = Path(sys.argv[1])
    given = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    logging.root.setLevel(given["level"])
    logging.root.addHandler(_Told(channel))
    from looper.training import lora
    from looper.training.crew import Crew

    trainer, job = job_files.read(given["job"])
    try:
        fit = lora.once(trainer, job, Crew())
    except Exception as error:
        _say(channel, "error", [type(error).__name__, str(error)])
        if not isinstance(error, LooperError):
            raise
    else:
        _say(channel, "fit", job_files.written_fit(fit))


if __name__ == "__main__":
    main()
