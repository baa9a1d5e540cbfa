"""Optimizers on a program's own arrays: against the references, in every layout, and what is refused."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest
from helpers import grid, seeded, unchanged
from numpy.lib.stride_tricks import as_strided
from numpy.testing import assert_allclose, assert_array_equal
from test_optimizers import DTYPES, OPTIMIZER_CASES, make

import fastbp

Array = np.ndarray[Any, Any]

SHAPES = [(), (0,), (3, 0), (7,), (5, 3), (40, 33), (2, 3, 4), (70, 300)]
LAYOUTS = {
    "C": lambda a: np.array(a, order="C"),
    "F": lambda a: np.array(a, order="F"),
    "columns": lambda a: np.zeros((*a.shape[:-1], 2 * a.shape[-1] + 3), a.dtype)[..., 1 : 2 * a.shape[-1] + 1 : 2],
    "rows": lambda a: np.zeros((*a.shape[:-1], a.shape[-1] + 5), a.dtype)[..., 2 : 2 + a.shape[-1]],
    "backwards": lambda a: np.zeros_like(a)[::-1],
    "moved axes": lambda a: np.moveaxis(np.zeros((a.shape[-1], *a.shape[:-1]), a.dtype), 0, -1),
}


def laid_out(array: Array, layout: str) -> Array:
    if array.ndim == 0:
        return array.copy()
    made = LAYOUTS[layout](array)
    made[...] = array
    return made


def by_reference(optimizer: Any, w: Array, gradients: list[Array]) -> Array:
    """The steps of one array, flat, in float64 or wider."""
    w = w.astype(np.float64).ravel()
    used = optimizer._used()
    arrays = [np.zeros_like(w) if name in used else None for name in optimizer.rule.states]
    for name, hyper in optimizer.rule.begins_as.items():
        arrays[optimizer.rule.states.index(name)][...] = getattr(optimizer, hyper)
    carried = optimizer.rule.carried[1] if optimizer.rule.carried else None
    for step, gradient in enumerate(gradients, start=1):
        options = {hyper.name: getattr(optimizer, hyper.name) for hyper in optimizer.rule.hyper}
        options |= {"step": step, "lr": optimizer.rate(step)}
        if optimizer.rule.carried:
            options[optimizer.rule.carried[0]] = carried
        made = optimizer.rule.step(w, gradient.astype(np.float64).ravel(), *arrays, **options)
        carried = carried if made is None else made
    return w


def tolerance(dtype: Any) -> float:
    # Three steps of numbers of size 1, each of about forty roundings; RMSprop's variance is a difference, of which a
    # root is taken, and Adam's quotient takes the root of a square.
    return 500 * float(np.finfo(dtype).eps)


@pytest.mark.kernel
@grid(
    "name layout of_gradient dtype",
    OPTIMIZER_CASES,
    LAYOUTS,
    LAYOUTS,
    DTYPES,
    pairs=["name dtype", "layout of_gradient"],
)
def test_lists_are_updated_as_by_the_reference(name: str, layout: str, of_gradient: str, dtype: str) -> None:
    rng = seeded(0)
    optimizer = make(name)
    # The sign of a mean that is almost 0 may be either: no gradient is near it.
    gradients = [
        [np.asarray(rng.uniform(0.5, 2, s) * rng.choice([-1, 1])).astype(dtype) for s in SHAPES] for _ in "123"
    ]
    start = [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in SHAPES]
    w = [laid_out(array, layout) for array in start]
    for of_step in gradients:
        optimizer.update(w, [laid_out(gradient, of_gradient) for gradient in of_step])
    for i, array in enumerate(w):
        expected = by_reference(optimizer, start[i], [of_step[i] for of_step in gradients])
        assert_allclose(array.ravel(), expected, rtol=tolerance(dtype), atol=tolerance(dtype), err_msg=str(SHAPES[i]))
    assert optimizer.state_for(w).step == 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_beside_strided_arrays_stays(layout: str) -> None:
    w = laid_out(np.ones((5, 3)), layout)
    owner = w if w.base is None else w.base
    kept = owner.copy()
    fastbp.SGD(lr=0.5).update(w, np.ones((5, 3)))
    assert_array_equal(w, 0.5)
    w[...] = 1
    assert_array_equal(owner, kept)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_and_containers_change_no_bit(dtype: str, threads: int) -> None:
    rng = seeded(1)
    start, gradient = rng.standard_normal((2, 130, 400)).astype(dtype)
    made = []
    with fastbp.threads(threads):
        for form in (lambda a: a, lambda a: [a], lambda a: (a,), lambda a: {"w": a}):
            w, optimizer = start.copy(), fastbp.Adam(lr=0.1, clip_norm=3.0)
            for _ in range(2):
                optimizer.update(form(w), form(gradient))
            made.append(w)
    with fastbp.threads(1):
        w, optimizer = start.copy(), fastbp.Adam(lr=0.1, clip_norm=3.0)
        for _ in range(2):
            optimizer.update(w, gradient)
    for other in made:
        assert_array_equal(other, w)


def test_arrays_of_a_list_have_their_own_dtypes() -> None:
    w = [np.ones(3, np.float32), np.ones((2, 2))]
    optimizer = fastbp.Adam(lr=0.5)
    optimizer.update(w, [np.ones(3, np.float32), np.ones((2, 2))])
    assert_allclose(w[0], 0.5, rtol=1e-6)
    assert_allclose(w[1], 0.5, rtol=1e-7)
    with pytest.raises(TypeError, match=r"gradients\[0\] has dtype float64 but parameters\[0\] is float32"):
        optimizer.update(w, [np.ones(3), np.ones((2, 2))])


def test_the_norm_is_of_all_gradients() -> None:
    rng = seeded(2)
    w, g = ([np.asarray(rng.standard_normal(shape)) for shape in ((4, 3), (5,), ())] for _ in "wg")
    before, norm = [a.copy() for a in w], np.sqrt(sum((a**2).sum() for a in g))
    fastbp.SGD(lr=1.0, clip_norm=0.5).update(w, g)
    for array, old, gradient in zip(w, before, g, strict=True):
        assert_allclose(array, old - gradient * (0.5 / (norm + 1e-6)), rtol=1e-13)
    w = [np.ones(2), np.ones(3)]
    fastbp.SGD(lr=1.0, clip_norm=0.5).update(w, [np.array([np.nan, 1.0]), np.ones(3)])
    assert np.isnan(w[1]).all()  # as a norm of NaN makes of every gradient


def test_groups_match_names_and_positions() -> None:
    groups = [{"match": "*b", "lr": 0.0}, {"match": "out*", "lr": 0.25}]
    w = {name: np.ones(2) for name in ("in.w", "in.b", "out.w")}
    optimizer = fastbp.SGD(lr=0.5, groups=groups)
    optimizer.update(w, {name: np.ones(2) for name in reversed(w)})
    assert {name: array[0] for name, array in w.items()} == {"in.w": 0.5, "in.b": 1.0, "out.w": 0.75}
    listed = [np.ones(1), np.ones(1)]
    fastbp.SGD(lr=0.5, groups=[{"match": "1", "lr": 0.0}]).update(listed, [np.ones(1), np.ones(1)])
    assert (listed[0][0], listed[1][0]) == (0.5, 1.0)
    with (
        unchanged(listed[0]),
        pytest.raises(ValueError, match=r"groups\[0\] matches no parameter: '\*b'; known are '0'"),
    ):
        fastbp.SGD(lr=0.5, groups=groups).update(listed, listed)
    with pytest.raises(ValueError, match="groups need the parameters' names: pass a dict of arrays"):
        fastbp.SGD(lr=0.5, groups=groups).update(listed[0], np.ones(1))


def test_groups_begin_states_as_they_say() -> None:
    optimizer = fastbp.Adagrad(groups=[{"match": "b", "initial_accumulator_value": 0.25}])
    w = {"w": np.ones(1), "b": np.ones(1)}
    assert {name: array.tolist() for name, array in optimizer.state_for(w).arrays.items()} == {
        "total.w": [0.0],
        "total.b": [0.25],
    }


def test_schedules_and_changed_settings_count_from_the_next_step() -> None:
    optimizer, w = fastbp.SGD(lr=lambda step: 1.0 / step), [np.zeros(1)]
    for expected in (-1.0, -1.5, -1.5 - 1 / 3):
        optimizer.update(w, [np.ones(1)])
        assert w[0][0] == pytest.approx(expected, rel=1e-15)
    optimizer.lr = 2.0
    optimizer.update(w, [np.ones(1)])
    assert w[0][0] == pytest.approx(-3.5 - 1 / 3, rel=1e-15)


# ---- whose state it is -----------------------------------------------------------------------------------------------


def test_the_state_of_a_list_goes_by_position_and_that_of_a_dict_by_name() -> None:
    """Also where each step brings arrays of its own: that is, momentum goes on."""
    for form in (list, tuple):
        w, optimizer = form([np.zeros(2), np.zeros(2)]), fastbp.SGD(lr=1.0, momentum=0.5)
        for _ in range(3):
            w = form(array.copy() for array in w)
            optimizer.update(w, [np.ones(2), -np.ones(2)])
        assert (w[0][0], w[1][0]) == (-4.25, 4.25)
    named, optimizer = {"a": np.zeros(2), "b": np.zeros(2)}, fastbp.SGD(lr=1.0, momentum=0.5)
    for _ in range(3):
        named = {name: named[name].copy() for name in reversed(named)}
        optimizer.update(named, {"a": np.ones(2), "b": -np.ones(2)})
    assert (named["a"][0], named["b"][0]) == (-4.25, 4.25)


def test_a_second_array_of_a_shape_could_be_either_and_is_refused() -> None:
    w, optimizer = np.zeros((2, 3)), fastbp.SGD(lr=1.0, momentum=0.5)
    optimizer.update(w, np.ones((2, 3)))
    w = w.copy()  # the first one is gone, and this could be the next problem's
    with unchanged(w), pytest.raises(ValueError, match=r"another float64 array of shape \(2, 3\) than in the steps be"):
        optimizer.update(w, np.ones((2, 3)))
    optimizer.update(np.zeros(4), np.ones(4))  # of another shape: another parameter
    assert optimizer.state_for(w).step == 0  # which makes it known
    optimizer.update(w, np.ones((2, 3)))
    assert w[0, 0] == -2.0


def test_a_network_does_not_inherit_the_state_of_one_that_is_gone() -> None:
    optimizer = fastbp.Adam(lr=0.1)
    net = fastbp.MLP([2, 1], dtype="float64", seed=0)
    optimizer.update(net.flat_parameters, np.ones(3))
    net = fastbp.MLP([2, 1], dtype="float64", seed=0)
    with unchanged(net.flat_parameters), pytest.raises(ValueError, match=r"a network by state_for\(net\)"):
        optimizer.update(net.flat_parameters, np.ones(3))
    assert optimizer.state_for(net).step == 0
    optimizer.update(net.flat_parameters, np.ones(3))
    assert optimizer.state_for(net).step == 1


def test_what_remembers_nothing_takes_any_array() -> None:
    optimizer = fastbp.SGD(lr=0.5)
    for _ in range(3):
        w = np.ones(2)
        optimizer.update(w, np.ones(2))
        assert_array_equal(w, 0.5)
    optimizer.lr = fastbp.schedules.StepDecay(0.5, every=1)  # which counts steps
    optimizer.update(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="another float64 array"):
        optimizer.update(np.ones(2), np.ones(2))


def test_a_networks_step_and_update_of_its_flat_vector_share_a_state() -> None:
    net = fastbp.MLP([3, 4, 2], dtype="float64", seed=0)
    copied, rng = net.copy(), seeded(0)
    groups = [{"match": "*.bias", "lr": 0.5}]
    optimizer, other = (fastbp.Adam(lr=0.1, groups=groups) for _ in "ab")
    other.state_for(copied)
    for step in range(4):
        gradient = rng.standard_normal(net.n_parameters)
        net.gradients.flat[...] = gradient
        if step % 2 == 0:
            net.update(optimizer)
        else:
            optimizer.update(net.flat_parameters, gradient)
        other.update(copied.flat_parameters, gradient)
    assert optimizer.state_for(net).step == 4
    assert_allclose(net.flat_parameters, copied.flat_parameters, rtol=1e-14)


def test_an_optimizer_of_ones_own_may_call_the_rule() -> None:
    class Noisy(fastbp.SGD):
        def update(self, parameters: Array, gradients: Array) -> None:
            super().update(parameters, gradients + 1)

    optimizer, nets = (
        Noisy(lr=0.5, groups=[{"match": "*.bias", "lr": 0.0}]),
        [fastbp.MLP([2, 1], loss="mse") for _ in "ab"],
    )
    for net in nets:
        kept, before = net.biases[0].copy(), net.weights[0].copy()
        gradients = net.value_and_grad(np.ones((1, 2), "f"), np.zeros(1, "f"))[1]
        expected = before - np.float32(0.5) * (gradients.weights[0] + 1)
        net.train_step(np.ones((1, 2), "f"), np.zeros(1, "f"), optimizer)
        assert_allclose(net.weights[0], expected, rtol=1e-6)
        assert_array_equal(net.biases[0], kept)


@pytest.mark.parametrize("form", [list, lambda arrays: dict(zip("ab", arrays, strict=True))])
def test_a_state_of_arrays_can_be_kept_and_restored(form: Any) -> None:
    def steps(optimizer: Any, w: Any, n: int) -> None:
        for i in range(n):
            gradients = [np.full(3, 1.0 + i), np.full((2, 2), 2.0 - i)]
            optimizer.update(w, form(gradients))

    w, optimizer = form([np.zeros(3), np.zeros((2, 2))]), fastbp.Nadam(lr=0.1)
    steps(optimizer, w, 3)
    saved, again = copy.deepcopy(optimizer.get_state(w)), fastbp.Nadam(lr=0.1)
    copied = copy.deepcopy(w)
    again.set_state(copied, saved)
    steps(optimizer, w, 2)
    steps(again, copied, 2)
    for a, b in zip(*(list(x.values()) if isinstance(x, dict) else x for x in (w, copied)), strict=True):
        assert_array_equal(a, b)
    name = "m.0" if isinstance(w, list) else "m.a"
    with pytest.raises(ValueError, match=rf"state.{name} is \(1,\) float64, the network has \(3,\) float64"):
        again.set_state(copied, {**saved, f"state.{name}": np.zeros(1)})


def test_a_copy_has_no_state() -> None:
    optimizer = fastbp.SGD(lr=1.0, momentum=0.5)
    optimizer.update([np.zeros(2)], [np.ones(2)])
    other = copy.copy(optimizer)
    other.update([np.zeros(5), np.zeros(1)], [np.ones(5), np.ones(1)])
    assert "_own" not in repr(other)


# ---- what is refused -------------------------------------------------------------------------------------------------

W, B = np.ones((2, 3)), np.ones(3)
SHARED = np.ones(6)
REFUSED = {
    "a number": (1.0, 1.0, TypeError, "parameters must be a numpy array, which .*, got float"),
    "a list of lists": ([[1.0]], [np.ones(1)], TypeError, r"parameters\[0\] must be a numpy array, .*, got list"),
    "integers": ([np.ones(2, int)], [np.ones(2)], TypeError, r"parameters\[0\] has dtype int64, expected float32 or"),
    "other bytes": ([np.ones(2, ">f8")], [np.ones(2)], TypeError, r"parameters\[0\] has dtype >f8, expected float32"),
    "masked": ([np.ma.ones(2)], [np.ones(2)], TypeError, r"parameters\[0\] is a masked array"),
    "read-only": ([np.broadcast_to(1.0, 3)], [np.ones(3)], ValueError, r"parameters\[0\] is read-only"),
    "another shape": ([W], [W.T], ValueError, r"gradients\[0\] has shape \(3, 2\), expected \(2, 3\), that of"),
    "fewer gradients": ([W, B], [W], ValueError, "gradients has 1 arrays, expected 2"),
    "other names": ({"w": W}, {"v": W}, ValueError, "gradients has the names 'v', expected 'w'"),
    "a dict and a list": ({"w": W}, [W], TypeError, "gradients must be a dict of arrays like those"),
    "a list and a dict": ([W], {"w": W}, TypeError, "gradients must be a list of arrays like those"),
    "names of numbers": ({1: W}, {1: W}, TypeError, "the names of parameters must be strings, got 1"),
    "twice": ([B, B], [np.ones(3), np.ones(3)], ValueError, r"parameters\[1\] shares memory with parameters\[0\]"),
    "overlapping": ([SHARED[:4], SHARED[2:]], [np.ones(4)] * 2, ValueError, r"parameters\[1\] shares memory with par"),
    "its gradient": ([SHARED[:4]], [SHARED[2:]], ValueError, r"parameters\[0\] shares memory with gradients\[0\]"),
    "another's gradient": ([SHARED[:3], B], [np.ones(3), SHARED[2:5]], ValueError, r"\[0\] shares .* gradients\[1\]"),
    "itself": ([as_strided(np.ones(4), (3, 2), (8, 8))], [np.ones((3, 2))], ValueError, "several elements"),
}  # fmt: skip


@pytest.mark.parametrize("first", [True, False], ids=["at first", "later"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_updated_raises_and_changes_nothing(case: str, first: bool) -> None:
    parameters, gradients, error, message = REFUSED[case]
    optimizer = fastbp.Adam(lr=0.1)
    kept = copy.deepcopy(parameters)
    if not first:
        listed = list(parameters.values()) if isinstance(parameters, dict) else parameters
        if case in ("a number", "a list of lists", "integers", "other bytes", "masked", "names of numbers"):
            pytest.skip("nothing like it can come first")
        fresh = [np.ones(np.shape(array)) for array in listed]
        form = (lambda a: dict(zip(parameters, a, strict=True))) if isinstance(parameters, dict) else list
        optimizer.update(form(fresh), form([array.copy() for array in fresh]))
    with pytest.raises(error, match=message):
        optimizer.update(parameters, gradients)
    assert str(parameters) == str(kept)
    if not first:
        assert optimizer._own.state.step == 1
    else:
        assert optimizer._own is None
        assert len(optimizer._states) == 0


CHANGED = {
    "number": ([W], ValueError, "parameters has 1 arrays, expected 2: the optimizer's state belongs to them"),
    "shape": (
        [W, np.ones(4)],
        ValueError,
        r"parameters\[1\] is \(4,\) float64, but was \(3,\) float64 in the step before",
    ),
    "dtype": ([W.astype("f"), B], ValueError, r"parameters\[0\] is \(2, 3\) float32, but was \(2, 3\) float64"),
    "form": ({"w": W, "b": B}, TypeError, r"parameters must be a list of arrays like .*copy\.deepcopy\(optimizer\)"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_other_arrays_than_before_raise(case: str) -> None:
    parameters, error, message = CHANGED[case]
    optimizer = fastbp.Adam(lr=0.1)
    optimizer.update([W.copy(), B.copy()], [W, B])
    slopes = copy.deepcopy(parameters)
    with pytest.raises(error, match=message):
        optimizer.update(parameters, slopes)
    assert optimizer._own.state.step == 1
    copy.deepcopy(optimizer).update(copy.deepcopy(parameters), slopes)  # what the message proposes


def test_interleaved_arrays_are_apart() -> None:
    memory = np.ones(12)
    w = [memory[::3], memory[1::3]]
    fastbp.SGD(lr=0.5).update(w, [np.ones(4), memory[2::3]])
    assert_array_equal(memory, np.tile([0.5, 0.5, 1.0], 4))


def test_a_gradient_may_be_the_parameter() -> None:
    w = [np.ones(3), np.ones((4, 6))[:, ::2]]
    fastbp.SGD(lr=0.25).update(w, w)
    for array in w:
        assert_array_equal(array, 0.75)


def test_misaligned_and_subclassed_arrays_are_updated() -> None:
    memory = np.zeros(8 * 5 + 1, np.uint8)
    w = memory[1:].view(np.float64)

    class Own(np.ndarray):
        pass

    matrix = np.ones((2, 2)).view(Own)
    fastbp.SGD(lr=0.5).update([w, matrix], [np.ones(5), np.ones((2, 2))])
    assert_array_equal(w, -0.5)
    assert_array_equal(matrix, 0.5)


def test_gradients_are_what_numpy_makes_an_array_of() -> None:
    w = [np.ones(2), np.ones((1, 2))]
    fastbp.SGD(lr=0.5).update(w, [[1.0, 2.0], [[3.0, 4.0]]])
    assert_array_equal(w[0], [0.5, 0.0])
    assert_array_equal(w[1], [[-0.5, -1.0]])


def test_scalars_are_gradients_of_arrays_without_axes() -> None:
    w, x = np.array(1.0), np.ones(3)
    fastbp.SGD(lr=0.5).update([w], [x.sum()])
    assert w == -0.5


def test_two_threads_at_one_optimizer_do_not_meet() -> None:
    """The second one is refused, whenever it comes: each step that is counted has been made."""
    optimizer, w = fastbp.SGD(lr=1.0), [np.zeros(200_000)]
    made = []

    def work() -> None:
        for _ in range(20):
            try:
                optimizer.update(w, [np.ones(200_000)])
                made.append(1)
            except RuntimeError as error:
                assert "this optimizer is at work in another thread" in str(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert optimizer.state_for(w).step == len(made)
    assert_array_equal(w[0], -float(len(made)))


def test_a_state_is_freed_with_its_array() -> None:
    optimizer = fastbp.Adam()
    for n in range(1, 4):
        optimizer.update(np.ones(n), np.ones(n))
    assert len(optimizer._states) == 0


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("form", [list, lambda arrays: dict(zip("abcd", arrays, strict=True))])
def test_adopted_arrays_are_updated_where_the_network_computes(form: Any, in_place: bool) -> None:
    """A program's own loop: its arrays, the engine's gradients, and the optimizer on both."""
    rng = seeded(0)
    arrays = [rng.normal(size=(5, 3)), np.zeros((5, 1)), rng.normal(size=(2, 5)), np.zeros((1, 2))]
    net = fastbp.MLP([3, 5, 2], dtype="float64", seed=0)
    copied = net.copy()
    views = net.adopt(form(arrays), layout="out,in", in_place=in_place)
    copied.adopt(form([array.copy() for array in arrays]), layout="out,in")
    x, t = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    optimizer, other = fastbp.Adam(lr=0.1), fastbp.Adam(lr=0.1)
    for _ in range(3):
        net.value_and_grad(x, t)
        optimizer.update(views, views.gradients)
        copied.train_step(x, t, other)
    for values, expected in zip(net.parameters.values(), copied.parameters.values(), strict=True):
        assert_allclose(values, expected, rtol=1e-12)
    if in_place:
        assert np.shares_memory(arrays[0], net.parameters["0.weight"])


# ---- what is changed meanwhile ---------------------------------------------------------------------------------------


def reshaped(array: Any) -> None:
    array.shape = (2, 6)


def of_another_dtype(array: Any) -> None:
    array.dtype = np.complex128


def read_only(array: Any) -> None:
    array.flags.writeable = False


@pytest.mark.parametrize("change", [reshaped, of_another_dtype, read_only])
@pytest.mark.parametrize("form", [lambda w: w, lambda w: [w], lambda w: {"w": w}], ids=["one", "list", "dict"])
@pytest.mark.filterwarnings("ignore:Setting the (shape|dtype):DeprecationWarning")
def test_a_state_array_that_no_longer_fits_is_refused(form: Any, change: Any) -> None:
    w, optimizer = np.zeros(12), fastbp.Adam()
    optimizer.update(form(w), form(np.ones(12)))
    change(next(iter(optimizer.state_for(form(w)).arrays.values())))
    with unchanged(w), pytest.raises(ValueError, match="a state array of the optimizer"):
        optimizer.update(form(w), form(np.ones(12)))


def test_what_is_carried_is_not_written_where_it_is_read_only() -> None:
    w, optimizer = np.zeros(3), fastbp.Nadam()
    optimizer.update(w, np.ones(3))
    carried = optimizer.state_for(w).carried
    carried.flags.writeable = False
    with unchanged(w, carried), pytest.raises(ValueError, match="a state array of the optimizer is read-only"):
        optimizer.update(w, np.ones(3))


def test_a_list_that_another_thread_changes_keeps_its_arrays_until_the_step_is_made() -> None:
    parameters, gradients, ended = [np.zeros(300_000)], [np.ones(300_000)], threading.Event()

    def exchange() -> None:
        while not ended.is_set():
            gradients[0] = np.ones(300_000)

    thread, optimizer = threading.Thread(target=exchange), fastbp.SGD(lr=1.0)
    thread.start()
    for _ in range(100):
        optimizer.update(parameters, gradients)
    ended.set()
    thread.join()
    assert_array_equal(parameters[0], -100.0)


def test_each_step_has_its_own_rate_whatever_thread_makes_it() -> None:
    w, made, optimizer = np.zeros(1), [], fastbp.SGD(lr=lambda step: float(step))

    def work() -> None:
        for _ in range(300):
            try:
                optimizer.update([w], [np.ones(1)])
                made.append(1)
            except RuntimeError:
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert optimizer.state_for([w]).step == len(made)
    assert w[0] == -len(made) * (len(made) + 1) / 2


def test_a_first_step_that_was_not_made_binds_no_arrays() -> None:
    optimizer = fastbp.SGD(lr=lambda step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        optimizer.update([np.zeros(2)], [np.ones(2)])
    optimizer.lr = 0.5
    w = [np.zeros(3), np.zeros(4)]
    optimizer.update(w, [np.ones(3), np.ones(4)])
    assert_array_equal(w[0], -0.5)


def test_views_of_the_same_memory_with_other_strides_are_other_parameters() -> None:
    w, g = np.zeros((2, 2)), np.array([[0.0, 1.0], [0.0, 0.0]])
    optimizer = fastbp.SGD(lr=1.0, momentum=0.9)
    optimizer.update(w, g)
    with unchanged(w), pytest.raises(ValueError, match="another float64 array"):
        optimizer.update(w.T, g.T)
    memory = np.zeros(12)
    optimizer.update(memory[:6], np.ones(6))
    with unchanged(memory), pytest.raises(ValueError, match="another float64 array"):
        optimizer.update(memory[::2], np.ones(6))
