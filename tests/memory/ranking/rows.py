"""Evidence, methods and exposures in few words."""

from __future__ import annotations

from looper.memory.rows import Claim, Evidence, Exposure, Method, Status

SIGMA = 0.01


def method(id: str, *, effect: float | None = None, unit: str = "bpb", **fields: tuple[str, ...]) -> Method:
    claims = () if effect is None else (Claim(effect=effect, unit=unit),)
    return Method(id=id, name=id, category="", summary="", claims=claims, **fields)  # type: ignore[arg-type]


def tried(order: int, methods: str, delta: float | None, scope: str = "a/b", **fields: object) -> Evidence:
    """Delta in sigma; None is a crash."""
    known = {"sigma": SIGMA, "status": Status.OK if delta is not None else Status.CRASH, "n": 1, **fields}
    return Evidence(
        experiment=f"e{order}",
        order=order,
        methods=tuple(methods.split()),
        scope=scope,
        delta=None if delta is None else delta * SIGMA,
        **known,  # type: ignore[arg-type]
    )


def shown(order: int, subjects: str, attempted: str = "", scope: str = "a/b") -> list[Exposure]:
    return [
        Exposure(subject=name, scope=scope, order=order, attempted=name in attempted.split())
        for name in subjects.split()
    ]
