"""That data-parallel training needs no recipe: both passes are averaged, so all ranks perturb and step alike."""

from __future__ import annotations

import geoopt
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import rsam
from tests.optim.problems import closure_of


def _model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.Tanh(), nn.Linear(7, 3)).double()
    return rsam.nn.constrain(model, geoopt.Sphere(), "0.weight")


def _steps(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    opt = rsam.RSAM(model.parameters(), lr=0.1, momentum=0.9, rho=0.2)
    for _ in range(3):
        opt.step(closure_of(opt, lambda: nn.functional.cross_entropy(model(inputs), targets)))


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 5, generator=generator, dtype=torch.float64), torch.arange(8) % 3


def _rank(rank: int, directory: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=2)
    model = DistributedDataParallel(_model(), gradient_as_bucket_view=True)
    inputs, targets = (t.chunk(2)[rank] for t in _data())
    _steps(model, inputs, targets)
    torch.save([p.detach() for p in model.parameters()], f"{directory}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_with_half_the_batch_are_one_with_all(tmp_path) -> None:
    mp.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    model = _model()
    _steps(model, *_data())
    for rank in (0, 1):
        for p, e in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=True), model.parameters(), strict=True):
            torch.testing.assert_close(p, e.detach(), rtol=1e-10, atol=1e-12)
