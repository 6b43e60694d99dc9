"""Leave out the guide that needs a later version of torch than the package does."""

import inspect

try:
    from torch.distributed.fsdp import fully_shard

    runs = "ignored_params" in inspect.signature(fully_shard).parameters  # from torch 2.7
except ImportError:
    runs = False

collect_ignore = [] if runs else ["guide/distributed.md"]
