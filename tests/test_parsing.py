"""The parser, from several threads at once."""

import ast
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from looper.parsing import parsed, parsed_expression


def test_threads_parse_the_same_trees() -> None:
    texts = [Path(path).read_text(encoding="utf-8") for path in (ast.__file__, __file__)]
    wanted = [ast.dump(ast.parse(text)) for text in texts]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(parsed, texts * 20))
    finally:
        sys.setswitchinterval(usual)
    assert {ast.dump(tree) for tree in found[::2]} == {wanted[0]}
    assert {ast.dump(tree) for tree in found[1::2]} == {wanted[1]}


def test_an_expression_is_one() -> None:
    assert isinstance(parsed_expression("1 + 1").body, ast.BinOp)
    with pytest.raises(SyntaxError):
        parsed_expression("x = 1")
