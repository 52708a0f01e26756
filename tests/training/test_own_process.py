"""A training in a process of its own: the same adapter, the same errors, and what becomes of a kill."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from looper.errors import MachineError, NothingToLearn, TrainingError
from looper.protocols import Orthogonal, PolicyGradient, Preference, ProspectTheory, Quadratic, SelfDistillation
from looper.training import job_files, own_process
from looper.training.crew import Crew
from looper.training.lora import Job
from looper.training.schedule import Decay, Precision, Process, TorchSchedule
from looper.training.torch_trainer import TorchTrainer

ROOT = Path(__file__).parents[2]


def trainer(**settings):
    return TorchTrainer(**{"rank": 4, "alpha": 8, "lr": 1e-2, "epochs": 2, "batch": 4, "held_out": 0.0, **settings})


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "looper.json"}


def children(parent):
    """The processes that a process has started, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if stat.read_text().rpartition(")")[2].split()[1] == str(parent):
                found.append(int(stat.parent.name))
        except OSError:  # it has ended
            continue
    return found


def training_process(parent):
    """The process of a training that another process has started; None if there is none."""
    for pid in children(parent):
        try:
            if b"looper.training.own_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        except OSError:  # it has ended
            continue
    return None


def killed_at_its_first_checkpoint(state):
    """A thread that kills this process's training when its state is on disk."""

    def kill():
        pid = None
        while not state.is_file() or pid is None:
            pid = pid or training_process(os.getpid())
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "objective",
    [
        None,
        Preference(beta=0.3, sft=0.1),
        ProspectTheory(beta=0.1),
        SelfDistillation(temperature=0.7),
        PolicyGradient(beta=0.01),
    ],
)
@pytest.mark.parametrize(
    "penalty",
    [
        None,
        Quadratic(anchor=Path("a"), importance=Path("f"), lam=1 / 3, product=True),
        Orthogonal(past=(Path("a"), Path("b")), lam=0.1),
    ],
)
def test_a_job_is_read_as_it_was_written(examples, objective, penalty):
    settings = TorchSchedule(lr=1e-3 / 3, decay=Decay.cosine, precision=Precision.bf16, process=Process.own)
    job = Job(
        model=Path("model"),
        examples=[*examples, examples[0].model_copy(update={"label": -1 / 3, "group": "ü", "privileged": "p"})],
        start=Path("start") if penalty else None,
        out=Path("out"),
        seed=7,
        under=[Path("u")] if objective else [],
        penalty=penalty,
        objective=objective,
        inputs="digest",
    )
    assert job_files.read(json.loads(json.dumps(job_files.written(settings, job)))) == (settings, job)


def test_where_it_is_trained_decides_nothing():
    here, own = trainer(process=Process.here), trainer(process=Process.own)
    assert here.decisive() == own.decisive() == trainer().decisive() and "process" not in own.decisive()


def test_a_small_model_and_several_processes_are_trained_here(model, examples, tmp_path, monkeypatch, caplog):
    job = Job(model=model, examples=examples, start=None, out=tmp_path / "a", seed=0, inputs="digest")
    wanted = {process: own_process.wanted(trainer(process=process), job, Crew()) for process in Process}
    assert wanted == {Process.auto: False, Process.here: False, Process.own: True}
    stored = load_file(model / "model.safetensors")
    assert own_process._parameters(model) == sum(tensor.numel() for tensor in stored.values()) > 20_000
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not own_process.wanted(trainer(process=Process.own), job, Crew())
    assert "trainer.process=own is for one process, and this launch has 2" in caplog.text


@pytest.mark.slow
def test_a_process_of_its_own_gives_the_same_bits_says_what_it_logs_and_raises_the_same_words(
    model, examples, adapters, tmp_path, caplog
):
    call = {"start": adapters[0], "seed": 3, "under": [adapters[1]]}
    odd = [*examples[:6], examples[6].model_copy(update={"weights": (0.0,) * len(examples[6].messages)})]
    here, own = trainer(process=Process.here), trainer(process=Process.own)
    first = here.fit(model, odd, **call, out=tmp_path / "here")
    said = [(r.name, r.levelname, r.getMessage()) for r in caplog.records]
    caplog.clear()
    second = own.fit(model, odd, **call, out=tmp_path / "own")
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == said and len(said) == 1
    assert caplog.records[0].process != os.getpid()
    assert files(tmp_path / "here") == files(tmp_path / "own")
    assert (second.history, second.steps, second.adapter) == (first.history, first.steps, tmp_path / "own")
    manifests = [json.loads((tmp_path / name / "looper.json").read_text()) for name in ("here", "own")]
    for manifest in manifests:
        del manifest["fit"]["seconds"]
    assert manifests[0] == manifests[1]
    assert own.fit(model, odd, **call, out=tmp_path / "own") == second  # its seconds included: nothing was trained

    errors = []
    for each in (here, own):
        with pytest.raises(TrainingError, match="has rank 4 and alpha 8, the trainer 2 and 8") as caught:
            TorchTrainer(**{**vars(each), "rank": 2}).fit(model, odd, **call, out=tmp_path / "narrow")
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert not training_process(os.getpid())


