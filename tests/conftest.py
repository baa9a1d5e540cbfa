"""Fixtures of all test files. They import `helpers` from this directory, which pytest puts on the path for them."""

from __future__ import annotations

import signal
import zlib

import numpy as np
import pytest

# A shell that starts a program in the background lets it ignore SIGINT, which some tests send to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that are the same in every run and differ from test to test."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
