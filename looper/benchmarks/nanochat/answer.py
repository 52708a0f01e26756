"""Answer token windows with the logits of a trained model, a part at a time; the judge puts this beside train.py.

The windows are those of `rows.bin`, 32-bit integers of (N, T). Part k of the answers goes to `k.bin`, 32-bit floats of
(B, T, V); the judge reads it while the next one is made, and says in `seen` how many it has read. This process knows
neither the tokens after the windows nor which windows count.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import guarded  # type: ignore[import-not-found]

guarded.own_folder()

import prepare  # type: ignore[import-not-found]  # noqa: E402
import torch  # noqa: E402

ROOM = Path(".judge").absolute()
AT_ONCE = int(os.environ["JUDGE_WINDOWS"])
"""Windows in a part."""
AHEAD = 2
"""Parts that may lie there unread."""


def give(part: int, scores: Any) -> None:
    """Lay a part of the answers down, whole, once there is room for it."""
    while part - int((ROOM / "seen").read_text() or 0) >= AHEAD:  # empty while the judge writes it
        _sleep(0.002)
    (ROOM / f"{part - AHEAD}.bin").unlink(missing_ok=True)
    draft = ROOM / "part"
    torch.from_file(str(draft), shared=True, size=scores.numel()).copy_(scores.float().flatten())
    draft.rename(ROOM / f"{part}.bin")


def answer() -> None:
    """Build the model of train.py, load its weights and answer all windows."""
    data = bytearray((ROOM / "rows.bin").read_bytes())
    rows = torch.frombuffer(data, dtype=torch.int32).view(-1, prepare.CONTEXT)
    state = torch.load(ROOM / "model.pt", weights_only=True, map_location="cpu")
    model = guarded.trained(state).to(prepare.DEVICE)
    with torch.no_grad():
        for part, first in enumerate(range(0, len(rows), AT_ONCE)):
            x = rows[first : first + AT_ONCE].long().to(prepare.DEVICE)
            give(part, guarded.shaped(model(x), x, prepare.VOCABULARY))


_sleep = time.sleep

if __name__ == "__main__":
    guarded.respond(answer)
