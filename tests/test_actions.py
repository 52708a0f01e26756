import random
import string

import pytest

from looper.actions import Action, Bash, Done, Edit, FormatError, Read, Write, count_calls, parse, render

GOLDEN = [
    ("<bash>ls -la</bash>", Bash(command="ls -la")),
    ("<bash>\ngrep -n 'a<b' x.py | head\n</bash>", Bash(command="grep -n 'a<b' x.py | head")),
    ("<BASH>ls</BASH>", Bash(command="ls")),
    ("<bash>ls", Bash(command="ls")),
    ("<read>a/b.py</read>", Read(path="a/b.py")),
    ("<read>a.py:3-9</read>", Read(path="a.py", first=3, last=9)),
    ("<read>a.py:3</read>", Read(path="a.py", first=3, last=3)),
    ("<read> a.py:0-4 </read>", Read(path="a.py", first=1, last=4)),
    ('<edit path="a.py">\n  x = 1\n=======\n  x = 2\n</edit>', Edit(path="a.py", old="  x = 1", new="  x = 2")),
    ("<edit path='a.py'>x\n=======\ny</edit>", Edit(path="a.py", old="x", new="y")),
    ("<edit path=a/b.py>x\n=======\n</edit>", Edit(path="a/b.py", old="x", new="")),
    (
        '<edit path="a.py">\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n</edit>',
        Edit(path="a.py", old="x", new="y"),
    ),
    ('<write path="n.txt">\nhi\nthere\n</write>', Write(path="n.txt", text="hi\nthere\n")),
    ('<write path="n.txt"></write>', Write(path="n.txt", text="")),
    ("<done/>", Done()),
    ("<done>", Done()),
    ("All good. <done>fixed</done>", Done()),
    ("<think>maybe <bash>rm x</bash></think><done/>", Done()),
    ("<think>never closed <bash>ls</bash>", Bash(command="ls")),
]

BAD = [
    ("", "no tool call"),
    ("I will read the file.", "no tool call"),
    ("<bash></bash>", "no command"),
    ("<read>  </read>", "names no file"),
    ("<read>a.py:9-3</read>", "before the first"),
    ("<edit>x\n=======\ny</edit>", "needs a path"),
    ('<edit path="a.py">x\ny</edit>', "======="),
    ('<edit path="a.py">\n\n=======\ny\n</edit>', "no old lines"),
    ('<edit path="a.py">x\n=======\ny', "not closed"),
    ('<write path="a.py">x', "not closed"),
    ("<bash/>", "empty"),
]


@pytest.mark.parametrize(("text", "action"), GOLDEN, ids=range(len(GOLDEN)))
def test_what_models_write_is_understood(text: str, action: Action) -> None:
    assert parse(text) == action


@pytest.mark.parametrize(("text", "reason"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_understood_says_why(text: str, reason: str) -> None:
    found = parse(text)
    assert isinstance(found, FormatError)
    assert reason in found.reason


@pytest.mark.parametrize("action", [action for _, action in GOLDEN])
def test_rendered_actions_parse_back(action: Action) -> None:
    assert parse(render(action)) == action


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="not expressible"):
        render(Edit(path="a", old="x\n=======", new="y"))


def test_calls_are_counted_outside_thoughts() -> None:
    assert count_calls("<bash>ls</bash><read>a</read>") == 2
    assert count_calls("<think><bash>ls</bash></think><done/>") == 1
    assert count_calls("nothing") == 0


def mutated(rng: random.Random, seeds: list[str]) -> str:
    """Return a reply with pieces cut, doubled, swapped, or replaced by noise."""
    text = rng.choice(seeds)
    for _ in range(rng.randrange(1, 6)):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        match rng.randrange(6):
            case 0:
                text = text[:a] + text[b:]
            case 1:
                text = text[:b] + text[a:]
            case 2:
                text = text[:a] + rng.choice(seeds) + text[b:]
            case 3:
                text = text[:a] + "".join(rng.choices(string.printable + "<>/=é\u0130\x00\ud800", k=5)) + text[a:]
            case 4:
                text = (
                    text[:a]
                    + rng.choice(("<think>", "</think>", "=======", "\r\n", '"', "path=", "</", "<"))
                    + text[a:]
                )
            case 5:
                text = text[:a] + text[a:b].swapcase() + text[b:]
    return text


def fuzz(count: int) -> int:
    """Parse `count` mutated replies; return how many were actions."""
    rng = random.Random(20)
    seeds = [text for text, _ in GOLDEN] + [text for text, _ in BAD if text]
    actions = 0
    for _ in range(count):
        text = mutated(rng, seeds)
        found = parse(text)
        count_calls(text)
        assert isinstance(found, Action | FormatError)
        actions += isinstance(found, Action)
    return actions


def test_no_mutated_reply_raises() -> None:
    assert 10_000 < fuzz(100_000) < 99_000


@pytest.mark.slow
def test_no_mutated_reply_raises_in_a_million() -> None:
    assert 100_000 < fuzz(1_000_000) < 990_000
