"""The short way from an estimator's `predict` to the engine.

Design
------
(a) One row through a small network takes less time than a dozen of Python's questions. So what an estimator's prediction depends on is
    written down once, and at each call compared here: by identity, which nothing can fool that is kept alive.
(b) A user may replace the arrays of an estimator, reshape them, change its parameters, or put functions of his own in its place; arguments
    may be anything. Whatever is not as it was, or not plain, gives None, and nothing is done: the caller knows the long way.
(c) An engine serves one call at a time. There are as many as calls were ever made side by side; a list hands them out, since its pop and
    append are single steps for all threads.
"""
cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree

cnp.import_array()

cdef object MISSING = object()

cdef struct Place:
    # Where an array's elements are: it can be given another shape, and stay the same object.
    const char* data
    Py_ssize_t shape[2]
    Py_ssize_t strides[2]


cdef void note_place(cnp.ndarray array, Place* place) noexcept:
    cdef int axis
    place.data = cnp.PyArray_BYTES(array)
    for axis in range(2):
        place.shape[axis] = cnp.PyArray_DIM(array, axis) if axis < cnp.PyArray_NDIM(array) else 0
        place.strides[axis] = cnp.PyArray_STRIDE(array, axis) if axis < cnp.PyArray_NDIM(array) else 0

cdef bint is_in_place(cnp.ndarray array, int typenum, int ndim, const Place* place) noexcept:
    cdef int axis
    if cnp.PyArray_NDIM(array) != ndim or cnp.PyArray_BYTES(array) != place.data or cnp.PyArray_TYPE(array) != typenum:
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIM(array, axis) != place.shape[axis] or cnp.PyArray_STRIDE(array, axis) != place.strides[axis]:
            return False
    return True


cdef class FastPathCache:
    """What an estimator's plain predictions depend on, and the engine that makes them.

    Parameters
    ----------
    coefs, intercepts : tuples of ndarray
        What ``coefs_`` and ``intercepts_`` hold: aligned, native, of one dtype, (in, out) and (out,).
    values : dict
        Further entries of the estimator's ``__dict__``, by identity.
    absent : tuple of str
        What its ``__dict__`` must not have.
    functions, taken : dict
        A table, and those of its entries that must still be there.
    hooks : tuple of (owner, name, function)
        Attributes of classes that must still be these functions; owner None: the estimator's own class.
    table, make_engine, link
        For `Engine.predict_into`; make_engine gives another engine.
    """
    cdef readonly tuple coefs, intercepts
    cdef dict values, functions, taken
    cdef tuple absent, hooks
    cdef readonly object table, make_engine, link
    cdef readonly list engines
    cdef Place* places
    cdef readonly Py_ssize_t n_in, n_out
    cdef int typenum

    def __cinit__(self, tuple coefs not None, tuple intercepts not None, *, dict values not None, tuple absent not None,
                  dict functions not None, dict taken not None, tuple hooks not None, table, make_engine, link):
        cdef cnp.ndarray array
        cdef Py_ssize_t i, n = len(coefs)
        if n == 0 or len(intercepts) != n:
            raise ValueError(f"{n} coefs and {len(intercepts)} intercepts, expected as many of each, and at least one")
        self.coefs, self.intercepts = coefs, intercepts
        self.values, self.absent, self.functions, self.taken = values, absent, functions, taken
        self.hooks, self.table, self.make_engine, self.link, self.engines = hooks, table, make_engine, link, []
        self.places = <Place*> PyMem_RawCalloc(2 * n, sizeof(Place))
        if self.places == NULL:
            raise MemoryError("no memory for the places of the parameters")
        for i in range(n):
            array = coefs[i]
            note_place(array, &self.places[2 * i])
            array = intercepts[i]
            note_place(array, &self.places[2 * i + 1])
        array = coefs[0]
        self.n_in, self.typenum = cnp.PyArray_DIM(array, 0), cnp.PyArray_TYPE(array)
        array = coefs[n - 1]
        self.n_out = cnp.PyArray_DIM(array, 1)

    def __dealloc__(self):
        PyMem_RawFree(self.places)

    # --- is all as it was?

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
            if not is_in_place(<cnp.ndarray> arrays[i], self.typenum, 2 - second, &self.places[2 * i + second]):
                return False
        return True

    cdef bint is_as_it_was(self, est) except -1:
        cdef dict state = est.__dict__
        if not (self.has_arrays(state.get("coefs_"), self.coefs, 0) and self.has_arrays(state.get("intercepts_"), self.intercepts, 1)):
            return False
        for name, value in self.values.items():
            if state.get(name, MISSING) is not value:
                return False
        for name, value in self.taken.items():
            if self.functions.get(name) is not value:
                return False
        return True

    cdef bint is_open(self, est) except -1:
        """Has nobody put in something that must be called instead?"""
        cdef dict state = est.__dict__
        for name in self.absent:
            if name in state:
                return False
        for owner, name, function in self.hooks:
            if getattr(type(est) if owner is None else owner, name, None) is not function:
                return False
        return True

    def serves(self, est):
        """True as long as nothing has changed that the engine's numbers depend on."""
        return self.is_as_it_was(est)

    cdef bint is_plain(self, x) noexcept:
        return (cnp.PyArray_CheckExact(x) and cnp.PyArray_NDIM(x) == 2 and cnp.PyArray_TYPE(x) == self.typenum
                and cnp.PyArray_ISBEHAVED_RO(x) and cnp.PyArray_DIM(x, 1) == self.n_in and cnp.PyArray_DIM(x, 0) > 0)

    # --- predictions

    def into(self, x, out, bint check_finite=True):
        """`Engine.predict_into`, by an engine that nobody else has."""
        try:
            engine = self.engines.pop()
        except IndexError:
            engine = self.make_engine()
        try:
            return engine.predict_into(x, self.table, out, self.link, check_finite)
        finally:
            self.engines.append(engine)

    def outputs(self, est, x, bint flat=False):
        """The predictions, (n, out), or where flat is set and there is one output (n,): fresh. None, where this is not the way."""
        cdef cnp.npy_intp shape[2]
        cdef cnp.ndarray out
        if not (self.is_plain(x) and self.is_as_it_was(est) and self.is_open(est)):
            return None
        shape[0], shape[1] = cnp.PyArray_DIM(x, 0), self.n_out
        out = cnp.PyArray_EMPTY(1 if flat and self.n_out == 1 else 2, shape, self.typenum, 0)
        return out if self.into(x, out) else None

    def labels(self, est, x):
        """Which prediction of each row is the largest, int64; of one prediction whether it is above one half. None as `outputs`."""
        cdef cnp.npy_intp rows
        cdef cnp.ndarray out
        if not (self.is_plain(x) and self.is_as_it_was(est) and self.is_open(est)):
            return None
        rows = cnp.PyArray_DIM(x, 0)
        out = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INT64, 0)
        return out if self.into(x, out) else None
