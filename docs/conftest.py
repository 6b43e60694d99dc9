"""Collect the documents that were written by hand, without the guide that needs a later version of torch."""

import inspect

try:
    from torch.distributed.fsdp import fully_shard

    runs = "ignored_params" in inspect.signature(fully_shard).parameters  # from torch 2.7
except ImportError:
    runs = False

collect_ignore = ["conf.py", "_build", "gallery", "reference", "results"]  # the site, and what its builder writes
if not runs:
    collect_ignore.append("guide/distributed.md")
