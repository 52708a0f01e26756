"""Messages to text and tokens: one renderer for inference, training and recalled notes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from looper.records import Message, Recall

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The ChatML template (Jinja); the bundled model's tokenizer carries this very string."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of rendered text and the loss weight of its tokens."""

    text: str
    weight: float


@lru_cache(maxsize=32)
def _compiled(template: str) -> Any:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    # As transformers compiles templates.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    return environment.from_string(template)


def render(messages: Sequence[Message], *, template: str = CHATML, reply: bool = False) -> str:
    """Render messages with a chat template; `reply` opens the assistant's next turn.

    Raises jinja2's TemplateError for messages that the template refuses.
    """
    rows = [{"role": m.role, "content": m.content} for m in messages]
    return str(_compiled(template).render(messages=rows, add_generation_prompt=reply))


def spans(messages: Sequence[Message], weights: Sequence[float], *, template: str = CHATML) -> list[Span]:
    """Split a rendered conversation into spans with loss weights.

    An assistant turn's span is what the model itself has to produce: its text and the token that ends
    the turn, not the header before it nor the newline after it. Joined, the spans are exactly
    `render(messages)`.

    Raises ValueError if the template does not render conversations prefix by prefix.
    """
    if len(messages) != len(weights):
        raise ValueError(f"{len(messages)} messages but {len(weights)} loss weights")
    out: list[Span] = []
    done = ""
    for i, (message, weight) in enumerate(zip(messages, weights, strict=True)):
        whole = render(messages[: i + 1], template=template)
        if not whole.startswith(done):
            raise ValueError(f"the chat template rewrites earlier turns when message {i} is added")
        if message.role != "assistant" or weight == 0.0:
            out.append(Span(text=whole[len(done) :], weight=0.0))
        else:
            opened = render(messages[:i], template=template, reply=True)
            body = whole[len(opened) :]
            tail = body[len(body.rstrip("\n")) :]
            if not whole.startswith(opened) or not opened.startswith(done):
                raise ValueError(f"the chat template renders turn {i} differently when it is generated")
            out.append(Span(text=opened[len(done) :], weight=0.0))
            out.append(Span(text=body[: len(body) - len(tail)], weight=weight))
            if tail:
                out.append(Span(text=tail, weight=0.0))
        done = whole
    return out


def render_notes(recall: Recall) -> str:
    """Render recalled notes for the prompt; '' if there are none."""
    if not recall.notes:
        return ""
    lines = "\n".join(f"- {' '.join(note.text.split())}" for note in recall.notes)
    return f"Notes from past sessions:\n{lines}\n"


def first_message(issue: str, recall: Recall) -> str:
    """Return the user's first message: what is recalled, then the issue."""
    return f"{render_notes(recall)}Issue: {issue.strip()}"


SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
"""Tokens that a template may write by their names."""


def stated_template(folder: Path, settings: Mapping[str, Any]) -> str:
    """Return the chat template that a model's folder states; '' for none.

    A file of its own comes before the one in `settings` (tokenizer_config.json), of several named ones the default.
    Special tokens that it writes by name, as templates of the Llama class do, are set at its beginning to what the
    settings say, so that a rendered text holds all its tokens: it is encoded without any that the tokenizer would add.
    """
    separate = folder / "chat_template.jinja"
    if separate.is_file():
        template: Any = separate.read_text(encoding="utf-8")
    else:
        template = settings.get("chat_template")
    if isinstance(template, list):
        template = next((row["template"] for row in template if row.get("name") == "default"), None)
    text = str(template or "")
    tokens = {name: token for name in SPECIAL if name in text and (token := special(settings, name))}
    return "".join(f"{{% set {name} = {json.dumps(token)} %}}" for name, token in tokens.items()) + text


def special(settings: Mapping[str, Any], name: str) -> str:
    """Return a special token by the name that tokenizer_config.json gives it; '' if there is none."""
    token = settings.get(name)
    return str((token.get("content") if isinstance(token, dict) else token) or "")
