"""A control: the same sessions with every name replaced by a placeholder, so that only their form can be learned."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from looper.actions import Bash, FormatError, parse
from looper.learning.sft import Sft
from looper.protocols import Lab
from looper.records import Example, Message, Skill

_PROTOCOL = "bash read edit write done path think"
_SHELL = "git grep rg find ls cat sed awk head tail wc cd echo python python3 pytest diff status log show"
_OBSERVED = "Issue Notes Error Edited Wrote Format Warning no such file folder line lines of exit code output"
KEPT = frozenset(
    [*keyword.kwlist, *keyword.softkwlist, *f"{_PROTOCOL} {_SHELL} {_OBSERVED}".split(), "py", "md", "txt", "toml"]
)
"""Words of the protocol, the shell and the language, which belong to the form."""
_WORD = re.compile(r"(?<!\w)[^\W\d]\w*")
_SHELL_WORD = re.compile(r"(?<!\S)--?[A-Za-z][\w-]*|(?<!\w)[^\W\d]\w*")
"""As _WORD, but options of a command (`-n`, `--all`) are words of their own, and kept."""


@dataclass(kw_only=True)
class Placeholders:
    """Gives every name of one session a placeholder, the same wherever it stands."""

    random: Random
    names: dict[str, str] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)

    def hide(self, text: str, pattern: re.Pattern[str] = _WORD) -> str:
        """Return the text with all names replaced."""
        return pattern.sub(lambda match: self._hidden(match[0]), text)

    def _hidden(self, word: str) -> str:
        if word in KEPT or word.lower() in KEPT or word.startswith("-"):
            return word
        if word not in self.names:
            if not self.free:
                first = 10 * (1 + len(self.names))
                self.free = self.random.sample(range(first, 10 * first), 9 * first)
            self.names[word] = f"w{self.free.pop()}"
        return self.names[word]


def hidden(example: Example, seed: int) -> tuple[Example, int]:
    """Return the example with placeholders, and how many turns lost their weight because their form did not survive.

    Names are hidden alike in what the agent saw and said, so that it can still copy; another session has other
    placeholders for them. Numbers, punctuation, keywords, commands and the system message stay.
    """
    places = Placeholders(random=Random(f"hidden/{seed}/{example.episode}"))
    messages: list[Message] = []
    weights: list[float] = []
    lost = 0
    for message, weight in zip(example.messages, example.weights, strict=True):
        if message.role == "system":
            text = message.content
        else:
            action = parse(message.content)
            shell = message.role == "assistant" and isinstance(action, Bash)
            text = places.hide(message.content, _SHELL_WORD if shell else _WORD)
            if weight and not isinstance(action, FormatError) and parse(text).kind != action.kind:
                weight, lost = 0.0, lost + 1
        messages.append(message.model_copy(update={"content": text}))
        weights.append(weight)
    return example.model_copy(update={"messages": tuple(messages), "weights": tuple(weights)}), lost


@dataclass(frozen=True, kw_only=True)
class FormatOnly(Sft):
    """Plain fine-tuning on sessions without their names, paths and contents.

    What this adapter gains comes from the tool language and the course of a session, not from knowing the code.
    """

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill trained on placeholders. Raises NothingToLearn for too few tasks."""
        found = [hidden(example, lab.seed) for example in examples]
        lab.note({"turns_without_form": sum(lost for _, lost in found)})
        return super().learn(skill, [example for example, _ in found if any(example.weights)], lab)
