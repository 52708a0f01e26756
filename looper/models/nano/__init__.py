"""The bundled model: a small Qwen2, its tokenizer, and an inference engine for the CPU."""
