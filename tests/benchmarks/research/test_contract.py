"""Which files a patch touches, and what is seen in code before it runs; honest code passes."""

from __future__ import annotations

import re

import pytest

from looper.benchmarks.research.contract import contract, objection, touched
from looper.benchmarks.research.measurement import Cheat
from looper.memory.methods import recipes
from tests.benchmarks.research.judged import BEGIN, FIRST, TINY, TRAIN, at, edited
from tests.memory.bundled_train import PACK

OWN = "diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-a\n+b\n"
OTHER = "diff --git a/prepare.py b/prepare.py\n--- a/prepare.py\n+++ b/prepare.py\n@@ -1 +1 @@\n-a\n+b\n"
NEW = "diff --git a/sub/x.py b/sub/x.py\nnew file mode 100644\n--- /dev/null\n+++ b/sub/x.py\n@@ -0,0 +1 @@\n+b\n"
MOVED = "diff --git a/prepare.py b/old.py\nsimilarity index 100%\nrename from prepare.py\nrename to old.py\n"


@pytest.mark.parametrize(
    ("patch", "files"),
    [
        ("", ()),
        (OWN, ("train.py",)),
        (OWN + OTHER, ("prepare.py", "train.py")),
        (NEW, ("sub/x.py",)),
        (MOVED, ("old.py", "prepare.py")),
    ],
)
def test_a_patch_touches_these_files(patch: str, files: tuple[str, ...]) -> None:
    assert touched(patch) == files


def test_only_train_py_may_change() -> None:
    assert contract(OWN) is None and TINY.contract(OWN) == ""
    assert contract(OWN + OTHER) == (Cheat.PREPARE, "the patch changes prepare.py; only train.py may change")
    assert TINY.contract(OWN + NEW) == "the patch changes sub/x.py; only train.py may change"


@pytest.mark.parametrize(
    ("code", "cheat", "says"),
    [
        (edited(("manual_seed(SEED)", "manual_seed(7)")), Cheat.SEED, "manual_seed is given 7"),
        (edited(("manual_seed(SEED)", "manual_seed(SEED + 1)")), Cheat.SEED, r"manual_seed is given SEED \+ 1"),
        (at(BEGIN, "torch.seed()"), Cheat.SEED, r"seed\(\) draws a seed of its own"),
        (edited(("batches(BATCH_SIZE)", "batches(BATCH_SIZE, seed=3)")), Cheat.SEED, "batches is given 3"),
        (at(FIRST, "SEED = 3"), Cheat.SEED, "gives SEED another meaning"),
        (at(FIRST, "TOKEN_BUDGET = 10**6"), Cheat.LONGER, "gives TOKEN_BUDGET another meaning"),
        (at(FIRST, "def evaluate_bpb(model): return 1.0"), Cheat.SCORE, "gives evaluate_bpb another meaning"),
        (at(FIRST, "from statistics import mean as batches"), Cheat.LONGER, "gives batches another meaning"),
        (at(FIRST, f"DATA = {'x' * 5000!r}"), Cheat.VALIDATION, "a literal of 5000 elements"),
        (at(FIRST, f"DATA = {[1] * 5000!r}"), Cheat.VALIDATION, "a literal of 5000 elements"),
        (at(FIRST, "#" * 70_000), Cheat.VALIDATION, "at most 65536 are read as code"),
    ],
)
def test_what_can_be_seen_is_refused_unmeasured(code: str, cheat: Cheat, says: str) -> None:
    found = objection(code)
    assert found is not None and found[0] is cheat
    assert re.search(says, found[1]), found[1]


def test_honest_code_is_not_objected_to() -> None:
    assert objection(TRAIN) is None
    assert objection(TRAIN.replace('"""Train a small GPT', f'"""{"long " * 2000}Train a small GPT')) is None
    assert objection("def broken(:") is None


def test_no_recipe_of_the_method_pack_is_objected_to() -> None:
    codes = [recipes.apply(method, TRAIN, pack=PACK.values()) for method in PACK.values() if method.recipe]
    assert len(codes) > 30
    assert [code for code in codes if code == TRAIN or objection(code) is not None] == []
