"""Units: a forward and a backward pass that share what the one must remember for the other.

A. `Unit` is the protocol, for the package's own units and for users'. A unit works alone, in a `Network`, and where the
   network's engine runs the package's own units without calling them, the answer is that of these methods.
B. Parameters lie in dicts of arrays that are filled and never rebound: in a network they are views into its flat
   vector, alone they are the unit's own, made at their first use.
C. The classes of the activations are made from `fastbp.reference.ACTIVATIONS`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike

from fastbp import _validate as check
from fastbp import functional, initializers
from fastbp._validate import FloatArray
from fastbp.random import Philox, stream_number
from fastbp.reference import ACTIVATIONS, Activation

__all__ = ["Linear", "Unit"]


class Unit:
    """Base of all units; derive from it to write your own.

    For y = f(x), ``forward`` gives y, and ``backward`` takes the gradient of the loss at y to the one at x:
    dx = (dy/dx).T dy.

    A unit without parameters defines ``forward`` and ``backward``. One with parameters also defines
    ``parameter_shapes`` and ``initialize``, reads ``self.parameters`` and fills ``self.gradients`` in backward. Both
    are dicts of arrays by name, which the unit never rebinds: in a network they are views into its flat vectors. There
    is no need to call ``super().__init__()``.

    Attributes
    ----------
    parameters : dict of str to ndarray
        The arrays that `parameter_shapes` names.
    gradients : dict of str to ndarray
        The gradients at them, by the same names; filled by `backward`.
    dtype : dtype or None
        Of the parameters of a unit that is used alone; None: float32 alone, in a network what the network has.
    seed : int or None
        Of the initial parameters of a unit that is used alone; None: another one each time.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323,
    1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> class Scale(fastbp.Unit):
    ...     def parameter_shapes(self):
    ...         return {"factor": (1,)}
    ...     def initialize(self, rng, parameters):
    ...         parameters["factor"][...] = 2.0
    ...     def forward(self, x):
    ...         self.x = x
    ...         return x * self.parameters["factor"]
    ...     def backward(self, dy):
    ...         self.gradients["factor"][...] = (dy * self.x).sum()
    ...         return dy * self.parameters["factor"]
    >>> unit = Scale()
    >>> unit.forward(np.ones((1, 2), np.float32))
    array([[2., 2.]], dtype=float32)
    >>> unit.backward(np.ones((1, 2), np.float32))
    array([[2., 2.]], dtype=float32)
    >>> unit.gradients
    {'factor': array([2.], dtype=float32)}
    """

    dtype: np.dtype[Any] | None = None
    seed: int | None = None
    _bound: bool = False

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each parameter by its name; without this method a unit has none."""
        return {}

    def initialize(self, rng: Philox, parameters: dict[str, Any]) -> None:
        """Fill the parameters, float64 arrays of the shapes that `parameter_shapes` gives, in place.

        Parameters
        ----------
        rng : fastbp.random.Philox
            The only source of chance, so that a seed gives the same network everywhere.
        parameters : dict of str to ndarray of float64
            What to fill; rounded to the network's dtype afterwards.
        """
        if self.parameter_shapes():
            raise NotImplementedError(self._lacks("initialize(rng, parameters)"))

    def forward(self, x: FloatArray) -> FloatArray:
        """Give y = f(x), and remember what `backward` will need."""
        raise NotImplementedError(self._lacks("forward(x)"))

    def backward(self, dy: FloatArray) -> FloatArray:
        """Fill the gradients of the parameters, and give the gradient at the input of the last `forward`."""
        raise NotImplementedError(self._lacks("backward(dy)"))

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The unit's own parameters, made at their first use; a network sets its views in their place."""
        wide = {name: np.zeros(shape) for name, shape in self.parameter_shapes().items()}
        self.initialize(Philox(self.seed, stream_number("weights", 0)), wide)
        return {name: values.astype(self.dtype or check.FLOAT32) for name, values in wide.items()}

    @cached_property
    def gradients(self) -> dict[str, Any]:
        """The gradients at the parameters, zero before the first `backward`."""
        return {name: np.zeros_like(values) for name, values in self.parameters.items()}

    def bind(self, parameters: dict[str, Any], gradients: dict[str, Any]) -> None:
        """Take a network's views for parameters and gradients; called by the network.

        Raises
        ------
        ValueError
            The unit is in a network already, has parameters of its own from being used alone, or was made with another
            dtype than the network's.
        """
        if self._bound:
            raise ValueError(f"{self!r} is in a network already: make another one for this network")
        if self.__dict__.get("parameters"):
            raise ValueError(f"{self!r} has been used alone and has parameters of its own: make another one")
        for name, values in parameters.items():
            if self.dtype is not None and values.dtype != self.dtype:
                message = f"{self!r} was made with dtype {self.dtype}, but {name} of the network is {values.dtype}"
                raise ValueError(f"{message}: leave its dtype out")
        self.parameters = parameters
        self.gradients = gradients
        self._bound = True

    def release(self) -> None:
        """Leave the network, and forget its views; called by a network that could not be made."""
        for name in ("parameters", "gradients", "_bound"):
            self.__dict__.pop(name, None)

    def fresh(self) -> Self:
        """Give a unit with the same settings that is in no network and has no parameters, no dtype and no memories."""
        unit = copy.copy(self)
        unit.release()
        for name in ("dtype", "_kept"):
            unit.__dict__.pop(name, None)
        return unit

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _lacks(self, method: str) -> str:
        return f"{type(self).__name__} does not define {method}, which a unit must"

    def _remembered(self) -> Any:
        """What forward has left for backward."""
        kept = self.__dict__.get("_kept")
        if kept is None:
            raise RuntimeError(f"{self!r}.backward before forward: call forward(x) first")
        return kept


