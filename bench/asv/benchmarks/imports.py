"""What `import fastbp` takes beside `import numpy`, each time in a fresh process."""

from __future__ import annotations


def timeraw_import_fastbp() -> tuple[str, str]:
    """Return the statement that is timed, and the one before it."""
    return "import fastbp", "import numpy"
