"""Estimators to networks and back, into files, and into ONNX graphs."""

from __future__ import annotations

import doctest
import pickle
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import processes
import pytest
from helpers import seeded

pytest.importorskip("sklearn")

from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import fastbp
import fastbp.sklearn
from fastbp.reference import ACTIVATIONS
from fastbp.sklearn import MLPClassifier, MLPRegressor, _converting, _storing

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp` and `iprint`:DeprecationWarning"),  # 1.6 gives them
]

RNG = seeded(0)
X = RNG.normal(size=(80, 4))
LABELS = np.argmax(X[:, :3], axis=1)
VALUES = X @ RNG.normal(size=(4, 2)) + 1
HAS_POISSON = "loss" in neural_network.MLPRegressor().get_params()

# What is to be predicted, by what it is: the class of the estimator, its options, the targets.
TASKS: dict[str, tuple[type, dict[str, Any], Any]] = {
    "classes": (MLPClassifier, {}, LABELS),
    "two classes": (MLPClassifier, {}, LABELS > 0),
    "strings": (MLPClassifier, {}, np.array(["ham", "spam", "eggs"])[LABELS]),
    "objects": (MLPClassifier, {}, np.array(["ham", "spam", "eggs"], object)[LABELS]),
    "two strings": (MLPClassifier, {}, np.where(LABELS > 0, "yes", "no")),
    "floats": (MLPClassifier, {}, 2.0 * LABELS),
    "several labels": (MLPClassifier, {}, (X[:, :3] > 0).astype(int)),
    "two labels": (MLPClassifier, {}, (X[:, :2] > 0).astype(int)),
    "a value": (MLPRegressor, {}, VALUES[:, 0]),
    "several values": (MLPRegressor, {}, VALUES),
    "huber": (MLPRegressor, {"loss": "huber"}, VALUES[:, 0]),
    "smoothed labels": (MLPClassifier, {"label_smoothing": 0.1}, LABELS),
    "dropout": (MLPClassifier, {"dropout": 0.25}, LABELS),
    "no hidden layer": (MLPClassifier, {"hidden_layer_sizes": ()}, LABELS),
    "lbfgs": (MLPClassifier, {"solver": "lbfgs"}, LABELS),
    "another solver": (MLPClassifier, {"solver": "adamw"}, LABELS),
    "early stopping": (MLPClassifier, {"early_stopping": True}, LABELS),
    "activations": (MLPClassifier, {"activation": ["tanh", fastbp.LeakyReLU(0.2)]}, LABELS),
}
if HAS_POISSON:
    TASKS["poisson"] = (MLPRegressor, {"loss": "poisson"}, np.exp(VALUES[:, 0]))


def fitted(task: str, of: Any = np.float64, **more: Any) -> Any:
    cls, options, y = TASKS[task]
    options = {"hidden_layer_sizes": (6, 5), "max_iter": 5, "random_state": 0, **options, **more}
    return cls(**options).fit(X.astype(of), y)


def outputs(model: Any, x: Any) -> Any:
    return model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)


def same_parameters(a: Any, b: Any) -> None:
    for mine, theirs in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        helpers.assert_same_bits(mine, theirs)


@pytest.mark.parametrize("module", [_converting, _storing], ids=lambda module: module.__name__)
def test_examples_in_docstrings_run(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


# ---- estimator -> network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", helpers.DTYPES)
@pytest.mark.parametrize("task", TASKS)
def test_a_network_predicts_what_its_estimator_does(task: str, dtype: Any) -> None:
    model = fitted(task, dtype, **({"dtype": dtype} if TASKS[task][1].get("solver") == "lbfgs" else {}))
    net, x = model.to_network(), X.astype(dtype)
    assert net.dtype == dtype
    y = net.predict_proba(x) if hasattr(model, "classes_") else net.predict(x)
    expected = outputs(model, x)
    if hasattr(model, "classes_") and model.n_outputs_ == 1:
        expected = expected[:, 1:]
    # The same weights in the same dtype: what may differ is the order of the sums, and what is computed of them.
    tolerance = 100 * helpers.eps(dtype)
    np.testing.assert_allclose(y, expected.reshape(y.shape), rtol=tolerance, atol=tolerance)


LOSSES = {
    "classes": "SoftmaxNLL()",
    "two classes": "SigmoidNLL()",
    "several labels": "SigmoidNLL()",
    "a value": "MSE()",
    "huber": "Huber()",
    "smoothed labels": "SoftmaxNLL(label_smoothing=0.1)",
}


@pytest.mark.parametrize("task", LOSSES)
def test_the_loss_of_a_network(task: str) -> None:
    assert repr(fitted(task).to_network().loss) == LOSSES[task]


def test_a_network_has_parameters_of_its_own() -> None:
    model = fitted("classes")
    net = model.to_network()
    before = model.predict_proba(X)
    net.flat_parameters[...] = 0
    helpers.assert_same_bits(model.predict_proba(X), before)


def test_a_network_of_replaced_and_of_pickled_parameters() -> None:
    model = fitted("classes")
    model.coefs_ = [np.asfortranarray(2 * coef) for coef in model.coefs_]
    for one in (model, pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(one.to_network().weights[0], model.coefs_[0])


def test_unfitted_estimator_raises(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        MLPClassifier().to_network()
    with pytest.raises(NotFittedError):
        MLPClassifier().save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


# ---- network -> estimator --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_estimator_to_network_and_back_is_equal(task: str) -> None:
    model = fitted(task)
    classes = None if task in ("several labels", "two labels") else getattr(model, "classes_", None)
    again = type(model).from_network(model.to_network(), **({} if classes is None else {"classes": classes}))
    same_parameters(again, model)
    helpers.assert_same_bits(outputs(again, X), outputs(model, X))
    assert again.predict(X).tolist() == model.predict(X).tolist()
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(again, name) == getattr(model, name)
    for name in ("hidden_layer_sizes", "dropout", "loss"):
        assert again.get_params().get(name) == model.get_params().get(name)
    assert repr(again.activation) == repr(model.activation)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("cls", "n_out", "loss"),
    [
        (MLPClassifier, 3, "softmax_nll"),
        (MLPClassifier, 2, "softmax_nll"),
        (MLPClassifier, 1, "sigmoid_nll"),
        (MLPClassifier, 2, "sigmoid_nll"),
        (MLPClassifier, 1, "hinge"),
        (MLPClassifier, 3, "squared_hinge"),
        (MLPRegressor, 1, "mse"),
        (MLPRegressor, 2, "huber"),
        *([(MLPRegressor, 2, "poisson_nll")] if HAS_POISSON else []),
    ],
)
def test_an_estimator_predicts_what_its_network_does_and_goes_on(cls: Any, n_out: int, loss: str, dtype: str) -> None:
    net = fastbp.MLP([4, 7, n_out], hidden="tanh", loss=loss, dtype=dtype, seed=1)
    net.biases[-1][...] = np.linspace(-0.5, 0.5, n_out)
    x = X.astype(dtype)
    model = cls.from_network(net, learning_rate_init=0.01)
    tolerance = 100 * helpers.eps(dtype)
    y = net.predict(x) if cls is MLPClassifier and n_out > 1 else net.predict(x).reshape(model.predict(x).shape)
    np.testing.assert_allclose(model.predict(x), y, rtol=tolerance)
    if loss in ("softmax_nll", "sigmoid_nll"):
        p = net.predict_proba(x)
        np.testing.assert_allclose(model.predict_proba(x)[:, -p.shape[1] :], p, rtol=tolerance, atol=tolerance)
    before = [coef.copy() for coef in model.coefs_]
    y[:3] = np.arange(3 * y[0].size).reshape(y[:3].shape) % max(2, n_out)  # each class, should one never be predicted
    model.partial_fit(x, y)
    assert model.t_ == len(x)
    assert len(model.loss_curve_) == 1
    assert all((a != b).any() and a.dtype == dtype for a, b in zip(model.coefs_, before, strict=True))
    model.set_params(warm_start=True, max_iter=2).fit(x, y)
    assert len(model.loss_curve_) == 3
    clone(model).fit(x, y)


@pytest.mark.parametrize("solver", ["adamw", "rmsprop"])
def test_an_estimator_goes_on_with_a_solver_of_the_package_s(solver: str) -> None:
    model = MLPClassifier.from_network(fastbp.MLP([4, 7, 3], seed=1), solver=solver, dtype="float32")
    model.partial_fit(X, LABELS)
    assert len(model.loss_curve_) == 1
    assert model.solver == solver


def test_the_network_stays_as_it_is() -> None:
    net = fastbp.MLP([4, 7, 3], seed=1)
    before = net.flat_parameters.copy()
    MLPClassifier.from_network(net).partial_fit(X, LABELS)
    helpers.assert_same_bits(net.flat_parameters, before)


@pytest.mark.parametrize(
    "classes", [["b", "c", "a"], [30, 10, 20], np.array(["x", "y", "z"], object)], ids=["strings", "ints", "objects"]
)
def test_classes_are_sorted_with_their_columns(classes: Any) -> None:
    net = fastbp.MLP([4, 7, 3], dtype="float64", seed=1)
    model = MLPClassifier.from_network(net, classes=classes)
    assert model.classes_.tolist() == sorted(classes)
    assert model.predict(X).tolist() == [classes[label] for label in net.predict(X)]
    net = fastbp.MLP([4, 7, 3], dtype="float64", seed=1, classes=classes)
    model = MLPClassifier.from_network(net)
    assert model.predict(X).tolist() == net.predict(X).tolist()
    assert MLPClassifier.from_network(net, classes=[1, 2, 3]).classes_.tolist() == [1, 2, 3]


@pytest.mark.parametrize("loss", ["softmax_nll", "sigmoid_nll"])
@pytest.mark.parametrize("classes", [[False, True], [True, False], ["no", "yes"], ["yes", "no"]])
def test_two_classes_either_way_around(loss: str, classes: Any) -> None:
    net = fastbp.MLP([4, 7, 1 if loss == "sigmoid_nll" else 2], loss=loss, dtype="float64", seed=1)
    model = MLPClassifier.from_network(net, classes=classes)
    assert model.predict(X).tolist() == [classes[int(label)] for label in net.predict(X).ravel()]
    model.partial_fit(X, np.array(classes)[LABELS % 2])


L, WEIGHTED = fastbp.Linear, fastbp.SoftmaxNLL(class_weight=[1, 2, 3])


def linear(*units: fastbp.Unit, loss: Any = "softmax_nll") -> fastbp.Network:
    return fastbp.Network(L(4, 3), *units, loss=loss)


@pytest.mark.parametrize(
    ("cls", "make", "options", "error", "message"),
    [
        (MLPClassifier, lambda: 3, {}, TypeError, "net must be a fastbp.Network, got 3"),
        (MLPClassifier, lambda: linear(fastbp.LayerNorm(3), L(3, 3)), {}, ValueError, "unit 1 is LayerNorm"),
        (MLPClassifier, lambda: linear(L(3, 3)), {}, ValueError, "unit 1 is Linear.*expected activation"),
        (MLPClassifier, lambda: linear(fastbp.ReLU()), {}, ValueError, "it must end with Linear"),
        (MLPClassifier, lambda: linear(fastbp.Dropout(0.1), L(3, 3)), {}, ValueError, "expected activation"),
        (MLPClassifier, lambda: linear(loss="mse"), {}, ValueError, "must be SoftmaxNLL or SigmoidNLL"),
        (MLPClassifier, lambda: fastbp.Network(L(4, 2), loss="hinge"), {}, ValueError, "two outputs under Hinge"),
        (MLPClassifier, lambda: linear(loss=WEIGHTED), {}, ValueError, "class_weight has no counterpart"),
        (MLPClassifier, linear, {"classes": [0, 1]}, ValueError, "classes must be 3 different labels"),
        (MLPClassifier, linear, {"classes": ["a", "b", "a"]}, ValueError, "classes must be 3 different labels"),
        (MLPClassifier, lambda: linear(loss="sigmoid_nll"), {"classes": [0, 1, 2]}, ValueError, "must be None"),
        (MLPClassifier, linear, {"hidden_layer_sizes": (3,)}, ValueError, "hidden_layer_sizes is .. in the network"),
        (MLPClassifier, linear, {"alhpa": 1}, TypeError, "alhpa"),
        (MLPRegressor, linear, {}, ValueError, "a regressor's outputs are values or rates"),
        (MLPRegressor, lambda: linear(loss="mse"), {"classes": [0, 1, 2]}, ValueError, "classes are for classifiers"),
        (MLPRegressor, lambda: fastbp.Network(L(4, 2), loss="gaussian_nll"), {}, ValueError, "GaussianNLL"),
    ],
)
def test_network_without_an_estimator_raises(cls: Any, make: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        cls.from_network(make(), **options)


# ---- files -----------------------------------------------------------------------------------------------------------

SUFFIXES = (".npz", ".safetensors")


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"model{request.param}"


@pytest.mark.parametrize("task", TASKS)
def test_loaded_estimator_equals_saved(task: str, path: Path) -> None:
    model = fitted(task)
    model.save(path)
    same = fastbp.sklearn.load(path)
    assert type(same) is type(model)
    same_parameters(same, model)
    helpers.assert_same_bits(outputs(same, X), outputs(model, X))
    if hasattr(model, "classes_"):
        assert same.predict(X).dtype == model.predict(X).dtype
        assert (same.classes_.dtype, same.classes_.tolist()) == (model.classes_.dtype, model.classes_.tolist())
    assert same.predict(X).tolist() == model.predict(X).tolist()
    assert repr(same.get_params()) == repr(model.get_params())
    for name in _storing.ATTRIBUTES:
        assert getattr(same, name, "none") == getattr(model, name, "none"), name
    assert {name for name in vars(same) if name.endswith("_")} == {name for name in vars(model) if name.endswith("_")}


def test_estimator_file_loads_as_network(path: Path) -> None:
    model = fitted("classes")
    model.save(path)
    helpers.assert_same_bits(fastbp.load(path).weights[0], model.coefs_[0])


def test_a_loaded_estimator_goes_on(path: Path) -> None:
    model = fitted("strings", solver="sgd", momentum=0.0, random_state=np.random.RandomState(3))
    model.save(path)
    same = fastbp.sklearn.load(path)
    for one in (model, same):
        one.partial_fit(X, TASKS["strings"][2])
    same_parameters(same, model)
    assert (same.t_, same.loss_curve_) == (model.t_, model.loss_curve_)


def test_names_of_features(path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    MLPClassifier(max_iter=2).fit(frame, LABELS).save(path)
    same = fastbp.sklearn.load(path)
    assert same.feature_names_in_.tolist() == list("abcd")
    same.predict(frame)
    with pytest.raises(ValueError, match="feature names"):
        same.predict(frame.rename(columns={"a": "e"}))


class Scale(fastbp.Tanh):
    """A unit of a user's."""

    kind = None


class Mine(MLPClassifier):  # type: ignore[misc]
    """A user's."""


def test_a_class_of_ones_own(path: Path) -> None:
    Mine(max_iter=2).fit(X, LABELS).save(path)
    assert type(fastbp.sklearn.load(path, units={"Mine": Mine})) is Mine
    Mine(max_iter=2, activation=Scale()).fit(X, LABELS).save(path)
    call, own = "load(path)", {"Mine": Mine, "Scale": Scale}
    for message in ("the unit or loss 'Scale' is not of this package: ", r"unknown estimator 'Mine', known are .*: "):
        with pytest.raises(ValueError, match=message + r"hand its class over, load\(") as caught:
            eval(call, {"load": fastbp.sklearn.load, "path": path, **own})
        call = str(caught.value).partition("hand its class over, ")[2]
    assert type(eval(call, {"load": fastbp.sklearn.load, "path": path, **own})) is Mine


def test_saving_unserializable_parameter_raises(path: Path) -> None:
    model = fitted("a value", loss=lambda y, t: ((y - t)[:, 0] ** 2, 2 * (y - t)))
    path.write_bytes(b"what was there")
    with pytest.raises(TypeError, match="loss is <function"):
        model.save(path)
    assert path.read_bytes() == b"what was there"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_damaged_file_is_refused(path: Path) -> None:
    fitted("classes").save(path)
    content = path.read_bytes()
    place = content.index(b"hidden_layer_sizes")
    for damaged in (content[:-100], content[:place] + b"H" + content[place + 1 :], content[: len(content) // 2], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            fastbp.sklearn.load(path)


def test_loading_a_network_file_as_estimator_raises(path: Path) -> None:
    fastbp.MLP([2, 3], seed=0).save(path)
    with pytest.raises(ValueError, match="holds a network and no estimator"):
        fastbp.sklearn.load(path)


PLAIN = {"several": False, "sparse": False}
FORGERIES: dict[str, tuple[Any, str]] = {
    "a list": ([], "no version"),
    "no version": ({"version": None}, "no version"),
    "a newer version": ({"version": 99}, "version 99"),
    "a class that runs something": ({"class": "os.system"}, "unknown estimator 'os.system'"),
    "an unknown parameter": ({"parameters": {"command": "x"}, "tuples": []}, "command"),
    "an unknown part": ({"parameters": {"activation": {"class": "Popen", "config": {}}}}, "Popen"),
    "too few classes": ({"classes": {**PLAIN, "dtype": "<i8", "labels": [0, 1]}}, "3 outputs"),
    "objects for classes": ({"classes": {**PLAIN, "dtype": "O", "labels": [[], {}]}}, "no labels"),
    "long labels": ({"classes": {**PLAIN, "dtype": "<U999999", "labels": ["a"]}}, "no labels"),
    "a count that is none": ({"attributes": {"n_iter_": "many"}}, "n_iter_ is 'many'"),
    "an attribute that is none": ({"attributes": {"predict": 3}}, "predict"),
    "no parameters": ({"parameters": None}, "holds no estimator"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_file_is_refused(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, message = FORGERIES[name]
    described = _storing._described

    def forged(est: Any) -> Any:
        return changes if isinstance(changes, list) else described(est) | changes

    monkeypatch.setattr(_storing, "_described", forged)
    fitted("classes").save(path)
    with pytest.raises(ValueError, match=message):
        fastbp.sklearn.load(path)


# ---- ONNX ------------------------------------------------------------------------------------------------------------


def run_onnx(model: Any, x: Any, **options: Any) -> list[Any]:
    skl2onnx, onnxruntime = pytest.importorskip("skl2onnx"), pytest.importorskip("onnxruntime")
    fastbp.sklearn.register_onnx()
    graph = skl2onnx.to_onnx(model, x[:1], options=options or None)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: list[Any] = session.run(None, {"X": x})
    return answer


@pytest.mark.parametrize("dtype", helpers.DTYPES)
@pytest.mark.parametrize("task", TASKS)
def test_onnx_runtime_agrees(task: str, dtype: Any) -> None:
    model, x = fitted(task, dtype), X.astype(dtype)
    classifies = hasattr(model, "classes_")
    got = run_onnx(model, x, **({"zipmap": False} if classifies else {}))
    expected = outputs(model, x)
    # 1e-5 is what the estimators promise; in double precision it is the exponentials' roundings.
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(got[-1], expected.reshape(got[-1].shape), rtol=tolerance, atol=tolerance)
    assert got[-1].dtype == dtype
    if classifies:
        np.testing.assert_array_equal(got[0], model.predict(x))


@pytest.mark.parametrize("dtype", helpers.DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_converted(name: str, dtype: Any) -> None:
    rule = ACTIVATIONS[name]
    for options in helpers.some_options(rule):
        unit = getattr(fastbp, rule.unit)(**options)
        net = fastbp.Network(L(4, 9), unit, L(9, 2), loss="mse", dtype=dtype, seed=0)
        model, x = MLPRegressor.from_network(net), (3 * X).astype(dtype)
        tolerance = 1e-13 if dtype == np.float64 and name != "gelu" else 1e-5  # erf is float32's
        (got,) = run_onnx(model, x)
        np.testing.assert_allclose(got, net.predict(x), rtol=tolerance, atol=tolerance)


def test_onnx_without_options_gives_dicts() -> None:
    model, x = fitted("strings", np.float32), X.astype(np.float32)
    labels, rows = run_onnx(model, x)
    assert labels.tolist() == model.predict(x).tolist()
    assert list(rows[0]) == model.classes_.tolist()
    np.testing.assert_allclose([list(row.values()) for row in rows], model.predict_proba(x), atol=1e-5)


def test_onnx_takes_integers() -> None:
    model, x = fitted("classes"), np.arange(40).reshape(10, 4) % 5
    np.testing.assert_allclose(run_onnx(model, x, zipmap=False)[1], model.predict_proba(x), atol=1e-5)


def test_onnx_in_a_pipeline() -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = X.astype(np.float32)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=5, random_state=0)).fit(x, LABELS)
    labels, p = run_onnx(pipeline, x, zipmap=False)
    np.testing.assert_allclose(p, pipeline.predict_proba(x), atol=1e-5)
    np.testing.assert_array_equal(labels, pipeline.predict(x))


def test_onnx_of_a_subclass_after_registration() -> None:
    pytest.importorskip("skl2onnx")

    class Local(MLPRegressor):  # type: ignore[misc]
        pass

    model = Local(max_iter=3).fit(X, VALUES)
    fastbp.sklearn.register_onnx(Local)
    np.testing.assert_allclose(run_onnx(model, X)[0], model.predict(X), atol=1e-10)


def test_onnx_leaves_scikit_learns_own_estimators_alone() -> None:
    x = X.astype(np.float32)
    model = neural_network.MLPClassifier(max_iter=3, random_state=0).fit(x, LABELS)
    np.testing.assert_allclose(run_onnx(model, x, zipmap=False)[1], model.predict_proba(x), atol=1e-5)


class Odd(fastbp.ReLU):
    """An activation that no graph knows."""

    def forward(self, x: Any) -> Any:
        return super().forward(x) + 1


def test_conversion_without_onnx_graph_raises() -> None:
    pytest.importorskip("skl2onnx")
    with pytest.raises(TypeError, match="expected subclasses of MLPClassifier or MLPRegressor"):
        fastbp.sklearn.register_onnx(neural_network.MLPClassifier)
    with pytest.raises(ValueError, match=r"Odd.*cannot be converted to ONNX: known are 'identity'"):
        run_onnx(fitted("classes", activation=Odd()), X, zipmap=False)
    with pytest.raises(ValueError, match="single class"):
        run_onnx(MLPClassifier(max_iter=2).fit(X, np.zeros(len(X))), X, zipmap=False)


def test_importing_registers_nothing() -> None:
    """Neither finders nor handlers, backends or converters; registration is a call."""
    pytest.importorskip("skl2onnx")
    code = """
    import joblib, signal, sys, warnings
    import numpy as np, sklearn.neural_network, skl2onnx
    from skl2onnx._supported_operators import sklearn_operator_name_map as known
    def look():
        return (list(sys.meta_path), list(sys.path_hooks), dict(joblib.parallel.BACKENDS), set(known),
                list(warnings.filters), signal.getsignal(signal.SIGINT), np.geterr())
    before = look()
    import fastbp.sklearn
    print(look() == before)
    fastbp.sklearn.register_onnx()
    print(known.keys() - before[3] == {fastbp.sklearn.MLPClassifier, fastbp.sklearn.MLPRegressor})
    """
    assert processes.output(code, warnings="default") == "True\nTrue"


def test_without_skl2onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(ImportError, match=r'pip install "fastbp\[onnx\]"'):
        fastbp.sklearn.register_onnx()
