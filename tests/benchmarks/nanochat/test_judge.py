"""Runs of the bundled train.py, judged: the score is the one that an unjudged run prints, and cheats have none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import pytest

from looper.benchmarks.nanochat.benchmark import Device, NanoChat
from looper.benchmarks.research.budget import BudgetKind
from looper.benchmarks.research.measurement import Cheat, Measurement
from looper.errors import ConfigError
from looper.workspaces.local import LocalWorkspace
from tests.benchmarks.nanochat.conftest import TASK
from tests.benchmarks.nanochat.judged import BEGIN, FIRST, TRAIN, edited, tiny

WORKSPACE = LocalWorkspace()
SCORES = "            scores: Tensor = self.head(features)\n"


@pytest.fixture(scope="module")
def option(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> NanoChat:
    return tiny(folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def honest(option: NanoChat) -> Measurement:
    return option.measure(TRAIN, seed=3, workspace=WORKSPACE)


def unjudged(option: NanoChat, place: Path) -> float:
    """Run the task as a user does, with the validation data at hand, and return what it prints."""
    for name in ("train.py", "prepare.py"):
        shutil.copy(TASK / name, place)
    settings = {"CACHE": option.corpus.folder, "CONTEXT": 32, "VOCABULARY": 300, "DEVICE": "cpu", "TOKENS": 8192}
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {f"NANOCHAT_{k}": str(v) for k, v in (settings | {"SEED": 3, "VALIDATION_TOKENS": 1024}).items()}
    said = subprocess.run([sys.executable, "train.py"], cwd=place, env=env, check=True, capture_output=True, text=True)
    found = re.search(r"^val_bpb: +(\S+)$", said.stdout, re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.slow
def test_the_score_is_the_one_that_an_unjudged_run_prints(
    honest: Measurement, option: NanoChat, tmp_path: Path
) -> None:
    assert (honest.status, honest.reason, honest.cheat) == ("ok", "", None)
    assert honest.val_bpb == pytest.approx(unjudged(option, tmp_path), abs=1e-5)
    assert (honest.tokens, honest.steps) == (8192, 32)
    assert "val_bpb:          nan" in honest.log


@pytest.mark.slow
def test_an_exception_is_a_crash_with_its_words(option: NanoChat) -> None:
    code = edited((BEGIN, f"{BEGIN}    raise RuntimeError('out of luck')\n"))
    found = option.measure(code, seed=3, workspace=WORKSPACE)
    assert (found.status, found.reason) == ("crash", "train.py failed: RuntimeError: out of luck")
    assert found.log.endswith("RuntimeError: out of luck\n")


CHEATS = {
    "tokens_to_come": (
        edited(("        return F.scaled_dot_product_attention(q, k, v, is_causal=True)\n",
                "        return F.scaled_dot_product_attention(q, k, v)\n")),
        Cheat.FUTURE,
        r"in \d+ of 28 windows the logits changed",
    ),
    "other_rows": (
        edited((SCORES, f"            features = features + features.mean(0)\n{SCORES}")),
        Cheat.FUTURE,
        r"of 4 rows depend on the other rows",
    ),
    "half_the_vocabulary": (
        edited((SCORES, "            scores: Tensor = self.head(features)[..., : 300 if self.training else 150]\n")),
        Cheat.SHAPE,
        "logits have shape",
    ),
    "a_file_of_the_library": (
        edited((FIRST, f"{FIRST}import difflib; open(difflib.__file__).read()\n")),
        Cheat.VALIDATION,
        "read .*difflib.py",
    ),
    "rows_without_a_tick": (
        edited(("    while clock.progress < 1:\n",
                "    for _ in zip(range(40), rows): pass\n    while clock.progress < 1:\n")),
        Cheat.LONGER,
        "the budget is 8192",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_refused_by_its_name(name: str, option: NanoChat) -> None:
    code, cheat, says = CHEATS[name]
    found = option.measure(code, seed=3, workspace=WORKSPACE)
    assert (found.status, found.cheat, found.val_bpb) == ("refused", cheat, None), found
    assert re.search(says, found.reason), found.reason


def test_what_can_be_seen_is_refused_unmeasured(option: NanoChat) -> None:
    found = option.measure(edited((FIRST, f"{FIRST}TIME_BUDGET = 10**6\n")), seed=3, workspace=WORKSPACE)
    assert (found.status, found.cheat) == ("refused", Cheat.LONGER)


@pytest.mark.slow
def test_a_budget_of_seconds_ends_the_training(option: NanoChat) -> None:
    timed = replace(option, budget_kind=BudgetKind.seconds, budget=1.0)
    found = timed.measure(TRAIN, seed=3, workspace=WORKSPACE)
    assert found.status == "ok", found
    greedy = edited(("        taken = clock.tick()\n", "        taken = clock.tick()\n        time.sleep(9)\n"),
                    ("    while clock.progress < 1:\n", "    while clock.steps < 4:\n"))  # fmt: skip
    assert timed.measure(greedy, seed=3, workspace=WORKSPACE).cheat is Cheat.LONGER


@pytest.mark.slow
def test_without_boxes_the_same_is_measured_and_the_validation_split_is_watched(
    option: NanoChat, honest: Measurement
) -> None:
    judge = replace(option._judge(WORKSPACE), boxed=False)
    assert judge.measure(TRAIN, 3).val_bpb == pytest.approx(honest.val_bpb, abs=1e-5)
    there = option.corpus.folder / "validation.bin"
    found = judge.measure(edited((FIRST, f"{FIRST}open({str(there)!r}, 'rb').read()\n")), 3)
    assert (found.status, found.cheat) == ("refused", Cheat.VALIDATION)
    texts = replace(judge, hidden=(str(Path(wave.__file__).resolve()),))
    assert texts.measure(edited((FIRST, f"{FIRST}import wave\n")), 3).status == "ok"
    found = texts.measure(edited((FIRST, f"{FIRST}open({wave.__file__!r}).read()\n")), 3)
    assert (found.status, found.cheat) == ("refused", Cheat.VALIDATION)


@pytest.mark.slow
def test_a_backward_pass_below_a_mode_of_its_own_counts(option: NanoChat) -> None:
    mode = """from torch._subclasses.fake_tensor import FakeTensorMode
