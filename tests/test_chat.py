"""Models of the Llama class: a template that writes a BOS is rendered alike in training, inference and by others."""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from looper.chat import render, spans, stated_template
from looper.models.hugging_face import Device, HuggingFace
from looper.records import Conversation, Example, Message
from looper.training.tokens import Tokeniser, tokenise

BOS, EOT, END = "<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>"
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% elif message['role'] == 'user' %}{{ '[INST]' + message['content'] + '[/INST]' }}"
    "{% elif loop.index0 %}{{ raise_exception('a system message comes first') }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)
MESSAGES = (
    Message(role="system", content="You fix bugs."),
    Message(role="user", content="Issue: f is wrong"),
    Message(role="assistant", content="<read>a.py</read>"),
    Message(role="user", content="def f(): return 1"),
    Message(role="assistant", content="<done/>"),
)
EXAMPLE = Example(task="t", episode="e", messages=MESSAGES, weights=(0.0, 0.0, 1.0, 0.0, 1.0))


@pytest.fixture(scope="module", params=[LLAMA_3, MISTRAL], ids=["llama3", "mistral"])
def folder(request, tmp_path_factory):
    """A tiny Llama whose tokenizer puts a BOS before every text that it encodes by itself."""
    from transformers import LlamaConfig, LlamaForCausalLM

    place = tmp_path_factory.mktemp("llama")
    marks = [BOS, END, EOT, "<|start_header_id|>", "<|end_header_id|>", "[INST]", "[/INST]"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([m.content for m in MESSAGES], trainer)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos)])
    tokenizer.save(str(place / "tokenizer.json"))
    settings = {
        "bos_token": {"__type": "AddedToken", "content": BOS, "special": True},
        "eos_token": EOT,
        "chat_template": request.param,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=bos,
        eos_token_id=tokenizer.token_to_id(EOT),
    )
    LlamaForCausalLM(config).save_pretrained(place)
    return place


def reference(folder, messages, **more):
    """The tokens as transformers' own chat template gives them."""
    from transformers import PreTrainedTokenizerFast

    rows = [m.model_dump() for m in messages]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    return tokenizer.apply_chat_template(rows, tokenize=True, return_dict=False, **more)


def test_training_and_inference_see_one_bos_and_the_tokens_that_transformers_gives(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bos, eot = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOT)
    whole = reference(folder, MESSAGES)
    assert whole.count(bos) == 1 and whole[0] == bos
    (trained,) = tokenise(folder, [EXAMPLE])
    assert list(trained.ids) == whole[: len(trained.ids)]
    assert trained.ids[-1] == eot, "the end of a turn is learned"
    learned = tokenizer.decode([i for i, w in zip(trained.ids, trained.weights, strict=True) if w], False)
    assert learned == f"<read>a.py</read>{EOT}<done/>{EOT}"
    for count in (2, 4):
        asked = Conversation(id=f"{count}", messages=MESSAGES[:count], max_tokens=4)
        model = HuggingFace(name=str(folder), device=Device.cpu, width=1)
        prompt = model.engine._jobs.opened(asked).prompt
        assert prompt == reference(folder, MESSAGES[:count], add_generation_prompt=True)
        assert tuple(prompt) == trained.ids[: len(prompt)], "a session continues what training reads"
        assert model.reply([asked])[0].prompt_tokens == len(prompt)


def test_a_text_that_others_tokenise_by_themselves_would_have_two(folder):
    """What this guards against: the tokenizer's own BOS before the template's."""
    tokeniser = Tokeniser(folder)
    text = render(MESSAGES, template=tokeniser.template)
    assert tokeniser.encode(text).count(0) == 1
    assert tokeniser.tokenizer.encode(text).ids.count(0) == 2


def test_a_conversation_that_a_template_refuses_is_left_out_by_name(folder):
    odd = (*MESSAGES[:3], Message(role="system", content="x"), *MESSAGES[3:])
    example = EXAMPLE.model_copy(update={"messages": odd, "weights": (0.0, 0.0, 1.0, 0.0, 0.0, 1.0)})
    found = Tokeniser(folder).read(example)
    if "raise_exception" in Tokeniser(folder).template:
        assert "a system message comes first" in found.text and found.reason == "does not fit the chat template"
    else:
        assert found.weight > 0


def test_only_what_a_template_writes_is_set_and_other_templates_stay_as_they_are(folder, tmp_path):
    settings = {"bos_token": 'a"\\b｜', "eos_token": None, "chat_template": "{{ bos_token }}|{{ eos_token }}"}
    template = stated_template(tmp_path, settings)
    assert render((), template=template) == 'a"\\b｜|'
    assert stated_template(tmp_path, {"bos_token": "<s>", "chat_template": "x"}) == "x"
    parts = spans(MESSAGES, EXAMPLE.weights, template=Tokeniser(folder).template)
    assert "".join(part.text for part in parts) == render(MESSAGES, template=Tokeniser(folder).template)
