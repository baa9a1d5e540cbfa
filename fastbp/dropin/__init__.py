"""Other people's programs, accelerated in place: `accelerate`, and what each interface needs for it.

A module whose name does not begin with an underscore is an interface that is known: one file each.
"""

from fastbp.dropin._accelerate import accelerate, accelerated
from fastbp.dropin._report import Entry as Entry
from fastbp.dropin._report import Report as Report

__all__ = ["accelerate", "accelerated"]
