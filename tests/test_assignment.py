"""What can be assigned takes effect, or raises: for every public attribute that an object has."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits

import fastbp
from fastbp import losses, schedules, training, units
from fastbp._assign import ArrayDict
from fastbp.optim import averages
from fastbp.reference import OPTIMIZERS
from fastbp.units.images import ImageUnit

X, T = np.ones((4, 2)), np.array([0, 1, 1, 0])


def net_of(**options: Any) -> fastbp.MLP:
    return fastbp.MLP([2, 3, 2], dtype="float64", **({"seed": 0} | options))


def normed() -> fastbp.Network:
    chain = fastbp.Linear(2, 3), fastbp.BatchNorm(3), fastbp.PReLU(), fastbp.Dropout(0.5), fastbp.Linear(3, 2)
    return fastbp.Network(*chain, loss="softmax_nll", dtype="float64", seed=0)


# ---- every attribute -------------------------------------------------------------------------------------------------


def in_network(unit: fastbp.Unit) -> fastbp.Unit:
    """The unit as a part of a network, whose engine has read its settings."""
    if isinstance(unit, ImageUnit):
        shape = (4, 6, 6)[: 1 + unit.dims]
        fastbp.Network(unit, fastbp.Flatten(), loss="mse", input_shape=shape, dtype="float64", seed=0)
        return unit
    before = [] if unit.kind == "embedding" else [fastbp.Linear(2, 4)]
    n_out = unit.outputs_for(4)
    assert n_out is not None
    fastbp.Network(*before, unit, fastbp.Linear(n_out, 1), loss="mse", dtype="float64", seed=0)
    return unit


MADE: dict[str, Callable[[], Any]] = {
    "MLP": net_of,
    "Network": normed,
    "Gradients": lambda: net_of().gradients,
}
SAMPLES = {
    "Linear": (4, 4),
    "AvgPool1d": (2,),
    "AvgPool2d": (2,),
    "BatchNorm": (4,),
    "BatchNorm1d": (4,),
    "BatchNorm2d": (4,),
    "Conv1d": (4, 2, 3),
    "Conv2d": (4, 2, 3),
    "LocalResponseNorm": (3,),
    "MaxPool1d": (2,),
    "MaxPool2d": (2,),
    "LayerNorm": (4,),
    "RMSNorm": (4,),
    "Embedding": (3, 2),
    "Residual": (lambda: fastbp.Linear(4, 4),),
    "Sequential": (lambda: fastbp.Linear(4, 4), fastbp.Tanh),
    "Branches": (lambda: [fastbp.Linear(4, 4), fastbp.Identity()],),
}


def made_unit(cls: type, of_network: bool) -> Callable[[], Any]:
    arguments = SAMPLES.get(cls.__name__, ())

    def make() -> Any:
        unit = cls(*(given() if callable(given) else given for given in arguments))
        return in_network(unit) if of_network else unit

    return make


for _name in units.__all__:
    if isinstance(_cls := getattr(units, _name), type) and issubclass(_cls, units.Unit) and _cls is not units.Unit:
        MADE[_name] = made_unit(_cls, False)
        MADE[f"{_name} in a network"] = made_unit(_cls, True)
for _name in losses.__all__:
    if isinstance(_cls := getattr(losses, _name), type) and issubclass(_cls, losses.RuleLoss):
        if _cls is not losses.RuleLoss:
            MADE[_name] = _cls
MADE["LossSum"] = lambda: losses.LossSum([(1.0, fastbp.MSE()), (2.0, fastbp.Huber())])


def made_class(cls: type, *arguments: Any) -> Callable[[], Any]:
    return lambda: cls(*arguments)


# Optimizers, schedules, averages, and what training takes and returns; with the arguments that some need.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "BatchInfo": (0, 2, 3, 128, 0.5),
    "Checkpoint": (None, {}),
    "Constant": (0.1,),
    "Cosine": (0.1, 10),
    "Exponential": (0.1, 0.5),
    "InverseScaling": (0.1,),
    "Metric": ("worst", max),
    "OneCycle": (0.1, 10),
    "Polynomial": (0.1, 10),
    "ReduceOnPlateau": (0.1,),
    "StepDecay": (0.1, 10),
    "WarmUp": (0.1, 10),
}
FOR_USERS = {"Average", "Callback", "Schedule"}  # bases without attributes
RULES = {rule.unit: getattr(fastbp, rule.unit) for rule in OPTIMIZERS.values()}
SETTINGS = {  # of what is no optimizer of the table: another value of each
    "LBFGSB": {"max_iter": 3, "max_fun": 3, "tolerance_grad": 1.0, "tolerance_change": 0.5, "history_size": 1},
    "EMA": {"decay": 0.5},
    "SWA": {"start": 3, "every": 2},
    "EarlyStopping": {"patience": 2, "min_delta": 0.5},
}
OTHERS: dict[str, type] = RULES | {"LBFGSB": fastbp.LBFGSB, "OptimizerState": fastbp.optimizers.OptimizerState}
for _module in (schedules, averages, training):
    for _name in sorted(set(_module.__all__) - FOR_USERS):
        if isinstance(_cls := getattr(_module, _name), type) and not issubclass(_cls, Exception):
            OTHERS[_name] = _cls
MADE |= {name: made_class(cls, *ARGUMENTS.get(name, ())) for name, cls in OTHERS.items()}

# What may be assigned, and the tests beside this one that see the effect.
WRITABLE = {
    "MLP": {"flat_parameters", "metadata", "parameters", "seed", "state", "steps"},
    "Network": {"flat_parameters", "metadata", "parameters", "seed", "state", "steps"},
    "Gradients": {"flat"},
    # A record: it is what is written into it.
    "History": {"best_epoch", "loss", "metrics", "seconds", "steps", "stopped", "unfinished", "val_loss"},
    "OptimizerState": {"arrays", "carried", "step"},
}
WRITABLE |= {name: set(values) for name, values in SETTINGS.items()}
WRITABLE |= {
    rule.unit: {"clip_norm", "clip_value", *(hyper.name for hyper in rule.hyper)} for rule in OPTIMIZERS.values()
}
OF_A_UNIT = {"bias", "gradients", "parameters", "scale", "shift", "slope", "state", "table", "weight"}
OF_A_LONE_UNIT = OF_A_UNIT | {"dtype", "seed", "steps", "stream", "training"}


def writable(label: str) -> set[str]:
    if label in WRITABLE or label in OTHERS:
        return WRITABLE.get(label, set())
    return OF_A_UNIT if label.endswith("in a network") else OF_A_LONE_UNIT


def attributes(made: Any) -> list[str]:
    """The public attributes that are no methods."""
    found = []
    for name in dir(made):
        if not name.startswith("_"):
            try:
                is_method = callable(getattr(made, name)) and name not in getattr(made, "__dict__", ())
            except (AttributeError, RuntimeError):
                is_method = False
            if not is_method or name in ("rule", "tangent_rule"):
                found.append(name)
    return found


@pytest.mark.parametrize("label", MADE)
def test_other_attributes_raise(label: str) -> None:
    made = MADE[label]()
    names = attributes(made)
    assert names, label
    for name in set(names) - writable(label):
        other = getattr(MADE[label](), name)
        try:
            setattr(made, name, other)
        except (AttributeError, TypeError, ValueError) as error:
            assert name in str(error)
        else:
            pytest.fail(f"{label}.{name} has been assigned, and nobody knows with what effect")


@pytest.mark.parametrize("label", OTHERS)
def test_unknown_attributes_raise(label: str) -> None:
    made = MADE[label]()
    known = sorted(writable(label)) or ["anything"]
    for name in ("learning_rate", f"{known[0]}x", "update", "observe"):
        with pytest.raises(AttributeError, match=name):
            setattr(made, name, 1)


UNITS = [label for label in MADE if isinstance(getattr(units, label.split(" ")[0], None), type)]


@pytest.mark.parametrize("label", UNITS)
def test_what_a_unit_is_assigned_is_in_its_arrays(label: str) -> None:
    made = MADE[label]()
    for name in set(attributes(made)) & OF_A_UNIT - {"slope"} | set(made.parameters) & {"slope"}:
        arrays = getattr(made, name, None)
        if arrays is None or (name == "state" and isinstance(made, fastbp.units.composites.Composite)):
            continue
        if isinstance(arrays, dict):
            before = dict(arrays)
            setattr(made, name, {entry: np.full_like(values, 2.5) for entry, values in arrays.items()})
            assert all(arrays[entry] is before[entry] and (arrays[entry] == 2.5).all() for entry in before)
        else:
            setattr(made, name, np.full_like(arrays, 1.5))
            assert getattr(made, name) is arrays and made.parameters[name] is arrays and (arrays == 1.5).all()
            with pytest.raises(ValueError, match="has shape"):
                setattr(made, name, np.ones((9, 9), arrays.dtype))


# ---- optimizers, averages, early stopping ----------------------------------------------------------------------------

# Another value than the default, by the check of the table.
OF_A_KIND = {
    "rate": 0.25,
    "positive": 0.5,
    "not_negative": 0.125,
    "number": 0.25,
    "fraction": 0.25,
    "flag": True,
    "betas": (0.5, 0.25),
}
HYPER = [(rule.unit, hyper.name, OF_A_KIND[hyper.check]) for rule in OPTIMIZERS.values() for hyper in rule.hyper]
HYPER += [(unit, name, 0.01) for unit in RULES for name in ("clip_value", "clip_norm")]


def needed(unit: str, name: str) -> dict[str, Any]:
    """What the setting needs to have an effect."""
    rule = next(rule for rule in OPTIMIZERS.values() if rule.unit == unit)
    names = {hyper.name for hyper in rule.hyper}
    if name == "decoupled_weight_decay":
        return {"weight_decay": 0.5}
    return {"momentum": 0.5} if "momentum" in names and name in ("dampening", "nesterov", "lr_inside") else {}


@pytest.mark.parametrize(("unit", "name", "value"), HYPER)
@pytest.mark.parametrize("in_group", [False, True])
def test_what_an_optimizer_is_assigned_is_in_the_next_steps(unit: str, name: str, value: Any, in_group: bool) -> None:
    if in_group and name.startswith("clip"):
        return  # not of a group

    def after(change: Callable[[Any, fastbp.Network], Any]) -> np.ndarray:
        settings = needed(unit, name)
        groups = [{"match": "*.weight", name: getattr(RULES[unit](), name)}] if in_group else None
        net, optimizer = net_of(), RULES[unit](lr=0.125, **settings, groups=groups)
        net.train_step(X, T, optimizer)
        optimizer = change(optimizer, net)
        for i in range(8):
            x = np.sin(np.arange(8.0) + 3 * i).reshape(4, 2)
            net.train_step(x, T, optimizer)
        return net.flat_parameters.copy()

    def assigned(optimizer: Any, net: fastbp.Network) -> Any:
        if in_group:
            optimizer.groups[0][name] = value
        else:
            setattr(optimizer, name, value)
        return optimizer

    def made_anew(optimizer: Any, net: fastbp.Network) -> Any:
        options = {"lr": 0.125, **needed(unit, name)} | ({} if in_group else {name: value})
        other = RULES[unit](**options, groups=[{"match": "*.weight", name: value}] if in_group else None)
        mine, theirs = other.state_for(net), optimizer.state_for(net)
        mine.step, mine.carried = theirs.step, theirs.carried
        mine.arrays.update({name: values for name, values in theirs.arrays.items() if name in mine.arrays})
        return other

    found = after(assigned)
    assert_same_bits(found, after(made_anew))
    if name != "initial_accumulator_value":  # of a state that begins
        assert (found != after(lambda optimizer, net: optimizer)).any()


def outcome(label: str, made: Any) -> Any:
    """What depends on the settings."""
    net, x = net_of(), np.linspace(-1, 1, 8)[:, None] * [1.0, -0.5]
    t = np.arange(8) // 4
    if label == "LBFGSB":
        net.train_step(x, t, made)
    elif label == "EarlyStopping":
        made.begin({"val_loss": "min"})
        history, seen = fastbp.History(), []
        for loss in (1.0, 0.75, 0.75, 0.75):
            history.loss.append(loss)
            history.val_loss.append(loss)
            made.compare(net, history)
            seen.append((made.best, made.waited, made.exhausted))
        return seen
    else:
        fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=1.0), epochs=4, batch_size=4, average=made)
        made.apply(net)
    return net.flat_parameters.copy()


@pytest.mark.parametrize(("label", "name"), [(label, name) for label, values in SETTINGS.items() for name in values])
def test_a_setting_that_is_assigned_is_as_one_that_is_given(label: str, name: str) -> None:
    cls, value = OTHERS[label], SETTINGS[label][name]
    made = cls()
    setattr(made, name, value)
    assert getattr(made, name) == value and repr(made) == repr(cls(**{name: value}))
    found = outcome(label, made)
    np.testing.assert_array_equal(found, outcome(label, cls(**{name: value})))
    assert not np.array_equal(found, outcome(label, cls()))


@pytest.mark.parametrize("label", [*RULES, *SETTINGS, "OptimizerState"])
def test_settings_are_checked(label: str) -> None:
    made = MADE[label]()
    for name in writable(label):
        before = getattr(made, name)
        for nonsense in ("much", -1, object()):
            if (name, nonsense) != ("dampening", -1) and (name, nonsense) != ("carried", -1):  # any number
                with pytest.raises((TypeError, ValueError), match=name):
                    setattr(made, name, nonsense)
        assert getattr(made, name) is before


def test_a_group_keeps_its_pattern_and_checks_its_settings() -> None:
    optimizer = fastbp.SGD(lr=0.5, groups=[{"match": "*.bias", "lr": 0.25}])
    (group,) = optimizer.groups
    for name, value, message in (
        ("lr", -1, r"lr must be finite and at least 0, got -1"),
        ("match", "*", "match of a group cannot be changed: make another optimizer"),
        ("learning_rate", 1, r"groups\[0\]: unknown hyper-parameter 'learning_rate', did you mean 'lr'"),
        ("nesterov", True, r"groups\[0\]: nesterov=True needs momentum > 0"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            group[name] = value
    with pytest.raises(TypeError, match="lr of a group cannot be removed"):
        del group["lr"]
    assert group == {"match": "*.bias", "lr": 0.25} and copy.deepcopy(group) == dict(group)
    group["momentum"] = 0.5
    assert fastbp.SGD(lr=0.5, groups=optimizer.groups).groups == optimizer.groups == (dict(group),)


def test_the_count_of_steps_is_what_the_next_one_follows() -> None:
    found = []
    for step in (0, 9):
        net, optimizer = net_of(), fastbp.SGD(lr=lambda step: 1.0 / step)
        optimizer.state_for(net).step = step
        net.train_step(X, T, optimizer)
        assert optimizer.state_for(net).step == step + 1
        found.append(net.flat_parameters - net_of().flat_parameters)
    np.testing.assert_allclose(found[0], 10 * found[1], rtol=1e-10)


def test_optimizers_of_ones_own_keep_attributes_of_their_own() -> None:
    class Own(fastbp.SGD):
        def __init__(self) -> None:
            super().__init__(lr=0.5)
            self.seen = 0

    own = Own()
    own.seen += 1
    assert copy.copy(own).seen == 1
    with pytest.raises(AttributeError, match="state_names of Own cannot be changed: it belongs to the class"):
        own.state_names = ("a",)  # type: ignore[misc]
    with pytest.raises(ValueError, match="lr must be finite and at least 0, got -1"):
        own.lr = -1


def test_a_state_with_a_wrong_setting_changes_nothing() -> None:
    net, optimizer = net_of(), fastbp.LBFGSB()
    state = optimizer.get_state(net) | {"step": 3}
    for wrong in (-1, "many"):
        with pytest.raises((TypeError, ValueError), match="max_iter"):
            optimizer.set_state(net, state | {"setting.max_iter": wrong})
    assert (optimizer.max_iter, optimizer.state_for(net).step) == (200, 0)


# ---- networks --------------------------------------------------------------------------------------------------------


ASSIGNMENTS: dict[str, Callable[[fastbp.Network, np.ndarray], Any]] = {
    "parameters[...]": lambda net, w: net.parameters.__setitem__("0.weight", w),
    "parameters": lambda net, w: setattr(net, "parameters", dict(net.parameters) | {"0.weight": w}),
    "parameters.update": lambda net, w: net.parameters.update({"0.weight": w}),
    "parameters |=": lambda net, w: net.parameters.__ior__({"0.weight": w}),
    "units[0].weight": lambda net, w: setattr(net.units[0], "weight", w),
    "units[0].parameters[...]": lambda net, w: net.units[0].parameters.__setitem__("weight", w),
    "weights[0]": lambda net, w: net.weights.__setitem__(0, w),
    "flat_parameters": lambda net, w: setattr(
        net, "flat_parameters", np.concatenate([w.ravel(), net.flat_parameters[w.size :]])
    ),
}


@pytest.mark.parametrize("how", ASSIGNMENTS)
def test_what_is_assigned_computes_and_is_saved(how: str, tmp_path: Any) -> None:
    net, expected = net_of(), net_of()
    w = np.arange(6.0).reshape(2, 3)
    expected.weights[0][...] = w
    place = net.weights[0]
    ASSIGNMENTS[how](net, w)
    assert net.weights[0] is place and net.parameters["0.weight"] is place
    assert_same_bits(net.forward(X), expected.forward(X))
    net.save(tmp_path / "net.npz")
    assert_same_bits(fastbp.load(tmp_path / "net.npz").flat_parameters, expected.flat_parameters)
    assert_same_bits(fastbp.load(tmp_path / "net.npz").outputs(X), expected.outputs(X))


@pytest.mark.parametrize("how", [how for how in ASSIGNMENTS if how != "flat_parameters"])
@pytest.mark.parametrize(
    ("w", "error", "message"),
    [
        (np.zeros((3, 2)), ValueError, r"shape \(2, 3\), got a value of shape \(3, 2\)$"),
        (np.zeros((2, 3), "float32"), TypeError, r"dtype float64, got float32: assign value.astype\(np.float64\)"),
        (np.zeros((2, 3), "int64"), TypeError, "dtype float64, got int64"),
        (np.zeros(3), ValueError, r"\.\.\.\] = value broadcasts"),
        (None, (TypeError, ValueError), "has"),
    ],
    ids=["shape", "float32", "int64", "broadcast", "None"],
)
def test_what_does_not_fit_changes_nothing(how: str, w: Any, error: Any, message: str) -> None:
    net = net_of()
    before = net.flat_parameters.copy()
    with pytest.raises(error, match=message):
        ASSIGNMENTS[how](net, w)
    assert_same_bits(net.flat_parameters, before)


def test_lists_and_nans_are_taken_as_they_are() -> None:
    net = net_of()
    net.parameters["0.bias"] = [1, np.nan, 3]
    np.testing.assert_array_equal(net.biases[0], [1, np.nan, 3])
    net.biases[0] -= 1
    net.parameters["0.bias"] -= 1
    net.flat_parameters *= 2
    np.testing.assert_array_equal(net.biases[0], [-2, np.nan, 2])


def test_names_are_known() -> None:
    net = normed()
    for named, name in ((net.parameters, "parameters"), (net.state, "state"), (net.units[1].state, "state")):
        with pytest.raises(KeyError, match=f"{name} has no '0.weights': known are '"):
            named["0.weights"] = np.zeros((2, 3))
        with pytest.raises(KeyError, match="known are"):
            named["0.weights"]
        for remove in (lambda n=named: n.pop(next(iter(n))), lambda n=named: n.clear(), lambda n=named: n.popitem()):
            with pytest.raises(TypeError, match="none can be removed"):
                remove()
        with pytest.raises(TypeError, match="none can be removed"):
            del named[next(iter(named))]
    with pytest.raises(ValueError, match=r"parameters are '0.weight'.*, got '0.weight': give each of them"):
        net.parameters = {"0.weight": np.zeros((2, 3))}  # type: ignore[assignment]


def test_several_are_checked_before_one_is_written() -> None:
    net = net_of()
    before = net.flat_parameters.copy()
    with pytest.raises(ValueError, match=r"parameters\['0.bias'\] has shape"):
        net.parameters.update({"0.weight": np.zeros((2, 3)), "0.bias": np.zeros(9)})
    assert_same_bits(net.flat_parameters, before)


def test_state_is_written_where_the_engine_reads_it() -> None:
    net, expected = normed(), normed()
    for values in expected.units[1].state.values():
        values[...] = 4.0
    net.state["1.mean"] = np.full(3, 4.0)
    net.units[1].state = {"mean": net.units[1].state["mean"], "variance": np.full(3, 4.0)}
    assert_same_bits(net.outputs(X), expected.outputs(X))


def test_gradients_are_written() -> None:
    net = net_of()
    _, grads = net.value_and_grad(X, T)
    grads["0.weight"] = np.ones((2, 3))
    grads.biases[0] = np.full(3, 2.0)
    grads.flat[9:] = 3.0
    np.testing.assert_array_equal(grads.flat, [1.0] * 6 + [2.0] * 3 + [3.0] * 8)
    grads.flat = np.zeros(17)
    before = net.flat_parameters.copy()
    net.update(fastbp.SGD(lr=1.0))
    assert_same_bits(net.flat_parameters, before)


def test_messages_say_what_to_do() -> None:
    net = normed()
    for made, name, cure in (
        (net, "loss", r"other.flat_parameters = net.flat_parameters"),
        (net, "dtype", r"net.copy\(dtype\)"),
        (net, "training", r"net.train\(\) and net.eval\(\)"),
        (net.units[1], "training", r"net.train\(\), net.eval\(\)"),
        (net.units[3], "p", "make another Dropout"),
        (net.units[3], "steps", "net.steps"),
        (fastbp.MSE(), "rule", "make another MSE"),
    ):
        with pytest.raises(AttributeError, match=f"{name} of {type(made).__name__} cannot be changed: .*{cure}"):
            setattr(made, name, getattr(made, name))


def test_copies_of_the_dicts_are_plain() -> None:
    named = net_of().parameters
    for made in (copy.deepcopy(named), pickle.loads(pickle.dumps(named)), named.copy()):
        assert type(made) is dict and list(made) == list(named)
    assert not np.shares_memory(copy.deepcopy(named)["0.weight"], named["0.weight"])
    unit = pickle.loads(pickle.dumps(fastbp.Linear(2, 3)))
    unit.weight = np.ones((2, 3), np.float32)
    assert isinstance(unit.parameters, ArrayDict) and unit.forward(np.ones((1, 2), np.float32))[0, 0] == 2


# ---- units of one's own ----------------------------------------------------------------------------------------------


class Affine(fastbp.Unit):
    """y = a x + b, as someone writes it who assigns."""

    def __init__(self, how: str) -> None:
        self.how = how

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"a": (1,), "b": (1,)}

    def initialize(self, rng: Any, parameters: dict[str, Any]) -> None:
        parameters["a"] = np.ones(1)
        parameters["b"][...] = 0.0

    def forward(self, x: Any) -> Any:
        self.x = x
        return x * self.parameters["a"] + self.parameters["b"]

    def backward(self, dy: Any) -> Any:
        da, db = (dy * self.x).sum(keepdims=True)[0], dy.sum(keepdims=True)[0]
        if self.how == "entries":
            self.gradients["a"] = da
            self.gradients["b"] = db
        elif self.how == "whole":
            self.gradients = {"a": da, "b": db}
        elif self.how == "one":
            self.gradients = {"a": da}
        elif self.how == "name":
            self.gradients["c"] = da
        else:
            self.gradients["a"] = da[0]
        return dy * self.parameters["a"]


@pytest.mark.parametrize("how", ["entries", "whole"])
def test_gradients_that_a_unit_assigns_are_learned_from(how: str) -> None:
    net = fastbp.Network(Affine(how), loss="mse", dtype="float64", seed=0)
    fastbp.check_gradients(net, np.array([[1.0], [2.0]]), np.array([[3.0], [7.0]]), raise_on_fail=True)
    net.train_step(np.array([[1.0]]), np.array([[3.0]]), fastbp.SGD(lr=0.5))
    np.testing.assert_array_equal(net.flat_parameters, [2.0, 1.0])
    net.units[0].a = np.array([5.0])
    assert net.parameters["0.a"][0] == 5.0 and "a" not in vars(net.units[0])


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("one", ValueError, "gradients are 'a', 'b', got 'a': give each of them"),
        ("name", KeyError, "gradients has no 'c': known are 'a', 'b'"),
        ("scalar", ValueError, r"gradients\['a'\]\[...\] = value broadcasts"),
    ],
)
def test_gradients_that_do_not_fit_raise(how: str, error: Any, message: str) -> None:
    net = fastbp.Network(Affine(how), loss="mse", dtype="float64", seed=0)
    with pytest.raises(error, match=message):
        net.value_and_grad(np.array([[1.0]]), np.array([[3.0]]))


def test_a_unit_keeps_attributes_of_its_own() -> None:
    unit = Affine("entries")
    net = fastbp.Network(unit, loss="mse", dtype="float64", seed=0)
    unit.how = "whole"
    net.value_and_grad(np.array([[1.0]]), np.array([[3.0]]))
    np.testing.assert_array_equal(net.gradients.flat, [-2.0, -2.0])
