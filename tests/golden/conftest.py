"""Makes the repository's root importable: the table of attacks and peers lives in benchmarks/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
