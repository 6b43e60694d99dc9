"""Benchmarks of rsam, which they use as any user would: ``python -m benchmarks --help``.

A *study* declares *runs*; a run is pure configuration, and leaves one row in the study's results file. From the ground
up, each importing only what is above it in this list:

- ``machine``, ``data``: device, threads and memory; data sets and the scripts that cut the small ones
- ``workloads``: what is trained and how it is scored, and where its weights live
- ``run``, ``methods``: a run and what came of it; how it becomes an optimizer
- ``report``, ``runs``: intervals, tables and figures; training one run, many at once, and the file of rows
- ``studies``: which runs, and what is concluded from their rows
"""

import warnings

# geoopt 0.5.1 compiles its formulas so; whoever runs a benchmark can do nothing about it
warnings.filterwarnings("ignore", message=r"`torch\.jit\.script.*` is deprecated")
