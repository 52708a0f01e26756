"""The engine computes what transformers computes, and its replies depend on nothing but their conversation."""

import random

import pytest
import torch

from looper.errors import ModelError
from looper.models.nano import weights
from looper.models.nano.cache import Pool
from looper.models.nano.engine import Engine
from looper.models.nano.network import PAGE, Network
from looper.models.nano.product import Product
from looper.models.nano.rows import Job, Rows
from looper.models.nano.tiles import prefill
from looper.models.nano.tokenizer import load_tokenizer
from looper.records import Conversation, Message

WORDS = "baco digu neha kilo mune pora sito vu return if x".split()


def engine(folder, width=16):
    shape, tensors = weights.read(folder)
    return Engine(weights.arrange(shape, tensors), load_tokenizer(folder), width=width)


@pytest.fixture(scope="module")
def conversations():
    stream = random.Random(3)
    out = []
    for i in range(40):
        user = " ".join(stream.choices(WORDS, k=stream.randint(3, 90)))
        messages = (Message(role="system", content="Fix it."), Message(role="user", content=user))
        out.append(
            Conversation(
                id=f"c{i}", messages=messages, seed=i, temperature=float(i % 2), max_tokens=stream.randint(3, 25)
            )
        )
    return out


def further(conversation, text):
    stream = random.Random(text + conversation.id)
    told = " ".join(stream.choices(WORDS, k=stream.randint(3, 25)))
    more = (Message(role="assistant", content=text), Message(role="user", content=told))
    return conversation.model_copy(update={"messages": conversation.messages + more, "seed": conversation.seed + 100})


def play(folder, conversations, *, batch, shuffled=False, cached=True, turns=3):
    """Play whole sessions and return every text, and how many prompt tokens were computed."""
    runs, now = engine(folder), {c.id: c for c in conversations}
    said, computed, stream = {c.id: [] for c in conversations}, 0, random.Random(batch)
    for _ in range(turns):
        order = list(now)
        if shuffled:
            stream.shuffle(order)
        for start in range(0, len(order), batch):
            group = [now[i] for i in order[start : start + batch]]
            for conversation, reply in zip(group, runs.reply(group), strict=True):
                said[conversation.id].append((reply.text, reply.completion_tokens, reply.finish))
                computed += reply.prompt_tokens - reply.cached_tokens
                now[conversation.id] = further(conversation, reply.text)
                if not cached:
                    runs.forget(conversation.id)
    return said, computed


def test_replies_do_not_depend_on_company_or_cache(tiny, conversations):
    alone, computed = play(tiny, conversations, batch=1)
    assert len({text for turns in alone.values() for text, _, _ in turns}) > 60
    for batch, shuffled in ((7, True), (16, False), (40, True)):
        assert play(tiny, conversations, batch=batch, shuffled=shuffled)[0] == alone, (batch, shuffled)
    afresh, everything = play(tiny, conversations, batch=40, cached=False)
    assert afresh == alone
    assert computed < 0.6 * everything


def test_logits_are_the_same_bits_in_any_company(tiny):
    """What is compared above is text; here are the bits behind it, in rows of very different lengths."""
    shape, tensors = weights.read(tiny)
    network = Network(weights.arrange(shape, tensors))
    stream = random.Random(4)
    prompts = [[stream.randrange(400) for _ in range(n)] for n in (5, 40, 127, 128, 129, 200, 300, 450)]
    seen = []
    for order in ([[i] for i in range(8)], [list(range(8))], [[7, 0, 3], [6, 2, 5, 1, 4]]):
        bits = {}
        for group in order:
            with torch.inference_mode():
                bits |= _logits(network, {i: prompts[i] for i in group}, stream)
        seen.append(bits)
    for other in seen[1:]:
        assert all(torch.equal(other[i], seen[0][i]) for i in range(8))


