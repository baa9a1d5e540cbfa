"""The interface of numpy-ml's dense layers: inputs are kept in lists, gradients add up, a step flushes both.

Samples are rows, W is (n_in, n_out), b (1, n_out); both are made at the first forward pass. A backward pass goes
through all inputs kept since the last flush, and recomputes what it needs of them.
"""
# Legacy random numbers are numpy-ml's habit.
# ruff: noqa: NPY002

from abc import ABC, abstractmethod

import numpy as np

# ---- activations -----------------------------------------------------------------------------------------------------


class ActivationBase(ABC):
    """A function `fn` of arrays, with its derivatives `grad` and `grad2`, all of the input."""

    def __call__(self, z):
        return self.fn(z.reshape(1, -1) if z.ndim == 1 else z)

    @abstractmethod
    def fn(self, z): ...

    @abstractmethod
    def grad(self, x): ...

    @abstractmethod
    def grad2(self, x): ...


class Affine(ActivationBase):
    def __init__(self, slope=1, intercept=0):
        self.slope = slope
        self.intercept = intercept

    def fn(self, z):
        return self.slope * z + self.intercept

    def grad(self, x):
        return self.slope * np.ones_like(x)

    def grad2(self, x):
        return np.zeros_like(x)


class ReLU(ActivationBase):
    def fn(self, z):
        return np.clip(z, 0, np.inf)

    def grad(self, x):
        return (x > 0).astype(int)

    def grad2(self, x):
        return np.zeros_like(x)


class Tanh(ActivationBase):
    def fn(self, z):
        return np.tanh(z)

    def grad(self, x):
        return 1 - np.tanh(x) ** 2

    def grad2(self, x):
        y = np.tanh(x)
        return -2 * y * (1 - y**2)


class Sigmoid(ActivationBase):
    def fn(self, z):
        return 1 / (1 + np.exp(-z))

    def grad(self, x):
        y = self.fn(x)
        return y * (1 - y)

    def grad2(self, x):
        y = self.fn(x)
        return y * (1 - y) * (1 - 2 * y)


