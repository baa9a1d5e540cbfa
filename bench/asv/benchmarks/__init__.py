"""Benchmarks that asv runs for one commit after another; their shapes and networks are those of `bench`.

`bench` comes from the working tree, whatever commit is measured. It is looked for last, so that `fastbp`, which stands
beside it, is the installed one.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))
