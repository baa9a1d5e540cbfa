"""`accelerate` on deeplearning.ai's functions: values, caches, names, steps, and a dict that waits."""
# The program draws legacy random numbers.

from __future__ import annotations

import copy
import io
import json
import pickle
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from test_accelerate import PROGRAMS, always_faster, program, same  # noqa: F401  a fixture

import fastbp
from fastbp.dropin import Entry, Report, _functions
from fastbp.dropin._waiting import WAITING, WaitingDict

SIZES = ([6, 1], [9, 4, 1], [30, 20, 7, 5, 1])


@pytest.fixture
def course() -> dict[str, Any]:
    return program("deeplearning_ai")


@pytest.fixture
def plain() -> dict[str, Any]:
    """Another copy, which nothing accelerates."""
    return program("deeplearning_ai")


def data(sizes: list[int], m: int = 12, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    rng = seeded(3)
    return rng.standard_normal((sizes[0], m)).astype(dtype), rng.integers(0, 2, (1, m))


def step(space: dict[str, Any], X: Any, Y: Any, parameters: Any, rate: Any = 0.1) -> Any:
    AL, caches = space["L_model_forward"](X, parameters)
    grads = space["L_model_backward"](AL, Y, caches)
    return AL, caches, space["compute_cost"](AL, Y), grads, space["update_parameters"](parameters, grads, rate)


def settled(found: Any) -> Any:
    return tuple(dict(part) if isinstance(part, WaitingDict) else part for part in found)


# ---- the same --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("m", [1, 101])
def test_a_step_computes_the_same(course: Any, plain: Any, sizes: list[int], dtype: str, m: int) -> None:
    report = fastbp.accelerate(course)
    assert [entry.swapped for entry in report.entries] == [True] * 3, str(report)
    X, Y = data(sizes, m, dtype)
    found = []
    for space in (course, plain):
        parameters = {name: array.astype(dtype) for name, array in space["initialize_parameters_deep"](sizes).items()}
        results = []
        for _ in range(3):
            results.append(settled(step(space, X, Y, parameters)))
            parameters = results[-1][-1]
        found.append(results)
    bounds = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {}
    same(*found, **bounds)


def test_float32_inputs_of_float64_parameters_compute_the_same(course: Any, plain: Any) -> None:
    X, Y = data([9, 4, 1], dtype="float32")
    fastbp.accelerate(course)
    parameters = plain["initialize_parameters_deep"]([9, 4, 1])
    same(settled(step(course, X, Y, parameters)), settled(step(plain, X, Y, parameters)))


def test_caches_are_the_arrays_themselves(course: Any) -> None:
    fastbp.accelerate(course)
    X, _ = data([9, 4, 1])
    parameters = course["initialize_parameters_deep"]([9, 4, 1])
    _, caches = course["L_model_forward"](X, parameters)
    (first, Z1), (second, Z2) = caches
    assert first[0] is X and first[1] is parameters["W1"] and second[2] is parameters["b2"]
    np.testing.assert_array_equal(second[0], np.maximum(Z1, 0))
    assert all(array.flags.c_contiguous for array in (second[0], Z1, Z2))
    kept = copy.deepcopy(caches)
    course["L_model_forward"](2 * X, parameters)
    same(caches, kept)


def test_either_pass_takes_what_the_other_one_leaves(course: Any, plain: Any) -> None:
    X, Y = data([9, 4, 1])
    parameters = plain["initialize_parameters_deep"]([9, 4, 1])
    fastbp.accelerate(course)
    ours, theirs = (space["L_model_forward"](X, parameters) for space in (course, plain))
    expected = plain["L_model_backward"](theirs[0], Y, theirs[1])
    same(dict(course["L_model_backward"](theirs[0], Y, theirs[1])), expected)
    same(plain["L_model_backward"](ours[0], Y, ours[1]), expected)


@pytest.mark.parametrize("first", [2, 3])
def test_the_version_is_read_at_each_call(course: Any, plain: Any, first: int) -> None:
    X, Y = data([9, 4, 3, 1])
    course["VERSION"] = first
    report = fastbp.accelerate(course)
    for version in (first, 5 - first, first, 5 - first):
        course["VERSION"] = plain["VERSION"] = version
        found = []
        for space in (course, plain):
            parameters = plain["initialize_parameters_deep"]([9, 4, 3, 1])
            results = settled(step(space, X, Y, parameters))
            found.append((results, results[-1] is parameters, parameters))
        same(*found)
        assert ("dA3" in found[0][0][3]) == (version == 2)
    assert len(report.entries) == 3


def test_a_function_that_is_defined_once_more_counts(course: Any, plain: Any) -> None:
    """As a cell of a notebook that is run again."""
    X, Y = data([9, 4, 1])
    report = fastbp.accelerate(course)
    parameters = plain["initialize_parameters_deep"]([9, 4, 1])
    step(course, X, Y, parameters)
    for space in (course, plain):
        exec("def relu_backward(dA, cache):\n    return dA * np.where(cache > 0, 1, 0.01)", space)
    same(settled(step(course, X, Y, parameters)), step(plain, X, Y, parameters))
    assert any(entry.what == "L_model_backward" and not entry.swapped for entry in report.entries)


def test_what_changes_all_the_time_is_left_alone(course: Any, plain: Any) -> None:
    fastbp.accelerate(course)
    for space in (course, plain):
        exec("def relu(Z):\n    return np.maximum(0, Z) * SCALE, Z", space)
    X, _ = data([9, 4, 1])
    parameters = plain["initialize_parameters_deep"]([9, 4, 1])
    for k in range(_functions.MOST + 2):
        course["SCALE"] = plain["SCALE"] = 1 + k / 10
        same(course["L_model_forward"](X, parameters), plain["L_model_forward"](X, parameters))


@pytest.mark.parametrize("kind", ["module", "namespace"])
def test_functions_are_replaced_in_any_namespace(course: Any, kind: str) -> None:
    space: Any = types.ModuleType("course") if kind == "module" else types.SimpleNamespace()
    vars(space).update(course)
    before = dict(vars(space))
    with fastbp.accelerated(space):
        assert space.L_model_backward is not before["L_model_backward"]
        assert space.compute_cost is before["compute_cost"]
    assert vars(space) == before


def test_some_of_the_functions_are_enough(course: Any) -> None:
    names = ("update_parameters", "compute_cost")
    report = fastbp.accelerate({name: course[name] for name in names})
    assert [(entry.what, entry.swapped) for entry in report.entries] == [("update_parameters", True)]
    alone = {"L_model_backward": course["L_model_backward"]}
    assert fastbp.accelerate(alone).entries[0].swapped


def test_data_of_ones_own_is_tried_and_a_report_is_replayed(course: Any, plain: Any) -> None:
    X, Y = data([9, 4, 1], 20)
    report = fastbp.accelerate(course, X, Y)
    assert all(entry.swapped for entry in report.entries)
    report.undo()
    chosen = [Entry(e.what, e.what == "L_model_backward", e.why, e.difference, 1.0) for e in report.entries]
    again = fastbp.accelerate(course, X, Y, prefer=Report(chosen))
    assert [entry.swapped for entry in again.entries] == [False, True, False]
    parameters = plain["initialize_parameters_deep"]([9, 4, 1])
    same(settled(step(course, X, Y, parameters)), settled(step(plain, X, Y, parameters)))


def test_functions_that_share_a_name_alone_are_not_tried() -> None:
    calls: list[Any] = []
    space = {"update_parameters": lambda model, optimizer, rate: calls.append(model)}
    with pytest.raises(ValueError, match=r"found the names update_parameters; looked for .*beside L_model_backward"):
        fastbp.accelerate(space)
    with pytest.raises(ValueError, match="holds nothing that is known"):
        fastbp.accelerate({"update_parameters": lambda: calls.append(1), "compute_cost": len})
    assert calls == []


# ---- what is unusual -------------------------------------------------------------------------------------------------

Arguments = tuple[Any, Any, Any, Any]
UNUSUAL: dict[str, Callable[[Any, Any, Any, Any], Arguments]] = {
    "saturated": lambda X, Y, p, rate: (1e3 * X, Y, p, rate),
    "not a number": lambda X, Y, p, rate: (np.where(X > 1, np.nan, X), Y, p, rate),
    "infinite": lambda X, Y, p, rate: (np.where(X > 1, np.inf, X), Y, p, rate),
    "integers": lambda X, Y, p, rate: ((10 * X).astype(int), Y, p, rate),
    "a list": lambda X, Y, p, rate: (X.tolist(), Y, p, rate),
    "a matrix": lambda X, Y, p, rate: (np.matrix(X), Y, p, rate),
    "one sample as a vector": lambda X, Y, p, rate: (X[:, 0], Y[:, :1], p, rate),
    "Fortran": lambda X, Y, p, rate: (np.asfortranarray(X), Y, p, rate),
    "long doubles": lambda X, Y, p, rate: (X.astype(np.longdouble), Y, p, rate),
    "byte-swapped": lambda X, Y, p, rate: (X.astype(">f8"), Y, p, rate),
    "float32 parameters": lambda X, Y, p, rate: (X, Y, {k: v.astype("f") for k, v in p.items()}, rate),
    "mixed parameters": lambda X, Y, p, rate: (X, Y, {**p, "W2": p["W2"].astype("f")}, rate),
    "biases that are vectors": lambda X, Y, p, rate: (X, Y, {**p, "b2": p["b2"][0]}, rate),
    "biases of each sample": lambda X, Y, p, rate: (X, Y, {**p, "b1": np.ones((4, X.shape[1]))}, rate),
    "another order": lambda X, Y, p, rate: (X, Y, dict(reversed(p.items())), rate),
    "more in the dict": lambda X, Y, p, rate: (X, Y, {**p, "note": [1]}, rate),
    "two more in the dict": lambda X, Y, p, rate: (X, Y, {**p, "W9": p["W1"], "b9": p["b1"]}, rate),
    "two outputs": lambda X, Y, p, rate: (X, Y, {**p, "W2": np.ones((2, 4)), "b2": np.ones((2, 1))}, rate),
    "wrong columns": lambda X, Y, p, rate: (X[:5], Y, p, rate),
    "wrong targets": lambda X, Y, p, rate: (X, Y[:, :3], p, rate),
    "targets as a vector": lambda X, Y, p, rate: (X, Y[0], p, rate),
    "targets that are bools": lambda X, Y, p, rate: (X, Y > 0, p, rate),
    "soft targets": lambda X, Y, p, rate: (X, Y * 0.8 + 0.1, p, rate),
    "a rate of numpy's": lambda X, Y, p, rate: (X, Y, p, np.float64(rate)),
    "an array of rates": lambda X, Y, p, rate: (X, Y, p, np.full((1, 1), rate)),
    "no samples": lambda X, Y, p, rate: (X[:, :0], Y[:, :0], p, rate),
}


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.filterwarnings("ignore")
def test_unusual_arguments_give_what_they_gave(course: Any, plain: Any, kind: str) -> None:
    fastbp.accelerate(course)
    found: list[Any] = []
    for space in (course, plain):
        arguments = UNUSUAL[kind](*data([9, 4, 1]), plain["initialize_parameters_deep"]([9, 4, 1]), 0.3)
        before = copy.deepcopy(arguments[:3])
        try:
            found.append(settled(step(space, *arguments)))
        except Exception as error:
            found.append((type(error), str(error)))
        same(before, arguments[:3])
    bounds = {"rtol": 1e-4, "atol": 1e-5} if "float32" in kind else {"rtol": 1e-8}
    same(*found, **bounds)


def test_other_caches_are_the_programs_own(course: Any, plain: Any) -> None:
    fastbp.accelerate(course)
    X, Y = data([9, 4, 1])
    AL, caches = plain["L_model_forward"](X, plain["initialize_parameters_deep"]([9, 4, 1]))
    others: list[Any] = [[], tuple(caches), [list(cache) for cache in caches], caches[:1], None]
    for other in others:
        found = []
        for space in (course, plain):
            try:
                found.append(settled((space["L_model_backward"](AL, Y, other),)))
            except Exception as error:
                found.append((type(error), str(error)))
        same(*found)


# ---- edits -----------------------------------------------------------------------------------------------------------

PLACES: dict[str, tuple[str, str]] = {  # what is written in a place; what is swapped then
    "dZ[Z <= 0] = 0": ("dZ[Z < 0] = 0", "forward update"),
    "A = np.maximum(0, Z)": ("A = np.maximum(0.01 * Z, Z)", "backward update"),
    "    s = 1 / (1 + np.exp(-Z))": ("    s = 1 / (1 + np.exp(-Z)) + 1e-9", "forward update"),
    "A = 1 / (1 + np.exp(-Z))": ("A = 1 / (1 + np.exp(-np.clip(Z, -20, 20)))", "backward update"),
    "dZ = dA * s * (1 - s)": ("dZ = dA * s", "forward update"),
    "Z = np.dot(W, A) + b": ("Z = W @ A + b", "forward backward update"),
    "dW = 1.0 / m * np.dot(dZ, A_prev.T)": ("dW = 1.0 / m * np.dot(dZ, A_prev.T) + 0.1 / m * W", "forward update"),
    "db = 1.0 / m * np.sum(dZ, axis=1, keepdims=True)": ("db = np.sum(dZ, axis=1, keepdims=True)", "forward update"),
    "dA_prev = np.dot(W.T, dZ)": ("dA_prev = 0.9 * np.dot(W.T, dZ)", "forward update"),
    "np.divide(1 - Y, 1 - AL))": ("np.divide(1 - Y, 1 - AL + 1e-8))", "forward update"),
    "dA = -(np.divide(Y, AL)": ("dA = -(np.divide(Y, AL + 1e-8)", "forward update"),
    'grads["dA" + str(layer if VERSION == 2 else layer - 1)] = dA': ("pass", "forward backward update"),
    'grads["dW" + str(layer)] = dW': ('grads["dW" + str(layer)] = np.clip(dW, -1e-2, 1e-2)', "forward update"),
    'grads["db" + str(layer)] = db': ('grads["db" + str(layer)] = db[:, 0]', "forward update"),
    'parameters["W" + i] - learning_rate * grads["dW" + i]': (
        '0.999 * parameters["W" + i] - learning_rate * grads["dW" + i]',
        "forward backward",
    ),
    'parameters["b" + i] = parameters["b" + i] - learning_rate': (
        'parameters["b" + i] = parameters["b" + i] + learning_rate',
        "forward backward",
    ),
    "if VERSION >= 3:": ("if False:", "forward backward update"),
    'parameters["W" + i] = parameters["W" + i] - learning_rate * grads["dW" + i]': (
        'parameters["W" + i] -= learning_rate * grads["dW" + i]',
        "forward backward update",
    ),
    '"W1": np.random.randn(n_h, n_x) * 0.01': ('"W1": np.random.randn(n_h, n_x)', "forward backward update"),
}


@pytest.mark.parametrize("place", PLACES)
def test_edits_are_followed_or_left_alone(place: str) -> None:
    """What they compute is tested with those of the other programs."""
    new, swapped = PLACES[place]
    report = fastbp.accelerate(edited(place, new))
    names = {"forward": "L_model_forward", "backward": "L_model_backward", "update": "update_parameters"}
    assert {e.what for e in report.entries if e.swapped} == {names[name] for name in swapped.split()}, str(report)


def edited(old: str, new: str) -> dict[str, Any]:
    text = (PROGRAMS / "deeplearning_ai.py").read_text(encoding="utf-8")
    assert old in text
    space: dict[str, Any] = {"__name__": "edited"}
    exec(compile(text.replace(old, new, 1), "<edited>", "exec"), space)
    return space


# ---- a dict that waits -----------------------------------------------------------------------------------------------


def waiting(calls: list[int]) -> Any:
    return WaitingDict([("a", 1), ("b", WAITING), ("c", 3)], lambda: (calls.append(1), 2)[1])


READ: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "[]": (lambda d: d["b"], 2),
    "get": (lambda d: d.get("b"), 2),
    "items": (lambda d: list(d.items()), [("a", 1), ("b", 2), ("c", 3)]),
    "values": (lambda d: list(d.values()), [1, 2, 3]),
    "pop": (lambda d: d.pop("b"), 2),
    "popitem": (lambda d: (d.popitem(), d.popitem()), (("c", 3), ("b", 2))),
    "setdefault": (lambda d: d.setdefault("b", 5), 2),
    "dict": (lambda d: dict(d), {"a": 1, "b": 2, "c": 3}),
    "**": (lambda d: {**d}, {"a": 1, "b": 2, "c": 3}),
    "arguments": (lambda d: (lambda **names: names)(**d), {"a": 1, "b": 2, "c": 3}),
    "update": (lambda d: (plain := {}).update(d) or plain, {"a": 1, "b": 2, "c": 3}),
    "|": (lambda d: d | {"e": 5}, {"a": 1, "b": 2, "c": 3, "e": 5}),
    "| from the right": (lambda d: {"e": 5} | d, {"e": 5, "a": 1, "b": 2, "c": 3}),
    "copy": (lambda d: d.copy(), {"a": 1, "b": 2, "c": 3}),
    "copy.copy": (copy.copy, {"a": 1, "b": 2, "c": 3}),
    "deepcopy": (copy.deepcopy, {"a": 1, "b": 2, "c": 3}),
    "pickle": (lambda d: pickle.loads(pickle.dumps(d)), {"a": 1, "b": 2, "c": 3}),
    "json": (json.dumps, '{"a": 1, "b": 2, "c": 3}'),
    "repr": (repr, "{'a': 1, 'b': 2, 'c': 3}"),
    "==": (lambda d: d == {"a": 1, "b": 2, "c": 3}, True),
    "== from the right": (lambda d: {"a": 1, "b": 2, "c": 3} == d, True),
    "!=": (lambda d: d != {"a": 1, "b": 2, "c": 3}, False),
    "loop": (lambda d: [d[key] for key in d], [1, 2, 3]),
    "comprehension": (lambda d: {key: 2 * d[key] for key in d.keys()}, {"a": 2, "b": 4, "c": 6}),
    "match": (lambda d: matched(d), 2),
    "format": (lambda d: "{b}".format(**d) + f"{d['b']}", "22"),
}


