"""Resume each base optimizer from its checkpoint, in a new process, and save. Usage: resume.py DIRECTORY."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.optim.problems import closure_of
from tests.optim.test_state import BASES, build

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    for base in BASES:
        model, opt, loss = build(base)
        saved = torch.load(directory / f"{base}.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        for _ in range(5):
            opt.step(closure_of(opt, loss))
        torch.save(model.state_dict(), directory / f"{base}-resumed.pt")
