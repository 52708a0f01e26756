"""The code map shows what a goal needs first, within its budget."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looper.memory.code_map import code_map, estimated_tokens, ranks
from looper.memory.definitions import entries_of
from tests.memory.sample import TRAIN

ROOT = Path(__file__).parents[2]
FILES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "looper" / "agents").glob("*.py"))}


def test_a_map_has_definitions_constants_lines_and_calls() -> None:
    text = code_map({"train.py": TRAIN})
    lines = TRAIN.splitlines()
    assert text.startswith("train.py:\n")
    for entry in ("class MLP(nn.Module):", "  def forward(self, x):", "WARMDOWN = 0.5", "DIM = 512"):
        assert entry in text
    assert "class GPT(nn.Module):" in text
    assert "def __init__(self, config):  # calls Attention, MLP" in text
    number = lines.index("class MLP(nn.Module):") + 1
    assert f"{number:5d} class MLP" in text


@given(budget=st.integers(1, 2000))
@settings(max_examples=8, deadline=None)
def test_a_map_never_exceeds_its_budget(budget: int) -> None:
    assert estimated_tokens(code_map(FILES, goal="parse the reply", budget=budget)) <= budget


def test_a_small_budget_keeps_what_the_goal_speaks_of() -> None:
    assert "WARMDOWN" in code_map({"train.py": TRAIN}, goal="a longer warmdown of the learning rate", budget=40)
    assert "Attention" in code_map({"train.py": TRAIN}, goal="replace attention by something cheaper", budget=60)
    assert "WARMDOWN" not in code_map({"train.py": TRAIN}, goal="replace attention by something cheaper", budget=40)


def test_real_files_are_ranked_by_use_and_goal() -> None:
    small = code_map(FILES, goal="how are edits applied to files?", budget=120)
    assert "looper/agents/edits.py" in small
    assert code_map(FILES, goal="prune old observations", budget=120) != small
    assert code_map(FILES, goal="prune", budget=120) == code_map(
        dict(reversed(FILES.items())), goal="prune", budget=120
    )


def test_ranks_follow_mentions_and_sum_to_one() -> None:
    code = "def hub(): pass\ndef _own(): pass\ndef a(): hub(); _own()\ndef b(): hub()\ndef c(): hub()\n"
    entries, _ = entries_of("x.py", code)
    found = dict(zip([entry.name for entry in entries], ranks(entries, ""), strict=True))
    assert sum(found.values()) == pytest.approx(1.0)
    assert max(found, key=lambda name: found[name]) == "hub"
    assert found["_own"] < found["hub"] / 2


def test_the_counter_of_tokens_is_the_callers() -> None:
    def letters(text: str) -> int:
        return len(text)

    assert len(code_map({"train.py": TRAIN}, budget=200, tokens=letters)) <= 200


def test_files_that_cannot_be_read_are_named_with_the_reason() -> None:
    text = code_map({"a.py": "def (", "b.txt": "x", "c.py": "X = 1\n"})
    assert "a.py: not mapped: it does not parse as Python" in text
    assert "b.txt: not mapped: no grammar for .txt" in text
    assert "X = 1" in text


def test_no_files_and_no_budget() -> None:
    assert code_map({}) == ""
    with pytest.raises(ValueError, match="budget of 0"):
        code_map({"c.py": "X = 1\n"}, budget=0)


C = """#define BLOCK 32
struct Shape { int rows; };
static float dot(const float *a, const float *b, int n) {
    float sum = 0;
    return sum;
}
float *matmul(const float *a, int n) {
    return dot(a, a, n) + BLOCK;
}
"""


def test_other_languages_are_read_by_tree_sitter() -> None:
    pytest.importorskip("tree_sitter_c")
    entries, note = entries_of("kernel.c", C)
    assert note == ""
    assert [entry.name for entry in entries] == ["BLOCK", "Shape", "dot", "matmul"]
    assert entries[3].calls == {"dot": 1} and entries[3].mentions["BLOCK"] == 1
    assert "float *matmul(const float *a, int n)  # calls dot" in code_map({"kernel.c": C})