def matched(value: Any) -> Any:
    match value:
        case {"b": b}:
            return b


@pytest.mark.parametrize("way", READ)
def test_every_way_to_read_a_waiting_dict_computes_its_value_once(way: str) -> None:
    calls: list[int] = []
    read, expected = READ[way]
    one = waiting(calls)
    found = read(one)
    assert found == expected and type(found) is type(expected)
    assert calls == [1]
    assert one.get("d") is None and calls == [1]


def test_other_ways_leave_a_waiting_dict_as_it_is() -> None:
    calls: list[int] = []
    one = waiting(calls)
    assert len(one) == 3 and "b" in one and list(one) == ["a", "b", "c"] and one["a"] == 1
    assert one.get("d", 4) == 4 and isinstance(one, dict) and bool(one)
    one["b"] = 7
    assert one == {"a": 1, "b": 7, "c": 3}
    del one["b"]
    assert list(one.values()) == [1, 3]
    assert calls == []
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_a_gradient_that_waits_has_the_weights_of_its_time(course: Any, plain: Any) -> None:
    X, Y = data([9, 4, 1])
    fastbp.accelerate(course)
    found = []
    for space in (course, plain):
        parameters = plain["initialize_parameters_deep"]([9, 4, 1])
        AL, caches = space["L_model_forward"](X, parameters)
        grads = space["L_model_backward"](AL, Y, caches)
        for array in parameters.values():
            array *= 3
        file = io.BytesIO()
        np.savez(file, **grads)
        file.seek(0)
        found.append({**np.load(file)})
    same(*found)
