"""Run in a new process: load a checkpoint, go on, save. Usage: resume.py BASE CHECKPOINT OUT."""

from __future__ import annotations

import sys

import torch

from tests.optim.problems import closure_of
from tests.optim.test_state import build

if __name__ == "__main__":
    base, checkpoint, out = sys.argv[1:]
    model, opt, loss = build(base)
    saved = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(saved["model"])
    opt.load_state_dict(saved["opt"])
    for _ in range(5):
        opt.step(closure_of(opt, loss))
    torch.save(model.state_dict(), out)
