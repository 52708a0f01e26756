"""The half of the judge that runs the repository's code: it makes the hidden calls and writes down what they gave.

A script of its own: its text is run by the bare interpreter in a process that knows neither what is expected nor the
token that signs results, so nothing that the repository's code does there can pass a test but the right answer.
"""

import os
import sys

LONGEST = 10_000
"""Characters of an answer, and values in it; what is expected is much shorter."""


def plain(value: object, room: "list[int] | None" = None) -> str:
    """Write a value of plain data as text, the same for equal values.

    Raises TypeError for other data, ValueError for more than LONGEST values or characters.
    """
    kind = type(value)  # not isinstance: a subclass may lie about itself
    room = [LONGEST] if room is None else room
    room[0] -= len(value) if isinstance(value, str | list | dict) and kind in (str, list, dict) else 1
    if room[0] < 0:
        raise ValueError("too long")
    if kind is bool:
        return "1" if value else "0"  # 1 == True
    if kind is int or kind is str:
        return ascii(value)
    if isinstance(value, list) and kind is list:
        return "[" + ", ".join([plain(item, room) for item in value]) + "]"
    if isinstance(value, dict) and kind is dict:
        rows = [plain(key, room) + ": " + plain(item, room) for key, item in value.items()]
        return "{" + ", ".join(sorted(rows)) + "}"
    raise TypeError(f"{kind} is no plain data")


def called(module: str, function: str, args: "tuple[object, ...]") -> str:
    """Return what a call gave, `!` if it raised or gave no plain data."""
    try:
        return plain(getattr(__import__(module, fromlist=["_"]), function)(*args))[:LONGEST]
    except BaseException:
        return "!"


def answer(folders: "list[str]", calls: "list[tuple[str, str, tuple[object, ...]]]") -> None:
    """Make the calls and write a line on each to the descriptor named on the command line, then leave at once."""
    out = int(sys.argv.pop())
    os.set_inheritable(out, False)
    sys.path[:0] = folders
    write, leave = os.write, os._exit
    write(out, "".join([called(*call) + "\n" for call in calls]).encode())
    leave(0)
