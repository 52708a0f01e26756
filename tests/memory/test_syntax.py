"""The digest sees what code does, not how it is written; knobs are resolved."""

import ast
import keyword
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looper.memory.changes import MODULE, changes
from looper.memory.folding import Unfolded, literal_number
from looper.memory.syntax import Code, digest
from tests.memory.sample import TRAIN, edited

SOURCES = sorted(Path(__file__).parents[2].glob("looper/**/*.py"))


@given(st.sampled_from(SOURCES))
@settings(max_examples=15, deadline=None)
def test_real_code_keeps_its_digest_when_ast_unparse_writes_it_again(path: Path) -> None:
    text = path.read_text()
    again = ast.unparse(ast.parse(text))
    assert digest(again) == digest(text)
    assert not digest(text).startswith("text:")


NAMES = st.from_regex(r"[a-z]{1,4}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = NAMES | NUMBERS.map(repr) | st.text(max_size=5).map(repr)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "**", "and", "<"]), inner)
        .map(" ".join)
        .map("({})".format)
        | st.dictionaries(NAMES, inner, max_size=3).map(
            lambda words: f"f({', '.join(f'{name}={value}' for name, value in words.items())})"
        )
        | st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
@settings(max_examples=80, deadline=None)
def test_any_expression_keeps_its_digest_when_ast_unparse_writes_it_again(text: str) -> None:
    assert digest(ast.unparse(ast.parse(f"x = {text}"))) == digest(f"x = {text}")


@given(st.permutations(["a=1", "b=[2]", "c=g(x)"]))
def test_the_order_of_keyword_arguments_does_not_count(words: list[str]) -> None:
    assert digest(f"f(x, {', '.join(words)})") == digest("f(x, a=1, b=[2], c=g(x))")


@pytest.mark.parametrize(
    "other",
    [
        TRAIN.replace('"""Trains a small language model."""', ""),
        TRAIN.replace("  # follows depth", ""),
        TRAIN.replace("2**19", "524_288"),
        TRAIN.replace("0.2", "2e-1"),
        TRAIN.replace('"SSSL"', "'SSSL'"),
        TRAIN.replace("\n\n\n", "\n"),
        TRAIN.replace("def norm(x):", 'def norm(x):\n    """Root mean square."""'),
        TRAIN.replace("def norm(x):", "def norm(x):\n    pass"),
        "# a note\n" + TRAIN,
    ],
)
def test_layout_comments_and_the_spelling_of_constants_do_not_count(other: str) -> None:
    assert other != TRAIN
    assert digest(other) == digest(TRAIN)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 0.0", "x = -0.0"),
        ("f(a, b)", "f(b, a)"),
        ("f(**a, **b)", "f(**b, **a)"),
        ("f(x)", "f(x=x)"),
        ("x = a + b", "x = b + a"),
        ("x = [a]", "x = (a,)"),
        ("def f(x): return x", "async def f(x): return x"),
        ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
        ("x = '1'", "x = 1"),
        ("x = f'{a}'", "x = '{a}'"),
    ],
)
def test_what_does_another_thing_has_another_digest(one: str, other: str) -> None:
    assert digest(one) != digest(other)


def test_code_that_does_not_parse_says_so_in_its_digest() -> None:
    broken = "def f(:\n    return 1\n"
    assert re.fullmatch(r"text:[0-9a-f]{32}", digest(broken))
    assert digest(broken) == digest(broken.replace("\n", "   \n") + "\n")  # blanks at the end of lines
    assert digest(broken) != digest(broken.replace("1", "2"))
    assert digest("x = '\0'").startswith("text:")
    assert digest("x = " + "(" * 500 + ")" * 500).startswith("text:")


def test_an_odd_escape_is_no_warning() -> None:
    assert not digest(r"x = '\d'").startswith("text:")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2**14", 16384),
        ("-(3 + 4) * 2", -14),
        ("1 / 0", None),
        ("9**9**9", None),
        ("1 << 10**9", None),
        ("'a' * 3", None),
    ],
)
def test_literal_arithmetic_folds_within_bounds(text: str, value: int | None) -> None:
    assert literal_number(ast.parse(text, mode="eval").body) == value


def test_knobs_are_resolved_in_order() -> None:
    code = Code(TRAIN)
    assert code.knobs["DIM"] == 512
    assert code.knobs["TOTAL_BATCH"] == 524_288
    assert code.knobs["ADAM_BETAS"] == (0.8, 0.95)
    assert code.knobs["STEPS"] == 300  # set under `if __name__ == "__main__"`
    assert isinstance(code.knobs["SEED"], Unfolded)
    assert code.fields["GPTConfig.n_layer"] == 8
    assert Code("A = B = 2\nA += 1\nC, D = A, 'x'\nif f():\n    B = 3\n").knobs == {
        "A": 3, "B": Unfolded("set by a branch"), "C": 3, "D": "x",
    }  # fmt: skip
    assert Code("A = 1\ndef f():\n    global A\n    A = 2\n").knobs == {"A": Unfolded("set by a function")}


def test_the_config_is_the_program_whatever_way_its_knobs_are_written() -> None:
    rewritten = edited(("DIM = DEPTH * ASPECT_RATIO  # follows depth\n", "DIM = 512\n"))
    assert digest(rewritten) != digest(TRAIN)
    assert Code(rewritten).config() == Code(TRAIN).config()
    assert Code(edited(("WARMDOWN = 0.5", "WARMDOWN = 0.7"))).config() != Code(TRAIN).config()
    assert Code(edited((".square()", ""))).config()["code"] != Code(TRAIN).config()["code"]
    assert Code(TRAIN).config()["SEED"].startswith("= int(")


def test_changes_name_knobs_with_both_values_and_the_definitions_that_changed_themselves() -> None:
    after = edited(
        ("DEPTH = 8", "DEPTH = 9"),
        ("n_kv_head: int = 6", "n_kv_head: int = 2"),
        ("F.relu(x).square()", "F.silu(x)"),
        ("def _unused(x):\n    return x\n", "def extra(x):\n    return x\n"),
    )
    found = changes(TRAIN, after)
    assert found.knobs == {
        "DEPTH": (8, 9), "DIM": (512, 576), "GPTConfig.n_kv_head": (6, 2), "GPTConfig.n_layer": (8, 9),
    }  # fmt: skip
    assert (found.added, found.removed, found.rewritten) == (("extra",), ("_unused",), ("MLP.forward",))
    assert "DEPTH: 8 -> 9" in str(found)
    assert not changes(TRAIN, "# note\n" + TRAIN)
    assert changes(TRAIN, TRAIN + "print(DEPTH)\n").rewritten == (MODULE,)
    assert changes(TRAIN, TRAIN + "def (").rewritten == (MODULE,)


@pytest.mark.parametrize(
    "text",
    [
        'A = "a" * 10000\n' + "A = A + A\n" * 40,
        "A = [0] * 100\n" + "A += A\n" * 40,
        "A = [0] * 9\n" + "A = [A] * 9\n" * 40,
    ],
    ids=["text", "list", "nested"],
)
def test_a_constant_that_grows_without_end_stays_unknown(text: str) -> None:
    assert isinstance(Code(text).knobs["A"], Unfolded)
    assert len(str(Code(text).config())) < 1000
