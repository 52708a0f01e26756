"""The same things computed the long way: one example at a time, all logits, plain transformers and PEFT."""

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from looper.training.schedule import Precision
from looper.training.torch_trainer import TorchTrainer


def trainer(**settings):
    """A trainer that fits the adapters of the fixtures, in fp32."""
    return TorchTrainer(
        **{
            "lr": 1e-2,
            "batch": 4,
            "epochs": 1,
            "rank": 4,
            "alpha": 8,
            "held_out": 0.0,
            "precision": Precision.fp32,
            **settings,
        }
    )


def network(model, adapter=None):
    """The model, with one adapter that can be trained."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    return base if adapter is None else PeftModel.from_pretrained(base, str(adapter), is_trainable=True)


def token_logits(net, example):
    """Logits of the tokens that carry weight."""
    logits = net(torch.tensor([example.ids])).logits[0, :-1]
    return logits[[i for i, w in enumerate(example.weights[1:]) if w]]


def token_log_probs(net, example):
    """Log-probabilities of the tokens that carry weight, and the weights."""
    tokens = torch.tensor([t for t, w in zip(example.ids[1:], example.weights[1:], strict=True) if w])
    weights = torch.tensor([w for w in example.weights[1:] if w])
    return token_logits(net, example).log_softmax(-1)[torch.arange(len(tokens)), tokens], weights


def log_prob(net, example):
    """The weighted sum of the log-probabilities."""
    found, weights = token_log_probs(net, example)
    return (found * weights).sum()


def gradients(net):
    """Gradients by the names that the parameters have on disk."""
    return {name.replace(".default.weight", ".weight"): p.grad for name, p in net.named_parameters() if p.requires_grad}
