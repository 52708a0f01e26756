"""Chat completions over HTTP: what is sent, what comes back, and every way that it can fail."""

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from looper.errors import ConfigError, ContextOverflow, MachineError, ModelError
from looper.models.batching import BatchingModel
from looper.models.endpoint import asked_wait
from looper.models.http_model import HttpModel, Limit
from looper.protocols import Model
from looper.records import Adapter, Reply, Skill
from tests.models.loopback import asking, serving

CHAT = "/v1/chat/completions"


def completion(text, *, finish="stop", **usage):
    usage = {"prompt_tokens": 20, "completion_tokens": 3} | usage
    return {"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage}


def echo(method, path, body):
    return 200, completion(body["messages"][-1]["content"].upper())


def in_turn(*answers):
    """A script that gives its answers one after the other, then the last one for ever."""
    left = list(answers)
    lock = threading.Lock()

    def script(method, path, body):
        with lock:
            answer = left.pop(0) if len(left) > 1 else left[0]
        return answer(method, path, body) if callable(answer) else answer

    return script


def model_at(loopback, **settings):
    return HttpModel(**({"base_url": f"{loopback.url}/v1", "name": "m", "wait": 0.01, "seconds": 5.0} | settings))


def test_a_request_carries_what_was_asked_and_the_reply_what_was_used():
    counted = completion("hi", finish="length", prompt_tokens_details={"cached_tokens": 15})
    with serving(lambda *_: (200, counted)) as server:
        model: Model = model_at(server, extra={"top_p": 0.5}, prices={"m": [2.0, 1.0, 10.0]})
        (reply,) = model.reply([asking("hello", temperature=0.7, seed=2**40 + 5, max_tokens=9)])
        (_, body, headers) = server.requests[0]
    price = pytest.approx((5 * 2 + 15 * 1 + 3 * 10) / 1e6)
    counts = {"prompt_tokens": 20, "cached_tokens": 15, "completion_tokens": 3, "metered": True}
    assert reply == Reply(text="hi", **counts, cost=reply.cost, finish="length") and reply.cost == price
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Fix."}, {"role": "user", "content": "hello"}],
        "max_tokens": 9,
        "temperature": 0.7,
        "seed": 5,
        "stream": False,
        "top_p": 0.5,
    }
    assert "authorization" not in {key.lower() for key in headers}
    assert model.usage.cost == price
    assert (model.usage.replies, model.usage.prompt_tokens, model.usage.cached_tokens) == (1, 20, 15)
    assert model.weights is None and model.tokens("abcde") == 2 and model.with_skill(Skill(playbook="x")) is model
    model.forget("hello")


def test_sampling_can_be_left_to_the_server():
    with serving(echo) as server:
        model_at(server, sampling=False, limit=Limit.max_completion_tokens).reply([asking("x", max_tokens=7)])
        body = server.requests[0][1]
    assert "temperature" not in body and "seed" not in body and body["max_completion_tokens"] == 7


def test_an_unknown_price_is_unknown_and_a_reported_one_counts():
    answers = in_turn((200, completion("a")), (200, completion("b", cost=0.25)))
    with serving(answers) as server:
        free, told = model_at(server), model_at(server)
        assert free.reply([asking("x")])[0].cost is None
        assert told.reply([asking("y")])[0].cost == 0.25
    assert free.usage.cost is None
    assert told.usage.cost == 0.25
    assert told.cost(Reply(text="", prompt_tokens=1)) is None


def test_replies_come_in_order_and_at_most_so_many_at_once():
    now, most, lock = [0], [0], threading.Lock()

    def script(method, path, body):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return echo(method, path, body)

    with serving(script) as server:
        texts = [f"question {i}" for i in range(9)]
        replies = model_at(server, concurrency=3).reply([asking(text) for text in texts])
    assert [reply.text for reply in replies] == [text.upper() for text in texts]
    assert most[0] == 3


@pytest.mark.parametrize(
    "failure",
    [
        (429, {"error": {"message": "slow down"}}),
        (500, "boom"),
        (503, {"error": "overloaded"}),
        (529, ""),
        (200, "<html>not JSON"),
        (200, {"choices": []}),
        (200, {"error": {"message": "upstream", "code": 502}}),
        (200, {"choices": [{"message": {"content": "half"}, "finish_reason": "error"}]}),
    ],
)
def test_what_may_pass_is_tried_again(failure):
    with serving(in_turn(failure, failure, echo)) as server:
        (reply,) = model_at(server).reply([asking("x")])
        assert reply.text == "X"
        assert server.count(CHAT) == 3


def test_retry_after_is_honoured():
    with serving(in_turn((429, "", {"Retry-After": "0.4"}), echo)) as server:
        started = time.monotonic()
        model_at(server).reply([asking("x")])
        assert time.monotonic() - started >= 0.4
    assert asked_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert asked_wait("Wed, 21 Oct 2125 07:28:00 GMT") > 1e6
    assert asked_wait("") is None and asked_wait("soon") is None


