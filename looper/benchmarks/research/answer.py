"""Answer token windows with the logits of a trained model; the judge puts this beside train.py in a fresh sandbox.

The windows are those of `rows.bin`, bytes of (N, T); the answers go to `logits.bin`, 32-bit floats of (N, T, V). This
process knows neither the tokens after the windows nor which windows count. It may be started before there are any: they
and the weights are there once there is a file `go`; if there are none by then, nobody asks.
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from pathlib import Path

import watch  # type: ignore[import-not-found]  # before torch, whose warnings it sets

sys.path[0] = str(Path.cwd())

import prepare  # type: ignore[import-not-found]  # noqa: E402
import torch  # noqa: E402

ROOM = Path(".judge").absolute()
SIZE = 128
"""Windows in a batch."""


def answer() -> None:
    """Build the model of train.py, load its weights and answer all windows."""
    torch.set_num_threads(1)
    while not (ROOM / "go").exists():
        time.sleep(0.02)
    if not (ROOM / "rows.bin").exists():
        return
    data = bytearray((ROOM / "rows.bin").read_bytes())
    rows = torch.frombuffer(data, dtype=torch.uint8).view(-1, prepare.CONTEXT).long()
    state = torch.load(ROOM / "model.pt", weights_only=True)
    full = len(rows) * prepare.CONTEXT * prepare.VOCABULARY
    out = torch.from_file(str(ROOM / "logits.bin"), shared=True, size=full).view(*rows.shape, -1)
    watch.begin()
    train = importlib.import_module("train")
    model = train.GPT(train.GPTConfig())
    model.load_state_dict(state, strict=True)
    model.eval()
    with torch.no_grad():
        for first in range(0, len(rows), SIZE):
            x = rows[first : first + SIZE]
            scores = model(x)
            if scores.shape != (*x.shape, prepare.VOCABULARY):
                wanted = (*x.shape, prepare.VOCABULARY)
                watch.refuse("shape", f"logits have shape {tuple(scores.shape)}; it has to be {wanted}")
            out[first : first + SIZE] = scores


if __name__ == "__main__":
    try:
        answer()
    except Exception as error:
        traceback.print_exc()
        said = " ".join("".join(traceback.format_exception_only(error)).split())
        watch.report({"error": f"the handed-over weights gave no answers in GPT(GPTConfig()): {said[:500]}"})
        raise SystemExit(1) from error
    watch.leave()
