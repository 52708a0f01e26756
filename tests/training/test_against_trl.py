"""A second opinion: TRL's trainers, given the same policy, start and tokens, compute the same losses."""

from itertools import chain

import pytest
import torch

from looper.protocols import Preference, ProspectTheory
from looper.training.adapted import Adapted
from looper.training.batches import units
from looper.training.objectives import loss_of
from looper.training.tokens import tokenise
from tests.training.conversations import conversation
from tests.training.plainly import network, trainer

pytest.importorskip("trl")

pytestmark = [pytest.mark.usefixtures("fixed"), pytest.mark.filterwarnings("ignore")]  # TRL's, which are not ours


@pytest.fixture(scope="module")
def judged():
    """A good and a bad session of three tasks each; every supervised token counts the same, as in TRL."""
    found = []
    for i in range(3):
        for label, reply in ((1.0, f"<read>main/f{i}.py</read>"), (-1.0, "<bash>ls main; ls</bash>")):
            example = conversation(f"t{i}", [reply, "<done/>"])
            found.append(example.model_copy(update={"label": label, "group": f"g{i}"}))
    return found


def ours(objective, model, adapters, sessions, out):
    """The loss of a policy away from its start, and the policy's folder."""
    adapted = Adapted(trainer(), model, 200)
    parameters = adapted.attach(adapters[0])
    together, _ = units(sessions, objective, 5)
    loss = loss_of(objective, adapted, together, {})
    random = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=random))
    adapted.save(out)
    return sum(float(part.detach()) for part in loss.parts(together, together)), together, loss


def merged(model, adapter):
    return network(model, adapter).merge_and_unload()


def padded(examples, prefix=""):
    """Tokens and masks (N, T) under TRL's names."""
    longest = max(len(e.ids) for e in examples)

    def rows(values):
        return torch.tensor([[*found, *([0] * (longest - len(found)))] for found in values])

    return {
        f"{prefix}input_ids": rows([e.ids for e in examples]),
        f"{prefix}attention_mask": rows([[1] * len(e.ids) for e in examples]),
        f"{prefix}completion_mask": rows([[int(w > 0) for w in e.weights] for e in examples]),
    }


def judge(kind, config, policy, start, model, out, columns):
    """A trainer of TRL around the policy; its data set only has to be there."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(model))
    arguments = config(
        output_dir=str(out),
        beta=0.3,
        use_cpu=True,
        bf16=False,
        report_to=[],
        gradient_checkpointing=False,
        max_length=None,
    )
    rows = Dataset.from_dict(columns)
    return kind(model=policy, ref_model=start, args=arguments, train_dataset=rows, processing_class=tokenizer)


def test_preference_pairs_have_the_loss_that_trl_gives_them(judged, model, adapters, tmp_path):
    from trl import DPOConfig, DPOTrainer

    sessions = tokenise(model, judged)
    value, together, _ = ours(Preference(beta=0.3), model, adapters, sessions, tmp_path / "now")
    policy, start = merged(model, tmp_path / "now"), merged(model, adapters[0])
    columns = {"prompt": ["a"] * 4, "chosen": ["b"] * 4, "rejected": ["c"] * 4}
    theirs = judge(DPOTrainer, DPOConfig, policy, start, model, tmp_path / "trl", columns)
    batch = padded([pair[0] for pair in together] + [pair[1] for pair in together])
    theirs.model.train()
    assert value == pytest.approx(float(theirs.compute_loss(theirs.model, batch)), rel=1e-4)
    assert abs(value - 0.6931) > 0.01, "the policy is not where it started"


def test_labelled_sessions_have_the_loss_that_trl_gives_them(judged, model, adapters, tmp_path):
    kto = pytest.importorskip("trl.experimental.kto")
    sessions = tokenise(model, judged)
    objective = ProspectTheory(beta=0.3, desirable=1.0, undesirable=0.7)
    value, together, loss = ours(objective, model, adapters, sessions, tmp_path / "now")
    policy, start = merged(model, tmp_path / "now"), merged(model, adapters[0])
    columns = {"prompt": ["a"] * 4, "completion": list("bcde"), "label": [True, False] * 2}
    theirs = judge(kto.KTOTrainer, kto.KTOConfig, policy, start, model, tmp_path / "trl", columns)
    theirs.undesirable_weight = 0.7
    examples = list(chain.from_iterable(together))
    batch = padded(examples) | padded([loss.mismatched[e.index] for e in examples], "KL_")
    batch["label"] = torch.tensor([e.label > 0 for e in examples])
    theirs.model.train()
    found = float(theirs.compute_loss(theirs.model, batch))
    assert value == pytest.approx(found, rel=1e-4)
    assert float(loss.point(together)) > 0.0, "the reference point plays a part"
