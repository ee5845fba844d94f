"""Benchmarks: each figure is a ratio to a control that was measured in the same run."""

import sys
from pathlib import Path

# The real parts that are measured are started as the tests start them.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
