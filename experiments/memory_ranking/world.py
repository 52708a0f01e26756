"""Simulated campaigns: methods with planted effects, an agent that picks from what it is shown, noisy measurements."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from looper.memory.rows import Claim, Evidence, Exposure, Method, Scope, Status

TARGET: Scope = "gpt/cpu/depth4"
OTHERS: tuple[Scope, ...] = ("gpt/cpu/depth2", "gpt/h100/depth4", "gpt/h100/depth8")
SIGMA = 0.0065
"""Noise of one measurement; effects below are in multiples of it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How hard the world is."""

    methods: int = 28
    steps: int = 30
    history: int = 60
    """Experiments of earlier campaigns, all in other scopes."""
    flip: float = 0.3
    """Share of methods whose effect has the other sign on the other device."""
    drift: float = 0.25
    """Share of methods whose effect was another one in the first half of the history."""
    crashing: float = 0.2
    """Share of methods that crash on the target's device in 60 % of their runs (others: 2 %)."""
    unwilling: float = 0.2
    """Share of methods that the agent never takes up, whatever is shown."""
    pack: int = 5
    """Methods shown at a time."""
    bundled: float = 0.2
    """Share of the history's experiments that held two methods."""


@dataclass(frozen=True)
class World:
    """What is true, and what is known before the campaign begins."""

    setting: Setting
    seed: int
    methods: tuple[Method, ...]
    effects: Mapping[str, float]
    """True improvement in the target's scope, in sigma."""
    crashes: Mapping[str, float]
    unwilling: frozenset[str]
    relevance: Mapping[str, float]
    """What a text search makes of the methods: weakly related to the truth."""
    history: tuple[Evidence, ...]


def world_of(setting: Setting, seed: int) -> World:
    """Plant a world."""
    luck = random.Random(f"world {seed}")
    names = [f"m{number:02}" for number in range(setting.methods)]
    root = {name: _effect(luck) for name in names}
    old = {name: _effect(luck) if luck.random() < setting.drift else root[name] for name in names}
    flipped = {name for name in names if luck.random() < setting.flip}
    nudge = {(name, scope): luck.gauss(0.0, 0.5) for name in names for scope in (TARGET, *OTHERS)}
    crashing = {name for name in names if luck.random() < setting.crashing}

    def effect(base: Mapping[str, float], name: str, scope: Scope) -> float:
        sign = -1.0 if name in flipped and "/h100/" in scope else 1.0
        return sign * base[name] + nudge[name, scope]

    def risk(name: str, scope: Scope) -> float:
        return 0.6 if name in crashing and "/cpu/" in scope else 0.02

    history = []
    for order in range(setting.history):
        scope = luck.choice(OTHERS)
        tried = tuple(luck.sample(names, 2 if luck.random() < setting.bundled else 1))
        base = old if order < setting.history / 2 else root
        failed = luck.random() < 1.0 - math.prod(1.0 - risk(name, scope) for name in tried)
        true = sum(effect(base, name, scope) for name in tried)
        history.append(_evidence(order, tried, scope, None if failed else true + luck.gauss(0.0, 1.0)))
    effects = {name: effect(root, name, TARGET) for name in names}
    return World(
        setting=setting,
        seed=seed,
        methods=tuple(_method(name, root[name], luck) for name in names),
        effects=effects,
        crashes={name: risk(name, TARGET) for name in names},
        unwilling=frozenset(name for name in names if luck.random() < setting.unwilling),
        relevance={name: math.exp(0.3 * effects[name] / 2.0 + luck.gauss(0.0, 1.0)) for name in names},
        history=tuple(history),
    )


def _effect(luck: random.Random) -> float:
    """Most changes do next to nothing, some hurt, a few help."""
    kind = luck.random()
    if kind < 0.6:
        return luck.gauss(-0.3, 0.5)
    return luck.gauss(3.0, 1.5) if kind < 0.8 else luck.gauss(-3.0, 1.5)


def _method(name: str, effect: float, luck: random.Random) -> Method:
    """Two of three methods have a claim; its sign is right in two of three, its size is of another scale."""
    claims: tuple[Claim, ...] = ()
    if luck.random() < 2 / 3:
        right = effect if luck.random() < 2 / 3 else -effect
        unit = "bpb" if luck.random() < 0.5 else "percent"
        claims = (Claim(effect=-right * SIGMA * math.exp(luck.gauss(0.5, 0.7)), unit=unit),)
    return Method(id=name, name=name, category="", summary="", claims=claims)


def _evidence(order: int, methods: tuple[str, ...], scope: Scope, value: float | None) -> Evidence:
    return Evidence(
        experiment=f"e{order}",
        order=order,
        methods=methods,
        scope=scope,
        status=Status.CRASH if value is None else Status.OK,
        delta=None if value is None else value * SIGMA,
        sigma=SIGMA,
    )


@dataclass
class Campaign:
    """A campaign under way: what has been measured, shown and kept."""

    world: World
    evidence: list[Evidence] = field(default_factory=list)
    exposures: list[Exposure] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    since: int = 0
    gains: list[float] = field(default_factory=list)
    """True improvement kept so far, after each step."""
    crashed: int = 0
    idle: int = 0
    """Steps in which the agent took up nothing that it was shown."""

    def __post_init__(self) -> None:
        self.evidence = list(self.world.history)

    @property
    def left(self) -> list[str]:
        return [m.id for m in self.world.methods if m.id not in self.kept]

    def local(self) -> list[Evidence]:
        """Return what this campaign itself has measured."""
        return self.evidence[len(self.world.history) :]

    def step(self, shown: Sequence[str]) -> None:
        """Let the agent take up the first method that it is willing to, measure it, and keep it if it is beyond noise.

        A method that was tried before is judged by all its runs in this campaign. The n-th run of a method has the same
        luck under every policy, so that policies are compared on common random numbers.
        """
        order = len(self.evidence)
        picked = next((name for name in shown if name not in self.world.unwilling), None)
        self.exposures += [
            Exposure(subject=name, scope=TARGET, order=order, attempted=name == picked) for name in shown
        ]
        if picked is None:
            self.idle += 1
        else:
            self._try(picked, order)
        self.gains.append(sum(self.world.effects[name] for name in self.kept))

    def _try(self, name: str, order: int) -> None:
        runs = [e for e in self.local() if name in e.methods]
        luck = random.Random(f"run {self.world.seed} {name} {len(runs)}")
        failed = luck.random() < self.world.crashes[name]
        value = self.world.effects[name] + luck.gauss(0.0, 1.0)
        self.evidence.append(_evidence(order, (name,), TARGET, None if failed else value))
        self.crashed += failed
        deltas = [e.delta / SIGMA for e in (*runs, self.evidence[-1]) if e.delta is not None]
        if not failed and sum(deltas) / len(deltas) > 2.0 / math.sqrt(len(deltas)):
            self.kept.append(name)
            self.since = len(self.evidence)


def oracle(world: World) -> list[float]:
    """Return the gains of one who knows all effects and is lucky: the best method that is left, at every step."""
    usable = sorted((e for name, e in world.effects.items() if name not in world.unwilling and e > 0.0), reverse=True)
    usable = usable[: world.setting.steps]
    path = [sum(usable[: n + 1]) for n in range(len(usable))]
    return path + [path[-1] if path else 0.0] * (world.setting.steps - len(path))
