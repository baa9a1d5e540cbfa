"""The fast path from an estimator's `predict` to the engine.

Design
------
(a) One row through a small network takes less time than a dozen of Python's comparisons. So a cache entry records the state of an
    estimator for which the engine was made; each call compares that record with the estimator, by identity. The record keeps the
    objects alive, so no other object can have their identity.
(b) A user may replace the arrays of an estimator, reshape them or change its parameters, and an argument may be anything. Where the
    state has changed, or the argument is no plain array, a method returns None and has done nothing: the caller then takes the path
    through scikit-learn's checks.
(c) An engine serves one call at a time. The cache holds as many engines as calls were ever made side by side, in a list whose `pop` and
    `append` are atomic for all threads.
"""
cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree

from fastbp._ops.plain cimport is_plain_matrix

cnp.import_array()

cdef object MISSING = object()

cdef struct Layout:
    # Where the elements of an array are: an array can be given another shape, and stay the same object.
    const char* data
    Py_ssize_t shape[2]
    Py_ssize_t strides[2]


cdef void record_layout(cnp.ndarray array, Layout* layout) noexcept:
    cdef int axis
    layout.data = cnp.PyArray_BYTES(array)
    for axis in range(2):
        layout.shape[axis] = cnp.PyArray_DIM(array, axis) if axis < cnp.PyArray_NDIM(array) else 0
        layout.strides[axis] = cnp.PyArray_STRIDE(array, axis) if axis < cnp.PyArray_NDIM(array) else 0

cdef bint has_layout(cnp.ndarray array, int typenum, int ndim, const Layout* layout) noexcept:
    cdef int axis
    if cnp.PyArray_NDIM(array) != ndim or cnp.PyArray_BYTES(array) != layout.data or cnp.PyArray_TYPE(array) != typenum:
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIM(array, axis) != layout.shape[axis] or cnp.PyArray_STRIDE(array, axis) != layout.strides[axis]:
            return False
    return True


cdef class FastPathCache:
    """The state of an estimator that its predictions depend on, and the engines made for that state.

    Parameters
    ----------
    coefs, intercepts : tuples of ndarray
        The arrays in ``coefs_`` and ``intercepts_``: aligned, native, of one dtype, (in, out) and (out,).
    values : dict
        Further entries of the estimator's ``__dict__``, compared by identity.
    table, make_engine, link
        For `Engine.predict_into`; make_engine returns another engine.
    """
    cdef readonly tuple coefs, intercepts
    cdef dict values
    cdef readonly object table, make_engine, link
    cdef readonly list engines
    cdef Layout* layouts
    cdef readonly Py_ssize_t n_in, n_out
    cdef int typenum

    def __cinit__(self, tuple coefs not None, tuple intercepts not None, *, dict values not None, table, make_engine, link):
        cdef cnp.ndarray array
        cdef Py_ssize_t i, n = len(coefs)
        if n == 0 or len(intercepts) != n:
            raise ValueError(f"{n} coefs and {len(intercepts)} intercepts, expected as many of each, and at least one")
        self.coefs, self.intercepts, self.values = coefs, intercepts, values
        self.table, self.make_engine, self.link, self.engines = table, make_engine, link, []
        self.layouts = <Layout*> PyMem_RawCalloc(2 * n, sizeof(Layout))
        if self.layouts == NULL:
            raise MemoryError("no memory for the layouts of the parameters")
        for i in range(n):
            array = coefs[i]
            record_layout(array, &self.layouts[2 * i])
            array = intercepts[i]
            record_layout(array, &self.layouts[2 * i + 1])
        array = coefs[0]
        self.n_in, self.typenum = cnp.PyArray_DIM(array, 0), cnp.PyArray_TYPE(array)
        array = coefs[n - 1]
        self.n_out = cnp.PyArray_DIM(array, 1)

    def __dealloc__(self):
        PyMem_RawFree(self.layouts)

    # --- the key: is the estimator's state the recorded one?

    cdef bint has_arrays(self, held, tuple arrays, int second) except -1:
        cdef Py_ssize_t i
        if type(held) is not list:
            return False
        with cython.critical_section(held):
            if len(<list> held) != len(arrays):
                return False
            for i in range(len(arrays)):
                if (<list> held)[i] is not arrays[i]:
                    return False
        for i in range(len(arrays)):
            if not has_layout(<cnp.ndarray> arrays[i], self.typenum, 2 - second, &self.layouts[2 * i + second]):
                return False
        return True

    cdef bint matches_state(self, dict state) except -1:
        if not (self.has_arrays(state.get("coefs_"), self.coefs, 0) and self.has_arrays(state.get("intercepts_"), self.intercepts, 1)):
            return False
        for name, value in self.values.items():
            if state.get(name, MISSING) is not value:
                return False
        return True

    def matches(self, est):
        """True as long as nothing has changed that the engine's numbers depend on."""
        return self.matches_state(est.__dict__)

    cdef bint takes(self, est, x, bint named) except -1:
        """Whether x needs no check of scikit-learn's. It warns of an array where the estimator knows names of features.

        `named`: x is from a table whose names of columns have been compared.
        """
        cdef dict state
        if not is_plain_matrix(x, self.typenum, self.n_in) or cnp.PyArray_DIM(x, 0) == 0:
            return False
        state = est.__dict__
        return self.matches_state(state) and (named or "feature_names_in_" not in state)

    # --- predictions

    cpdef take_engine(self):
        """Return an engine that no other call uses; the caller appends it to `engines` afterwards."""
        try:
            return self.engines.pop()
        except IndexError:
            return self.make_engine()

    def into(self, x, out, bint check_finite=True):
        """Call `Engine.predict_into` of an engine that no other call uses."""
        engine = self.take_engine()
        try:
            return engine.predict_into(x, self.table, out, self.link, check_finite)
        finally:
            self.engines.append(engine)

    def outputs(self, est, x, bint named=False):
        """Return fresh predictions (n, out), or (n,) of one output; None off the fast path."""
        cdef cnp.npy_intp shape[2]
        cdef cnp.ndarray out
        if not self.takes(est, x, named):
            return None
        shape[0], shape[1] = cnp.PyArray_DIM(x, 0), self.n_out
        out = cnp.PyArray_EMPTY(1 if self.n_out == 1 else 2, shape, self.typenum, 0)
        return out if self.into(x, out) else None

    def labels(self, est, x, bint named=False):
        """Return the index of the largest prediction of each row, int64; of one prediction whether it is above one half.

        None off the fast path.
        """
        cdef cnp.npy_intp rows
        cdef cnp.ndarray out
        if not self.takes(est, x, named):
            return None
        rows = cnp.PyArray_DIM(x, 0)
        out = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INT64, 0)
        return out if self.into(x, out) else None
