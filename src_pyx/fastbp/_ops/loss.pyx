"""A loss of the table with its options.

What the options mean stands in fastbp/reference/losses.py, where each loss's row fits them to a number of outputs: numbers, vectors,
and how many columns a row of targets has. Here they become what the row functions of losses.pxi read.
"""
cimport numpy as cnp
from libc.math cimport log, log1p
from libc.string cimport memset

from fastbp._runtime.dispatch cimport find_loss, kernels_for
from fastbp._kernels.table cimport (
    ANY_VALUES, COUNTS, MAX_LOSS_NUMBERS, MAX_LOSS_VECTORS, PROBABILITIES, SIGNS, Kernels, Loss, LossOptions,
)

cnp.import_array()

DOMAINS = {ANY_VALUES: "values", PROBABILITIES: "probabilities", COUNTS: "counts", SIGNS: "signs"}


cdef class RowLoss:
    """One loss with its options; immutable.

    Parameters
    ----------
    name : str
        A name of the table.
    n_targets : int
        Columns of a row of targets; 0: as many as there are outputs.
    numbers : tuple of float
    vectors : tuple of arrays
        Of one dtype, dense: that of the outputs.
    ignored : int, optional
        Rows with this label take no part.
    weighs_labels : bool
        The first vector says what each label counts in the mean.
    clip : float
        The loss, and not its gradient, takes each probability as at least this and at most 1 less this; 0: as it is.
    """

    def __cinit__(self, str name, Py_ssize_t n_targets=0, tuple numbers=(), tuple vectors=(), ignored=None, bint weighs_labels=False,
                  double clip=0):
        cdef int i
        cdef cnp.ndarray vector
        if len(numbers) > MAX_LOSS_NUMBERS or len(vectors) > MAX_LOSS_VECTORS:
            raise RuntimeError(f"{name} has {len(numbers)} numbers and {len(vectors)} vectors: MAX_LOSS_* in table.pxd are too small")
        self.index = find_loss(kernels_for(sizeof(float)), name)
        memset(&self.options, 0, sizeof(LossOptions))
        self.options.n_targets = n_targets
        for i in range(len(numbers)):
            self.options.numbers[i] = numbers[i]
        self.arrays = vectors
        for i in range(len(vectors)):
            vector = vectors[i]
            if not cnp.PyArray_IS_C_CONTIGUOUS(vector) or not cnp.PyArray_ISALIGNED(vector):
                raise ValueError(f"vectors[{i}] must be dense")
            self.options.vectors[i] = cnp.PyArray_DATA(vector)
            self.itemsize = cnp.PyArray_ITEMSIZE(vector)
        if clip > 0:
            self.options.least, self.options.most = -log1p(-clip), -log(clip)
        self.options.ignores = ignored is not None
        self.options.ignored = ignored if ignored is not None else 0
        if weighs_labels:
            self.options.label_weights = self.options.vectors[0]
        self.counts = self.options.ignores or weighs_labels
        self.takes_labels = self.rule(kernels_for(sizeof(float))).label != NULL
        self.takes_rows = not self.options.ignores
        self.domain = self.rule(kernels_for(sizeof(float))).domain
        self.at_once = (self.rule(kernels_for(sizeof(float))).labels != NULL and not self.counts and not vectors
                        and not any(numbers))

    cdef const Loss* rule(self, const Kernels* kernels) noexcept:
        return &kernels.losses[self.index]

    cdef LossOptions options_for(self, Py_ssize_t columns) noexcept:
        cdef LossOptions options = self.options
        if options.n_targets == 0:
            options.n_targets = columns
        return options


def loss_names():
    """(name, domain of a row of targets, whether labels are targets) of each loss the kernels know, in the table's order."""
    cdef const Kernels* kernels = kernels_for(sizeof(float))
    return [(kernels.losses[i].name.decode(), DOMAINS[kernels.losses[i].domain], kernels.losses[i].label != NULL)
            for i in range(kernels.n_losses)]
