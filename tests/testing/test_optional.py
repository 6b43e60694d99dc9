"""That only rsam.testing needs hypothesis, and its error says so."""

import subprocess
import sys

SCRIPT = """
import sys
sys.modules["hypothesis"] = None  # as if it were not installed
import rsam
assert "rsam.testing" not in sys.modules
try:
    import rsam.testing
except ImportError as error:
    print(error)
"""


def test_that_the_extra_is_named_where_hypothesis_is_missing() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "rsam.testing needs hypothesis: pip install 'rsam[testing]'"
