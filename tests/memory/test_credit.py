"""Credit goes to what the code shows, not to what is claimed."""

import ast

from looper.memory.credit import applied, credit, roles
from looper.memory.rows import Method, Role
from looper.memory.syntax import Code
from tests.memory.sample import TRAIN, edited

SQUARE = "x = F.relu(x).square()"
SILU = Method(id="silu", name="SiLU", category="mlp", summary="", present_if='calls("F.silu", within="MLP")')
WARMDOWN = Method(
    id="warmdown",
    name="Longer warmdown",
    category="schedule",
    summary="",
    recipe=({"search": "WARMDOWN = 0.5", "replace": "WARMDOWN = 0.7"},),
)
RELU = Method(id="relu", name="ReLU²", category="mlp", summary="", present_if='contains("F.relu(_).square()")')
VAGUE = Method(id="vague", name="Vague", category="other", summary="")
ALL = (SILU, WARMDOWN, RELU, VAGUE)
AFTER = edited((SQUARE, "x = F.silu(x)"), ("WARMDOWN = 0.5", "WARMDOWN=.7 # longer"))


def test_present_methods_are_credited_claimed_or_not() -> None:
    found = credit(TRAIN, AFTER, ALL, claimed=["silu"])
    assert roles(found) == {"silu": Role.PRESENT, "warmdown": Role.PRESENT}
    assert found["silu"].claimed and not found["warmdown"].claimed
    assert "recipe" in found["warmdown"].reason
    assert SILU.present_if in found["silu"].reason


def test_claims_that_the_code_does_not_show_stay_claims_with_the_reason() -> None:
    found = credit(TRAIN, AFTER, ALL, claimed=["relu", "vague", "unheard"])
    assert {name: found[name].role for name in ("relu", "vague", "unheard")} == dict.fromkeys(
        ("relu", "vague", "unheard"), Role.CLAIMED
    )
    assert "takes it out" in found["relu"].reason
    assert "neither" in found["vague"].reason
    assert "no such method" in found["unheard"].reason


def test_a_method_that_was_there_before_is_not_credited() -> None:
    later = AFTER.replace("DEPTH = 8", "DEPTH = 9")
    assert credit(AFTER, later, ALL) == {}
    assert "before" in credit(AFTER, later, ALL, claimed=["silu"])["silu"].reason


def test_a_change_without_effect_or_that_does_not_parse_credits_nothing() -> None:
    commented = "# now with F.silu\n" + TRAIN
    assert "no effect" in credit(TRAIN, commented, ALL, claimed=["silu"])["silu"].reason
    broken = AFTER + "def ("
    assert roles(credit(TRAIN, broken, ALL, claimed=["silu"])) == {"silu": Role.CLAIMED}
    assert roles(credit(broken, AFTER, ALL, claimed=["silu"])) == {"silu": Role.CLAIMED}


def test_a_recipe_counts_only_if_all_its_edits_are_there() -> None:
    both = WARMDOWN.model_copy(update={"recipe": (*WARMDOWN.recipe, {"search": "DEPTH = 8", "replace": "DEPTH = 9"})})
    assert credit(TRAIN, edited(("WARMDOWN = 0.5", "WARMDOWN = 0.7")), [both]) == {}
    whole = edited(("WARMDOWN = 0.5", "WARMDOWN = 0.7"), ("DEPTH = 8", "DEPTH = 9"))
    assert roles(credit(TRAIN, whole, [both])) == {"warmdown": Role.PRESENT}


def test_a_recipe_is_recognised_definition_by_definition_where_its_fragments_are_no_whole_syntax() -> None:
    search = "    def forward(self, x):\n        x = self.up(x)\n"
    replace = "    def mix(self, x):\n        return (x, x)\n\n" + search.replace("up(x)", "up(x + 1)")
    method = WARMDOWN.model_copy(update={"id": "mix", "recipe": ({"search": search, "replace": replace},)})
    made = edited((search, replace), ("WARMDOWN = 0.5", "WARMDOWN = 0.6"))
    again = ast.unparse(ast.parse(made.replace("(x, x)", "x, x")))
    assert roles(credit(TRAIN, again, [method])) == {"mix": Role.PRESENT}
    assert credit(TRAIN, again.replace("x + 1", "x + 2"), [method]) == {}
    assert credit(TRAIN, again.replace("def mix", "def mixed"), [method]) == {}


def test_edits_are_recognised_as_syntax_as_parts_of_lines_and_as_deletions() -> None:
    def made(search: str, replace: str, code: str) -> bool:
        return applied({"search": search, "replace": replace}, Code(TRAIN), Code(code))

    wide = edited((SQUARE, "x = F.silu(\n            x\n        )"))
    assert made(SQUARE, "    x = F.silu(x)\n", wide)
    part = edited(("(DIM, DIM, bias=False", "(DIM, DIM,  bias = True"))
    assert made("(DIM, DIM, bias=False", "(DIM, DIM, bias=True", part)
    assert not made("(DIM, DIM, bias=False", "(DIM, DIM, bias=True", wide)
    gone = edited((f"        {SQUARE}\n", ""))
    assert made(f"        {SQUARE}\n", "", gone)
    assert not made(f"        {SQUARE}\n", "", TRAIN)
    longer = edited((SQUARE, f"{SQUARE}\n        x = norm(x)"))
    assert made(SQUARE, f"{SQUARE}\n        x = norm(x)", longer)
