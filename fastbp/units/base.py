"""What every unit is: the package's own and users'."""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from typing import Any, ClassVar, Self, overload

import numpy as np
from numpy.typing import NDArray

from fastbp import _config, _engine
from fastbp import _validate as check
from fastbp._assign import ArrayDict, SetOnce, refuse
from fastbp._validate import FloatArray
from fastbp.random import Philox, stream_number

Shape = tuple[int, ...]  # of one sample: (n,) of a row, (channels, height, width) of an image

ARRAYS = ("parameters", "gradients", "state")  # of a unit, by name: kept, and written into


class Unit(SetOnce):
    """Base of all units; derive from it to write your own.

    For y = f(x), ``forward`` gives y, and ``backward`` takes the gradient of the loss at y to the one at x:
    dx = (dy/dx).T dy.

    A unit without parameters defines ``forward`` and ``backward``. One with parameters also defines
    ``parameter_shapes`` and ``initialize``, reads ``self.parameters`` and fills ``self.gradients`` in backward. Both
    are dicts of arrays by name, in a network views into its flat vectors: an assignment writes into the array, and
    raises where shape or dtype differ. There is no need to call ``super().__init__()``.

    Attributes
    ----------
    parameters : dict of str to ndarray
        The arrays that `parameter_shapes` names.
    gradients : dict of str to ndarray
        The gradients at them, by the same names; filled by `backward`.
    state : dict of str to ndarray
        The arrays that `state_shapes` names: what training keeps beside the parameters, such as running statistics.
    training : bool
        Whether `forward` is that of training, which matters to units such as `Dropout`; a network sets it.
    kind : str or None
        The engine's name for the unit; None: it runs in Python, as every unit of your own does.
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

    kind: ClassVar[str | None] = None
    dtype: np.dtype[Any] | None = None
    tangent_rule: ClassVar[type | None] = None  # of the package's: a TangentRule (units/tangents.py)
    seed: int | None = None
    training: bool = True
    _bound: bool = False
    _takes_images: ClassVar[bool] = True  # and sequences: as the numbers that they are
    _constants: ClassVar[tuple[str, ...]] = ("kind", "rule", "tangent_rule")
    _of_the_whole: ClassVar[tuple[str, ...]] = ("dtype", "seed", "training")  # that a unit is a part of
    _cures: ClassVar[dict[str, str]] = {
        "training": "it follows the whole that the unit is a part of: net.train(), net.eval(), or block.training = ...",
        "seed": "it is given when the unit is made; in a network the network's counts",
        "dtype": "it is given when the unit is made; in a network the network's counts",
        "steps": "in a network net.steps counts",
        "stream": "in a network it follows from the unit's place",
    }

    def __setattr__(self, name: str, value: Any) -> None:
        mine = vars(self)
        if name in ARRAYS and isinstance(mine.get(name), ArrayDict):
            mine[name].replace(value)
        elif (self._bound and name in self._of_the_whole) or (name in ("dtype", "seed") and "parameters" in mine):
            refuse(self, name)
        elif self._bound and name not in mine and name in self.parameters:
            self.parameters[name] = value
        else:
            super().__setattr__(name, value)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if ("forward" in vars(cls) or "backward" in vars(cls)) and "kind" not in vars(cls):
            cls.kind = None  # else the engine would carry out the base's rule, and never call these
            for rule in ("sample_gradients", "sample_squares"):  # the package's are of another function
                if getattr(cls, rule).__module__.startswith("fastbp.") and rule not in vars(cls):
                    setattr(cls, rule, getattr(Unit, rule))

    def engine_options(self) -> tuple[float, ...]:
        """Return the numbers that the engine's kernel reads, in its order.

        Returns
        -------
        tuple of float
            Empty where the kernel reads none.
        """
        return ()

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return the number of outputs for so many inputs; None where it is not known before the unit runs.

        Parameters
        ----------
        n_in : int or None
            The number of inputs; None where it is not known.

        Returns
        -------
        int or None
            Columns of y.

        Raises
        ------
        ValueError
            The unit does not take so many inputs.
        """
        return None

    def output_shape(self, shape: Shape | None) -> Shape | None:
        """Return the shape of a sample's output; None where it is not known before the unit runs.

        A unit of your own that reads or gives images defines it, in a network with an ``input_shape``. Otherwise it
        follows from `outputs_for`: as many outputs as inputs have the inputs' shape, others are a row.

        Parameters
        ----------
        shape : tuple of int or None
            Of a sample at the unit's input: (n_in,), or (channels, height, width) of an image. None where it is not
            known.

        Returns
        -------
        tuple of int or None
            Of a sample at its output.

        Raises
        ------
        ValueError
            The unit does not take such samples.
        """
        if shape is not None and len(shape) > 1 and not self._takes_images:
            raise ValueError(f"takes rows, but gets images of shape {shape}: put a fastbp.Flatten() before it")
        n_in = None if shape is None else math.prod(shape)
        n_out = self.outputs_for(n_in)
        if n_out is None:
            return None
        return shape if shape is not None and n_out == n_in else (n_out,)

    def check_input(self, name: str, x: FloatArray) -> None:
        """Raise where the unit cannot take these values; called where it reads a network's input.

        Parameters
        ----------
        name : str
            The argument's name in an error message.
        x : ndarray, shape (n, in)
            The network's input, of the right dtype and shape.
        """

    def set_rng_position(self, seed: int, stream: int, step: int, first_row: int) -> None:
        """Take what random numbers follow from; called by a network before each `forward` that Python runs.

        Parameters
        ----------
        seed : int
            The network's seed.
        stream : int
            The unit's own stream of random numbers.
        step : int
            How many forward passes of training there were before.
        first_row : int
            The place of the first row in the step's batch: not 0 where that comes in several parts.
        """
        if type(self).take_chance is not Unit.take_chance:
            message = f"{type(self).__name__}.take_chance: the method is called set_rng_position now"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            self.take_chance(seed, stream, step, first_row)

    def take_chance(self, seed: int, stream: int, step: int, first_row: int) -> None:
        """Call `set_rng_position`, whose old name this is; a unit of your own that defines it is still asked.

        Parameters
        ----------
        seed, stream, step, first_row : int
            As for `set_rng_position`.
        """
        warnings.warn("take_chance is called set_rng_position now", DeprecationWarning, stacklevel=2)
        if type(self).set_rng_position is not Unit.set_rng_position:
            self.set_rng_position(seed, stream, step, first_row)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays that training keeps beside the parameters.

        Returns
        -------
        dict of str to tuple of int
            By the names of the arrays; empty where training keeps none.
        """
        return {}

    def initialize_state(self, state: dict[str, Any]) -> None:
        """Fill the arrays that `state_shapes` names, in place.

        Parameters
        ----------
        state : dict of str to ndarray
            What to fill; zeros before.
        """

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the parameters; without this method a unit has none.

        Returns
        -------
        dict of str to tuple of int
            By the names of the parameters.
        """
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
        """Return y = f(x), and keep what `backward` needs.

        Parameters
        ----------
        x : ndarray of float32 or float64, shape (n, in)
            A sample in each row.

        Returns
        -------
        y : ndarray of x's dtype, shape (n, out)
            In a network not to be overwritten before `backward`.
        """
        raise NotImplementedError(self._lacks("forward(x)"))

    def backward(self, dy: FloatArray) -> FloatArray:
        """Fill the gradients of the parameters, and return the gradient at the input of the last `forward`.

        Parameters
        ----------
        dy : ndarray, shape (n, out)
            The gradient of the loss at y, of y's dtype.

        Returns
        -------
        dx : ndarray, shape (n, in)
            The gradient of the loss at x, of x's dtype.
        """
        raise NotImplementedError(self._lacks("backward(dy)"))

    def forward_tangent(self, x: FloatArray, x_dot: FloatArray, dots: dict[str, Any]) -> FloatArray:
        """Return the derivative of y = f(x) while x moves along x_dot, and the parameters along ``dots``, by name.

        Second order needs it of a unit of your own, with `backward_tangent`; neither may rely on what `forward` or
        `backward` have left, nor change it. The network is in evaluation.

        Parameters
        ----------
        x : ndarray, shape (n, in)
            The input.
        x_dot : ndarray, shape (n, in)
            Its direction.
        dots : dict of str to ndarray
            The direction of each parameter.

        Returns
        -------
        y_dot : ndarray, shape (n, out)
            The derivative of y along the directions.
        """
        raise NotImplementedError(self._lacks("forward_tangent(x, x_dot, dots)", "second order needs"))

    def backward_tangent(
        self, x: FloatArray, x_dot: FloatArray, dots: dict[str, Any], dy: FloatArray, dy_dot: FloatArray
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Return the derivatives of dx, and of the parameters' gradients by name, while dy moves along dy_dot, too.

        dx and the gradients are what `backward` computes from dy after ``forward(x)``.

        Parameters
        ----------
        x : ndarray, shape (n, in)
            The input.
        x_dot : ndarray, shape (n, in)
            Its direction.
        dots : dict of str to ndarray
            The direction of each parameter.
        dy : ndarray, shape (n, out)
            The gradient at y.
        dy_dot : ndarray, shape (n, out)
            Its direction.

        Returns
        -------
        dx_dot : ndarray, shape (n, in)
            The derivative of dx along the directions.
        gradients : dict of str to ndarray
            The derivative of the gradient at each parameter.
        """
        raise NotImplementedError(self._lacks("backward_tangent(x, x_dot, dots, dy, dy_dot)", "second order needs"))

    def sample_gradients(self, x: FloatArray, dy: FloatArray) -> dict[str, Any]:
        """Return the gradient at each parameter of each row alone.

        A unit of your own may define it; otherwise this calls `forward` and `backward` for each row.

        Parameters
        ----------
        x : ndarray, shape (n, in)
            The input.
        dy : ndarray, shape (n, out)
            The gradient at y, a row for each sample.

        Returns
        -------
        dict of str to ndarray
            By the names of the parameters, with the rows as first axis.
        """
        made = {name: np.empty((len(x), *values.shape), values.dtype) for name, values in self.parameters.items()}
        for i in range(len(x)):
            self.forward(x[i : i + 1])
            self.backward(dy[i : i + 1])
            for name, values in made.items():
                values[i] = self.gradients[name]
        return made

    def sample_squares(self, x: FloatArray, dy: FloatArray) -> NDArray[np.float64]:
        """Return the squared length of the `sample_gradients` of each row, over all parameters.

        A unit whose lengths follow without the gradients defines it.

        Parameters
        ----------
        x : ndarray, shape (n, in)
            The input.
        dy : ndarray, shape (n, out)
            The gradient at y, a row for each sample.

        Returns
        -------
        ndarray of float64, shape (n,)
            A fresh array.
        """
        return np.asarray(sum(map(square_sums, self.sample_gradients(x, dy).values())))

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The unit's own parameters, made at their first use; a network sets its views in their place."""
        wide = {name: np.zeros(shape) for name, shape in self.parameter_shapes().items()}
        self.initialize(Philox(self.seed, stream_number("weights", 0)), wide)
        made = {name: values.astype(self.dtype or check.FLOAT32) for name, values in wide.items()}
        return ArrayDict(made, "parameters")

    @cached_property
    def gradients(self) -> dict[str, Any]:
        """The gradients at the parameters, zero before the first `backward`."""
        return ArrayDict({name: np.zeros_like(values) for name, values in self.parameters.items()}, "gradients")

    @cached_property
    def state(self) -> dict[str, Any]:
        """What training keeps beside the parameters, made at its first use, in the dtype of the parameters."""
        dtype = next((values.dtype for values in self.parameters.values()), self.dtype or check.FLOAT32)
        made = {name: np.zeros(shape, dtype) for name, shape in self.state_shapes().items()}
        self.initialize_state(made)
        return ArrayDict(made, "state")

    def bind(self, parameters: dict[str, Any], gradients: dict[str, Any]) -> None:
        """Take a network's views for parameters and gradients; called by the network.

        Parameters
        ----------
        parameters : dict of str to ndarray
            Views into the network's parameters.
        gradients : dict of str to ndarray
            Views into its gradients.

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
        self.__dict__["parameters"] = ArrayDict(parameters, "parameters")
        self.__dict__["gradients"] = ArrayDict(gradients, "gradients")
        self._bound = True

    def _take_parameters(self, parameters: dict[str, Any]) -> None:
        """Read other arrays from now on; called by the network, which computes from them too."""
        self.__dict__["parameters"] = ArrayDict(parameters, "parameters")

    def release(self) -> None:
        """Leave the network, and forget its views; called by a network that could not be made."""
        for name in ("parameters", "gradients", "state", "training", "_bound"):
            self.__dict__.pop(name, None)

    def fresh(self) -> Self:
        """Return a unit with the same settings, in no network, without parameters, dtype and memories.

        Returns
        -------
        Unit
            Of this unit's class.
        """
        unit = type(self).__new__(type(self))
        unit.__dict__.update(vars(self))
        unit.release()
        for name in ("dtype", "_saved"):
            unit.__dict__.pop(name, None)
        return unit

    def multiply_adds(self) -> int:
        """Return the multiply-adds of the unit's own matrix products for one row, forward; for `Network.summary`.

        Returns
        -------
        int
            0 where the unit has no matrix product.
        """
        return 0

    def _multiply_adds(self, shape: Shape | None) -> int:
        """Return those of a sample of this shape."""
        return self.multiply_adds()

    # ---- settings as data, copies

    def config(self) -> dict[str, Any]:
        """Return the arguments that make an equal unit, as plain JSON values; a model's file holds them.

        They are looked up by the names in the signature of ``__init__``: a unit of your own that keeps each argument as
        an attribute of the same name needs no ``config``. Sequences come back as lists.

        Returns
        -------
        dict of str to object
            By the names of the arguments.

        Raises
        ------
        TypeError
            An argument is no attribute, or cannot be written as data.
        """
        return _config.arguments(self)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle has: settings, arrays of its own (from a network too), no memory for `backward`."""
        state = {name: value for name, value in vars(self).items() if name not in ("_saved", "_bound")}
        for name in ("parameters", "gradients", "state"):
            if name in state:
                state[name] = {entry: np.array(values) for entry, values in state[name].items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = {name: ArrayDict(state[name], name) for name in ARRAYS if name in state}
        self.__dict__.update(state | arrays)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _set_training(self, training: bool) -> None:
        """Go into a mode, or leave it, also in a network: that calls it."""
        self.__dict__["training"] = training

    def _lacks(self, method: str, why: str = "a unit must") -> str:
        return f"{type(self).__name__} does not define {method}, which {why}"

    def _saved_by_forward(self) -> Any:
        """What forward has left for backward."""
        saved = self.__dict__.get("_saved")
        if saved is None:
            raise RuntimeError(f"{self!r}.backward before forward: call forward(x) first")
        return saved


class Parameter:
    """A parameter of a unit as its attribute; what is assigned to it is written into the array."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, unit: None, cls: type) -> Parameter: ...
    @overload
    def __get__(self, unit: Unit, cls: type) -> FloatArray: ...
    def __get__(self, unit: Unit | None, cls: type) -> Parameter | FloatArray:
        if unit is None:
            return self
        if self.name not in unit.parameters:
            raise AttributeError(f"{unit!r} has no parameter {self.name!r}")
        values: FloatArray = unit.parameters[self.name]
        return values

    def __set__(self, unit: Unit, value: Any) -> None:
        unit.parameters[self.name] = value


def square_sums(x: FloatArray) -> NDArray[np.float64]:
    """Return the sum of the squares of each row, in float64."""
    rows = x.reshape(len(x), math.prod(x.shape[1:]))
    if rows.strides[1] != rows.itemsize or not rows.flags.aligned:
        rows = rows.copy()
    sums = np.empty(len(rows))
    _engine.square_sums(rows, sums)
    return sums
