"""A training that was killed goes on to the same bits; several processes train as one does."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from looper.protocols import Preference
from looper.training.checkpoints import matching
from looper.training.schedule import Precision
from looper.training.torch_trainer import TorchTrainer

ROOT = Path(__file__).parents[2]

SCRIPT = """
import pickle, sys
from pathlib import Path
call = pickle.loads(Path(sys.argv[1]).read_bytes())
trainer = call.pop("trainer")
trainer.fit(call.pop("model"), call.pop("examples"), **call)
"""


def started(call, folder, **environment):
    """A process of its own that makes a call of fit."""
    path = folder / "call.pickle"
    path.write_bytes(pickle.dumps(call))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], env=env)


def killed_with_a_state(process, out):
    """Kill a training into `out` as soon as it has written a checkpoint."""
    state = out.with_name(f"{out.name}.part") / "state.pt"
    try:
        while not state.is_file() and process.poll() is None:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and state.is_file() and not out.exists()


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "looper.json"}


def test_a_killed_training_goes_on_to_the_same_bits(model, examples, tmp_path):
    given = [e.model_copy(update={"group": f"g{i // 2}", "label": 1.0 - 2 * (i % 2)}) for i, e in enumerate(examples)]
    trainer = TorchTrainer(rank=4, alpha=8, lr=1e-2, epochs=6, held_out=0.0, checkpoint_minutes=0.0)
    call = {"model": model, "examples": given, "start": None, "seed": 0, "objective": Preference(beta=0.3)}
    process = started({**call, "trainer": trainer, "out": tmp_path / "a"}, tmp_path)
    killed_with_a_state(process, tmp_path / "a")
    resumed = trainer.fit(**call, out=tmp_path / "a")
    whole = trainer.fit(**call, out=tmp_path / "b")
    assert '"resumed_at_step"' in (tmp_path / "a" / "looper.json").read_text()
    assert '"resumed_at_step"' not in (tmp_path / "b" / "looper.json").read_text()
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert resumed.history == whole.history and resumed.steps == whole.steps
    assert not (tmp_path / "a.part").exists()


def test_a_state_of_other_inputs_or_half_a_file_is_not_gone_on_from(model, examples, tmp_path):
    trainer = TorchTrainer(rank=4, alpha=8, lr=1e-2, epochs=1, held_out=0.0)
    whole = trainer.fit(model, examples, start=None, out=tmp_path / "a", seed=0)
    (tmp_path / "b.part").mkdir()
    torch.save({"inputs": "other"}, tmp_path / "b.part" / "state.pt")
    assert matching(tmp_path / "b.part", "other") and matching(tmp_path / "b.part", "mine") is None
    (tmp_path / "b.part" / "state.pt").write_bytes((tmp_path / "b.part" / "state.pt").read_bytes()[:-40])
    assert matching(tmp_path / "b.part", "other") is None
    again = trainer.fit(model, examples, start=None, out=tmp_path / "b", seed=0)
    assert files(whole.adapter) == files(again.adapter)


@pytest.mark.slow
def test_two_processes_train_the_adapter_that_one_trains(model, examples, tmp_path):
    trainer = TorchTrainer(rank=4, alpha=8, lr=1e-2, batch=4, epochs=2, held_out=0.0, precision=Precision.fp32)
    call = {"model": model, "examples": examples[:9], "start": None, "seed": 0}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    given = {**call, "trainer": trainer, "out": tmp_path / "two"}
    processes = [started(given, tmp_path, **both, RANK=str(i), LOCAL_RANK=str(i)) for i in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    one = trainer.fit(**call, out=tmp_path / "one")
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (one.adapter, tmp_path / "two"))
    assert all((ours[name] - tensor).abs().max() < 1e-4 for name, tensor in theirs.items())
