"""Errors of a second model name the place that it was chosen at, and stay of their kind."""

from __future__ import annotations

import pytest

from looper.errors import ConfigError, ContextOverflow, MachineError, ModelError
from looper.models.ensemble import Ensemble
from looper.models.http_model import HttpModel
from looper.models.placed import Placed, at_place
from looper.models.replay import Replay
from looper.protocols import Model
from looper.records import Skill
from tests.models.loopback import asking, serving
from tests.models.test_http import completion, echo


def at(url: str) -> HttpModel:
    return HttpModel(base_url=url, name="m", retries=0, wait=0.01)


def test_only_keys_of_the_model_are_renamed() -> None:
    text = "model.retries and looper.model.retries, but not model.safetensors, model=hf or model.retriesx"
    told = "synthesizer.retries and looper.model.retries, but not model.safetensors, model=hf or model.retriesx"
    assert at_place(text, ["retries", "name"], "synthesizer") == told
    assert at_place(text, [], "synthesizer") == text


def test_a_failing_request_names_the_place_and_its_key() -> None:
    with serving(lambda *_: (503, {"error": "busy"})) as server:
        placed: Model = Placed(model=at(f"{server.url}/v1"), place="supervisor")
        with pytest.raises(ModelError, match=r"^in supervisor: .*raise supervisor\.retries") as caught:
            placed.reply([asking("x")])
    assert type(caught.value) is ModelError


def test_kinds_of_errors_stay() -> None:
    with serving(lambda *_: (400, {"error": {"message": "maximum context length is 9"}})) as server:
        with pytest.raises(ContextOverflow, match=r"^in synthesizer: "):
            Placed(model=at(f"{server.url}/v1"), place="synthesizer").reply([asking("x")])
    gone = Placed(model=HttpModel(base_url=f"{server.url}/v1", retries=0), place="synthesizer")
    with pytest.raises(MachineError, match=r"^in synthesizer: "):
        _ = gone.id


def test_what_goes_well_is_the_models_own() -> None:
    with serving(echo) as server:
        model = at(f"{server.url}/v1")
        placed = Placed(model=model, place="synthesizer")
        assert placed.reply([asking("x")]) == model.reply([asking("x")])
    assert (placed.id, placed.knows_protocol, placed.weights) == (model.id, model.knows_protocol, model.weights)
    assert placed.tokens("abcde") == 2 and placed.with_skill(Skill()).id == model.id
    placed.forget("x")


def test_a_member_is_named_and_the_ensemble_is_the_same_as_before() -> None:
    joined = Ensemble().of({"a": Replay(path="nowhere.jsonl"), "b": Replay(path="nowhere.jsonl")})
    with pytest.raises(ModelError, match=r"^in members\.a: no recording .*set members\.a\.path"):
        joined.reply([asking("x")])
    assert joined.decisive()["members"][0] == ["Replay", {"path": "nowhere.jsonl", "knows_protocol": True}]


def test_what_a_majority_takes_is_what_all_members_took() -> None:
    prices = {"m": [1.0, 1.0, 1.0]}
    with serving(lambda *_: (200, completion("<done/>"))) as server:
        known = HttpModel(base_url=f"{server.url}/v1", name="m", prices=prices)
        both = Ensemble().of({"a": known, "b": known}).reply([asking("x")])[0]
        one = known.reply([asking("x")])[0]
        unpriced = Ensemble().of({"a": known, "b": at(f"{server.url}/v1")}).reply([asking("x")])[0]
    assert one.metered and both.metered and one.cost and both.cost == pytest.approx(2 * one.cost)
    assert both.prompt_tokens == 2 * one.prompt_tokens
    assert unpriced.metered and unpriced.cost is None


def test_a_missing_key_is_refused_at_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    keyless = HttpModel(base_url="http://127.0.0.1:9/v1", name="m", key_variable="NO_SUCH_KEY")
    with pytest.raises(ConfigError, match=r"^in synthesizer: .*NO_SUCH_KEY"):
        Placed(model=keyless, place="synthesizer").check()
    Placed(model=Replay(path="nowhere"), place="synthesizer").check()  # a model without needs passes