def activation_of(act_fn):
    """An activation given by name, as an object, or as None for the identity."""
    if isinstance(act_fn, ActivationBase):
        return act_fn
    known = {None: Affine, "relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid}
    if act_fn not in known:
        raise ValueError(f"Unknown activation: {act_fn}")
    return known[act_fn]()


# ---- initializers ----------------------------------------------------------------------------------------------------


def glorot_uniform(shape, gain=1.0):
    bound = gain * np.sqrt(6 / sum(shape))
    return np.random.uniform(-bound, bound, size=shape)


def he_uniform(shape):
    bound = np.sqrt(6 / shape[0])
    return np.random.uniform(-bound, bound, size=shape)


INITIALIZERS = {"glorot_uniform": glorot_uniform, "he_uniform": he_uniform}


# ---- optimizers ------------------------------------------------------------------------------------------------------


class OptimizerBase(ABC):
    """One object may serve many parameters: its cache goes by their names."""

    def __init__(self):
        self.cache = {}
        self.cur_step = 0

    def __call__(self, param, param_grad, param_name, cur_loss=None):
        return self.update(param, param_grad, param_name, cur_loss)

    def step(self):
        self.cur_step += 1

    @abstractmethod
    def update(self, param, param_grad, param_name, cur_loss=None): ...


def clipped(grad, clip_norm):
    """The gradient with a norm of at most clip_norm, which None leaves as it is."""
    norm = np.linalg.norm(grad)
    return grad if clip_norm is None or norm <= clip_norm else grad * clip_norm / norm


class SGD(OptimizerBase):
    def __init__(self, lr=0.01, momentum=0.0, clip_norm=None):
        super().__init__()
        self.lr = lr
        self.momentum = momentum
        self.clip_norm = clip_norm

    def update(self, param, param_grad, param_name, cur_loss=None):
        velocity = self.cache.get(param_name, np.zeros_like(param_grad))
        param_grad = clipped(param_grad, self.clip_norm)
        self.cache[param_name] = self.momentum * velocity + self.lr * param_grad
        return param - self.cache[param_name]


class AdaGrad(OptimizerBase):
    """The sum of squares is changed in place."""

    def __init__(self, lr=0.01, eps=1e-7, clip_norm=None):
        super().__init__()
        self.lr = lr
        self.eps = eps
        self.clip_norm = clip_norm

    def update(self, param, param_grad, param_name, cur_loss=None):
        if param_name not in self.cache:
            self.cache[param_name] = np.zeros_like(param_grad)
        param_grad = clipped(param_grad, self.clip_norm)
        self.cache[param_name] += param_grad**2
        return param - self.lr * param_grad / (np.sqrt(self.cache[param_name]) + self.eps)


class RMSProp(OptimizerBase):
    def __init__(self, lr=0.001, decay=0.9, eps=1e-7, clip_norm=None):
        super().__init__()
        self.lr = lr
        self.decay = decay
        self.eps = eps
        self.clip_norm = clip_norm

    def update(self, param, param_grad, param_name, cur_loss=None):
        if param_name not in self.cache:
            self.cache[param_name] = np.zeros_like(param_grad)
        param_grad = clipped(param_grad, self.clip_norm)
        self.cache[param_name] = self.decay * self.cache[param_name] + (1 - self.decay) * param_grad**2
        return param - self.lr * param_grad / (np.sqrt(self.cache[param_name]) + self.eps)


class Adam(OptimizerBase):
    def __init__(self, lr=0.001, decay1=0.9, decay2=0.999, eps=1e-7, clip_norm=None):
        super().__init__()
        self.lr = lr
        self.decay1 = decay1
        self.decay2 = decay2
        self.eps = eps
        self.clip_norm = clip_norm

    def update(self, param, param_grad, param_name, cur_loss=None):
        if param_name not in self.cache:
            self.cache[param_name] = {"t": 0, "mean": np.zeros_like(param_grad), "var": np.zeros_like(param_grad)}
        param_grad = clipped(param_grad, self.clip_norm)
        state = self.cache[param_name]
        state["t"] += 1
        state["mean"] = self.decay1 * state["mean"] + (1 - self.decay1) * param_grad
        state["var"] = self.decay2 * state["var"] + (1 - self.decay2) * param_grad**2
        m_hat = state["mean"] / (1 - self.decay1 ** state["t"])
        v_hat = state["var"] / (1 - self.decay2 ** state["t"])
        return param - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)


def optimizer_of(optimizer):
    """An optimizer of one's own where none is given: plain SGD."""
    return SGD() if optimizer is None else optimizer


# ---- layers ----------------------------------------------------------------------------------------------------------


class LayerBase(ABC):
    def __init__(self, optimizer=None):
        self.X = []
        self.act_fn = None
        self.trainable = True
        self.optimizer = optimizer_of(optimizer)
        self.gradients = {}
        self.parameters = {}
        self.derived_variables = {}

    @abstractmethod
    def forward(self, X, retain_derived=True): ...

    @abstractmethod
    def backward(self, dLdy, retain_grads=True): ...

    def freeze(self):
        self.trainable = False

    def unfreeze(self):
        self.trainable = True

    def flush_gradients(self):
        """Forget the inputs and what was derived from them, and set the gradients to 0."""
        assert self.trainable, "Layer is frozen"
        self.X = []
        for k in self.derived_variables:
            self.derived_variables[k] = []
        for k, v in self.gradients.items():
            self.gradients[k] = np.zeros_like(v)

    def update(self, cur_loss=None):
        """Take a step along the gradients collected so far, and flush them."""
        assert self.trainable, "Layer is frozen"
        self.optimizer.step()
        for k, v in self.gradients.items():
            if k in self.parameters:
                self.parameters[k] = self.optimizer(self.parameters[k], v, k, cur_loss)
        self.flush_gradients()