class Mode(FakeTensorMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))
"""
    hidden = "            with Mode():\n                loss.backward(retain_graph=True)\n            loss.backward()\n"
    code = edited((FIRST, f"{FIRST}{mode}"), ("            loss.backward()\n", hidden))
    assert option.measure(code, seed=3, workspace=WORKSPACE).cheat is Cheat.LONGER


@pytest.mark.slow
def test_what_a_compiler_differentiates_is_no_pass_over_a_batch(option: NanoChat) -> None:
    changes = (("COMPILE = LARGE\n", "COMPILE = True\n"), ("loss_of, dynamic=False", "loss_of, backend='aot_eager'"))
    compiled = edited(*changes)
    found = replace(option._judge(WORKSPACE), boxed=False).measure(compiled, 3)
    assert (found.status, found.steps) == ("ok", 32), found


@pytest.mark.gpu
@pytest.mark.slow
def test_it_is_judged_on_a_gpu(folder: Path, tmp_path: Path) -> None:
    values = {"context": 512, "device": Device.cuda, "budget_kind": BudgetKind.seconds, "budget": 10.0}
    found = tiny(folder, tmp_path, **values).measure(TRAIN, seed=3, workspace=WORKSPACE)
    assert found.status == "ok", found
    assert found.peak_memory_mb is not None and found.peak_memory_mb > 0


def test_the_words_name_the_budget_of_the_option(option: NanoChat) -> None:
    words = option.task(TRAIN, id="t").issue
    assert "the same budget, 8,192 tokens of training, with" in words and "stopped after 600 seconds" in words
    plain = NanoChat(device=Device.cpu).rules()
    assert "300 seconds of training" in plain and "minutes" not in plain and "{" not in plain


def test_data_is_prepared_once_and_a_run_sees_no_validation_split(option: NanoChat, prepare: object) -> None:
    corpus = option.corpus
    assert corpus.digest == prepare.corpus().manifest["digest"]  # type: ignore[attr-defined]
    assert replace(option, budget=4096).corpus is corpus
    assert not any((corpus.training / "validation.bin").read_bytes())
    assert not any(corpus.box_files()["validation.bin"])
    rows = corpus.validation(1024)
    assert rows.tolist() == prepare.validation_rows().tolist()  # type: ignore[attr-defined]


def test_data_that_is_not_there_or_too_little_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.data=\./nowhere is no folder and no file"):
        tiny(Path("nowhere"), tmp_path, data="./nowhere").identity  # noqa: B018
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("short")
    with pytest.raises(ConfigError, match=r"could not be prepared: .*1 documents are too few"):
        tiny(tmp_path / "texts", tmp_path / "cache").identity  # noqa: B018


def test_too_few_windows_to_score_are_said_before_any_training(folder: Path, option: NanoChat) -> None:
    few = replace(option, validation_tokens=63)
    with pytest.raises(ConfigError, match=r"validation_tokens=63 .* less than 2 windows of benchmark\.context=32"):
        few.measure(TRAIN, seed=3, workspace=WORKSPACE)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"budget_kind": BudgetKind.steps}, "choose seconds or tokens"),
        ({"budget": 0}, r"benchmark\.budget=0 must be above 0"),
        ({"budget": 600.0}, "raise the limit"),
        ({"vocabulary": 256}, "must be above 256"),
        ({"corpus_split": -1}, r"benchmark\.corpus_split=-1"),
        ({"python": "/usr/bin/python3"}, r"no effect without benchmark\.repo"),
        ({"goal": " "}, "goal is empty"),
    ],
)
def test_values_that_no_run_could_use_are_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        NanoChat(**values)  # type: ignore[arg-type]


def test_a_gpu_that_is_not_there_is_said() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("gpu: there is one")
    with pytest.raises(ConfigError, match=r"benchmark\.device=cuda is not there; PyTorch finds"):
        NanoChat(device=Device.cuda).place  # noqa: B018
