"""Run ``python -m benchmarks``."""

import sys

# Worker processes import this file too, and must not load everything else before they can handle Ctrl-C.
if __name__ == "__main__":
    from benchmarks.cli import main

    sys.exit(main())