def _logits(network, prompts, stream):
    pool, rows, caught = Pool(network.shape, 64), Rows(network, 8), []
    jobs = []
    for i, ids in prompts.items():
        job = Job(i, Conversation(id=str(i), messages=()), ids, held=pool.take(str(i)))
        pool.resize(job.held, len(ids) - 1, ())
        jobs.append(job)
    prefill(network, pool, [(job.held, job.prompt[:-1]) for job in jobs])
    stream.shuffle(jobs)
    for job in jobs:
        rows.admit(job, pool)
    rows._choose = lambda logits: caught.append(logits) or [7] * 8
    for _ in range(3):
        rows.step()
    return {job.index: torch.stack([step[row] for step in caught]) for row, job in enumerate(jobs)}


def test_logits_are_those_of_transformers(tiny):
    from transformers import Qwen2ForCausalLM

    reference = Qwen2ForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    shape, tensors = weights.read(tiny)
    network = Network(weights.arrange(shape, tensors))
    stream = random.Random(5)
    ids = [stream.randrange(400) for _ in range(PAGE + 40)]
    with torch.inference_mode():
        ours = _logits(network, {0: ids}, stream)[0]
        theirs = reference(torch.tensor([[*ids, 7, 7]])).logits[0, -3:]
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max().clamp(min=1)


def test_a_product_is_the_same_with_and_without_onednn():
    stream = torch.Generator().manual_seed(0)
    matrix, bias, x, other = (torch.randn(*size, generator=stream) for size in ((48, 32), (48,), (16, 32), (16, 48)))
    plain, default = Product(matrix, bias, onednn=False), Product(matrix, bias)
    assert torch.allclose(plain(x), x @ matrix.t() + bias, atol=1e-5)
    assert torch.allclose(default(x), plain(x), atol=1e-5)
    assert torch.allclose(default.added(x, other), plain.added(x, other), atol=1e-5)
    order = torch.randperm(16, generator=stream)
    assert torch.equal(default(x[order]), default(x)[order]) and torch.equal(plain(x[order]), plain(x)[order])


def test_greedy_needs_no_seed_and_sampling_does(tiny, conversations):
    runs = engine(tiny)
    cold, warm = conversations[0], conversations[1].model_copy(update={"max_tokens": 25})
    seeds = [c.model_copy(update={"seed": s, "id": f"s{s}{c.id}"}) for c in (cold, warm) for s in range(3)]
    texts = [reply.text for reply in runs.reply(seeds)]
    assert len(set(texts[:3])) == 1
    assert len(set(texts[3:])) == 3


def test_counts_and_limits(tiny, conversations):
    runs = engine(tiny, width=4)
    one = conversations[0].model_copy(update={"max_tokens": 5})
    first, again = runs.reply([one])[0], runs.reply([one])[0]
    assert first.text == again.text and first.completion_tokens <= 5
    assert first.prompt_tokens == again.prompt_tokens == again.cached_tokens + 1
    assert first.cached_tokens == 0
    sibling = runs.reply([one.model_copy(update={"id": "sibling"})])[0]
    assert sibling.text == first.text
    assert 5 < sibling.cached_tokens < first.prompt_tokens  # the shared system prompt
    twice = runs.reply([one, one])
    assert [reply.text for reply in twice] == [first.text] * 2
    assert runs.reply([]) == []


def test_a_prompt_over_the_limit_names_both_numbers(tiny):
    runs = engine(tiny)
    long = Conversation(id="long", messages=(Message(role="user", content="1" * 600),))
    with pytest.raises(ModelError, match=r"'long' has a prompt of 6\d\d tokens.* 512 "):
        runs.reply([long])
    edge = Conversation(id="edge", messages=(Message(role="user", content="1" * 490),), temperature=1.0, max_tokens=99)
    reply = runs.reply([edge])[0]
    assert reply.prompt_tokens + reply.completion_tokens <= 512 + 1


def test_a_full_pool_evicts_and_changes_nothing(tiny, conversations):
    runs, roomy = engine(tiny, width=2), engine(tiny, width=2)
    runs._pool._limit = 4
    for _ in range(2):
        assert runs.reply(conversations[:9]) is not None
    assert [r.text for r in runs.reply(conversations[:9])] == [r.text for r in roomy.reply(conversations[:9])]
    assert runs._pool.keys.shape[1] == 4


def test_the_thread_count_is_left_alone(tiny, conversations):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engine(tiny).reply(conversations[:1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
