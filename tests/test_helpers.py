"""The helpers of the tests: thinned grids keep every value and every chosen pair; random numbers follow the seed."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import helpers
import numpy as np
import pytest
from helpers import grid, label, seeded, thinned

AXES = [("a", "b", "c", "d", "e"), (1, 2, 3), ("x", "y"), (None,), (0.5, 1.5, 2.5, 3.5)]
PAIRS = [[], [(0, 1)], [(1, 0), (1, 2)], list(itertools.combinations(range(5), 2))]


@pytest.fixture(autouse=True)
def as_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "DENSE", False)


def values_of(cases: list[tuple[Any, ...]], *axes: int) -> set[tuple[Any, ...]]:
    return {tuple(case[axis] for axis in axes) for case in cases}


@pytest.mark.parametrize("pairs", PAIRS, ids=len)
def test_thinned_grid_keeps_every_value_and_chosen_pair(pairs: list[tuple[int, int]]) -> None:
    cases, whole = thinned(*AXES, pairs=pairs), list(itertools.product(*AXES))
    assert sorted(map(whole.index, cases)) == list(map(whole.index, cases))  # in order, once each
    for axes in [*((axis,) for axis in range(5)), *pairs]:
        assert values_of(cases, *axes) == values_of(whole, *axes)


@pytest.mark.parametrize(("pairs", "most"), list(zip(PAIRS, (5, 15, 15, 30), strict=True)))
def test_thinned_grid_is_near_the_least_size(pairs: list[tuple[int, int]], most: int) -> None:
    """At least as many cases as the largest pair of axes has values are needed: 5, 15, 15, and 20 of 120."""
    assert len(thinned(*AXES, pairs=pairs)) <= most


def test_values_without_a_chosen_pair_take_turns() -> None:
    """With no pair chosen but the one of kernel and dtype, the layouts go around."""
    layouts = [layout for _, layout, _ in thinned(range(20), "abcd", (4, 8), pairs=[(0, 2)])]
    assert {layouts.count(layout) for layout in "abcd"} == {10}


def test_cases_that_always_names_are_kept() -> None:
    cases = thinned(*AXES, always=lambda first, *_: first == "b")
    assert [case for case in cases if case[0] == "b"] == [case for case in itertools.product(*AXES) if case[0] == "b"]
    assert values_of(cases, 0) == {(value,) for value in AXES[0]}
    assert len(cases) == 24 + 4  # every value of the other axes has been met


def test_dense_grid_is_the_whole_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "DENSE", True)
    assert thinned(*AXES) == list(itertools.product(*AXES))


def test_axis_without_values_gives_no_cases() -> None:
    assert thinned((1, 2), ()) == []


def test_grid_names_arguments_and_cases() -> None:
    made = grid("kernel,argument dtype", [("sigmoid", "z"), ("mse", "t")], (np.float32, np.float64), pairs=[])
    assert made.args[0] == ["kernel", "argument", "dtype"]
    assert [tuple(case) for case in made.args[1]] == [("sigmoid", "z", np.float32), ("mse", "t", np.float64)]
    assert grid("n", (3, 4)).args == (["n"], [[3], [4]])
    assert label({"slope": 0.5, "b": 2}) == "slope=0.5,b=2" and label({}) == "defaults" and label(3) is None


def test_pair_of_an_unknown_axis_raises() -> None:
    with pytest.raises(ValueError):
        grid("layout dtype", "ab", "cd", pairs=["layout kernel"])


def test_seeded_numbers_follow_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = seeded(1).random(3)
    assert (seeded(1).random(3) == before).all() and (seeded(2).random(3) != before).all()
    monkeypatch.setattr(helpers, "SEED", helpers.SEED + 1)
    assert (seeded(1).random(3) != before).all()


@pytest.mark.parametrize("case", [0, 1])
def test_rng_depends_on_seed_and_case_alone(case: int, rng: np.random.Generator) -> None:
    assert rng.random() == seeded(zlib.crc32(str(case).encode())).random()
