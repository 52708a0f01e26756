"""The pack is sound, and a method that is not says in which file and field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from looper.errors import ConfigError
from looper.memory.methods import pack
from looper.memory.predicates import applies, present
from tests.trainable import TASK

GOOD = """
id: swish
name: Swish
category: mlp
summary: Another activation.
recipe:
  - {search: F.gelu, replace: F.silu}
present_if: calls("F.silu")
claims:
  - {effect: -0.1, unit: bpb, source: "arxiv:1710.05941v2", locator: table 1}
sources:
  - {paper: "arxiv:1710.05941v2"}
"""


def written(folder: Path, text: str, name: str = "swish") -> Path:
    (folder / f"{name}.yaml").write_text(text)
    return folder


def test_the_bundled_pack_has_methods_sources_and_reasons() -> None:
    methods = pack.load()
    assert len(methods) >= 28 and sum(bool(method.recipe) for method in methods) >= 16
    for method in methods:
        assert method.recipe or "No recipe:" in method.summary, method.id
        for claim in method.claims:
            assert re.search(r"(v\d+|@[0-9a-f]{7,})$", claim.source), f"{method.id}: no version"
    assert any(claim.effect > 0 for method in methods for claim in method.claims)  # what failed is told as well


def test_the_bundled_code_has_only_methods_that_are_its_own() -> None:
    code = (TASK / "train.py").read_text()
    assert [method.id for method in pack.load() if present(method, code)] == []
    assert sum(applies(method, code) for method in pack.load()) >= 24


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (method,) = pack.load(written(tmp_path, GOOD))
    assert (method.id, method.recipe[0]["replace"], method.claims[0].effect) == ("swish", "F.silu", -0.1)


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("id: swish", "id: swoosh", "id: 'swoosh' has to be the file's name, 'swish'"),
        ("name: Swish\n", "", "name: Field required"),
        ("category: mlp", "categorie: mlp", "unknown field 'categorie'; choose from id, name, category"),
        ("effect: -0.1", "effect: much", "claims.0.effect: .*'much'"),
        ("locator: table 1", 'locator: ""', "claims.0: needs a source and a locator"),
        ("replace: F.silu", "by: F.silu", r"recipe.0: has \['by', 'search'\]"),
        ('calls("F.silu")', 'cools("F.silu")', "present_if: .*'?swish'?.*cools.*calls"),
        ('present_if: calls("F.silu")\n', "", "present_if: a method with a recipe needs one"),
        ("sources:", "couples_with: [mun]\nsources:", "couples_with: unknown method 'mun'"),
        ('sources:\n  - {paper: "arxiv:1710.05941v2"}\n', "", "sources: there is none"),
        (GOOD, "- a list", "holds list; a method is a mapping of id, name"),
        (GOOD, "a: [", "cannot be read as YAML"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path: Path, good: str, bad: str, says: str) -> None:
    assert good in GOOD
    with pytest.raises(ConfigError, match=rf"(?s)swish\.yaml.*{says}"):
        pack.load(written(tmp_path, GOOD.replace(good, bad)))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no methods"):
        pack.load(tmp_path)
