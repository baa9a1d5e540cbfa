"""What the scripts of the lecture share: where their picture goes, and its colours."""

import argparse
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

# Okabe and Ito's palette: readers with any colour vision tell these apart. Lines and markers differ as well.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#666666"


def picture_path(script, description):
    """Read the command line: the file of the picture is its argument, or one in a new temporary folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", help="where the picture goes, such as picture.png")
    given = parser.parse_args().picture
    return Path(given) if given else Path(tempfile.mkdtemp(prefix="lecture-")) / f"{Path(script).stem}.png"


def panels(n, width=9.0, height=3.8):
    """Make a figure of n panels side by side."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    return figure, figure.subplots(1, n, squeeze=False)[0]


def save(figure, path):
    """Write a picture, and say where it is."""
    figure.savefig(path)
    print(f"picture: {path}")
