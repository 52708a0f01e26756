"""The objectives, against the same losses computed from all logits of one example after the other."""

import dataclasses

import pytest
import torch

from looper.errors import TrainingError
from looper.protocols import PolicyGradient, Preference, ProspectTheory, SelfDistillation
from looper.training.adapted import Adapted
from looper.training.batches import batches, units
from looper.training.objectives import loss_of
from looper.training.shown import shown_to_teacher, with_privileged
from looper.training.tokens import Tokenised, tokenise
from tests.training.conversations import conversation
from tests.training.plainly import gradients, log_prob, network, token_log_probs, token_logits, trainer

pytestmark = pytest.mark.usefixtures("fixed")


@pytest.fixture(scope="module")
def judged():
    """Two sessions of three tasks each, one of them good."""
    found = []
    for i in range(3):
        for label, reply in ((1.0, f"<read>main/f{i}.py</read>"), (-1.0, "<bash>ls main</bash>")):
            example = conversation(f"t{i}", [reply, "<done/>"], [1.0, 0.5])
            given = {"label": label, "group": f"g{i}", "privileged": f"Look at main/f{i}.py" if i else ""}
            found.append(example.model_copy(update=given))
    return found


def preference(o, now, start, base, sessions, shown):
    total = 0.0
    for wanted, unwanted in zip(sessions[::2], sessions[1::2], strict=True):
        margin = log_prob(now, wanted) - log_prob(start, wanted) - log_prob(now, unwanted) + log_prob(start, unwanted)
        total += -torch.log(1 / (1 + torch.exp(-o.beta * margin))) - o.sft * log_prob(now, wanted) / wanted.weight
    return total / 3


def prospect_theory(o, now, start, base, sessions, shown):
    gains, distances = [], []
    for unit in units(sessions, o, 5)[0]:
        for one, other in zip(unit, [*unit[1:], unit[0]], strict=True):
            prompt = next(i for i, w in enumerate(one.weights) if w)
            answer = next(i for i, w in enumerate(other.weights) if w)
            mixed = Tokenised(
                task="",
                ids=one.ids[:prompt] + other.ids[answer:],
                weights=one.weights[:prompt] + other.weights[answer:],
            )
            distances.append((log_prob(now, mixed) - log_prob(start, mixed)).detach())
            gains.append((one.label, log_prob(now, one) - log_prob(start, one)))
    z = max(0.0, float(sum(distances)) / len(distances))
    return sum(
        o.desirable * (1 - torch.sigmoid(o.beta * (gain - z)))
        if label > 0
        else o.undesirable * (1 - torch.sigmoid(o.beta * (z - gain)))
        for label, gain in gains
    ) / len(gains)


def self_distillation(o, now, start, base, sessions, shown):
    total = mass = 0.0
    for session in sessions:
        teacher = (token_logits(base, shown[session.index]) / o.temperature).softmax(-1).detach()
        student = (token_logits(now, session) / o.temperature).softmax(-1)
        weights = torch.tensor([w for w in session.weights if w])
        total += ((teacher * (teacher / student).log()).sum(-1) * weights).sum()
        mass += float(weights.sum())
    return total / mass


def policy_gradient(o, now, start, base, sessions, shown):
    groups = []
    for pair in zip(sessions[::2], sessions[1::2], strict=True):
        total = mass = 0.0
        for session in pair:
            (new, weights), (old, _), (anchor, _) = (token_log_probs(net, session) for net in (now, start, base))
            ratio = torch.exp(new - old.detach())
            gain = torch.minimum(ratio * session.label, ratio.clamp(1 - o.clip, 1 + o.clip) * session.label)
            gap = anchor.detach() - new
            total += ((-gain + o.beta * (torch.exp(gap) - gap - 1)) * weights).sum()
            mass += float(weights.sum())
        groups.append(total / mass)
    return sum(groups) / len(groups)


