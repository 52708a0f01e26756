"""Ollama's own client against a server in this process that speaks the parts of its protocol that looper uses."""

import json
import logging
import socket
import time

import pytest

from looper.errors import ConfigError, ContextOverflow, MachineError, ModelError
from looper.models.ollama_model import Ollama
from looper.protocols import Model
from looper.records import Adapter, Reply, Skill
from tests.models.loopback import asking, serving


class Shop:
    """What the server has, and how it answers a chat."""

    def __init__(self, *names, chat=None):
        self.digests = {name: f"{i}" * 64 for i, name in enumerate(names, 1)}
        self.chat = chat or (lambda body: (200, answer(body["messages"][-1]["content"].upper())))
        self.failures = 0

    def __call__(self, method, path, body):
        if self.failures:
            self.failures -= 1
            return 500, {"error": "loading"}
        if path == "/api/tags":
            return 200, {"models": [{"model": n, "name": n, "digest": d} for n, d in self.digests.items()]}
        if path == "/api/pull":
            if body["model"].startswith("missing"):
                return 200, json.dumps({"error": "pull model manifest: file does not exist"}) + "\n"
            self.digests[body["model"]] = "f" * 64
            steps = [{"status": "pulling", "total": 4_000_000_000, "completed": n * 10**9} for n in range(5)]
            return 200, "".join(json.dumps(row) + "\n" for row in [*steps, {"status": "success"}])
        assert path == "/api/chat"
        return self.chat(body)


def answer(text, reason="stop", **counts):
    counts = {"prompt_eval_count": 20, "eval_count": 3} | counts
    return {
        "model": "m:1",
        "message": {"role": "assistant", "content": text},
        "done": True,
        "done_reason": reason,
    } | counts


def model_at(server, **settings):
    return Ollama(**({"name": "m:1", "host": server.url, "wait": 0.01, "seconds": 5.0} | settings))


def test_a_request_carries_what_was_asked_and_the_reply_what_was_used():
    with serving(Shop("m:1", chat=lambda body: (200, answer("hi", "length")))) as server:
        model: Model = model_at(server, num_ctx=2048)
        (reply,) = model.reply([asking("hello", temperature=0.7, seed=2**40 + 5, max_tokens=9)])
        body = next(body for path, body, _ in server.requests if path == "/api/chat")
        assert model.id == f"ollama-m:1-{'1' * 12}-ctx2048"
    assert reply == Reply(text="hi", prompt_tokens=20, completion_tokens=3, metered=True, finish="length")
    assert body["messages"] == [{"role": "system", "content": "Fix."}, {"role": "user", "content": "hello"}]
    assert body["options"] == {"num_ctx": 2048, "num_predict": 9, "temperature": 0.7, "seed": 5}
    assert body["stream"] is False and body["keep_alive"] == "30m"
    assert model.weights is None and model.with_skill(Skill()) is model and model.usage.completion_tokens == 3
    model.forget("hello")


def test_a_batch_comes_back_in_order_through_passing_failures():
    shop = Shop("m:1")
    with serving(shop) as server:
        model = model_at(server)
        shop.failures = 2
        texts = [f"question {i}" for i in range(6)]
        assert [reply.text for reply in model.reply([asking(text) for text in texts])] == [t.upper() for t in texts]


def test_a_missing_model_is_pulled_with_progress(caplog):
    with serving(Shop("other:7b")) as server, caplog.at_level(logging.INFO):
        model = model_at(server, name="new")
        with pytest.raises(ModelError, match="pulled 'new' but does not list it"):  # this shop knows no :latest
            model.id  # noqa: B018
        assert model_at(server, name="new:7b").id == f"ollama-new:7b-{'f' * 12}-ctx8192"
    assert "pulling new:7b: 50% of 4.00 GB" in caplog.text


def test_an_untagged_name_is_the_latest():
    with serving(Shop("m:latest")) as server:
        assert model_at(server, name="m").digest == "1" * 64


def test_a_model_that_cannot_be_had_is_named():
    with serving(Shop("other:7b")) as server:
        with pytest.raises(ModelError, match=r"has other:7b, not 'm:1'; run `ollama pull m:1`"):
            model_at(server, pull=False).reply([asking("x")])
        with pytest.raises(ModelError, match="file does not exist"):
            model_at(server, name="missing:1").id  # noqa: B018


def test_no_server_is_said_with_the_way_out():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MachineError, match="ollama serve"):
        Ollama(host=f"http://127.0.0.1:{port}").id  # noqa: B018


def test_patience_ends():
    with serving(Shop("m:1", chat=lambda body: (500, {"error": "out of memory"}))) as server:
        with pytest.raises(ModelError, match=r"out of memory.*, 3 times"):
            model_at(server, retries=2).reply([asking("x")])
        assert server.count("/api/chat") == 3
    with serving(Shop("m:1", chat=lambda body: (200, "no JSON"))) as server, pytest.raises(ModelError, match="no JSON"):
        model_at(server, retries=0).reply([asking("x")])
    with serving(Shop("m:1", chat=lambda body: (400, {"error": "bad option"}))) as server:
        with pytest.raises(ModelError, match=r"refuses 'm:1'.*bad option"):
            model_at(server).reply([asking("x")])
        assert server.count("/api/chat") == 1


def test_silence_is_a_failure():
    def silent(body):
        time.sleep(0.5)
        return 200, answer("late")

    with serving(Shop("m:1", chat=silent)) as server, pytest.raises(ModelError, match=r"no answer within 0.2 s"):
        model_at(server, seconds=0.2, retries=0).reply([asking("x")])


def test_what_the_server_would_cut_off_is_an_overflow():
    with serving(Shop("m:1")) as server:
        with pytest.raises(ContextOverflow, match="num_ctx=100"):
            model_at(server, num_ctx=100).reply([asking("word " * 100)])
        assert server.count("/api/chat") == 0
    with serving(Shop("m:1", chat=lambda body: (200, answer("x", prompt_eval_count=98)))) as server:
        with pytest.raises(ContextOverflow):
            model_at(server, num_ctx=100).reply([asking("x")])


def test_adapters_and_mistaken_options_are_refused():
    adapter = Adapter(path="some/adapter", digest="d", base="b")
    with pytest.raises(ModelError, match=r"some/adapter.*qwen2.5-coder-7b-hf"):
        Ollama().with_skill(Skill(adapters=(adapter,)))
    for settings in ({"num_ctx": 0}, {"concurrency": 0}, {"retries": -1}, {"seconds": 0.0}, {"name": ""}):
        with pytest.raises(ConfigError, match=f"model.{next(iter(settings))}"):
            Ollama(**settings)
