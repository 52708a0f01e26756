"""Supervised sessions: a second, stronger model approves, rejects or corrects every step before it is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from looper.actions import FormatError, parse
from looper.errors import ContextOverflow
from looper.protocols import Model
from looper.records import Conversation, Intervention, Message, Reply, Skill

INSTRUCTIONS = (
    "You supervise a coding agent, step by step. You see its conversation and the step that it wants to take next. "
    "Answer with exactly one of:\n"
    "<approve/> if the step is good enough,\n"
    "<reject>the reason, one sentence</reject> if the agent should think again,\n"
    "<correct>a tool call in the agent's own language</correct> to take another step in its place."
)
_ANSWER = re.compile(r"<(approve)\s*/>|<(reject)>(.*?)</reject>|<(correct)>(.*?)</correct>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """A model whose every reply is shown to a supervisor first.

    After a rejection the model is asked once more, with the reason; whatever it says then is taken. A correction
    replaces the reply if it is a tool call. Neither the reason nor the rejected step enters the conversation: what a
    session teaches is the step that was taken. An answer that is none of the three, or none because the session is too
    long for the supervisor, lets the step pass and is counted as `unclear`. Token counts and price are those of the
    model and the supervisor together.
    """

    model: Model
    supervisor: Model

    @property
    def id(self) -> str:
        """Identity: both models'."""
        return f"{self.model.id} supervised by {self.supervisor.id}"

    @property
    def knows_protocol(self) -> bool:
        """Whether the supervised model needs no manual."""
        return self.model.knows_protocol

    @property
    def weights(self) -> Path | None:
        """Folder that adapters of the supervised model are trained on."""
        return self.model.weights

    def tokens(self, text: str) -> int:
        """Count a text's tokens, as the supervised model does."""
        return self.model.tokens(text)

    def with_skill(self, skill: Skill) -> Supervised:
        """Return the supervised model with a skill; the supervisor stays as it is."""
        return Supervised(model=self.model.with_skill(skill), supervisor=self.supervisor)

    def forget(self, conversation: str) -> None:
        """Free what both models hold of a session."""
        self.model.forget(conversation)
        self.supervisor.forget(_view(conversation))

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Answer a batch: the model proposes, the supervisor decides. Raises what either raises."""
        proposed = list(self.model.reply(conversations))
        answers = self._judged([_asked(c, r) for c, r in zip(conversations, proposed, strict=True)])
        verdicts = [read(answer.text) for answer in answers]
        again = [i for i, (intervention, _) in enumerate(verdicts) if intervention is Intervention.REJECTED]
        second = dict(
            zip(
                again,
                self.model.reply([_retry(conversations[i], proposed[i], verdicts[i][1]) for i in again]),
                strict=True,
            )
            if again
            else ()
        )
        out = []
        for i, (reply, answer, (intervention, text)) in enumerate(zip(proposed, answers, verdicts, strict=True)):
            taken = second.get(i, reply)
            parts = [reply, answer, *([second[i]] if i in second else [])]
            change = {
                "text": text if intervention is Intervention.CORRECTED else taken.text,
                "finish": "stop" if intervention is Intervention.CORRECTED else taken.finish,
                "intervention": intervention,
            }
            out.append(taken.model_copy(update=change).taking(parts))
        return out

    def _judged(self, asked: Sequence[Conversation]) -> list[Reply]:
        """Return the supervisor's answers, '' where it cannot read so much; the model is not asked anew for that."""
        try:
            return list(self.supervisor.reply(asked))
        except ContextOverflow:
            if len(asked) == 1:
                return [Reply(text="")]
            half = len(asked) // 2
            return [*self._judged(asked[:half]), *self._judged(asked[half:])]


def read(answer: str) -> tuple[Intervention, str]:
    """Return what a supervisor's answer decides, and its reason or its tool call."""
    found = _ANSWER.search(answer)
    if found is None:
        return Intervention.UNCLEAR, ""
    if found[1]:
        return Intervention.APPROVED, ""
    if found[2]:
        return Intervention.REJECTED, found[3].strip()
    call = found[5].strip()
    if isinstance(parse(call), FormatError):
        return Intervention.UNCLEAR, ""
    return Intervention.CORRECTED, call


def _view(conversation: str) -> str:
    return f"{conversation}/supervisor"


def _asked(conversation: Conversation, reply: Reply) -> Conversation:
    """Return what the supervisor is asked: the agent's conversation as one text, and the step that it proposes."""
    told = "\n".join(f"[{m.role}]\n{m.content}" for m in conversation.messages)
    text = f"{told}\n\nThe agent wants to answer:\n{reply.text}"
    messages = (Message(role="system", content=INSTRUCTIONS), Message(role="user", content=text))
    return conversation.model_copy(update={"id": _view(conversation.id), "messages": messages, "temperature": 0.0})


def _retry(conversation: Conversation, reply: Reply, reason: str) -> Conversation:
    """Return the conversation with the rejected step and the reason, to be answered again."""
    more = (
        Message(role="assistant", content=reply.text),
        Message(role="user", content=f"A reviewer stopped this step: {reason}\nAnswer with another tool call."),
    )
    seed = conversation.seed ^ 1  # another stream than the rejected reply's
    return conversation.model_copy(update={"messages": (*conversation.messages, *more), "seed": seed})
