"""The predicate language over code: every word, three-valued logic, and its errors."""

import pytest

from looper.errors import ConfigError
from looper.memory.evaluation import ARITY
from looper.memory.predicates import applies, check, holds, present
from looper.memory.rows import Method
from tests.memory.sample import TRAIN

TRUE = [
    'knob("DEPTH") == 8',
    'knob("DIM") == 512 and knob("WEIGHT_DECAY") > 0',
    '0 < knob("WARMDOWN") < 1',
    'knob("ADAM_BETAS")[0] == 0.8 and len(knob("ADAM_BETAS")) == 2',
    '"L" in knob("WINDOW_PATTERN")',
    'knob("TOTAL_BATCH") // 2**10 == 512',
    'knob("DEPTH") in (8, 9)',
    'knob("DEPTH")',
    'field("GPTConfig.n_kv_head") == field("GPTConfig.n_head")',
    'known(knob("DEPTH")) and not known(knob("SEED")) and not known(knob("NOTHING"))',
    'defines("MLP") and defines("MLP.forward") and defines("forward")',
    'calls("F.relu") and calls("relu") and calls("torch.nn.functional.relu") and calls("square")',
    'calls("F.relu", within="MLP") and not calls("F.relu", within="Attention")',
    'calls("Linear", within="MLP.__init__") and not calls("Linear", within="MLP.forward")',
    'uses("nn.Module") and uses("WARMDOWN", within="learning_rate")',
    'assigns("x0_lambdas") and assigns("self.x0_lambdas") and not assigns("relu")',
    'passes("F.scaled_dot_product_attention", "is_causal")',
    'passes("scaled_dot_product_attention", "is_causal", True)',
    'not passes("scaled_dot_product_attention", "is_causal", False)',
    'not passes("scaled_dot_product_attention", "enable_gqa")',
    'imports("torch") and imports("torch.nn") and imports("dataclasses.dataclass") and not imports("tor")',
    'contains("F.relu(_).square()")',
    'contains("F.relu(_).square()", within="MLP") and not contains("F.relu(_).square()", within="GPT")',
    "contains(\"nn.Linear(..., bias=False)\") and contains('nn.Linear(_, 4 * _, bias=False)')",
    'contains("F.scaled_dot_product_attention(..., is_causal=True)")',
    'not contains("F.scaled_dot_product_attention(x, is_causal=True)")',
    'contains("x = self.up(x)\\nx = _\\nreturn self.down(x)")',
    'contains("TOTAL_BATCH = 524288")',
    "not contains('nn.Linear(DIM, DIM)')",
    'not knob("DEPTH") > 100',
    'knob("DEPTH") > -1',
    # unknown or true is true, unknown and false is false
    'knob("NOTHING") > 1 or defines("GPT")',
    'not (knob("NOTHING") > 1 and defines("Nothing"))',
]
FALSE = [
    'knob("DEPTH") == 9',
    'knob("NOTHING") == 0',
    'not knob("NOTHING") == 0',
    'knob("NOTHING") != 0',
    'knob("SEED") == 0',
    'knob("DEPTH") > "a"',
    'knob("DEPTH") / 0 == 1',
    'knob("DEPTH")[0] == 1',
    'knob("ADAM_BETAS")[5] == 1',
    'calls("elu")',
    'calls("F.relu", within="Nothing")',
    'contains("F.silu(_)")',
    'knob("learning_rate")',
    'len(knob("DEPTH")) == 1',
]


@pytest.mark.parametrize("predicate", TRUE)
def test_holds(predicate: str) -> None:
    assert holds(predicate, TRAIN)


@pytest.mark.parametrize("predicate", FALSE)
def test_does_not_hold(predicate: str) -> None:
    assert not holds(predicate, TRAIN)


def test_every_word_is_tried_above() -> None:
    assert [word for word in ARITY if not any(f"{word}(" in predicate for predicate in TRUE)] == []


@pytest.mark.parametrize("predicate", ["True", 'not defines("GPT")', 'defines("GPT")'])
def test_nothing_holds_in_code_that_does_not_parse(predicate: str) -> None:
    assert not holds(predicate, "def (")


@pytest.mark.parametrize(
    ("predicate", "says"),
    [
        ("sees('x')", ["'sees'", "knob, field"]),
        ("DEPTH > 1", ["'DEPTH'", "knob('DEPTH')"]),
        ("knob('A').real", ["Attribute"]),
        ("knob(A)", ["in quotes"]),
        ("knob('A', 'B')", ["2 arguments", "takes 1"]),
        ("knob('A', within='B')", ["'within'", "takes none"]),
        ("calls('A', inside='B')", ["'inside'", "takes within"]),
        ("knob('A') >", ["does not parse"]),
        ("contains('f(')", ["'f('", "does not parse"]),
        ("contains('# note')", ["empty pattern"]),
        ("__import__('os').system('true')", ["unknown word", "choose one of"]),
        ("[x for x in (1,)]", ["ListComp"]),
        ("(lambda: 1)()", ["unknown word"]),
    ],
)
def test_what_is_not_of_the_language_is_an_error_that_names_the_method(predicate: str, says: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check(predicate, method="swiglu")
    for part in ["'swiglu'", *says]:
        assert part in str(caught.value)


def test_empty_predicates_apply_always_and_tell_nothing() -> None:
    method = Method(id="m", name="m", category="c", summary="s")
    assert applies(method, TRAIN)
    assert present(method, TRAIN) is None
    told = method.model_copy(update={"applies_if": 'calls("F.silu")', "present_if": 'calls("F.relu")'})
    assert not applies(told, TRAIN)
    assert present(told, TRAIN) is True