@pytest.mark.parametrize("limit", [4096, 80], ids=["at_once", "in_parts"])
@pytest.mark.parametrize(
    ("objective", "plainly"),
    [
        (Preference(beta=0.3, sft=0.2), preference),
        (ProspectTheory(beta=0.3, desirable=1.0, undesirable=0.7), prospect_theory),
        (SelfDistillation(temperature=1.5), self_distillation),
        (PolicyGradient(clip=0.2, beta=0.1), policy_gradient),
    ],
    ids=lambda value: type(value).__name__ if dataclasses.is_dataclass(value) else "",
)
def test_loss_and_gradient_are_those_of_the_formula(objective, plainly, limit, judged, model, adapters, tmp_path):
    sessions, shown, _ = shown_to_teacher(model, judged)
    adapted = Adapted(trainer(batch_tokens=limit), model, 200)
    parameters = adapted.attach(adapters[0])
    together, _ = units(sessions, objective, 5)
    loss = loss_of(objective, adapted, together, shown)
    random = torch.Generator().manual_seed(1)
    for parameter in parameters:  # away from the start
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=random))
    adapted.save(tmp_path)
    value = 0.0
    for part in loss.parts(together, together):
        part.backward()
        value += float(part.detach())
    now, start, base = network(model, tmp_path), network(model, adapters[0]), network(model)
    expected = plainly(objective, now, start, base, sessions, shown)
    expected.backward()
    assert value == pytest.approx(float(expected.detach()), rel=1e-4)
    wanted = gradients(now)
    for name, parameter in adapted.named().items():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=2e-3, atol=2e-5)


def test_what_is_compared_shares_every_batch(judged, model):
    sessions = tokenise(model, judged)
    pairs, alone = units(sessions[:-1], Preference(beta=0.1), 0)
    assert [[e.label for e in pair] for pair in pairs] == [[1.0, -1.0]] * 2
    assert all(a.group == b.group for a, b in pairs) and alone == {"no counterpart in its pair": 1}
    assert sorted(len(batch) for batch in batches(pairs, 2, 0, 0)) == [1, 1]
    more = [*sessions, *(dataclasses.replace(e, index=e.index + 6) for e in sessions if e.label < 0)]
    mixed, _ = units(more, ProspectTheory(beta=0.1), 0)
    assert [len(unit) for unit in mixed] == [3, 3, 3]
    assert all({e.label for e in unit} == {1.0, -1.0} for unit in mixed)
    groups, _ = units(more, PolicyGradient(), 0)
    assert [len(group) for group in groups] == [3, 3, 3]


def test_labels_that_cannot_be_used_are_named(judged, model):
    sessions = tokenise(model, judged)
    with pytest.raises(TrainingError, match="hold no preference pair"):
        units(sessions[::2], Preference(beta=0.1), 0)
    with pytest.raises(TrainingError, match="have one label"):
        units(sessions[::2], ProspectTheory(beta=0.1), 0)
    with pytest.raises(TrainingError, match=r"has label 0\.3; preference takes 1"):
        units([dataclasses.replace(sessions[0], label=0.3)], Preference(beta=0.1), 0)


def test_the_privileged_text_is_shown_before_the_first_user_message(judged):
    shown = with_privileged(judged[2])
    assert shown.messages[1].content == "Look at main/f1.py\nIssue: t1 is wrong"
    assert (shown.messages[0], *shown.messages[2:]) == (judged[2].messages[0], *judged[2].messages[2:])


def test_a_fit_with_preferences_widens_the_margin(judged, model, adapters, tmp_path):
    objective = Preference(beta=0.5)
    fit = trainer(lr=2e-3, epochs=3, batch=2).fit(
        model, judged, start=adapters[0], out=tmp_path / "dpo", seed=0, objective=objective
    )
    curve = [row["train_loss"] for row in fit.history]
    assert curve[0] <= 0.7 and curve[-1] < curve[0] - 0.1
    before, after = (trainer().losses(model, judged, [path]) for path in (adapters[0], fit.adapter))
    moved = [a - b for a, b in zip(after, before, strict=True)]
    assert sum(moved[1::2]) > sum(moved[::2])


@pytest.mark.parametrize("objective", [Preference(beta=0.5), ProspectTheory(beta=0.5), SelfDistillation()])
def test_held_out_tasks_are_judged_by_the_objective(objective, judged, model, tmp_path):
    limits = {"held_out": 0.3, "held_out_min_tasks": 2, "batch_tokens": 80}
    fit = trainer(epochs=2, **limits).fit(model, judged, start=None, out=tmp_path / "a", seed=0, objective=objective)
    assert 0.0 < fit.held_out_loss == min(row["held_out_loss"] for row in fit.history)