class Linear(Unit):
    """Linear unit: a weighted sum of the inputs for each output, and a bias.

    y = x @ weight + bias;  backward:  dx = dy @ weight.T,  dweight = x.T @ dy,  dbias = the sum of the rows of dy

    Parameters
    ----------
    n_in, n_out : int
        Numbers of inputs and outputs, at least 1.
    init : str, optional
        How the weights begin, a name that `fastbp.initializers` knows; biases begin at 0. None: the usual one for the
        activation that follows in the network, and ``"glorot_uniform"`` alone.
    dtype : {"float32", "float64"}, optional
        Of the parameters. None: float32 alone, in a network what the network has.
    seed : int, optional
        Of the initial weights when used alone. None: another one each time. In a network the network's seed counts.

    Attributes
    ----------
    parameters, gradients : dict
        ``{"weight": (n_in, n_out), "bias": (n_out,)}``. Write into the arrays; do not replace them.

    Raises
    ------
    TypeError, ValueError
        A size is no positive integer, or a name is unknown; from forward and backward as `fastbp.linear` and
        `fastbp.linear_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to x, not a copy.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323,
    1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Linear(2, 1, dtype="float64", seed=0)
    >>> unit.parameters["weight"][...] = [[1.0], [10.0]]
    >>> unit.forward(np.array([[1.0, 2.0]]))
    array([[21.]])
    >>> unit.backward(np.array([[1.0]]))
    array([[ 1., 10.]])
    >>> unit.gradients["weight"]
    array([[1.],
           [2.]])
    """

    def __init__(
        self, n_in: int, n_out: int, *, init: str | None = None, dtype: DTypeLike | None = None, seed: int | None = None
    ) -> None:
        if init is not None:
            initializers.lookup(init)
        self.dtype = None if dtype is None else check.float_dtype("dtype", dtype)
        self.n_in = check.integer("n_in", n_in)
        self.n_out = check.integer("n_out", n_out)
        self.init = init
        self.seed = None if seed is None else Philox(seed).seed

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give ``{"weight": (n_in, n_out), "bias": (n_out,)}``."""
        return {"weight": (self.n_in, self.n_out), "bias": (self.n_out,)}

    def initialize(self, rng: Philox, parameters: dict[str, Any]) -> None:
        """Fill the weights by the rule ``init`` and the biases with 0."""
        initializers.fill(self.init or initializers.default_for(None), rng, parameters["weight"])
        parameters["bias"][...] = 0.0

    def forward(self, x: FloatArray) -> FloatArray:
        """Give x @ weight + bias, a fresh array of shape (n, n_out), and keep a reference to x."""
        y = functional.linear(x, self.parameters["weight"], self.parameters["bias"])
        self._kept = x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Fill the gradients at weight and bias, and give dy @ weight.T, a fresh array of shape (n, n_in)."""
        x = self._remembered()
        into = (None, self.gradients["weight"], self.gradients["bias"])
        return functional.linear_backward(dy, x, self.parameters["weight"], out=into)[0]

    def __repr__(self) -> str:
        init = "" if self.init is None else f", init={self.init!r}"
        return f"Linear({self.n_in}, {self.n_out}{init})"


class ActivationUnit(Unit):
    """Base of the units that apply one function to every element, made from the table of activations.

    Attributes
    ----------
    rule : fastbp.reference.Activation
        The activation's entry in the table.
    """

    rule: ClassVar[Activation]

    def forward(self, x: FloatArray) -> FloatArray:
        """Give the activation of each element of x, a fresh array, and keep a reference to what backward needs."""
        y = _function(self.rule.name)(x)
        self._kept = y if self.rule.needs == "output" else x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Give dy times the derivative, a fresh array."""
        return _function(f"{self.rule.name}_backward")(dy, self._remembered())


def _function(name: str) -> Callable[..., FloatArray]:
    function: Callable[..., FloatArray] = getattr(functional, name)
    return function


_UNIT_DOC = """Unit of the activation {name}.

{formula};  backward:  dx = dy * dy/dx, where {derivative}

Raises
------
TypeError, ValueError
    As `fastbp.{name}` and `fastbp.{name}_backward` do.
RuntimeError
    ``backward`` is called before ``forward``.

Notes
-----
``forward`` keeps a reference to its {needs}, not a copy.

References
----------
{source}.

Examples
--------
>>> import fastbp, numpy as np
>>> unit = fastbp.{unit}()
>>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
{y}
>>> unit.backward(np.ones((1, 3))).round(4)
{dx}
"""


def _unit_doc(rule: Activation) -> str:
    x = np.array([[-1.0, 0.0, 2.0]])
    y = rule.forward(x)
    dx = rule.backward(np.ones((1, 3)), y if rule.needs == "output" else x)
    return _UNIT_DOC.format(
        name=rule.name,
        unit=rule.unit,
        needs=rule.needs,
        source=rule.source,
        formula=rule.formula.replace("z", "x"),
        derivative=rule.derivative.replace("z", "x"),
        y=repr(y.round(4)),
        dx=repr(dx.round(4)),
    )


for _rule in ACTIVATIONS.values():
    # __module__ and the global of the same name let pickle and doctest find the class.
    globals()[_rule.unit] = type(
        _rule.unit, (ActivationUnit,), {"__doc__": _unit_doc(_rule), "__module__": __name__, "rule": _rule}
    )
    __all__ += [_rule.unit]
del _rule

if TYPE_CHECKING:
    # What the table adds to this module by name.
    def __getattr__(name: str) -> type[ActivationUnit]: ...
