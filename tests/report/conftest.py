"""A made-up run: outcomes, episodes and metrics with every feature that a report shows."""

import random

import pytest

from looper.metrics.outcomes import Outcome
from looper.metrics.summary import summarise
from looper.records import Episode, Exit, Message, Step, Trajectory, Verdict

CHANCE = {
    "conventions": {"base": 0.45, "adapted": 0.9, "placebo": 0.47},
    "unlearnable": {"base": 0.5, "adapted": 0.5, "placebo": 0.48},
    "natural": {"base": 0.4, "adapted": 0.45, "placebo": 0.4},
    "seen": {"base": 0.9, "adapted": 0.85, "placebo": 0.9},
}
PATCH = """\
diff --git a/box.py b/box.py
--- a/box.py
+++ b/box.py
@@ -1,2 +1,2 @@
 def f(x):
-    return x
+    return x + 1
"""


def make_episode(task, family, world, arm, resolved, *, exit=Exit.DONE, hostile=""):
    steps = (
        Step(
            reply='<bash>grep -rn "def f" .</bash>',
            action="bash",
            observation="./box.py:1:def f(x):" + hostile,
            prompt_tokens=90,
            completion_tokens=14,
        ),
        Step(
            reply='<edit path="box.py">    return y\n=======\n    return x + 1</edit>',
            action="edit",
            observation="error: the old text is not in box.py",
            ok=False,
            completion_tokens=22,
        ),
        Step(
            reply='<edit path="box.py">    return x\n=======\n    return x + 1</edit>',
            action="edit",
            observation="edited box.py",
            completion_tokens=22,
        ),
        Step(reply="<done/>", action="done", completion_tokens=4),
    )
    messages = [
        Message(role="system", content="You repair Python."),
        Message(role="user", content="Issue: f is off by one" + hostile),
    ]
    for step in steps:
        messages += [
            Message(role="assistant", content=step.reply),
            Message(role="user", content=step.observation or "ok"),
        ]
    trajectory = Trajectory(
        digest=f"{arm}-{task}-{world}",
        task=task,
        messages=tuple(messages),
        steps=steps,
        patch=PATCH,
        exit=exit,
        error="the model did not answer" if exit is Exit.ERROR else "",
        seconds=0.43,
    )
    return Episode(
        digest=f"{arm}-{task}-{world}",
        task=task,
        family=family,
        world=world,
        pair=task.replace(f"/{world}/", "/"),
        trajectory=trajectory,
        verdict=Verdict(resolved=resolved, fail_to_pass={"test_f": resolved}, pass_to_pass={"test_g": True}),
    )


def make_sessions(count=40, arms=("base", "adapted", "placebo"), families=tuple(CHANCE), seed=3):
    rng = random.Random(seed)
    sessions = []
    for family in families:
        for i in range(count):
            for world in ("main", "backup") if family == "conventions" else ("",):
                luck = rng.random()
                for arm in arms:
                    # Arms share most of their luck, as greedy sessions of nearly the same weights do.
                    luck = luck if rng.random() < 0.8 else rng.random()
                    task = f"bugs/{family}/{world}/{i:04d}" if world else f"bugs/{family}/{i:04d}"
                    exit = Exit.ERROR if (family, i, arm) == ("natural", 7, "adapted") else Exit.DONE
                    resolved = luck < CHANCE[family][arm] and exit is Exit.DONE
                    episode = make_episode(task, family, world, arm, resolved, exit=exit)
                    sessions.append((arm, 0 if arm == "base" else 1, episode))
    return sessions


def make_metrics(sessions, primary="conventions"):
    outcomes = [
        Outcome.of(episode, arm=arm, stage=stage, leakage=0.1 if episode.task.endswith("3") else 0.0)
        for arm, stage, episode in sessions
    ]
    history = [{"step": s, "train_loss": 1.2 * 0.9**s, "held_out_loss": 1.3 * 0.92**s} for s in range(0, 40, 2)]
    step = {"world": "", "stage": 1, "examples": 31, "available": 33, "tasks": 24, "train_loss": 0.02}
    present = {arm for arm, _, _ in sessions}
    learning = {arm: [dict(step)] for arm in ("adapted", "placebo") if arm in present}
    if learning:
        learning["adapted"][0]["history"] = history
    return summarise(outcomes, primary=primary, learning=learning)


@pytest.fixture(scope="session")
def sessions():
    return make_sessions()


@pytest.fixture(scope="session")
def metrics(sessions):
    return make_metrics(sessions)


@pytest.fixture(scope="session")
def base_only():
    return make_metrics(make_sessions(count=5, arms=("base",), families=("natural",)), primary="natural")


@pytest.fixture(scope="session")
def no_placebo():
    return make_metrics(make_sessions(arms=("base", "adapted"), families=("natural",)), primary="natural")


@pytest.fixture(name="make_episode", scope="session")
def make_episode_fixture():
    return make_episode