def test_errors_come_back_as_what_they_were():
    known = own_process._failure("NothingToLearn", "too few"), own_process._failure("MachineError", "no card")
    assert [type(error) for error in known] == [NothingToLearn, MachineError] and str(known[0]) == "too few"
    odd = own_process._failure("KeyError", "'x'")
    assert type(odd) is TrainingError and "own process failed (KeyError: 'x')" in str(odd)


def test_an_end_without_a_word_is_named_with_what_comes_next(model, examples, tmp_path):
    job = Job(model=model, examples=examples, start=None, out=tmp_path / "a", seed=0, inputs="digest")
    assert own_process._end(3, job).endswith(
        "ended with code 3; the same command starts it anew: it had no checkpoint yet"
    )
    (tmp_path / "a.part").mkdir()
    (tmp_path / "a.part" / "state.pt").touch()
    assert own_process._end(-signal.SIGSEGV, job).endswith(
        "was ended by SIGSEGV; the same command goes on from its last checkpoint"
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_killed_process_is_named_and_the_next_goes_on_to_the_same_bits(model, examples, tmp_path):
    settings = {"epochs": 6, "checkpoint_minutes": 0.0}
    call = {"start": None, "seed": 0}
    thread = killed_at_its_first_checkpoint(tmp_path / "a.part" / "state.pt")
    with pytest.raises(TrainingError, match=r"was ended by SIGKILL, as .*; the same command goes on from its last"):
        trainer(process=Process.own, **settings).fit(model, examples, **call, out=tmp_path / "a")
    thread.join()
    assert not (tmp_path / "a").exists()
    trainer(process=Process.here, **settings).fit(model, examples, **call, out=tmp_path / "a")
    trainer(process=Process.here, **settings).fit(model, examples, **call, out=tmp_path / "b")
    assert '"resumed_at_step"' in (tmp_path / "a" / "looper.json").read_text()
    assert files(tmp_path / "a") == files(tmp_path / "b")


SCRIPT = """
import signal, sys
from pathlib import Path
from looper.records import Example
from looper.training.schedule import Process
from looper.training.torch_trainer import TorchTrainer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
examples = [Example.model_validate_json(line) for line in Path(sys.argv[1]).read_text().splitlines()]
trainer = TorchTrainer(rank=4, alpha=8, epochs=100000, patience=100000, held_out=0.0, process=Process.own)
trainer.fit(Path(sys.argv[2]), examples, start=None, out=Path(sys.argv[3]), seed=0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_process_ends_with_its_parent_however_that_ends(model, examples, tmp_path, end):
    (tmp_path / "examples").write_text("\n".join(e.model_dump_json() for e in examples))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "examples"), str(model), str(tmp_path / "a")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(command, env=env, start_new_session=True, stderr=subprocess.PIPE, text=True)
    child = None
    try:
        while not (tmp_path / "a.part" / "state.pt").is_file() and parent.poll() is None:
            child = child or training_process(parent.pid)
            time.sleep(0.01)
        if end is signal.SIGINT:
            os.killpg(parent.pid, end)  # as a terminal does: both get it
        else:
            parent.send_signal(end)
    except BaseException:
        parent.kill()
        raise
    _, text = parent.communicate()
    assert parent.returncode == -end and child is not None
    assert text.count("KeyboardInterrupt") == (end is signal.SIGINT)
    while Path(f"/proc/{child}").exists():  # else the test never ends
        time.sleep(0.01)


def test_levels_of_the_log_are_the_parents(caplog):
    record = {"name": "looper.quiet", "levelno": logging.INFO, "levelname": "INFO", "msg": "words"}
    lines = [json.dumps({"log": record}), json.dumps({"fit": 1}), "cut"]
    command = [sys.executable, "-c", f"print({chr(10).join(lines)!r}, end='')"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert own_process._heard(process) == {"fit": 1} and not caplog.records
    with (
        caplog.at_level(logging.INFO, logger="looper.quiet"),
        subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process,
    ):
        assert own_process._heard(process) == {"fit": 1} and caplog.messages == ["words"]
