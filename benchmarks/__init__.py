"""Benchmark rsam through its public interface: ``python -m benchmarks --help``.

A *study* declares *runs*; a run is pure configuration, and leaves one row in the study's results file. From the ground
up, each importing only what is above it in this list:

- ``machine``, ``data``: device, threads and memory; data sets and the scripts that cut the small ones
- ``workloads``: data, model, manifolds of the weights, loss and scores
- ``run``, ``methods``: a run and its row of results; the optimizer of each method
- ``report``, ``runs``: intervals, tables and figures; training one run, many at once, and the file of rows
- ``studies``: the runs of each study, and the conclusions from their rows
"""

import warnings

# geoopt 0.5.1 compiles its formulas with the deprecated torch.jit; the user can do nothing about the warning
warnings.filterwarnings("ignore", message=r"`torch\.jit\.script.*` is deprecated")
