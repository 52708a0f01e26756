import ast
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looper.memory.ingestion import passages
from looper.memory.ingestion.definitions import python_blocks
from looper.memory.ingestion.files import decoded, file_blocks
from looper.memory.ingestion.headings import first_heading, markdown_blocks
from looper.memory.ingestion.names import looks_like_code, names_in
from looper.memory.ingestion.passages import LARGEST, SMALLEST, packed, plain_blocks, size_of

ROOT = Path(__file__).parents[3]


def sentences(count, word="step"):
    return "\n".join(
        f"Sentence {n} of the text says one more {word} about training, and it ends." for n in range(count)
    )


paragraphs = st.lists(st.integers(1, 300).map(lambda n: " ".join(f"w{k}" for k in range(n))), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(max_size=4000), paragraphs.map("\n\n".join)))
def test_no_word_of_a_text_is_lost_or_doubled(text):
    chunks = packed(plain_blocks(text))
    assert "".join("".join(chunk.body.split()) for chunk in chunks) == "".join(text.split())


@pytest.mark.parametrize("text", [sentences(80), sentences(80).replace("\n", " "), "word " * 3000, "x" * 50_000])
def test_long_texts_become_passages_of_the_right_size(text):
    sizes = [size_of(chunk.body) for chunk in packed(plain_blocks(text))]
    assert all(SMALLEST <= size <= LARGEST for size in sizes[:-1])
    assert sizes[-1] <= LARGEST + SMALLEST // 2


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_few_words_left_over_end_the_passage_before(before):
    texts = [" ".join([f"p{n}"] * 110) for n in range(before)]
    bodies = [chunk.body for chunk in packed(plain_blocks("\n\n".join([*texts, "the end"])))]
    assert bodies == [*texts[:-1], f"{texts[-1]}\n\nthe end"]


def test_prose_is_cut_where_a_sentence_ends():
    bodies = [chunk.body for chunk in packed(plain_blocks(sentences(40).replace(", and it", ",\nand it")))]
    assert len(bodies) > 4 and all(body.endswith("it ends.") for body in bodies)


def test_short_paragraphs_share_a_passage_and_headings_part_them():
    chunks = packed(markdown_blocks("# One\n\na b c\n\nd e f\n\n## Two\n\ng h i\n", file="notes.md"))
    assert [(c.locator, c.title, c.body) for c in chunks] == [
        ("notes.md:3-5 One", "One", "a b c\n\nd e f"),
        ("notes.md:9-9 One > Two", "Two", "g h i"),
    ]


def test_locators_lead_to_the_lines():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text.split("\n")
    chunks = packed(markdown_blocks(text, file="README.md"))
    assert len(chunks) > 10
    for chunk in chunks:
        first, last = map(int, chunk.locator.split(" ")[0].removeprefix("README.md:").split("-"))
        assert "".join(chunk.body.split()) == "".join("".join(lines[first - 1 : last]).split())


def test_markdown_knows_code_from_headings_and_setext():
    text = "Title\n=====\n\n```python\n# no heading\nlearning_rate = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    chunks = packed(markdown_blocks(text))
    assert first_heading(text) == "Title"
    assert {chunk.title for chunk in chunks} == {"Title"}
    assert "# no heading" in chunks[0].body and "| 1 | 2 |" in chunks[0].body
    assert "learning_rate" in chunks[0].identifiers.split()


def test_code_is_cut_at_definitions_and_keeps_every_line():
    file = ROOT / "looper" / "records.py"
    text = file.read_text(encoding="utf-8")
    blocks = python_blocks(text, file="looper/records.py")
    kept = sorted(line for block in blocks for line in range(block.first, block.last + 1))
    assert len(kept) == len(set(kept))
    assert {n for n, line in enumerate(text.split("\n"), 1) if line.strip()} <= set(kept)
    titles = {name for block in blocks for name in block.title.replace(",", ".").replace(" ", "").split(".")}
    assert {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)} <= titles
    assert "digest_of" in titles


LONG = "".join(f"    total = total + step({n})  # one more step of many\n" for n in range(8))


def test_methods_decorators_and_comments_belong_to_their_definition():
    text = f"import os\n\n# About f.\n@cached\ndef f():\n{LONG}{LONG}"
    text += "\nclass A:\n    x = 1\n\n    def g(self):\n        return x\n"
    found = python_blocks(text, file="a.py")
    assert [(b.title, b.first, b.last) for b in found] == [("", 1, 1), ("f", 3, 21), ("A.g", 23, 27)]
    assert packed(found)[-1].locator == "a.py:23-27 A > g"
    assert packed(found)[-1].body.startswith("class A:\n    x = 1\n\n    def g(self):")


def test_small_definitions_share_a_passage_and_large_ones_do_not():
    small = [f"def {name}():\n    return 1\n" for name in "abc"]
    chunks = packed(python_blocks("\n".join([*small, f"def large():\n{LONG}{LONG}", *small[:1]])))
    assert [chunk.title for chunk in chunks] == ["a, b, c", "large", "large", "a"]
    assert [chunk.locator for chunk in chunks][::3] == ["lines 1-8 a, b, c", "lines 28-29 a"]


@pytest.mark.parametrize("text", ["def broken(:\n    pass", "x = '\x00'", "print 'old'", "(" * 500])
def test_code_that_does_not_parse_is_read_as_text(text):
    assert packed(python_blocks(text))[0].body == text


def test_odd_escapes_of_other_people_are_no_warning_here():
    assert python_blocks("x = '\\d'\n")


def test_names():
    assert names_in("`lr` in MuonAdamW uses weight_decay via F.silu; The plain words and e.g. this are none. A.B") == (
        "MuonAdamW",
        "weight_decay",
        "F.silu",
    )
    assert names_in("`max_lr = base` is set") == ("max_lr", "base")
    chunk = packed(
        python_blocks("def f(batch):\n    '''words of a docstring'''\n    return model.norm(batch)\n", file="a.py")
    )[0]
    assert chunk.identifiers.split() == ["a.py", "batch", "model", "norm"]
    assert not looks_like_code("However") and not looks_like_code("state-of-the-art")


def test_notebooks_are_their_cells_without_output():
    cells = [
        {"cell_type": "markdown", "source": ["# Analysis\n", "\n", "Of results."]},
        {"cell_type": "code", "source": "curve = plot_results()", "outputs": [{"data": {"image/png": "AAAA"}}]},
    ]
    chunks = packed(file_blocks(json.dumps({"cells": cells}), "a.ipynb"))
    assert [chunk.body for chunk in chunks] == ["Of results.", "curve = plot_results()"]
    assert chunks[0].locator == "a.ipynb cell 1 > Analysis"
    assert packed(file_blocks("{broken", "a.ipynb"))[0].body == "{broken"


def test_files_that_are_no_text_are_refused_by_name():
    from looper.errors import StoreError

    assert decoded(b"\xef\xbb\xbfhello", "a.txt") == "hello"
    for data in (b"a\x00b", b"\xff\xfe\x00", b"caf\xe9"):
        with pytest.raises(StoreError, match=r"a\.bin"):
            decoded(data, "a.bin")


def test_texts_cannot_be_shifted_into_one_another():
    assert passages.sha_of(["ab", "c"]) != passages.sha_of(["a", "bc"])
