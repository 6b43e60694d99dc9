"""Entry of ``python -m benchmarks``."""

import sys

# Worker processes import this file too. They shall not load all the rest before they are ready for a Ctrl-C.
if __name__ == "__main__":
    from benchmarks.cli import main

    sys.exit(main())