class FullyConnected(LayerBase):
    """Y = act_fn(X W + b)."""

    def __init__(self, n_out, act_fn=None, init="glorot_uniform", optimizer=None):
        super().__init__(optimizer)
        self.init = init
        self.n_in = None
        self.n_out = n_out
        self.act_fn = activation_of(act_fn)
        self.parameters = {"W": None, "b": None}
        self.is_initialized = False

    def _init_params(self):
        W = INITIALIZERS[self.init]((self.n_in, self.n_out))
        b = np.zeros((1, self.n_out))
        self.parameters = {"W": W, "b": b}
        self.derived_variables = {"Z": []}
        self.gradients = {"W": np.zeros_like(W), "b": np.zeros_like(b)}
        self.is_initialized = True

    def forward(self, X, retain_derived=True):
        """Return Y, and keep X and Z for a backward pass unless told otherwise."""
        if not self.is_initialized:
            self.n_in = X.shape[1]
            self._init_params()
        Y, Z = self._fwd(X)
        if retain_derived:
            self.X.append(X)
            self.derived_variables["Z"].append(Z)
        return Y

    def _fwd(self, X):
        Z = X @ self.parameters["W"] + self.parameters["b"]
        return self.act_fn(Z), Z

    def backward(self, dLdy, retain_grads=True):
        """Return the gradient at the input, or a list of them where a list came in."""
        assert self.trainable, "Layer is frozen"
        if not isinstance(dLdy, list):
            dLdy = [dLdy]
        dX = []
        for dy, x in zip(dLdy, self.X, strict=True):
            dx, dw, db = self._bwd(dy, x)
            dX.append(dx)
            if retain_grads:
                self.gradients["W"] += dw
                self.gradients["b"] += db
        return dX[0] if len(self.X) == 1 else dX

    def _bwd(self, dLdy, X):
        W, b = self.parameters["W"], self.parameters["b"]
        Z = X @ W + b
        dZ = dLdy * self.act_fn.grad(Z)
        dX = dZ @ W.T
        dW = X.T @ dZ
        dB = dZ.sum(axis=0, keepdims=True)
        return dX, dW, dB

    def _bwd2(self, dLdy, X, dLdy_bwd):
        """Gradients of the gradient dX: at X, W and b, where dLdy_bwd is the gradient at dX."""
        W, b = self.parameters["W"], self.parameters["b"]
        Z = X @ W + b
        inner = (dLdy_bwd @ W) * dLdy * self.act_fn.grad2(Z)
        dX = inner @ W.T
        dW = X.T @ inner + dLdy_bwd.T @ (dLdy * self.act_fn.grad(Z))
        dB = inner.sum(axis=0, keepdims=True)
        return dX, dW, dB


# ---- losses ----------------------------------------------------------------------------------------------------------


def softmax(z):
    e = np.exp(z - np.max(z, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class SquaredError:
    """0.5 ||y_pred - y||^2, summed over the samples; grad is at the input z of the last activation."""

    def __call__(self, y, y_pred):
        return self.loss(y, y_pred)

    @staticmethod
    def loss(y, y_pred):
        return 0.5 * np.linalg.norm(y_pred - y) ** 2

    @staticmethod
    def grad(y, y_pred, z, act_fn):
        return (y_pred - y) * act_fn.grad(z)


class CrossEntropy:
    """Sum over the samples, one-hot targets; grad is at the input of the softmax that made y_pred."""

    def __call__(self, y, y_pred):
        return self.loss(y, y_pred)

    @staticmethod
    def loss(y, y_pred):
        eps = np.finfo(float).eps
        return -np.sum(y * np.log(y_pred + eps))

    @staticmethod
    def grad(y, y_pred):
        return y_pred - y
