"""The same bits for the same inputs: threads, seed and algorithms held fixed while a model is used."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(threads: int, seed: int) -> Iterator[None]:
    """Fix threads, seed and algorithms for a while, and keep the libraries' notices off the terminal."""
    from transformers.utils import logging

    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    bar = logging.is_progress_bar_enabled()
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic products need there
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT calls what transformers has renamed
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)
        if bar:
            logging.enable_progress_bar()
