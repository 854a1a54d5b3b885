"""Makes the certificates of the unit tests importable."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "unit" / "translate"))
