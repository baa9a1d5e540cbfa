"""scikit-learn's multi-layer perceptrons, several times faster, after a change of one import.

``MLPClassifier`` and ``MLPRegressor`` are subclasses of scikit-learn's own, with the same parameters, attributes,
random stream and results; the package's engine computes their gradients and updates. Options that scikit-learn
does not have are keyword-only and off by default.
"""

try:
    import sklearn as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'fastbp.sklearn needs scikit-learn: pip install "fastbp[sklearn]"', name=error.name
    ) from None

from fastbp.sklearn._display import LossCurveDisplay
from fastbp.sklearn._estimators import MLPClassifier, MLPRegressor
from fastbp.sklearn._from_sklearn import from_sklearn
from fastbp.sklearn._many import GridSearchCV, MLPEnsemble, MLPEnsembleClassifier, MLPEnsembleRegressor, fit_many
from fastbp.sklearn._onnx import register_onnx
from fastbp.sklearn._parallel import JoblibBackend
from fastbp.sklearn._patching import patch, patched, unpatch
from fastbp.sklearn._storing import load

__all__ = [
    "GridSearchCV",
    "JoblibBackend",
    "LossCurveDisplay",
    "MLPClassifier",
    "MLPEnsemble",
    "MLPEnsembleClassifier",
    "MLPEnsembleRegressor",
    "MLPRegressor",
    "fit_many",
    "from_sklearn",
    "load",
    "patch",
    "patched",
    "register_onnx",
    "unpatch",
]
