"""The architecture of the bundled model, a small Qwen2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from looper.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a Qwen2 with tied embeddings (rotary positions, RMS norm, SwiGLU, biases on q, k and v)."""

    hidden: int = 192
    """Width of the residual stream."""
    layers: int = 6
    """Number of transformer blocks."""
    heads: int = 6
    """Query heads; `hidden / heads` is the width of a head."""
    kv_heads: int = 3
    """Key and value heads, each shared by `heads / kv_heads` query heads."""
    ff: int = 512
    """Width of the feed-forward layer."""
    vocab: int = 1024
    """Rows of the embedding matrix."""
    positions: int = 2048
    """Longest context in tokens."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""
    rms_eps: float = 1e-6
    """Added to the mean square before its root is taken."""

    def __post_init__(self) -> None:
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ModelError(
                f"hidden {self.hidden} with {self.heads} heads does not give heads of an even width; "
                "choose hidden as a multiple of 2 * heads"
            )
        if self.heads % self.kv_heads:
            raise ModelError(f"{self.heads} heads cannot share {self.kv_heads} kv heads; choose a divisor")

    @property
    def head(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def parameters(self) -> int:
        """Number of weights, the tied embedding counted once."""
        kv = self.kv_heads * self.head
        attention = 2 * self.hidden * self.hidden + self.hidden + 2 * kv * (self.hidden + 1)
        block = attention + 3 * self.hidden * self.ff + 2 * self.hidden
        return self.vocab * self.hidden + self.layers * block + self.hidden

    def hf_config(self) -> dict[str, Any]:
        """Return the content of config.json.

        transformers reads the rotary base from `rope_parameters`, mlx-lm from the top level: both are there.
        """
        return {
            "architectures": ["Qwen2ForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": None,
            "dtype": "bfloat16",
            "eos_token_id": END,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.ff,
            "max_position_embeddings": self.positions,
            "model_type": "qwen2",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": PAD,
            "rms_norm_eps": self.rms_eps,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": True,
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": self.vocab,
        }

    @staticmethod
    def from_hf_config(config: dict[str, Any]) -> Shape:
        """Read the sizes back from a config.json.

        Raises ModelError if it describes something that the engine does not compute.
        """
        for key, wanted in (("model_type", "qwen2"), ("tie_word_embeddings", True), ("hidden_act", "silu")):
            if config.get(key) != wanted:
                raise ModelError(
                    f"config.json has {key}={config.get(key)!r}; this engine runs {key}={wanted!r} only, "
                    "use another model option for other architectures"
                )
        rope = config.get("rope_parameters") or {}
        if rope.get("rope_type", "default") != "default" or config.get("use_sliding_window"):
            raise ModelError(
                "config.json asks for scaled rotary positions or a sliding window, which this engine lacks"
            )
        return Shape(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            ff=config["intermediate_size"],
            vocab=config["vocab_size"],
            positions=config["max_position_embeddings"],
            rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
            rms_eps=config["rms_norm_eps"],
        )


START, END, PAD = 0, 1, 2
"""Ids of `<|im_start|>`, `<|im_end|>` and `<|endoftext|>`: the tokenizer's first three."""
