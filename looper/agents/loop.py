"""The agent loop: ask the model, carry out its action, show it what happened, until it is done."""

from __future__ import annotations

import hashlib
import time
import traceback
from dataclasses import dataclass, field

from looper.actions import Bash, Done, FormatError, count_calls, parse
from looper.agents.loops import LoopDetector
from looper.agents.prompt import Prompt
from looper.agents.pruning import Pruner
from looper.agents.tools import Outcome, perform
from looper.chat import first_message
from looper.errors import ContextOverflow, LooperError, MachineError, StoreError
from looper.protocols import Box, Model
from looper.records import Conversation, Exit, Message, Recall, Reply, Skill, Step, Task, Trajectory

FORMAT_ERRORS = 3
"""So many replies in a row that are no action end a session."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a session may use up."""

    steps: int = 15
    """Turns of the agent."""
    tokens: int = 4000
    """Tokens that the agent may generate in all."""
    reply_tokens: int = 512
    """Tokens of one reply."""
    context: int = 1800
    """Tokens of conversation from which old tool results are left out (with `prompt.prune`)."""
    command_seconds: float = 60.0
    """Time limit of one command."""
    seconds: float = 900.0
    """Safety net for a whole session; its firing is an infrastructure error, not the agent's failure."""

    def __post_init__(self) -> None:
        """Refuse budgets that leave no room for a single step."""
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"budget.{name} must be positive, not {value}")

    def identity(self) -> dict[str, float]:
        """Return what decides a session's course: all but the safety net."""
        return {k: v for k, v in vars(self).items() if k != "seconds"}


@dataclass(kw_only=True)
class _Session:
    """The state of one session while it runs."""

    messages: list[Message]
    steps: list[Step] = field(default_factory=list)
    exit: Exit | None = None
    error: str = ""
    format_errors: int = 0
    used: int = 0


@dataclass(frozen=True, kw_only=True)
class Agent:
    """One agent: a prompt and a budget; the same for every model and every kind of task."""

    prompt: Prompt
    budget: Budget

    def identity(self) -> dict[str, object]:
        """Return what decides a session's course on the agent's side."""
        return {"prompt": self.prompt.switches(), "budget": self.budget.identity()}

    def opening(self, task: Task, recall: Recall, *, terse: bool, playbook: str = "") -> list[Message]:
        """Return the messages that a session starts with."""
        return [
            Message(role="system", content=self.prompt.system(terse=terse, playbook=playbook)),
            Message(role="user", content=first_message(task.issue, recall)),
        ]

    def run(
        self,
        task: Task,
        box: Box,
        model: Model,
        *,
        recall: Recall,
        skill: Skill,
        digest: str,
        draws: str = "",
        attempt: int = 0,
        temperature: float = 0.0,
    ) -> Trajectory:
        """Run one session in an open box; the diff is taken whatever the exit.

        `digest` names the session, and its random draws hang on `draws`, by default the same.
        What goes wrong outside of the agent ends the session as an error; only a store or a machine that cannot
        go on at all (StoreError, MachineError) is raised.
        """
        started = time.monotonic()
        session = _Session(messages=self.opening(task, recall, terse=model.knows_protocol, playbook=skill.playbook))
        try:
            self._converse(session, box, model, digest, draws or digest, temperature, started)
        except (StoreError, MachineError):
            raise
        except Exception as error:
            session.exit = Exit.ERROR
            session.error = str(error) if isinstance(error, LooperError) else traceback.format_exc()[-4000:]
        model.forget(digest)
        return Trajectory(
            digest=digest,
            task=task.id,
            attempt=attempt,
            messages=tuple(session.messages),
            steps=tuple(session.steps),
            patch=box.diff(),
            exit=session.exit or Exit.ERROR,
            error=session.error,
            seconds=time.monotonic() - started,
        )

    def _converse(
        self, session: _Session, box: Box, model: Model, digest: str, draws: str, temperature: float, started: float
    ) -> None:
        """Let the model act until the session has an exit."""
        pruner = Pruner(self.budget.context, model.tokens)
        loops = LoopDetector()
        cuts = 0
        while session.exit is None:
            view = pruner.view(session.messages) if self.prompt.prune else tuple(session.messages)
            if pruner.cuts > cuts:  # what was left out may be read again
                cuts = pruner.cuts
                loops.forget_reads()
            reply = self._ask(model, view, session, digest, draws, temperature)
            if reply is None:
                return
            self._act(reply, box, session, loops, pruned=self.prompt.prune and pruner.active)
            if session.exit is None and time.monotonic() - started > self.budget.seconds:
                session.exit = Exit.SECONDS

    def _ask(
        self, model: Model, view: tuple[Message, ...], session: _Session, digest: str, draws: str, temperature: float
    ) -> Reply | None:
        """Return the model's next reply; None if the conversation no longer fits the model."""
        conversation = Conversation(
            id=digest,
            messages=view,
            seed=_seed(draws, len(session.steps)),
            temperature=temperature,
            max_tokens=min(self.budget.reply_tokens, self.budget.tokens - session.used),
        )
        try:
            (reply,) = model.reply([conversation])
        except ContextOverflow:
            session.exit = Exit.TOKENS
            return None
        session.used += reply.completion_tokens
        return reply

    def _act(self, reply: Reply, box: Box, session: _Session, loops: LoopDetector, *, pruned: bool) -> None:
        action = parse(reply.text)
        calls = count_calls(reply.text)
        if reply.finish == "length" and isinstance(action, Bash) and "</bash>" not in reply.text.lower():
            action = FormatError(reason="the reply was cut off before </bash>")  # half a command is not run
        if isinstance(action, FormatError):
            session.format_errors += 1
            outcome = Outcome(observation=f"Format error: {action.reason}. Answer with one tool call.", ok=False)
        else:
            session.format_errors = 0
            advice = loops.before(action) if self.prompt.loop_detection else ""
            if advice:
                outcome = Outcome(observation=advice, ok=False)
            else:
                outcome = perform(action, box, self.prompt, seconds=self.budget.command_seconds)
                loops.after(action, outcome)
            if calls > 1 and not isinstance(action, Done):
                text = f"{outcome.observation}\n[only the first of {calls} tool calls was run]"
                outcome = Outcome(observation=text, ok=outcome.ok, changed=outcome.changed)
        session.steps.append(
            Step(
                reply=reply.text,
                action=action.kind,
                observation=outcome.observation,
                ok=outcome.ok,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                metered=reply.metered,
                cost=reply.cost,
                calls=calls,
                cut=reply.finish == "length",
                pruned=pruned,
                intervention=reply.intervention,
            )
        )
        session.messages.append(Message(role="assistant", content=reply.text))
        session.exit = self._exit(action.kind, session, loops)
        if session.exit is not Exit.DONE:
            session.messages.append(Message(role="user", content=outcome.observation))

    def _exit(self, kind: str, session: _Session, loops: LoopDetector) -> Exit | None:
        if kind == Done.kind:
            return Exit.DONE
        if session.format_errors >= FORMAT_ERRORS:
            return Exit.FORMAT
        if self.prompt.loop_detection and loops.given_up:
            return Exit.LOOP
        if session.used >= self.budget.tokens:
            return Exit.TOKENS
        if len(session.steps) >= self.budget.steps:
            return Exit.STEPS
        return None


def _seed(draws: str, turn: int) -> int:
    """Return the seed of one reply: a function of the session and the turn alone."""
    return int.from_bytes(hashlib.sha256(f"{draws}/{turn}".encode()).digest()[:7], "big")
