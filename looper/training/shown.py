"""Examples as a teacher sees them: with the privileged text before the first user message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from looper.records import Example
from looper.training.tokens import LeftOut, Tokenised, Tokeniser, kept


def with_privileged(example: Example) -> Example:
    """Return the example with its privileged text, ended by a newline, before the first user message's content."""
    if not example.privileged:
        return example
    text = example.privileged if example.privileged.endswith("\n") else example.privileged + "\n"
    messages = list(example.messages)
    first = next((i for i, message in enumerate(messages) if message.role == "user"), None)
    if first is None:
        return example
    messages[first] = messages[first].model_copy(update={"content": text + messages[first].content})
    return example.model_copy(update={"messages": tuple(messages)})


def shown_to_teacher(
    model: Path, examples: Sequence[Example]
) -> tuple[list[Tokenised], Mapping[int, Tokenised], Mapping[str, int]]:
    """Tokenise examples as student and teacher see them.

    Returns the student's, the teacher's by index, and how many were left out for which reason: an example that is too
    long with its privileged text, too. Raises TrainingError if none is left.
    """
    tokeniser = Tokeniser(model)
    found: list[Tokenised | LeftOut] = []
    shown: dict[int, Tokenised] = {}
    for i, example in enumerate(examples):
        student, teacher = tokeniser.read(example, i), tokeniser.read(with_privileged(example), i)
        if isinstance(student, LeftOut) or isinstance(teacher, LeftOut):
            found.append(student if isinstance(student, LeftOut) else teacher)
        elif _learned(student) != _learned(teacher):
            text = f"the turns of task {example.task!r} (episode {example.episode!r}) change with the privileged text"
            found.append(LeftOut(index=i, reason="other turns with the privileged text", text=text))
        else:
            found.append(student)
            shown[i] = teacher
    good, counts = kept(found)
    return good, shown, counts


def _learned(example: Tokenised) -> list[tuple[int, float]]:
    """Return the tokens that carry weight, with it."""
    return [(token, weight) for token, weight in zip(example.ids, example.weights, strict=True) if weight]