def test_a_server_that_asks_for_too_long_a_wait_fails_at_once():
    with serving(lambda *_: (429, "", {"Retry-After": "3600"})) as server:
        with pytest.raises(ModelError, match=r"3600 s.*longest_wait"):
            model_at(server).reply([asking("x")])
        assert server.count(CHAT) == 1


def test_patience_ends():
    with serving(lambda *_: (500, {"error": {"message": "the disk is full"}})) as server:
        with pytest.raises(ModelError, match=r"m at .*the disk is full, 3 times; raise model.retries"):
            model_at(server, retries=2).reply([asking("x")])
        assert server.count(CHAT) == 3


def test_silence_is_a_failure_that_may_pass():
    def silent(method, path, body):
        time.sleep(0.6)
        return echo(method, path, body)

    with serving(in_turn(silent, echo)) as server:
        assert model_at(server, seconds=0.2).reply([asking("x")])[0].text == "X"
    with serving(silent) as server, pytest.raises(ModelError, match=r"no answer within 0.2 s"):
        model_at(server, seconds=0.2, retries=1).reply([asking("x")])


def test_one_conversation_that_fails_takes_no_other_with_it_and_nothing_is_asked_twice():
    def script(method, path, body):
        return (500, "no") if "bad" in body["messages"][-1]["content"] else echo(method, path, body)

    asked = [asking(text) for text in ("a", "b", "bad", "d", "e", "f", "g", "h")]
    with serving(script) as server, BatchingModel(model_at(server, retries=1), width=8) as batching:
        outcomes = {}

        def ask(conversation):
            try:
                outcomes[conversation.id] = batching.reply([conversation])[0].text
            except ModelError as error:
                outcomes[conversation.id] = error

        threads = [threading.Thread(target=ask, args=[conversation]) for conversation in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.count(CHAT) == 7 + 2
    assert isinstance(outcomes.pop("bad"), ModelError)
    assert outcomes == {text: text.upper() for text in "abdefgh"}


@pytest.mark.parametrize(
    "refusal",
    [
        {"error": {"message": "too long", "code": "context_length_exceeded"}},
        {"message": "This model's maximum context length is 64 tokens. However, you requested 90"},
        {"error": {"code": 400, "message": "the request exceeds the available context size"}},
    ],
)
def test_a_conversation_that_is_too_long_overflows(refusal):
    with serving(lambda *_: (400, refusal)) as server, pytest.raises(ContextOverflow):
        model_at(server).reply([asking("x")])


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, {"error": {"message": "bad key sk-secret"}}, MachineError, ["KEY_OF_TEST", "valid key"]),
        (429, {"error": {"message": "empty", "code": "insufficient_quota"}}, MachineError, ["insufficient_quota"]),
        (404, {"error": {"message": "no m"}}, MachineError, ["does not have m", "base_url"]),
        (400, {"error": {"message": "unknown field top_q"}}, ModelError, ["top_q", "model.extra"]),
        (400, "x" * 495 + "sk-secret", ModelError, ["xxx***"]),
        (307, "", MachineError, ["sends elsewhere", "model.base_url"]),
    ],
)
def test_refusals_are_explained_and_not_repeated(monkeypatch, caplog, status, body, kind, words):
    monkeypatch.setenv("KEY_OF_TEST", "sk-secret")
    elsewhere = {"Location": "https://elsewhere/v1"} if status == 307 else {}
    with serving(lambda *_: (status, body, elsewhere)) as server, caplog.at_level(logging.DEBUG):
        model = model_at(server, key_variable="KEY_OF_TEST")
        with pytest.raises(kind) as caught:
            model.reply([asking("x")])
        assert server.count(CHAT) == 1
        assert server.requests[0][2]["Authorization"] == "Bearer sk-secret"
    for word in words:
        assert word in str(caught.value)
    assert "sk-secret" not in str(caught.value) + caplog.text + model.id + repr(model)


def test_a_missing_key_or_server_is_named(monkeypatch):
    monkeypatch.delenv("KEY_OF_TEST", raising=False)
    with pytest.raises(MachineError, match="export KEY_OF_TEST="):
        HttpModel(name="m", key_variable="KEY_OF_TEST").reply([asking("x")])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = HttpModel(base_url=f"http://127.0.0.1:{port}/v1", retries=9, wait=0.01)
    with pytest.raises(MachineError, match=r"no connection .*, 2 times; start the server"):
        nobody.reply([asking("x")])


def test_a_server_that_once_answered_is_waited_for():
    with serving(lambda *_: (200, completion("ok"), {"Connection": "close"})) as server:
        model = model_at(server, retries=3, wait=0.01)
        model.reply([asking("x")])
    with pytest.raises(MachineError, match=r"no connection .*, 4 times; start the server"):
        model.reply([asking("y")])


