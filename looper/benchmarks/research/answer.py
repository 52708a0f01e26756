"""Answer token windows with the logits of a trained model; the judge puts this beside train.py in a fresh sandbox.

The windows are those of `rows.bin`, bytes of (N, T); the answers go to `logits.bin`, 32-bit floats of (N, T, V). This
process knows neither the tokens after the windows nor which windows count. It may be started before there are any: they
and the weights are there once there is a file `go`; if there are none by then, nobody asks.
"""

from __future__ import annotations

import time
from pathlib import Path

import guarded  # type: ignore[import-not-found]

guarded.own_folder()

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
    model = guarded.trained(state)
    with torch.no_grad():
        for first in range(0, len(rows), SIZE):
            x = rows[first : first + SIZE]
            out[first : first + SIZE] = guarded.shaped(model(x), x, prepare.VOCABULARY)


if __name__ == "__main__":
    guarded.respond(answer)
