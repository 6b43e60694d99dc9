"""That distributed checkpoints and sharded optimizer state resume a run."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import rsam
from tests.distributed.problems import Network, assert_all_close, batch, part_of, take_steps, values
from tests.distributed.processes import in_processes, several_processes
from tests.distributed.test_sharded import MOMENTUM, SGD, Adam, _sharded, fully_shard

pytestmark = several_processes
needs_fsdp = pytest.mark.skipif(fully_shard is None, reason="FSDP2 is public from torch 2.6")
OPTIONS: list[dict[str, Any]] = [
    {"base_optimizer": SGD, "rho": 0.2, "every": 2, **MOMENTUM},
    {"base_optimizer": Adam, "rho": 0.2, "lr": 0.02, "amsgrad": True},
]


def _resumed(rank: int, count: int, settings: dict[str, Any], full: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weights of a run, and those of a run that was saved in the middle and resumed by a new model."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

    options = StateDictOptions(full_state_dict=full, broadcast_from_rank0=full)
    model = _sharded()
    opt = rsam.RSAM(model.parameters(), **settings)
    take_steps(opt, model, part_of(rank, count))
    weights, state = get_state_dict(model, opt, options=options)
    assert state["param_groups"][0]["steps_since_ascent"] == 3 % settings.get("every", 1)

    other = _sharded()
    resumed = rsam.RSAM(other.parameters(), **settings)
    set_state_dict(other, resumed, model_state_dict=weights, optim_state_dict=state, options=options)
    for m, o in ((model, opt), (other, resumed)):
        take_steps(o, m, part_of(rank, count))
    return values(model), values(other)


@needs_fsdp
@pytest.mark.parametrize(("count", "full"), [(2, False), (2, True), (3, False)])
@pytest.mark.parametrize("settings", OPTIONS)
def test_that_a_distributed_checkpoint_resumes(settings, count, full) -> None:
    for through, resumed in in_processes(count, _resumed, count, settings, full):
        assert_all_close(resumed, through, 0)


def _saved(rank: int, directory: str) -> None:
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model = _sharded()
    opt = rsam.RSAM(model.parameters(), **OPTIONS[1])
    take_steps(opt, model, part_of(rank, torch.distributed.get_world_size()))
    checkpoint.save({"optimizer": get_optimizer_state_dict(model, opt)}, checkpoint_id=directory)


def _loaded(rank: int, directory: str) -> dict[str, Tensor]:
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    model = _sharded()
    opt = rsam.RSAM(model.parameters(), **OPTIONS[1])
    state = get_optimizer_state_dict(model, opt)
    checkpoint.load({"optimizer": state}, checkpoint_id=directory)
    set_optimizer_state_dict(model, opt, state)
    names = {p: name for name, p in model.named_parameters()}
    return {
        f"{names[p]}.{entry}": value.full_tensor() if hasattr(value, "full_tensor") else value.clone()
        for p, held in opt.state.items()
        for entry, value in held.items()
    }


@needs_fsdp
def test_that_state_is_loaded_by_another_number_of_processes(tmp_path) -> None:
    in_processes(2, _saved, str(tmp_path))
    three = in_processes(3, _loaded, str(tmp_path))
    model = Network()
    opt = rsam.RSAM(model.parameters(), **OPTIONS[1])
    take_steps(opt, model, batch())
    for name, p in model.named_parameters():
        for entry, value in opt.state[p].items():
            for state in three:
                torch.testing.assert_close(state[f"{name}.{entry}"], value, rtol=1e-10, atol=1e-12)


def _redundant(rank: int) -> list[Any]:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(Network(stiefel=True))

    def split(base: type[torch.optim.Optimizer]) -> Any:
        return partial(ZeroRedundancyOptimizer, optimizer_class=base)

    opt = rsam.RSAM(model.parameters(), split(SGD), rho=0.2, **MOMENTUM)
    take_steps(opt, model, part_of(rank, 2))
    messages = []
    for wrong in (
        lambda: ZeroRedundancyOptimizer(model.parameters(), optimizer_class=rsam.RSAM, lr=0.1),
        lambda: rsam.RSAM(model.parameters(), split(torch.optim.SGD), lr=0.1),
        lambda: rsam.RSAM(model.parameters(), split(SGD), direction="momentum", **MOMENTUM),
    ):
        with pytest.raises(ValueError) as caught:
            wrong()
        messages.append(str(caught.value))
    return [values(model), len(opt.base_optimizer.optim.state), *messages]


def test_that_state_may_be_split_over_processes_and_rsam_not() -> None:
    model = Network(stiefel=True)
    take_steps(rsam.RSAM(model.parameters(), rho=0.2, **MOMENTUM), model, batch())
    actual = in_processes(2, _redundant)
    assert sum(held for _, held, *_ in actual) == len(list(model.parameters()))
    for weights, held, wrapped, off, momentum in actual:
        assert 0 < held < len(weights)
        assert_all_close(weights, values(model))
        assert "wrap the base optimizer: RSAM(params, partial(ZeroRedundancyOptimizer" in wrapped
        assert "would step parameter 0 of group 0" in off
        assert "keeps only a part in each process" in momentum