def test_the_only_served_model_needs_no_name():
    rows = [{"id": "org/one"}, {"id": "looper-abc", "parent": "org/one"}]
    with serving(lambda method, *_: (200, {"data": rows}) if method == "GET" else (200, completion("ok"))) as server:
        model = model_at(server, name="", server="vllm")
        assert model.id.startswith("vllm-org/one-")
        model.reply([asking("x")])
        assert server.requests[-1][1]["model"] == "org/one"
        rows.append({"id": "org/two"})
        with pytest.raises(MachineError, match=r"serves 2 models \(org/one, org/two\); give model.name"):
            model_at(server, name="").id  # noqa: B018


def test_identity_is_what_decides_answers():
    base = HttpModel(name="m")
    assert base.id == HttpModel(name="m", concurrency=1, retries=0, prices={"m": [1, 1, 1]}, key_variable="K").id
    assert base.decisive() == HttpModel(name="m", retries=0, prices={"m": [1, 1, 1]}, key_variable="K").decisive()
    assert base.decisive() != HttpModel(name="m", concurrency=1).decisive()
    for change in ({"name": "n"}, {"revision": "2"}, {"extra": {"top_p": 0.5}}, {"sampling": False}, {"server": "v"}):
        assert HttpModel(**({"name": "m"} | change)).id != base.id


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"concurrency": 0}, "model.concurrency=0"),
        ({"retries": -1}, "model.retries=-1"),
        ({"seconds": 0.0}, "model.seconds=0.0"),
        ({"base_url": "localhost:8000"}, "model.base_url='localhost:8000'"),
        ({"extra": {"seed": 1}}, "model.extra.seed"),
        ({"prices": {"m": [1.0]}}, "model.prices.m"),
    ],
)
def test_mistaken_options_are_named(settings, words):
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        HttpModel(**settings)


def test_vllm_loads_an_adapter_when_it_is_first_asked(tmp_path):
    loaded = []

    def script(method, path, body):
        if path == "/v1/load_lora_adapter":
            if body["lora_name"] in loaded:
                return 400, {"message": "The lora adapter has already been loaded."}
            loaded.append(body["lora_name"])
            return 200, "Success: LoRA adapter added."
        return 200, completion(body["model"])

    with serving(script) as server:
        base = model_at(server, lora=True)
        adapter = Adapter(path=str(tmp_path), digest="d1", base=base.id)
        for _ in range(2):  # the second time it is there already
            tuned = base.with_skill(Skill(adapters=(adapter,)))
            assert tuned.id == f"{base.id}+d1"
            assert [reply.text for reply in tuned.reply([asking("x"), asking("y")])] == ["looper-d1"] * 2
        assert loaded == ["looper-d1"]
        assert server.requests[0][1]["lora_path"] == str(tmp_path)
        assert base.reply([asking("x")])[0].text == "m"


def test_adapters_that_cannot_be_served_are_refused():
    mine, other = HttpModel(name="m", lora=True), HttpModel(name="n")
    good = Adapter(path="a", digest="d1", base=mine.id)
    with pytest.raises(ModelError, match=r"takes no adapters .*VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        other.with_skill(Skill(adapters=(good,)))
    with pytest.raises(ModelError, match="one whole adapter"):
        mine.with_skill(Skill(adapters=(good, good)))
    with pytest.raises(ModelError, match=f"trained on {other.id}, but this model is {mine.id}"):
        mine.with_skill(Skill(adapters=(Adapter(path="a", digest="d1", base=other.id),)))
    with (
        serving(lambda *_: (404, {"detail": "Not Found"})) as server,
        pytest.raises(MachineError, match="--enable-lora"),
    ):
        model = model_at(server, lora=True)
        model.with_skill(Skill(adapters=(Adapter(path="a", digest="d", base=model.id),))).reply([asking("x")])


@pytest.mark.slow
def test_a_real_server_answers(tiny, tmp_path):
    pytest.importorskip("mlx_lm")
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["rope_theta"] = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(folder), "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        while True:  # a server that nobody has met is given up after two tries
            assert process.poll() is None, (tmp_path / "log").read_text()
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5.0):
                break
            time.sleep(0.2)
        model = HttpModel(base_url=f"http://127.0.0.1:{port}/v1", name="default_model", retries=30, wait=0.5)
        batch = [asking(text, max_tokens=6) for text in ("Issue: `ba_co` is wrong", "Issue: `di` is wrong")]
        first, again = model.reply(batch), model.reply(batch)
        assert [reply.text for reply in first] == [reply.text for reply in again]
        assert all(reply.prompt_tokens > 10 and 0 < reply.completion_tokens <= 6 for reply in first)
        drawn = [model.reply([asking("x", max_tokens=6, temperature=1.0, seed=s)])[0].text for s in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]
    finally:
        process.terminate()
        process.wait()
