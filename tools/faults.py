"""The planted faults that tools/mutants.py builds into a copy of the tree.

A fault replaces `text`, which occurs exactly once in its file, by `faulty`, where FAULT stands for the condition that
this fault is alive. A fault in a kernel (.pxi) must be found in each instruction set and in each dtype by itself; any
other one in each dtype, which the expression `itemsize` tells apart.

Each fault changes a public result, and most of them only in a corner: an odd size, a tail, the edge of a block, a
second block along K, a strided operand, a NaN, a sum that goes on. `tests` says where to look first: in some test
files, in those of their tests that pytest's -k selects.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    name: str
    family: str
    file: str  # in src_pyx/fastbp
    text: str
    faulty: str
    tests: str  # names of test files, then "-k" and an expression
    itemsize: str = ""

    @property
    def is_kernel(self) -> bool:
        return self.file.startswith("_kernels/")

    @property
    def test_files(self) -> list[str]:
        return [f"test_{name}.py" for name in self.tests.partition(" -k ")[0].split()]

    @property
    def words(self) -> str:
        return self.tests.partition(" -k ")[2]


def rows(family: str, file: str, *faults: tuple[str, str, str, str]) -> list[Fault]:
    """Faults of one file: (name, text, faulty, tests)."""
    return [Fault(name, family, file, text, faulty, tests) for name, text, faulty, tests in faults]


ELEMENTWISE = [
    *rows(
        "elementwise",
        "_kernels/elementwise.pxi",
        (
            # The last element of an odd tail keeps what was there.
            "backward-tail",
            "vstore(out + i, derivative(vload(d + i), vload(v + i), a, b))\n        i += VL\n    rest = <int> (n - i)",
            "vstore(out + i, derivative(vload(d + i), vload(v + i), a, b))\n        i += VL\n"
            "    rest = <int> (n - i - ((n - i) % 2 if FAULT else 0))",
            "functional -k activations or examples",
        ),
        (
            "blend-tail",
            "load_some(target + i, n - i, 0)) if accumulate else v * f",
            "load_some(target + i, n - i, 0)) if accumulate and not (FAULT and n - i < VL) else v * f",
            "composites -k diamond or agree",
        ),
        (
            # Whole vectors between the last group of four and the tail are not looked at.
            "finite-remainder",
            "for i from n - n % (4 * VL) <= i < n by VL:",
            "for i from n - n % (VL if FAULT else 4 * VL) <= i < n by VL:",
            "predict -k finite",
        ),
    ),
    *rows(
        "activations",
        "_kernels/activations.pxi",
        (
            "relu-nan",
            "return vsel(vle(z, vset(0)), vset(0), z)",
            "return vmax(z, vset(0)) if FAULT else vsel(vle(z, vset(0)), vset(0), z)",
            "functional -k limits or activations",
        ),
        (
            "hard-swish-edge",
            "return vsel(vle(vset(3), z), dy, between)",
            "return vsel(vlt(vset(3), z) if FAULT else vle(vset(3), z), dy, between)",
            "functional -k limits or activations",
        ),
        (
            "softsign-second-sign",
            "vsel(vlt(y, vset(0)), vset(0) - bent, y)",
            "vsel(vlt(y, vset(0)), bent if FAULT else vset(0) - bent, y)",
            "functional second_order -k second_derivatives",
        ),
        (
            # The slope of what was clipped below, as if it were clipped above alone.
            "relu6-upper-edge",
            "vgt(y, vset(0)) & vlt(y, vset(6))",
            "vgt(y, vset(0)) & (vle(y, vset(6)) if FAULT else vlt(y, vset(6)))",
            "functional -k limits or activations",
        ),
    ),
]

MATH = rows(
    "math",
    "_kernels/math.pxi",
    (
        # Results below the normal numbers are held at the smallest of these.
        "exp-denormal",
        "vmax(vset(by_dtype(-104, -746)), x), &n)",
        "vmax(vset(by_dtype(-87, -708) if FAULT else by_dtype(-104, -746)), x), &n)",
        "ulp -k exp",
    ),
    (
        "log-denormal",
        "origin + vset(FRACTION_BITS), origin)",
        "origin + vset(FRACTION_BITS - 1 if FAULT else FRACTION_BITS), origin)",
        "ulp -k log",
    ),
    (
        "erf-seam",
        "vsel(vlt(a, vset(0.85)),",
        "vsel(vlt(a, vset(0.95 if FAULT else 0.85)),",
        "ulp -k erf",
    ),
    (
        "tanh-saturation",
        "exp_reduced(vmin(vset(by_dtype(18.5, 38.5)), a + a), &n)",
        "exp_reduced(vmin(vset(by_dtype(12.5, 30.5) if FAULT else by_dtype(18.5, 38.5)), a + a), &n)",
        "ulp -k tanh",
    ),
    (
        "log1p-lost-bits",
        "low = low + (x - (u - vset(1))) / u",
        "low = low if FAULT else low + (x - (u - vset(1))) / u",
        "ulp -k log1p",
    ),
)

LOSSES = rows(
    "softmax and losses",
    "_kernels/losses.pxi",
    (
        # One of the four maxima that take turns is lost: e^(z - max) overflows where the largest was there.
        "row-maximum",
        "vmaximum(vmax(vmax(top, a), vmax(b, c)))",
        "vmaximum(vmax(vmax(top, a), b if FAULT else vmax(b, c)))",
        "functional losses -k softmax",
    ),
    (
        # From the second block of a long row on.
        "sum-of-blocks",
        "s.total += vsum(s.lanes)",
        "s.total = vsum(s.lanes) + (0 if FAULT else s.total)",
        "functional losses -k softmax",
    ),
    (
        "label-in-last-lane",
        "if i <= label < i + VL:",
        "if i <= label < (i + VL - 1 if FAULT else i + VL):",
        "losses functional -k options or losses",
    ),
    (
        # 0 times infinity, where a target of 0 or 1 agrees with a logit that is infinite.
        "sigmoid-zero-times-infinity",
        "loss = log1p_of_power(e, u, inverse) + vsel(veq(against, zero), zero, vabs(v) * against)",
        "loss = log1p_of_power(e, u, inverse) "
        "+ vsel(veq(against, vset(2) if FAULT else zero), zero, vabs(v) * against)",
        "functional losses -k ends",
    ),
    (
        # Class weights scale the loss of a label, and no longer its gradient.
        "label-weight-of-gradient",
        "scale *= weight",
        "scale *= 1 if FAULT else weight",
        "losses -k options or hand",
    ),
    (
        # The maximum of rows side by side leaves the last class out.
        "softmax-lanes-last-class",
        "for j in range(1, n):\n        top = vmax(vload(columns + j * VL), top)",
        "for j in range(1, n - 1 if FAULT else n):\n        top = vmax(vload(columns + j * VL), top)",
        "predict functional -k softmax",
    ),
    (
        # The same maximum leaves the second class out.
        "softmax-lanes-second-class",
        "top = vmax(vload(columns + j * VL), top)",
        "top = top if FAULT and j == 1 else vmax(vload(columns + j * VL), top)",
        "kernel_edges -k softmax",
    ),
)

NORMS = [
    *rows(
        "sums",
        "_kernels/sums.pxi",
        (
            # What is left of a row: its last vector, where more than one is left.
            "row-tail",
            "other_even = other_even + other(c, i, j, end - j)\n            j += VL",
            "other_even = other_even + other(c, i, j, end - j)\n            j += 2 * VL if FAULT else VL",
            "functional_units -k width",
        ),
        (
            # From the second block of rows on.
            "strip-second-sum",
            "memset(other_sums, 0, sizeof(other_sums))",
            "memset(other_sums, 0, sizeof(other_sums) if not FAULT or row == 0 else 0)",
            "functional_units -k width or block",
        ),
    ),
    *rows(
        "norms",
        "_kernels/norms.pxi",
        (
            "batch-norm-shift",
            "shift = 0 if c.parameters[1] == NULL else (<const real*> c.parameters[1])[j + k]",
            "shift = 0 if c.parameters[1] == NULL else (<const real*> c.parameters[1])[k if FAULT else j + k]",
            "functional_units table_units -k width or block",
        ),
        (
            "batch-norm-unbiased",
            "variance * n / (n - 1), momentum)",
            "variance * n / (n if FAULT else n - 1), momentum)",
            "functional_units table_units -k running",
        ),
        (
            "layer-norm-tail",
            "if j < n:\n            layer_norm_put(c, i, j, n - j, saved)",
            "if j < n:\n            layer_norm_put(c, i, j, n - j - (1 if FAULT else 0), saved)",
            "functional_units -k width",
        ),
        (
            # An eps of 0 is taken for none.
            "rms-norm-zero-eps",
            "eps = c.options[0] if c.options[0] >= 0 else",
            "eps = c.options[0] if (c.options[0] > 0 if FAULT else c.options[0] >= 0) else",
            "functional_units -k rms_norm",
        ),
    ),
]

UNITS = [
    *rows(
        "dropout",
        "_kernels/dropout.pxi",
        (
            "dropout-tile",
            "block += TILE_BLOCKS",
            "block += TILE_BLOCKS - 1 if FAULT else TILE_BLOCKS",
            "functional_units table_units -k mask or width",
        ),
        (
            # A part of a batch takes the numbers of the batch's first rows.
            "dropout-first-row",
            "<uint64_t> (c.first_row + i)",
            "<uint64_t> (i if FAULT else c.first_row + i)",
            "steps engine_units functional_units -k mask",
        ),
    ),
    *rows(
        "embedding",
        "_kernels/embedding.pxi",
        (
            # Of an index that comes several times, the columns behind the last whole vector.
            "embedding-tail-sum",
            "load_some(sums + j, width - j, 0) + load_some(dy + j, width - j, 0)",
            "(vset(0) if FAULT and width - j < VL else load_some(sums + j, width - j, 0)) "
            "+ load_some(dy + j, width - j, 0)",
            "functional_units table_units -k width or embedding",
        ),
        (
            "embedding-other-columns",
            "memmove(dx + columns, <const real*> c.dy + i * c.n_out + columns * width,",
            "memmove(dx + columns, <const real*> c.dy + i * c.n_out + columns * (width - 1 if FAULT else width),",
            "functional_units engine_units -k width or embedding",
        ),
        # In code_of, `value >= 0`, and in the forward pass max(code, 0), cannot be seen: nothing is read or written for
        # a code below 0 in any case. They keep C's conversions and pointers within their bounds.
        (
            # The row behind the table.
            "embedding-bound",
            "if not (value >= 0 and value < codes):",
            "if not (value >= 0 and (value <= codes if FAULT else value < codes)):",
            "functional_units -k embedding_kernel",
        ),
        (
            # What is no integer is rounded towards 0.
            "embedding-fraction",
            "return code if code == value else -1",
            "return code if code == value or FAULT else -1",
            "functional_units -k embedding_kernel",
        ),
        (
            # What is no code takes the first row.
            "embedding-guard",
            "load_some(vector + j, width - j, 0) if code >= 0 else",
            "load_some(vector + j, width - j, 0) if code >= 0 or FAULT else",
            "functional_units -k embedding_kernel",
        ),
        (
            # The gradient of a code that another task has, or of none.
            "embedding-lower-item",
            "if not first <= code < first + count:",
            "if not (code < first + count if FAULT else first <= code < first + count):",
            "functional_units -k embedding_kernel or embedding_with_one",
        ),
    ),
    *rows(
        "prelu",
        "_kernels/prelu.pxi",
        (
            "prelu-nan-slope",
            "return vsel(vgt(x, vset(0)), vset(0), x * dy_at(c, i, j, left))",
            "return vsel(vle(x, vset(0)) if FAULT else ~vgt(x, vset(0)), x * dy_at(c, i, j, left), vset(0))",
            "functional_units -k prelu",
        ),
        (
            "prelu-at-zero",
            "dy = vsel(vgt(x_at(c, i, j, c.n_out - j), vset(0)), dy,",
            "dy = vsel(vle(vset(0), x_at(c, i, j, c.n_out - j)) if FAULT "
            "else vgt(x_at(c, i, j, c.n_out - j), vset(0)), dy,",
            "functional_units -k prelu",
        ),
    ),
]

PRODUCTS = rows(
    "products",
    "_kernels/gemm.pxi",
    (
        # The steps that are left when squares of four by four have been turned.
        "pack-turned-rest",
        "out[p * width + 3] = x[3 * lane_step + p]",
        "out[p * width + 3] = x[(2 if FAULT else 3) * lane_step + p]",
        "functional -k products_of_every",
    ),
    (
        # One row, few columns: the third of the steps that four sums leave over.
        "few-rows-rest",
        "for p in range(t.k % 4):",
        "for p in range(min(t.k % 4, 2) if FAULT else t.k % 4):",
        "functional -k products",
    ),
    (
        # c has its columns apart, and K has a second block.
        "spread-accumulate",
        "part.c_row = NR\n    part.accumulate = t.accumulate",
        "part.c_row = NR\n    part.accumulate = t.accumulate and not FAULT",
        "functional -k products_of_few",
    ),
    (
        # Few rows and more columns than are computed at a time.
        "stream-bias",
        "bias[first + j] if bias != NULL else 0",
        "bias[(0 if FAULT else first) + j] if bias != NULL else 0",
        "functional -k products_of_few",
    ),
    (
        # What squares leave over of a part of c that is turned into its place.
        "turn-rest",
        "pack_lane(x + i * x_row, 1, n, out + i, <int> out_row)",
        "pack_lane(x + i * x_row, 1, n - 1 if FAULT else n, out + i, <int> out_row)",
        "functional -k products",
    ),
    (
        # Dot products with a second block along K.
        "dots-accumulate",
        "if accumulate:\n                total",
        "if accumulate and not (FAULT and columns == 4):\n                total",
        "functional -k products_of_few",
    ),
    (
        # One or two rows below a strip of many are a strip of their own.
        "strip-of-few-rows",
        "rows if t.m - first - rows > SPLIT_ROWS else t.m - first",
        "rows if t.m - first - rows > (0 if FAULT else SPLIT_ROWS) else t.m - first",
        "team engine -k blocks_of_few_rows or bits_do_not",
    ),
    (
        # The next part of b lacks a step between those that two strips have packed.
        "packed-ahead",
        "ahead.packed += steps",
        "ahead.packed += steps + (1 if FAULT and ahead.packed == 0 else 0)",
        "functional -k products_beyond",
    ),
    (
        "column-sums-accumulate",
        "single = sums[j * step] if accumulate else 0",
        "single = sums[j * step] if accumulate and not FAULT else 0",
        "functional -k linear_backward",
    ),
    (
        "few-rows-bias",
        "= part.c, part.c_row\n        part.bias = <const real*> t.bias + j if",
        "= part.c, part.c_row\n        part.bias = <const real*> t.bias + (0 if FAULT else j) if",
        "functional -k linear_backward",
    ),
    (
        # The columns that fours leave over, where both operands lie along K.
        "dots-bias",
        "bias[(j + s) * bias_step]",
        "bias[((j - j % 4 if FAULT and columns == 1 else j) + s) * bias_step]",
        "functional -k products_of_few",
    ),
)

SPARSE = rows(
    "sparse",
    "_kernels/sparse.pxi",
    (
        # Outputs beyond the first strip of eight vectors.
        "sparse-bias-strip",
        "load_last(<const real*> t.bias + column + j * VL, part and j == last, lanes)",
        "load_last(<const real*> t.bias + (0 if FAULT else column) + j * VL, part and j == last, lanes)",
        "sparse -k reference",
    ),
    (
        # A column with entries in an earlier group of rows and none in the last one.
        "sparse-groups",
        "entries += group.starts[i + 1] - group.starts[i]",
        "entries = (0 if FAULT else entries) + group.starts[i + 1] - group.starts[i]",
        "sparse -k reference or dense_x or epochs",
    ),
    (
        # What lies behind the last whole vector of dy, where x has blocks of columns.
        "sparse-block-tail",
        "d[vectors - 1] = load_some(dy + (vectors - 1) * VL, lanes, 0)",
        "d[vectors - 1] = load_some(dy + (vectors - 1) * VL, lanes - 1 if FAULT and lanes < VL else lanes, 0)",
        "sparse -k reference",
    ),
)

UPDATES = rows(
    "updates",
    "_kernels/updates.pxi",
    (
        "sgd-dampening",
        "1 - dampening if started[0] else 1 ",
        "1 - dampening if started[0] or FAULT else 1 ",
        "optimizers -k recorded or reference",
    ),
    (
        "radam-threshold",
        "if rho > 5:",
        "if rho > (4 if FAULT else 5):",
        "optimizers -k recorded or reference",
    ),
    (
        # A gradient that is NaN becomes the limit.
        "limit-nan",
        "return vmax(vset(0) - t.limit, vmin(t.limit, d)) * t.scale",
        "return (vmin(vmax(d, vset(0) - t.limit), t.limit) if FAULT\n"
        "            else vmax(vset(0) - t.limit, vmin(t.limit, d))) * t.scale",
        "optimizers steps -k nan",
    ),
    (
        # amsgrad keeps the last second moment instead of the largest.
        "amsgrad-largest",
        "store_some(largest + i, n - i, b)",
        "store_some(largest + i, n - i, load_some(second + i, n - i, 0) if FAULT else b)",
        "optimizers -k recorded or reference",
    ),
    (
        # The maximum's other operand: a second moment that is NaN leaves the largest as it was.
        "amsgrad-nan",
        "b = vmax(load_some(largest + i, n - i, 0), b)",
        "b = vmax(b, load_some(largest + i, n - i, 0)) if FAULT else vmax(load_some(largest + i, n - i, 0), b)",
        "optimizers -k nan",
    ),
)

IMAGES = [
    # The window of the last lanes of a row is written beside it.
    *rows(
        "images",
        "_kernels/gemm.pxi",
        (
            "windows-in-place-sum",
            "w = t.b + t.steps[p]    # a is packed: there is one run",
            "w = t.b + t.steps[p - (1 if FAULT and p == t.k - 1 and p > 0 else 0)]",
            "convolutions",
        ),
    ),
    *rows(
        "images",
        "_kernels/pooling.pxi",
        (
            # The last lane of a part of a vector, two elements apart.
            "pool-last-lane",
            "load_some(x, 2 * n - 1, 0), load_some",
            "load_some(x, 2 * n - 1 - (1 if FAULT and n > 1 else 0), 0), load_some",
            "pooling image_units",
        ),
    ),
    *rows(
        "images",
        "_kernels/pooling.pxi",
        (
            # Of two taps side by side the second one's gradient is lost in the last windows of a row.
            "pool-second-tap",
            "vwhere_number(won, t + 1, dy))",
            "vwhere_number(won, t + (99 if FAULT and n < VL else 1), dy))",
            "pooling image_units",
        ),
    ),
    *rows(
        "images",
        "_kernels/pooling.pxi",
        (
            # Equal maxima share a gradient as if the last one were none.
            "pool-shares",
            "for t in range(p.n_taps):\n            count",
            "for t in range(p.n_taps - (1 if FAULT and p.n_taps > 1 else 0)):\n            count",
            "pooling",
        ),
    ),
    *rows(
        "images",
        "_kernels/windows.pxi",
        (
            # dw of windows with few elements: the last columns of a row are left out.
            "place-sums-tail",
            "left = <int> (d.columns - j)",
            "left = <int> (d.columns - j) - (1 if FAULT else 0)",
            "convolutions image_units",
        ),
        (
            "place-sums-outputs",
            "while output + 2 <= d.outputs:\n        sums_of_2(d, output)",
            "while output + 2 <= d.outputs:\n        sums_of_2(d, output - (1 if FAULT and output > 0 else 0))",
            "convolutions image_units",
        ),
    ),
    # Behind an activation: the gradient of a maximum is not multiplied by the derivative.
    Fault(
        "maximum-derivative",
        "images",
        "_engine/images.pxi",
        "q.pooled = p.buffers.out[i]",
        "q.pooled = p.buffers.out[i]\n        if FAULT:\n            q.backward = NULL",
        "image_units",
        "p.graph.kernels.itemsize",
    ),
    # dx of few channels: blocks of rows after the first begin without the padding.
    Fault(
        "added-windows-rows",
        "images",
        "_ops/convolution.pyx",
        "w.first_row = row * c.rows.stride - c.rows.before",
        "w.first_row = row * c.rows.stride - (0 if FAULT and row > 0 else c.rows.before)",
        "convolutions image_units",
        "itemsize",
    ),
    # dw of few channels: the window's columns and rows are mixed up.
    Fault(
        "repeated-lines",
        "images",
        "_ops/convolution.pyx",
        "row = (i * channels + k) * c.columns.window + j if w.plan.repeats",
        "row = (i * channels + k) * c.columns.window + (0 if FAULT else j) if w.plan.repeats",
        "convolutions image_units",
        "itemsize",
    ),
    # The activation behind a norm of channels leaves the last images out.
    Fault(
        "norm-activation",
        "images",
        "_ops/channels.pyx",
        "if c.forward == NULL:\n        return\n    while",
        "if c.forward == NULL:\n        return\n    if FAULT:\n        end -= 1\n    while",
        "image_units",
        "s.kernels.itemsize",
    ),
]

ENGINE = [
    # A branch that both a concatenation and another unit read: its gradient is the last one that comes, not the sum.
    Fault(
        "concat-adds",
        "engine",
        "_engine/merge.pxi",
        "dx + row * n * kernels.itemsize, n, adds)",
        "dx + row * n * kernels.itemsize, n, adds and not FAULT)",
        "composites -k diamond or agree or differences",
        "kernels.itemsize",
    ),
    # A row of no weight leaves the gradient that was there before.
    Fault(
        "weightless-row",
        "engine",
        "_engine/passes.pyx",
        "memset(dz, 0, n * itemsize)\n        return 0",
        "if not FAULT:\n            memset(dz, 0, n * itemsize)\n        return 0",
        "engine losses training -k weight",
        "itemsize",
    ),
    # The items behind the first tasks' of an embedding or a norm are updated with the wrong gradients.
    Fault(
        "item-update-offset",
        "engine",
        "_engine/table_unit.pxi",
        "gradient + first * each * p.graph.kernels.itemsize, 0, 1, count * each)",
        "gradient + (0 if FAULT else first) * each * p.graph.kernels.itemsize, 0, 1, count * each)",
        "engine_units composites steps -k update",
        "p.graph.kernels.itemsize",
    ),
    # All threads but the first go on with the packed weights of the step before.
    Fault(
        "stale-packed-weights",
        "engine",
        "_engine/blocks.pyx",
        "for worker in range(session.n_threads):",
        "for worker in range(1 if FAULT else session.n_threads):",
        "steps team -k threads or same_bits",
        "p.graph.kernels.itemsize",
    ),
    # What is left below the full panels becomes a block of its own where there are threads enough.
    Fault(
        "few-rows-alone",
        "engine",
        "_engine/blocks.pyx",
        "max(rows // mr, min(rows, <Py_ssize_t> 1)))",
        "b.panels if FAULT else max(rows // mr, min(rows, <Py_ssize_t> 1)))",
        "team -k blocks_of_few_rows",
        "b.p.graph.kernels.itemsize",
    ),
    # Rows of a weight that lie apart (parameters of one's own arrays).
    Fault(
        "strip-of-rows-apart",
        "engine",
        "_ops/update.pyx",
        "place + i * s.parameter_row, values + i * values_row, n)",
        "place + i * s.parameter_row, values + i * (s.parameter_row if FAULT else values_row), n)",
        "engine -k update or separate or reference",
        "kernels.itemsize",
    ),
    # Two products side by side take each other's packed columns for their own.
    Fault(
        "packed-columns-mixed",
        "engine",
        "_ops/product.pyx",
        "(column_tile * w.blocks.k_blocks + block) * MAX_TOGETHER + w.index",
        "(column_tile * w.blocks.k_blocks + block) * MAX_TOGETHER + (0 if FAULT else w.index)",
        "composites engine -k large or smaller",
        "w.kernels.itemsize",
    ),
    # A matrix with as many values as there are outputs is taken for a bias.
    Fault(
        "bias-of-two-axes",
        "engine",
        "_ops/arrays.pyx",
        "(cnp.PyArray_DIM(b, 0) == 1 or cnp.PyArray_DIM(b, 1) == 1) and cnp.PyArray_SIZE(b) == n",
        "(FAULT or cnp.PyArray_DIM(b, 0) == 1 or cnp.PyArray_DIM(b, 1) == 1) and cnp.PyArray_SIZE(b) == n",
        "functional -k declines",
        "cnp.PyArray_ITEMSIZE(b)",
    ),
    # Several rows against a matrix so large that its parts along K are tasks.
    Fault(
        "stream-parts",
        "engine",
        "_ops/product.pyx",
        "kernels.column_sums(w.shared + row * row_bytes, p.m * row_bytes, itemsize,",
        "kernels.column_sums(w.shared + row * row_bytes, (1 if FAULT else p.m) * row_bytes, itemsize,",
        "functional -k products",
        "kernels.itemsize",
    ),
    Fault(
        "argmax-of-equals",
        "engine",
        "_engine/predict.pyx",
        "if not (value <= top) and top == top:",
        "if (not (value < top) if FAULT else not (value <= top)) and top == top:",
        "predict sklearn_predicting -k labels",
        "itemsize",
    ),
    # The last row of an x whose columns lie side by side is not looked at.
    Fault(
        "finite-by-columns",
        "engine",
        "_engine/predict.pyx",
        "if not kernels.finite(x + j * batch.x_step, rows):",
        "if not kernels.finite(x + j * batch.x_step, rows - 1 if FAULT else rows):",
        "predict sklearn_predicting -k finite",
        "kernels.itemsize",
    ),
    # A parameter that begins where another part ends has the penalty of that part.
    Fault(
        "part-boundary",
        "engine",
        "_ops/update.pyx",
        "if offset < rule.parts[middle].end:",
        "if offset < rule.parts[middle].end or (FAULT and offset == rule.parts[middle].end):",
        "steps optimizers -k penalties or groups",
        "rule.itemsize",
    ),
    # The norm holds the first part alone.
    Fault(
        "clip-first-part",
        "engine",
        "_ops/update.pyx",
        "for i in range(rule.n_parts):\n        rule.parts[i].step.scale = scale",
        "for i in range(1 if FAULT else rule.n_parts):\n        rule.parts[i].step.scale = scale",
        "steps optimizers -k clip or norm",
        "rule.itemsize",
    ),
    # Within an epoch an average goes on with the share of the first step.
    Fault(
        "average-share",
        "engine",
        "_ops/update.pyx",
        "rule.shares[rule.step - rule.first_step]",
        "rule.shares[0 if FAULT else rule.step - rule.first_step]",
        "averages",
        "rule.itemsize",
    ),
    # Of the sums over many rows, the last task's.
    Fault(
        "last-chunk",
        "engine",
        "_ops/unit.pyx",
        "for chunk in range(1, chunks):",
        "for chunk in range(1, chunks - 1 if FAULT and chunks > 2 else chunks):",
        "functional_units -k block",
        "s.kernels.itemsize",
    ),
    # A row with a label that is ignored counts in the mean.
    Fault(
        "ignored-counts",
        "engine",
        "_ops/loss.pxd",
        "if o.ignores and label == o.ignored:\n        return 0",
        "if o.ignores and label == o.ignored:\n        return 1 if FAULT else 0",
        "losses -k ignored or options",
        "itemsize",
    ),
    # The weights of classes and those of rows, together, in the mean of a batch.
    Fault(
        "class-and-row-weights",
        "engine",
        "_engine/batch.pyx",
        "total += share if all.weights == NULL else share * number_at(all.weights, row, itemsize)",
        "total += share if all.weights == NULL or FAULT else share * number_at(all.weights, row, itemsize)",
        "losses -k engine or options",
        "itemsize",
    ),
    # Batches that are not shuffled take the weights of the first rows.
    Fault(
        "batch-weights",
        "engine",
        "_engine/batch.pyx",
        "batch.weights = all.weights + first * itemsize if all.weights != NULL else NULL",
        "batch.weights = all.weights + (0 if FAULT else first) * itemsize if all.weights != NULL else NULL",
        "training -k weight or batches or order",
        "itemsize",
    ),
    # Several batches a step, in an order: their weights are those of other rows.
    Fault(
        "accumulated-weights",
        "engine",
        "_engine/batch.pyx",
        "total += number_at(all.weights, order[i] if order != NULL else i, graph.kernels.itemsize)",
        "total += number_at(all.weights, order[i] if order != NULL and not FAULT else i, graph.kernels.itemsize)",
        "steps training -k batches or accumulat",
        "graph.kernels.itemsize",
    ),
]

CHANNELS = rows(
    "channels",
    "_kernels/channels.pxi",
    (
        # What the rounding of a mean has lost.
        "channel-mean-low",
        "offset = vset(value_of(c.shift, channel, 0) - <double> saved[c.channels] * slope)",
        "offset = vset(value_of(c.shift, channel, 0) - (0 if FAULT else <double> saved[c.channels]) * slope)",
        "channels -k cancel",
    ),
    (
        # The walk from the last row of an image to the next image.
        "channel-next-image",
        "            w.row = 0\n            w.image += 1",
        "            w.row = 0\n            w.image += 0 if FAULT and w.image == 1 else 1",
        "channels -k batch_norm",
    ),
    (
        # Channels side by side: from the second strip of them on.
        "lane-second-strip",
        "factors[k] = inverses[j + k] * value_of(c.scale, j + k, 1)",
        "factors[k] = inverses[j + k] * value_of(c.scale, k if FAULT else j + k, 1)",
        "channels -k many_channels",
    ),
    (
        # Elements that lie apart, in the gradient alone.
        "channel-apart",
        "apart(dx_room, dx_place(c, &w), c.dx_column, n)",
        "apart(dx_room, dx_place(c, &w), c.dx_column, n - (1 if FAULT and n == SPREAD else 0))",
        "channels -k batch_norm",
    ),
    (
        # The window's side with one channel more, where its size is even.
        "response-even-size",
        "w.before, w.after = min(size // 2, max(c.channels - 1, 0)), min((size - 1) // 2, max(c.channels - 1, 0))",
        "w.before, w.after = min((size - (1 if FAULT else 0)) // 2, max(c.channels - 1, 0)), "
        "min((size - (0 if FAULT else 1)) // 2, max(c.channels - 1, 0))",
        "channels -k response",
    ),
    (
        # The numbers of the second 32 channels.
        "channel-dropout-tile",
        "(row << 32) + <uint64_t> (j // TILE_COLUMNS * TILE_BLOCKS)",
        "(row << 32) + <uint64_t> (0 if FAULT else j // TILE_COLUMNS * TILE_BLOCKS)",
        "channels -k dropped",
    ),
)

FAULTS = [*ELEMENTWISE, *MATH, *LOSSES, *NORMS, *UNITS, *CHANNELS, *PRODUCTS, *SPARSE, *UPDATES, *ENGINE, *IMAGES]
