"""Several models as one: each takes whole sessions, or all vote on every turn."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from looper.actions import FormatError, parse
from looper.errors import ConfigError, ModelError
from looper.models.placed import Placed
from looper.protocols import Checked, Model
from looper.records import Conversation, Reply, Skill


class Rule(Enum):
    """How members become one model."""

    union = "union"
    """Each session has one member from its first to its last turn: the tries at a task spread over the members."""
    majority = "majority"
    """All members answer every turn; the action that most of them want is taken."""


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Several models as an option; its members are options of their own (`+model@members.a=NAME`)."""

    rule: Rule = Rule.majority
    """union: a session is one member's; majority: all vote on each turn."""

    def of(self, members: Mapping[str, Model]) -> Joined:
        """Return the ensemble of some models, in the order of their names."""
        placed = (Placed(model=members[name], place=f"members.{name}") for name in sorted(members))
        return Joined(members=tuple(placed), rule=self.rule)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Several models at work as one.

    With `union`, a session's member is drawn by the session's id: the same one in each of its turns and whenever the
    run is repeated. Whether any member solves a task is then a question of enough attempts (`attempts`), not of one
    session. With `majority`, replies count as equal if they parse to the same action; most votes win, a tie goes to
    the action wanted by the member that comes first, and replies that are no action have no vote unless all are none.
    The reply is the first one for that action. Its token counts and price are those of all members: that is what it
    cost.
    """

    members: tuple[Model, ...]
    rule: Rule

    def __post_init__(self) -> None:
        if not self.members:
            raise ConfigError(
                "an ensemble without members answers nothing; give +model@members.a=NAME +model@members.b=NAME"
            )

    def check(self) -> None:
        """Raise ConfigError if a member lacks what it needs."""
        for member in self.members:
            if isinstance(member, Checked):
                member.check()

    @property
    def id(self) -> str:
        """Identity: the rule and the members' identities, in order."""
        return f"{self.rule.value}({', '.join(member.id for member in self.members)})"

    def decisive(self) -> dict[str, Any]:
        """Return what can change a reply: the rule, and each member's kind and settings as the member tells them."""
        bare = [member.model if isinstance(member, Placed) else member for member in self.members]
        members = [[type(member).__name__, _settings(member)] for member in bare]
        return {"rule": self.rule, "members": members}

    @property
    def knows_protocol(self) -> bool:
        """Whether every member does without a manual."""
        return all(member.knows_protocol for member in self.members)

    @property
    def weights(self) -> None:
        """Several models are not trained as one."""
        return None

    def tokens(self, text: str) -> int:
        """Count a text's tokens: the count of the member that needs most."""
        return max(member.tokens(text) for member in self.members)

    def member(self, conversation: str) -> int:
        """Return the place of the member that a session belongs to (union)."""
        return int.from_bytes(hashlib.sha256(conversation.encode()).digest()[:8], "big") % len(self.members)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Answer a batch; each member is asked once, with all that is its. Raises what members raise."""
        if self.rule is Rule.majority:
            ballots = zip(*(member.reply(conversations) for member in self.members), strict=True)
            return [_elected(ballot) for ballot in ballots]
        out: dict[int, Reply] = {}
        for place, member in enumerate(self.members):
            own = [i for i, conversation in enumerate(conversations) if self.member(conversation.id) == place]
            if own:
                out |= zip(own, member.reply([conversations[i] for i in own]), strict=True)
        return [out[i] for i in range(len(conversations))]

    def with_skill(self, skill: Skill) -> Joined:
        """Return itself; raises ModelError for adapters, each of which fits one member only."""
        if skill.adapters:  # a router comes with adapters
            raise ModelError(
                f"an ensemble cannot take the adapter {skill.adapters[0].path}; choose strategy=none, or train a "
                "single model"
            )
        return self

    def forget(self, conversation: str) -> None:
        """Free what the members hold of a finished session."""
        for member in self.members:
            member.forget(conversation)


def _settings(member: Any) -> dict[str, Any]:
    found: dict[str, Any] = member.decisive() if hasattr(member, "decisive") else dataclasses.asdict(member)
    return found


def _elected(ballot: Sequence[Reply]) -> Reply:
    """Return the first reply with the most common action, and the token counts and price of all."""
    actions = [parse(reply.text) for reply in ballot]
    valid = [i for i, action in enumerate(actions) if not isinstance(action, FormatError)]
    voters = valid or list(range(len(ballot)))
    # max keeps the first of equals, and voters come in the members' order
    chosen = ballot[max(voters, key=lambda i: sum(actions[j] == actions[i] for j in voters))]
    return chosen.taking(ballot)
