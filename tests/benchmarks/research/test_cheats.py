"""Every kind of cheat, written as a change of train.py, is refused with a sentence of its own."""

from __future__ import annotations

import re

import pytest

from looper.benchmarks.research.measurement import Cheat
from looper.workspaces.local import LocalWorkspace
from tests.benchmarks.research.judged import BEGIN, END, FIRST, at, edited, measured

LOSS = "        loss = loss_of(model, x, y)\n"
SCORES = "        scores: Tensor = self.head(features)\n"
STEP = "        loss.backward()  # type: ignore[no-untyped-call]\n"

STOP = '            raise SystemExit(f"FAIL: the loss is {loss.item()} at step {step}")\n'

CHEATS = {
    "a_loss_of_nothing": (
        at(END, "F.cross_entropy = lambda scores, y, **_: scores.sum() * 0"),
        Cheat.SCORE,
        r"replaced torch\.nn\.functional\.cross_entropy",
    ),
    "another_evaluation": (
        at(END, "globals()['evaluate_' + 'bpb'] = lambda model: 0.9"),
        Cheat.SCORE,
        r"evaluate_bpb in train\.py is no longer prepare\.py's",
    ),
    "tokens_to_come": (
        edited(("is_causal=True", "is_causal=False")),
        Cheat.FUTURE,
        r"in \d+ of 448 windows the logits changed with the tokens after them",
    ),
    "other_rows": (
        edited((SCORES, f"        features = features + features.mean(0)\n{SCORES}")),
        Cheat.FUTURE,
        r"the logits of \d+ of 64 rows depend on the other rows",
    ),
    "prepare_on_disk": (
        at(FIRST, "open('prepare.py', 'a').write('#')"),
        Cheat.PREPARE,
        "opened prepare.py for writing",
    ),
    "prepare_in_memory": (
        at(END, "import prepare; prepare.corpus = lambda: None"),
        Cheat.PREPARE,
        r"replaced prepare\.corpus",
    ),
    "a_printed_score": (edited(("{val_bpb:.6f}", "{0.9:.6f}")), Cheat.PRINTED, "val_bpb 0.9 was printed"),
    "validation_files": (
        at(FIRST, "import difflib; open(difflib.__file__).read()"),
        Cheat.VALIDATION,
        "read .*difflib.py of the standard library",
    ),
    "the_clock": (at(END, "time.perf_counter = lambda: 0.0"), Cheat.CLOCK, r"replaced time\.perf_counter"),
    "a_process": (
        at(FIRST, "import os; os.fork() or time.sleep(60)"),
        Cheat.PROCESS,
        r"started a process \(os\.fork\)",
    ),
    "a_seed_by_another_name": (
        edited((BEGIN, f"    getattr(torch, 'manual_' + 'seed')(7)\n{BEGIN}")),
        Cheat.SEED,
        r"manual_seed\(7\) was called",
    ),
    "files_of_other_runs": (at(FIRST, "open('/srv/runs/results.tsv')"), Cheat.OUTSIDE, "opened /srv/runs/results.tsv"),
    "logits_that_are_nan": (
        edited((SCORES, f"        features = features if self.training else features / 0\n{SCORES}")),
        Cheat.NOT_FINITE,
        r"logits are not finite at \d+ of 65536 positions",
    ),
    "a_loss_made_finite": (
        edited((LOSS, "        loss = torch.nan_to_num(loss_of(model, x, y) / 0)\n")),
        Cheat.NOT_FINITE,
        "nan_to_num hid a value",
    ),
    "a_step_left_out": (
        edited(
            (LOSS, "        loss = F.cross_entropy(model(x).flatten(0, 1) * math.inf, y.flatten())\n"),
            (
                '            raise SystemExit(f"FAIL: the loss is {loss.item()} at step {step}")\n',
                "            continue\n",
            ),
        ),
        Cheat.NOT_FINITE,
        "2 losses were not finite, and train.py went on",
    ),
    "the_data_twice": (
        edited(("in enumerate(batches(BATCH_SIZE)):", "in enumerate([*batches(BATCH_SIZE), *batches(BATCH_SIZE)]):")),
        Cheat.LONGER,
        r"batches\(\) was read on after 1024 tokens",
    ),
    "every_batch_twice": (
        edited((STEP, f"        loss.backward(retain_graph=True)\n{STEP}")),
        Cheat.LONGER,
        "backward pass 2 came after 1 batches",
    ),
    "logits_of_half_the_bytes": (
        edited((SCORES, "        scores: Tensor = self.head(features)[..., : 256 if self.training else 128]\n")),
        Cheat.SHAPE,
        r"logits have shape \(128, 64, 128\)",
    ),
}


VARIANTS = {"other_rows", "prepare_in_memory", "a_step_left_out", "the_data_twice"}
"""Second ways to do what another cheat does; they are left to the slow tests."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in VARIANTS else []) for name in CHEATS]
)
def test_a_cheat_is_refused_by_its_name(name: str, workspace: LocalWorkspace) -> None:
    train, cheat, says = CHEATS[name]
    found = measured(train, workspace)
    assert (found.status, found.cheat, found.val_bpb) == ("refused", cheat, None), found
    assert re.search(says, found.reason), found.reason


def test_every_kind_of_cheat_is_tried() -> None:
    assert {cheat for _, cheat, _ in CHEATS.values()} == set(Cheat)
