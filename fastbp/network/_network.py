"""Networks as users see them: the core, and what is computed from it or made of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastbp import _config
from fastbp._core.adopting import AdoptedDict, AdoptedList, adopt
from fastbp._core.core import NetworkCore
from fastbp._core.gradients import Gradients
from fastbp._renamed import hides
from fastbp._validate import FloatArray
from fastbp._warnings import warn
from fastbp.derivatives import per_sample, second_order
from fastbp.io import _describe, saving
from fastbp.losses import Loss, checked_loss, engine_parts
from fastbp.network.summary import Summary
from fastbp.units import LogSigmoid, LogSoftmax, Sequential, Sigmoid, Softmax, Unit

__all__ = ["Network", "from_onnx", "load"]

RENAMED = {
    "check_mean": "_inputs.check_mean",
    "checked_dy": "_inputs.checked_dy",
    "checked_like": "_gradients._checked_like",
    "checked_targets": "_inputs.checked_targets",
    "checked_x": "_inputs.checked_x",
    "checks_targets": "_inputs.checks_targets",
    "count_step": "_count_step",
    "counts_apart": "_inputs.counts_apart",
    "counts_labels": "_inputs.counts_labels",
    "entrance": "_lock",
    "evaluating": "_evaluating",
    "gradients_over": "_gradients._over",
    "losses_apart": "_inputs.losses_apart",
    "observer": "_recorder",
    "part_of_step": "_part_of_step",
    "row_counts": "_inputs.row_counts",
    "takes_codes": "_inputs.takes_indices",
    "update_by": "_update_by",
    "value_and_grad_of": "_value_and_grad_of",
    "whole": "_whole",
    "with_penalty": "_with_penalty",
}


# Units that losses with such a link apply to the outputs themselves.
APPLIED: dict[str, tuple[type[Unit], ...]] = {"softmax": (Softmax, LogSoftmax), "sigmoid": (Sigmoid, LogSigmoid)}


def _warn_of_link(unit: Unit, loss: Loss) -> None:
    """Warn where the last unit computes what the loss applies to the outputs itself."""
    while isinstance(unit, Sequential):
        unit = unit.units[-1]
    for _, part in engine_parts(loss) or ():
        if type(unit) in APPLIED.get(part.rule.link, ()):
            twice = "takes time and changes nothing" if type(unit) is LogSoftmax else "is applied twice"
            warn(
                f"the last unit is {unit!r}, but the loss {part.rule.name} applies the {part.rule.link} itself, so "
                f"that it {twice}: leave that unit out; predict_proba gives the probabilities"
            )


@hides(RENAMED)
class Network(NetworkCore):
    """A chain of units, and the loss at its end.

    Parameters
    ----------
    *chain : Unit
        The units in their order: `Linear`, activations, or your own. A unit belongs to one network.
    loss : str or Loss
        The name of a loss, with its defaults: "softmax_nll", "sigmoid_nll", "mse", "huber", ...; or a `Loss`, such as
        ``fastbp.Huber(delta=2.0)`` or your own.
    input_shape : sequence of int, optional
        Of a sample: (channels, height, width) of images, (channels, width) of sequences. Units that read images need
        it; x then has shape (n, channels, height, width), or (n, numbers) in that order.
    dtype : {"float32", "float64"}
        Of parameters, inputs and gradients.
    seed : int, optional
        Of the initial weights; None: another one each time.
    l1, l2 : float
        Penalties on the weights w of linear units and convolutions, >= 0: l1 * sum|w| + l2 / 2 * sum w² is part of
        every loss and gradient.
    classes : array_like, optional
        The labels that `predict` returns, in the order of the outputs: strings, numbers or bools, each once; two for
        one output. Targets are their numbers.
    metadata : dict of str to object, optional
        Notes of your own: strings, numbers, and lists and dicts of them. Copies and files keep them.

    Attributes
    ----------
    flat_parameters : ndarray, shape (n_parameters,)
        All parameters; write into it freely, the next call sees it.
    parameters : dict of str to ndarray
        ``{"0.weight": ..., "0.bias": ..., "2.weight": ...}``: views into ``flat_parameters``.
    weights, biases : tuple of ndarray
        The same views, of the linear units in their order.
    gradients : Gradients
        What the last `value_and_grad` or `backward` computed; a training step in one engine does not keep its own.
    units, loss, input_shape, dtype, seed, classes, metadata, n_parameters
        As given, and how many parameters there are.

    Raises
    ------
    TypeError, ValueError
        No unit, something that is no unit or no loss, sizes that do not follow each other, a unit that has a network.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323,
    1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> units = fastbp.Linear(3, 4), fastbp.Sigmoid(), fastbp.Linear(4, 2)
    >>> net = fastbp.Network(*units, loss=fastbp.SoftmaxNLL(), seed=0)
    >>> x, t = np.ones((5, 3), np.float32), np.zeros(5, np.int64)
    >>> loss, grads = net.value_and_grad(x, t)
    >>> grads.weights[0].shape
    (3, 4)

    Labels of any kind: their numbers are the targets, and the labels come back from `predict`.

    >>> labels = ["cat", "dog", "dog", "cat", "dog"]
    >>> classes, t = np.unique(labels, return_inverse=True)
    >>> net = fastbp.MLP([3, 2], classes=classes, metadata={"author": "me"}, seed=0)
    >>> loss = net.train_step(x, t, fastbp.SGD(lr=1.0))
    >>> net.predict(x)
    array(['dog', 'dog', 'dog', 'dog', 'dog'], dtype='<U3')
    """

    def __init__(
        self,
        *chain: Unit,
        loss: str | Loss,
        input_shape: Sequence[int] | None = None,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        classes: ArrayLike | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            *chain,
            loss=loss,
            input_shape=input_shape,
            dtype=dtype,
            seed=seed,
            l1=l1,
            l2=l2,
            classes=classes,
            metadata=metadata,
        )
        _warn_of_link(chain[-1], self.loss)  # a copy, or what a file holds, comes without: it would be said twice

    # ---- at the input

    def input_gradient(self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> FloatArray:
        """Compute the gradient of the mean loss at the input, and at no parameter. It evaluates, as `predict` does.

        dx = dJ/dx, of J = `loss_value(x, t)` without the penalties

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.
        sample_weight : array_like, shape (n,), optional
            As for `value_and_grad`.

        Returns
        -------
        dx : ndarray of the network's dtype, shape (n, in)
            A fresh array. ``net.gradients`` stay as they are.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `value_and_grad`.

        References
        ----------
        K. Simonyan, A. Vedaldi and A. Zisserman, "Deep inside convolutional networks: visualising image classification
        models and saliency maps", 2014.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=0)
        >>> net.weights[0][...] = [[1.0], [10.0]]
        >>> net.input_gradient(np.array([[1.0, 1.0]]), np.array([[0.0]]))    # (y - t) w, y = 11
        array([[ 11., 110.]])
        """
        return second_order.input_gradient(self, x, t, sample_weight)

    def jacobian(self, x: FloatArray) -> FloatArray:
        """Compute the derivative of each of the last unit's outputs by each input, row by row. It evaluates.

        J_nki = dy_nk / dx_ni

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            Rows that do not depend on each other: nor do their outputs where the network evaluates.

        Returns
        -------
        ndarray of the network's dtype, shape (n, out, in)
            A fresh array.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `value_and_grad`.

        Notes
        -----
        One forward pass, and one backward pass for each output.

        References
        ----------
        C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.3.4.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.Network(fastbp.Linear(1, 1), fastbp.Tanh(), loss=fastbp.MSE(), dtype="float64", seed=0)
        >>> net.weights[0][...] = 3.0
        >>> net.jacobian(np.zeros((1, 1)))
        array([[[3.]]])
        """
        return second_order.jacobian(self, x)

    # ---- second order

    def curvature_at(
        self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> second_order.CurvaturePoint:
        """Compute one forward and one backward pass, and keep them for several products with the Hessian at this point.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.
        sample_weight : array_like, shape (n,), optional
            As for `value_and_grad`.

        Returns
        -------
        point : CurvaturePoint
            ``point.hvp(v)``, ``point.gnvp(v)``, ``point.gradient``, ``point.loss``.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `value_and_grad`; or a unit or the loss is your own and does not say what its second derivatives are.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)
        >>> point = net.curvature_at(np.array([[2.0]]), np.array([[1.0]]))
        >>> point.hvp(np.array([1.0, 0.0]))          # of 1/2 (2 w + b - 1)**2
        array([4., 2.])
        """
        return second_order.CurvaturePoint(self, x, t, sample_weight)

    def hvp(
        self, x: FloatArray, t: ArrayLike, v: FloatArray | Gradients, *, sample_weight: ArrayLike | None = None
    ) -> FloatArray:
        """Compute the product of the Hessian of the mean loss with a vector, exactly. It evaluates.

        H v = d/de grad J(w + e v) at e = 0, the directional derivative of the gradient

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.
        v : ndarray of the network's dtype, shape (n_parameters,), or Gradients
            In the order of ``flat_parameters``.
        sample_weight : array_like, shape (n,), optional
            As for `value_and_grad`.

        Returns
        -------
        ndarray, shape (n_parameters,)
            A fresh array. Parameters and ``net.gradients`` stay as they are.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `curvature_at`; v has another dtype or size.

        References
        ----------
        B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)
        >>> net.hvp(np.array([[2.0]]), np.array([[1.0]]), np.array([1.0, 0.0]))
        array([4., 2.])
        """
        return second_order.product(self, x, t, v, sample_weight, "hvp")

    def gnvp(
        self, x: FloatArray, t: ArrayLike, v: FloatArray | Gradients, *, sample_weight: ArrayLike | None = None
    ) -> FloatArray:
        """Compute the product of the Gauss-Newton matrix of the mean loss with a vector. It evaluates.

        G v = J' H_L J v, where J is the derivative of the outputs by the parameters, H_L the loss's Hessian at the
        outputs: the Hessian without the second derivatives of the units; positive semi-definite where the loss is
        convex

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.
        v : ndarray of the network's dtype, shape (n_parameters,), or Gradients
            In the order of ``flat_parameters``.
        sample_weight : array_like, shape (n,), optional
            As for `value_and_grad`.

        Returns
        -------
        ndarray, shape (n_parameters,)
            A fresh array.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `hvp`.

        References
        ----------
        N. N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural Computation
        14, 2002.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)
        >>> net.gnvp(np.array([[2.0]]), np.array([[1.0]]), np.array([1.0, 0.0]))     # a linear model: as the Hessian
        array([4., 2.])
        """
        return second_order.product(self, x, t, v, sample_weight, "gnvp")

    def hessian(self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> FloatArray:
        """Compute the whole Hessian of the mean loss at the parameters of a small network. It evaluates.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.
        sample_weight : array_like, shape (n,), optional
            As for `value_and_grad`.

        Returns
        -------
        ndarray, shape (n_parameters, n_parameters)
            Row i is the product with the i-th unit vector; symmetric up to rounding.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `curvature_at`; the network has more than `fastbp.second_order.MOST_PARAMETERS` parameters.

        References
        ----------
        C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.4.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)
        >>> net.hessian(np.array([[2.0]]), np.array([[1.0]]))
        array([[4., 2.],
               [2., 1.]])
        """
        return second_order.hessian(self, x, t, sample_weight)

    # ---- each sample's own

    def sample_gradient_norms(self, x: FloatArray, t: ArrayLike) -> NDArray[np.float64]:
        """Compute the length of the gradient of each row's own loss, without the gradients: for less than one of them.

        |g_n|**2 = sum over the units of |dw_n|**2; of a linear unit (|x_n|**2 + 1) |dy_n|**2

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.

        Returns
        -------
        ndarray of float64, shape (n,)
            Over all parameters, of the row's loss itself: not divided by n.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `sample_gradients`.

        References
        ----------
        I. Goodfellow, "Efficient per-example gradient computations", 2015.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=0)
        >>> net.weights[0][...] = [[1.0], [0.0]]
        >>> net.sample_gradient_norms(np.array([[2.0, 2.0], [0.0, 5.0]]), np.zeros((2, 1)))     # 2 * sqrt(4 + 4 + 1)
        array([6., 0.])
        """
        return per_sample.sample_gradient_norms(self, x, t)

    def sample_gradients(self, x: FloatArray, t: ArrayLike) -> per_sample.SampleGradients:
        """Compute the gradient of each row's own loss. In training where the network is.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.

        Returns
        -------
        grads : SampleGradients
            ``grads["0.weight"]`` has shape (n, in, out), ``grads.flat`` (n, n_parameters); fresh arrays.

        Raises
        ------
        TypeError, RuntimeError
            As `value_and_grad`.
        ValueError
            As there; or a `BatchNorm` is in training, so that a row's loss depends on the other rows.

        Notes
        -----
        The loss is that of ``reduction="none"``, without penalties. A unit of your own with parameters is called once
        more for each row, unless it defines ``sample_gradients(x, dy)``.

        References
        ----------
        I. Goodfellow, "Efficient per-example gradient computations", 2015.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=0)
        >>> net.weights[0][...] = [[1.0], [0.0]]
        >>> net.sample_gradients(np.array([[2.0, 2.0], [0.0, 5.0]]), np.zeros((2, 1))).flat
        array([[4., 4., 2.],
               [0., 0., 0.]])
        """
        return per_sample.sample_gradients(self, x, t)

    # ---- a program's own arrays

    @overload
    def adopt(
        self, arrays: Mapping[str, FloatArray], layout: str = "in,out", *, in_place: bool = False
    ) -> AdoptedDict: ...
    @overload
    def adopt(self, arrays: Sequence[FloatArray], layout: str = "in,out", *, in_place: bool = False) -> AdoptedList: ...
    def adopt(
        self,
        arrays: Sequence[FloatArray] | Mapping[str, FloatArray],
        layout: str = "in,out",
        *,
        in_place: bool = False,
    ) -> AdoptedList | AdoptedDict:
        """Make a program's own arrays the network's parameters: `value_and_grad` is then the program's gradient.

        Parameters
        ----------
        arrays : list or dict of ndarray of the network's dtype
            In the order of ``net.parameters``: w0, b0, w1, b1, ... A bias may have shape (n,), (1, n) or (n, 1).
        layout : {"in,out", "out,in"}
            Of the weights: y = x @ w + b, or y = x @ w.T + b.
        in_place : bool
            Whether the engine computes from these very arrays, for a program that will not let go of them. Their rows,
            or their columns, lie side by side. Optimizers of the package then step by
            ``optimizer.update(arrays, views.gradients)`` alone.

        Returns
        -------
        views : list or dict of ndarray
            As ``arrays``, in their layout and shapes: views of the network's memory, for the program to go on with; or
            of the arrays with ``in_place``. An assignment to one of them, ``views[0] = w``, writes into it.
            ``views.gradients`` are views of ``net.gradients`` that look the same.

        Raises
        ------
        TypeError, ValueError
            Too many arrays or too few, or one of another shape or dtype, or one that the engine cannot read where it
            lies. The network is as it was.

        Notes
        -----
        In place, ``net.parameters`` are views of the arrays, and ``flat_parameters`` a copy that cannot be written.
        `copy`, files and pickles hold the values, and a network of its own again.

        Examples
        --------
        A network whose samples are columns, z = w @ a + b with b (n, 1):

        >>> import fastbp, numpy as np
        >>> w, b = [np.ones((3, 2)), np.ones((1, 3))], [np.zeros((3, 1)), np.zeros((1, 1))]
        >>> net = fastbp.MLP([2, 3, 1], hidden="sigmoid", loss="mse", dtype="float64")
        >>> w[0], b[0], w[1], b[1] = views = net.adopt([w[0], b[0], w[1], b[1]], layout="out,in")
        >>> x, t = np.array([[0.5, -0.5]]), np.array([[2.0]])
        >>> loss, _ = net.value_and_grad(x, t)
        >>> for values, gradient in zip(views, views.gradients):
        ...     values -= 0.1 * gradient
        >>> loss, net.loss_value(x, t) < loss
        (0.125, True)
        """
        return adopt(self, arrays, layout, in_place)

    # ---- copies, files, pickles

    def copy(self, dtype: DTypeLike | None = None) -> Network:
        """Return an equal network with parameters of its own.

        Parameters
        ----------
        dtype : {"float32", "float64"}, optional
            Another dtype; parameters are rounded.

        Returns
        -------
        Network
            Of this network's class, with the same parameters, state, options, seed and mode.
        """
        cls, chain, keywords, *rest = _describe.to_state(self)
        if dtype is not None:
            keywords["dtype"] = dtype
        made: Network = _describe.from_state(cls, chain, keywords, *rest)
        return made

    def save(
        self, path: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None, layout: str = "fastbp"
    ) -> None:
        """Write the network to a file, from which `fastbp.load` makes it again.

        Parameters, state, options, seed, mode, classes and metadata are kept; gradients and an optimizer's state are
        not. The file is written beside its place and renamed: whatever happens meanwhile, the old one or the new one is
        there, whole. Its names, such as ``"parameters.0.weight_in_out"``, are no other library's: weights are (in, out)
        here, and (out, in) in PyTorch.

        Parameters
        ----------
        path : str or path
            With the suffix ``.safetensors`` (needs that package: ``pip install "fastbp[save]"``) or ``.npz``.
        metadata : dict of str to object, optional
            Notes that the file has beside those in ``net.metadata``; `fastbp.load` returns both there.
        layout : {"fastbp", "torch"}
            "torch": the parameters and running statistics alone, under PyTorch's names and in its layout, in a
            ``.safetensors`` file that a `torch.nn.Sequential` of the same modules loads. `fastbp.load` does not read
            it; ``fastbp.torch.load_state_dict`` does.

        Raises
        ------
        ValueError
            The suffix is unknown, or a part of the network cannot be made again from what it says of itself.
        TypeError
            A unit or a loss of your own does not tell what it was made with, see `Unit.config`; or metadata are
            something that JSON cannot keep.
        OSError
            The file cannot be written.
        RuntimeError
            Another thread has changed the parameters meanwhile.
        ImportError
            safetensors is not installed.

        Examples
        --------
        >>> import fastbp
        >>> fastbp.MLP([4, 3], seed=0).save("model.npz")
        >>> fastbp.load("model.npz")
        MLP([4, 3], hidden='relu', loss='softmax_nll', dtype='float32')
        """
        saving.save(self, path, metadata, layout)

    def to_onnx(self, path: str | os.PathLike[str], *, output: str = "auto") -> None:
        """Write the network as an ONNX graph, which ONNX Runtime and others compute predictions with.

        The graph evaluates: dropout passes its input on, norms have their running statistics. Its input ``x`` has the
        shape of the network's, with any number of samples; its output is called ``probabilities`` or ``y``. The file is
        written beside its place and renamed, as by `save`.

        Parameters
        ----------
        path : str or path
            Usually with the suffix ``.onnx``. Needs the package onnx: ``pip install "fastbp[onnx]"``.
        output : {"auto", "probabilities", "outputs"}
            Whether the graph ends with the softmax or the sigmoid of the loss, as `predict_proba`, or with the last
            unit, as `outputs`. "auto": probabilities where the loss has them.

        Raises
        ------
        ImportError
            onnx is not installed.
        ValueError
            A unit has no counterpart in ONNX, such as one of your own; the loss has no probabilities where these are
            asked for; or the parameters have more than 2 GB, which one file cannot hold.
        OSError
            The file cannot be written.

        Notes
        -----
        Operators are those of opset 17. In float64, ONNX Runtime has no convolutions and no means of windows: write
        ``net.copy("float32")``; `GELU` is computed there by an erf in single precision.

        References
        ----------
        ONNX, "Open Neural Network Exchange: operators", https://onnx.ai/onnx/operators.

        Examples
        --------
        >>> import fastbp
        >>> net = fastbp.MLP([4, 8, 3], hidden="gelu", seed=0)
        >>> net.to_onnx("model.onnx")
        >>> fastbp.from_onnx("model.onnx")
        Network(Linear(4, 8), GELU(), Linear(8, 3), loss=SoftmaxNLL(), dtype='float32')
        """
        from fastbp.io import _onnx_writing  # for few programs alone

        _onnx_writing.write(self, path, output)

    def summary(self, batch_size: int | None = None) -> Summary:
        """Return a table of the units: output shapes, parameters, multiply-adds and memory.

        Parameters
        ----------
        batch_size : int, optional
            Adds what a gradient of so many rows keeps between the units.

        Returns
        -------
        Summary
            Printed, it is the table; the totals are its attributes.

        Examples
        --------
        >>> import fastbp
        >>> table = fastbp.MLP([784, 256, 10], seed=0).summary()
        >>> table.parameters, table.multiply_adds
        (203530, 203264)
        """
        return Summary(self, batch_size)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make an equal network, without its parameters, as plain JSON values.

        Returns
        -------
        dict of str to object
            By the names of the arguments; units and losses as dicts of their class and its arguments.
        """
        return _config.arguments(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _describe.from_state, _describe.to_state(self)

    def __repr__(self) -> str:
        return f"Network({', '.join(map(repr, self.units))}, loss={self.loss!r}, dtype={self.dtype.name!r})"


def load(path: str | os.PathLike[str], *, units: Mapping[str, type] | None = None) -> Network:
    """Read a network from a file that `Network.save` wrote.

    Nothing in the file is run: it holds numbers and the names of classes, which are looked up among the package's own
    and ``units``.

    Parameters
    ----------
    path : str or path
        With the suffix ``.safetensors`` (needs the package safetensors: ``pip install "fastbp[save]"``) or ``.npz``.
    units : dict of str to type, optional
        Your own units and losses (and subclasses of `Network`) by the names of their classes: ``{"Scale": Scale}``.

    Returns
    -------
    net : Network
        Of the class that was saved, with the same parameters, state, options, seed and mode.

    Raises
    ------
    ValueError
        The suffix is unknown; the file is damaged, or something else than a model of this package; it was written by a
        newer version; or it names a class that is neither the package's nor in ``units``.
    OSError
        The file cannot be read.
    TypeError
        ``units`` are no classes by name.
    ImportError
        safetensors is not installed.

    References
    ----------
    Hugging Face, "safetensors: a simple, safe and fast format for tensors", https://github.com/huggingface/safetensors.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.MLP([2, 3, 1], hidden="tanh", loss="mse", seed=0)
    >>> net.save("model.npz")
    >>> same = fastbp.load("model.npz")
    >>> same
    MLP([2, 3, 1], hidden='tanh', loss='mse', dtype='float32')
    >>> bool((same.flat_parameters == net.flat_parameters).all())
    True
    """
    net, _ = saving.read(path, saving.checked_units(units))
    assert isinstance(net, Network)
    return net


def from_onnx(
    path: str | os.PathLike[str],
    *,
    loss: str | Loss | None = None,
    input_shape: Sequence[int] | None = None,
    output: str | None = None,
    classes: ArrayLike | None = None,
) -> Network:
    """Make a network of an ONNX graph that is a chain: to predict, to train further, or to differentiate.

    Operators that are read: Gemm, MatMul and Add, Conv, pooling, norms, activations (also those that a graph has as
    several nodes), Flatten, Reshape, Softmax, and those that change nothing.

    Parameters
    ----------
    path : str, path or onnx.ModelProto
        A file, or a model in memory. Needs the package onnx: ``pip install "fastbp[onnx]"``.
    loss : str or Loss, optional
        The network's loss. None: the one that `Network.to_onnx` has noted; otherwise `SoftmaxNLL` where the graph ends
        with a softmax, `SigmoidNLL` where it ends with a sigmoid, and `MSE` elsewhere.
    input_shape : sequence of int, optional
        Of a sample, where the graph leaves the sizes of its images open.
    output : str, optional
        The name of the output, where the graph has several.
    classes : array_like, optional
        The labels that `predict` returns, as `Network`'s. None: those that `Network.to_onnx` has noted.

    Returns
    -------
    net : Network
        In the dtype of the graph's input. A softmax or sigmoid that the loss applies itself is no unit of it: what the
        graph computes is then ``net.predict_proba(x)``, and ``net.outputs(x)`` otherwise.

    Raises
    ------
    ValueError
        The file is no ONNX model; its graph has several inputs or outputs, or sizes that are not known; or a node
        cannot become part of a network: the message names it, its operator, and why.
    OSError
        The file cannot be read.
    ImportError
        onnx is not installed.

    References
    ----------
    ONNX, "Open Neural Network Exchange: operators", https://onnx.ai/onnx/operators.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.MLP([2, 3, 1], hidden="tanh", loss="sigmoid_nll", seed=0)
    >>> net.to_onnx("model.onnx")
    >>> same, x = fastbp.from_onnx("model.onnx"), np.ones((1, 2), np.float32)
    >>> bool((same.predict_proba(x) == net.predict_proba(x)).all())
    True
    """
    from fastbp.io import _onnx_reading

    found = _onnx_reading.read(path, output, input_shape)
    chain, arrays = found.units, found.arrays
    applied = {unit: name for name, kinds in APPLIED.items() for unit in kinds}.get(type(chain[-1]))
    if loss is None:
        loss = found.loss or {"softmax": "softmax_nll", "sigmoid": "sigmoid_nll"}.get(applied or "", "mse")
    made = checked_loss(loss)
    if (
        applied is not None
        and len(chain) > 1
        and any(part.rule.link == applied for _, part in engine_parts(made) or ())
    ):
        chain, arrays = chain[:-1], arrays[:-1]
    labels = found.classes if classes is None else classes
    net = Network(*chain, loss=made, input_shape=found.input_shape, dtype=found.dtype, classes=labels)
    found._replace(units=chain, arrays=arrays).fill(net)
    return net
