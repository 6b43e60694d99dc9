"""Benchmarks of rsam, which they use as any user would: ``python -m benchmarks --help``.

A *study* declares *runs*; a run is pure configuration, and leaves one row in the study's results file:

- ``data``, ``models``, ``methods``: what a run's configuration names
- ``runs``: the configuration, training one, many at once, and the file of rows
- ``studies``: which runs, and what is concluded from their rows
- ``report``: intervals, tables and figures
"""

import warnings

# geoopt 0.5.1 compiles its formulas so; whoever runs a benchmark can do nothing about it
warnings.filterwarnings("ignore", message=r"`torch\.jit\.script.*` is deprecated")
