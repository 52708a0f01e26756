"""Numeric constants as knobs: found, drawn, and put into the program."""

from __future__ import annotations

from pathlib import Path

import pytest

import looper.benchmarks.research as research
from looper.campaigns.knobs import Sampler, edits_of, knobs
from looper.errors import ConfigError

PROGRAM = (Path(research.__file__).parent / "train.py").read_text(encoding="utf-8")


def test_the_bundled_programs_constants_are_its_knobs() -> None:
    found = {knob.name: knob.value for knob in knobs(PROGRAM)}
    assert {"DEPTH", "WIDTH", "HEADS", "BATCH_SIZE", "LR", "WARMUP"} <= found.keys()
    assert found["LR"] == 0.003
    assert "INIT_STD" not in found, "an expression is no number"


def test_other_values_are_put_in_place_and_comments_stay() -> None:
    edits = edits_of(PROGRAM, {"LR": 0.01, "WARMUP": 0.1, "DEPTH": 2})
    assert len(edits) == 2, "a value that is there already needs no edit"
    changed = PROGRAM
    for edit in edits:
        assert changed.count(edit["search"]) == 1
        changed = changed.replace(edit["search"], edit["replace"])
    values = {knob.name: knob.value for knob in knobs(changed)}
    assert (values["LR"], values["WARMUP"]) == (0.01, 0.1)
    assert "WARMUP = 0.1  # share of the steps" in changed


@pytest.mark.parametrize(
    ("line", "put"),
    [
        ("B1 = 1  # 1 or 2", "B1 = 7  # 1 or 2"),
        ("HÖHE_2 = 2  # größer als 2", "HÖHE_2 = 7  # größer als 2"),
        ("N = (1_000)", "N = (7)"),
        ("N = 1\r", "N = 7\r"),
    ],
    ids=["digit", "umlaut", "parentheses", "windows"],
)
def test_the_number_is_replaced_and_nothing_else(line: str, put: str) -> None:
    (knob,) = knobs(f"import os\n{line}\n")
    assert knob.put(7) == put
    assert edits_of(f"import os\n{line}\n", {knob.name: 7}) == [{"search": f"{line}\n", "replace": f"{put}\n"}]


@pytest.mark.parametrize(
    "program",
    [
        "A = 1; B = 2\n",
        "import os; A = 1\n",
        "LR = (\n    0.003\n)\n",
        "LR = \\\n    0.003\n",
        "LR = 0.003 \\\n\n",
        "A = B = 1\n",
        "A = 1e999\n",
    ],
    ids=["two", "second", "brackets", "continued", "continued to nothing", "chained", "infinite"],
)
def test_what_is_not_one_number_alone_on_its_line_is_no_knob(program: str) -> None:
    assert knobs(program) == []
    sampler = Sampler(f"{program}WIDTH = 64\n", seed=1)
    assert sampler.ask().keys() == {"WIDTH"}


def test_of_two_assignments_the_last_one_counts() -> None:
    program = "LR = 1\nLR = 0.5\n"
    assert [knob.line for knob in knobs(program)] == ["LR = 0.5"]
    assert Sampler(program, seed=1).ask().keys() == {"LR"}


def test_draws_are_a_function_of_the_seed_and_what_was_told() -> None:
    def draws(seed: int, scores: list[float | None]) -> list[dict[str, float | int]]:
        sampler = Sampler(PROGRAM, seed=seed)
        out = []
        for score in scores:
            out.append(sampler.ask())
            sampler.tell(score)
        return out

    scores = [3.0, None, 2.9, 3.1, 3.2, 2.8, 2.7, 2.9]
    assert draws(1, scores) == draws(1, scores)
    assert draws(1, scores) != draws(2, scores)
    for values in draws(3, scores):
        assert values["WIDTH"] in (32, 64, 128)
        assert 0.003 / 4 <= values["LR"] <= 0.003 * 4.01


def test_a_good_region_is_sampled_more() -> None:
    sampler = Sampler("LR = 0.01\n", seed=1)
    late = []
    for i in range(40):
        value = sampler.ask()["LR"]
        sampler.tell((value - 0.02) ** 2)
        late += [value] if i >= 20 else []
    near = sum(abs(value - 0.02) < 0.005 for value in late)
    assert near >= len(late) / 3, "drawn evenly one in five would be"


def test_a_program_without_constants_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"LR = 0\.003"):
        Sampler("print(1)\n", seed=1)
