# The activations: one block each.
#
# A block begins with the line that makes its loops (see elementwise.pxi): FASTBP_ACTIVATION(name, OPTIONS or NO_OPTIONS,
# HAS_SECOND or NO_SECOND). Then come, under the C names that the line expects,
#   fastbp_NAME               the rule y = f(z);
#   fastbp_NAME_derivative    dz from dy and what forward saved: the output y, or the input z if the block says NEEDS_INPUT;
#   fastbp_NAME_second        f''(z) from the same, if it HAS_SECOND; otherwise f'' is 0 everywhere;
# each with two more arguments, the vectors a and b, if it has options; and the declaration that puts it into the table, under the name
# it has in Python. Its reference implementation and its row (formula, options, unit's name) stand in fastbp/reference/; everything else
# follows from the two.
#
# Design
# ------
# (a) An activation that needs its output is fused into the product before it, and z is never stored. So the derivative is taken
#     from y wherever it is as right as y itself: absolutely for the bounded ones, in the tails too for the softplus family.
# (b) f(z) - f(-z) = z holds for gelu, gelu_tanh and silu. They are max(z, 0) - |z| q with the smaller share q = f(-|z|) / -|z|,
#     whose relative error is small in the tail and which cannot cancel; their derivatives are h and 1 - h.
# (c) What would be 0 inf is bounded first: |z| in q's factor lies below `far`, where q has long been 0. So the limits come out right.
# (d) NaN goes through vmin and vmax as their second operand.

cdef enum:
    NEEDS_OUTPUT = 0
    NEEDS_INPUT = 1

cdef int declare(const char* name, bint needs_input, Loops loops) except -1:
    cdef Activation* entry = &kernels.activations[kernels.n_activations]
    if kernels.n_activations == MAX_ACTIVATIONS:
        raise RuntimeError("MAX_ACTIVATIONS in table.pxd is too small")
    entry.name, entry.needs_input = name, needs_input
    entry.forward, entry.backward, entry.second = loops.forward, loops.backward, loops.second
    kernels.n_activations += 1
    return 0

cdef Loops no_loops

cdef inline vec where_positive(vec z, vec a, vec b) noexcept nogil:
    return vsel(vgt(z, vset(0)), a, b)

cdef inline vec positive_part(vec z) noexcept nogil:
    return vmax(vset(0), z)

cdef inline vec minus_magnitude(vec z) noexcept nogil:
    return vfrombits(vbits(z) | vbits(vset(-0.0)))

cdef inline vec clipped(vec z, double low, double high) noexcept nogil:
    return vmin(vset(high), vmax(vset(low), z))


# --- identity: y = z; dz = dy. There is nothing to compute.
declare(b"identity", NEEDS_OUTPUT, no_loops)


# --- sigmoid: y = 1 / (1 + e^-z), the rule of math.pxi; dz = dy y (1 - y)
cdef extern from * nogil:
    "FASTBP_ACTIVATION(sigmoid, NO_OPTIONS, HAS_SECOND)"
    Loops sigmoid_loops

cdef inline vec sigmoid_derivative "fastbp_sigmoid_derivative"(vec dy, vec y) noexcept nogil:
    return dy * (y * (vset(1) - y))

cdef inline vec sigmoid_second "fastbp_sigmoid_second"(vec y) noexcept nogil:
    return y * (vset(1) - y) * vnfma(vset(2), y, vset(1))

declare(b"sigmoid", NEEDS_OUTPUT, sigmoid_loops)


# --- log_sigmoid: y = min(z, 0) - log1p(e^-|z|); dz = dy (1 - e^y)
cdef extern from * nogil:
    "FASTBP_ACTIVATION(log_sigmoid, NO_OPTIONS, HAS_SECOND)"
    Loops log_sigmoid_loops

cdef inline vec log_sigmoid "fastbp_log_sigmoid"(vec z) noexcept nogil:
    return vmin(vset(0), z) - log1p_below_one(vexp_below_one(minus_magnitude(z)))

cdef inline vec log_sigmoid_derivative "fastbp_log_sigmoid_derivative"(vec dy, vec y) noexcept nogil:
    return dy * (vset(0) - vexpm1(y))

cdef inline vec log_sigmoid_second "fastbp_log_sigmoid_second"(vec y) noexcept nogil:
    cdef vec minus_slope = vexpm1(y)
    return minus_slope * (vset(1) + minus_slope)

declare(b"log_sigmoid", NEEDS_OUTPUT, log_sigmoid_loops)


# --- tanh: the rule of math.pxi; dz = dy (1 - y^2)
cdef extern from * nogil:
    "FASTBP_ACTIVATION(tanh, NO_OPTIONS, HAS_SECOND)"
    Loops tanh_loops

cdef inline vec tanh_derivative "fastbp_tanh_derivative"(vec dy, vec y) noexcept nogil:
    # (1 - y) (1 + y) and not 1 - y y: near saturation the square would lose what is left of 1 - y.
    return dy * ((vset(1) - y) * (vset(1) + y))

cdef inline vec tanh_second "fastbp_tanh_second"(vec y) noexcept nogil:
    return vset(-2) * y * ((vset(1) - y) * (vset(1) + y))

declare(b"tanh", NEEDS_OUTPUT, tanh_loops)


# --- relu: y = max(z, 0), NaN for NaN; dz = dy where y > 0, otherwise 0
cdef extern from * nogil:
    "FASTBP_ACTIVATION(relu, NO_OPTIONS, NO_SECOND)"
    Loops relu_loops

cdef inline vec relu "fastbp_relu"(vec z) noexcept nogil:
    return vsel(vle(z, vset(0)), vset(0), z)

cdef inline vec relu_derivative "fastbp_relu_derivative"(vec dy, vec y) noexcept nogil:
    return where_positive(y, dy, vset(0))

declare(b"relu", NEEDS_OUTPUT, relu_loops)


# --- leaky_relu: y = z where z > 0, otherwise slope z; dz = dy, or slope dy. The sign of y is that of z, since slope >= 0.
cdef extern from * nogil:
    "FASTBP_ACTIVATION(leaky_relu, OPTIONS, NO_SECOND)"
    Loops leaky_relu_loops

cdef inline vec leaky_relu "fastbp_leaky_relu"(vec z, vec slope, vec unused) noexcept nogil:
    return where_positive(z, z, slope * z)

cdef inline vec leaky_relu_derivative "fastbp_leaky_relu_derivative"(vec dy, vec y, vec slope, vec unused) noexcept nogil:
    return where_positive(y, dy, slope * dy)

declare(b"leaky_relu", NEEDS_OUTPUT, leaky_relu_loops)


# --- elu: y = z where z > 0, otherwise alpha (e^z - 1); dz = dy, or dy (y + alpha)
cdef extern from * nogil:
    "FASTBP_ACTIVATION(elu, OPTIONS, HAS_SECOND)"
    Loops elu_loops

cdef inline vec elu "fastbp_elu"(vec z, vec alpha, vec unused) noexcept nogil:
    return where_positive(z, z, alpha * vexpm1(z))

cdef inline vec elu_derivative "fastbp_elu_derivative"(vec dy, vec y, vec alpha, vec unused) noexcept nogil:
    return where_positive(y, dy, dy * (y + alpha))

cdef inline vec elu_second "fastbp_elu_second"(vec y, vec alpha, vec unused) noexcept nogil:
    return where_positive(y, vset(0), y + alpha)

declare(b"elu", NEEDS_OUTPUT, elu_loops)


# --- selu: scale times elu with one alpha, so that layers keep mean 0 and variance 1
cdef extern from * nogil:
    "FASTBP_ACTIVATION(selu, NO_OPTIONS, HAS_SECOND)"
    Loops selu_loops

cdef inline vec selu "fastbp_selu"(vec z) noexcept nogil:
    return where_positive(z, vset(1.0507009873554805) * z, vset(1.7580993408473766) * vexpm1(z))

cdef inline vec selu_derivative "fastbp_selu_derivative"(vec dy, vec y) noexcept nogil:
    return dy * where_positive(y, vset(1.0507009873554805), y + vset(1.7580993408473766))

cdef inline vec selu_second "fastbp_selu_second"(vec y) noexcept nogil:
    return where_positive(y, vset(0), y + vset(1.7580993408473766))

declare(b"selu", NEEDS_OUTPUT, selu_loops)


# --- celu: y = z where z > 0, otherwise alpha (e^(z / alpha) - 1); dz = dy, or dy (y / alpha + 1)
cdef extern from * nogil:
    "FASTBP_ACTIVATION(celu, OPTIONS, HAS_SECOND)"
    Loops celu_loops

cdef inline vec celu "fastbp_celu"(vec z, vec alpha, vec unused) noexcept nogil:
    return where_positive(z, z, alpha * vexpm1(z * (vset(1) / alpha)))

cdef inline vec celu_derivative "fastbp_celu_derivative"(vec dy, vec y, vec alpha, vec unused) noexcept nogil:
    return where_positive(y, dy, dy * ((y + alpha) * (vset(1) / alpha)))

cdef inline vec celu_second "fastbp_celu_second"(vec y, vec alpha, vec unused) noexcept nogil:
    return where_positive(y, vset(0), (y + alpha) * (vset(1) / (alpha * alpha)))

declare(b"celu", NEEDS_OUTPUT, celu_loops)


# --- gelu: y = z Phi(z), Phi(-a) = share e^(-a^2 / 2); phi(a) = e^(-a^2 / 2) / sqrt(2 pi); dz = dy (Phi(z) + z phi(z))
cdef extern from * nogil:
    "FASTBP_ACTIVATION(gelu, NO_OPTIONS, HAS_SECOND)"
    Loops gelu_loops

cdef inline vec gelu_share(vec a) noexcept nogil:
    return vset(0.5) * erfc_share(a, 1.4142135623730951 * ERFC_TURN)

cdef inline vec gelu_magnitude(vec z) noexcept nogil:
    return vmin(vset(by_dtype(15, 39)), vabs(z))

cdef inline vec gelu "fastbp_gelu"(vec z) noexcept nogil:
    cdef vec a = gelu_magnitude(z), n, p = exp_of_square(a, 0.5, &n)
    return positive_part(z) - scaled((vset(1) + p) * gelu_share(a) * a, n)

cdef inline vec gelu_derivative "fastbp_gelu_derivative"(vec dy, vec z) noexcept nogil:
    cdef vec a = gelu_magnitude(z), n, p = exp_of_square(a, 0.5, &n)
    cdef vec h = scaled((vset(1) + p) * vnfma(vset(0.3989422804014327), a, gelu_share(a)), n)
    return dy * where_positive(z, vset(1) - h, h)

cdef inline vec gelu_second "fastbp_gelu_second"(vec z) noexcept nogil:
    # phi(z) (2 - z^2)
    cdef vec a = gelu_magnitude(z), n, p = exp_of_square(a, 0.5, &n)
    return scaled((vset(1) + p) * (vset(0.3989422804014327) * vnfma(a, a, vset(2))), n)

declare(b"gelu", NEEDS_INPUT, gelu_loops)


# --- gelu_tanh: y = z (1 + tanh(v)) / 2 = z sigmoid(2 v), 2 v = c z + d z^3; with q = sigmoid(-|2 v|), h = q - |z| q (1 - q) (2 v)'
cdef extern from * nogil:
    "FASTBP_ACTIVATION(gelu_tanh, NO_OPTIONS, HAS_SECOND)"
    Loops gelu_tanh_loops

cdef inline vec gelu_tanh_magnitude(vec z) noexcept nogil:
    return vmin(vset(by_dtype(12, 23)), vabs(z))

cdef inline vec gelu_tanh_share(vec a) noexcept nogil:
    return vsigmoid(minus_magnitude(a * vfma(a * a, vset(0.07135481627260025), vset(1.5957691216057308))))

cdef inline vec gelu_tanh "fastbp_gelu_tanh"(vec z) noexcept nogil:
    cdef vec a = gelu_tanh_magnitude(z)
    return positive_part(z) - a * gelu_tanh_share(a)

cdef inline vec gelu_tanh_derivative "fastbp_gelu_tanh_derivative"(vec dy, vec z) noexcept nogil:
    cdef vec a = gelu_tanh_magnitude(z), q = gelu_tanh_share(a)
    cdef vec steep = a * vfma(a * a, vset(0.21406444881780073), vset(1.5957691216057308))
    cdef vec h = q * vnfma(steep, vset(1) - q, vset(1))
    return dy * where_positive(z, vset(1) - h, h)

cdef inline vec gelu_tanh_second "fastbp_gelu_tanh_second"(vec z) noexcept nogil:
    # q (1 - q) [2 (2 v)' + |z| (2 v)'' - |z| (1 - 2 q) (2 v)'^2]
    cdef vec a = gelu_tanh_magnitude(z), q = gelu_tanh_share(a)
    cdef vec slope = vfma(a * a, vset(0.21406444881780073), vset(1.5957691216057308))
    cdef vec second = vfma(a * a, vset(0.42812889763560147), slope + slope)
    return q * (vset(1) - q) * vnfma(a * slope * slope, vnfma(vset(2), q, vset(1)), second)

declare(b"gelu_tanh", NEEDS_INPUT, gelu_tanh_loops)


# --- silu: y = z sigmoid(z); with q = sigmoid(-|z|), h = q - |z| q (1 - q)
cdef extern from * nogil:
    "FASTBP_ACTIVATION(silu, NO_OPTIONS, HAS_SECOND)"
    Loops silu_loops

cdef inline vec silu_magnitude(vec z) noexcept nogil:
    return vmin(vset(by_dtype(110, 750)), vabs(z))

cdef inline vec silu "fastbp_silu"(vec z) noexcept nogil:
    cdef vec a = silu_magnitude(z)
    return positive_part(z) - a * vsigmoid(minus_magnitude(a))

cdef inline vec silu_derivative "fastbp_silu_derivative"(vec dy, vec z) noexcept nogil:
    cdef vec a = silu_magnitude(z), q = vsigmoid(minus_magnitude(a))
    cdef vec h = q * vnfma(a, vset(1) - q, vset(1))
    return dy * where_positive(z, vset(1) - h, h)

cdef inline vec silu_second "fastbp_silu_second"(vec z) noexcept nogil:
    # q (1 - q) [2 - |z| (1 - 2 q)]
    cdef vec a = silu_magnitude(z), q = vsigmoid(minus_magnitude(a))
    return q * (vset(1) - q) * vnfma(a, vnfma(vset(2), q, vset(1)), vset(2))

declare(b"silu", NEEDS_INPUT, silu_loops)


# --- mish: y = z tanh(log(1 + e)) = z w / (w + 2), e = e^z, w = e (e + 2); dz = dy (w / (w + 2) + z 4 e (1 + e) / (w + 2)^2).
# All terms are positive, so e^z may be as small as it likes; above `far` the quotient is 1.
cdef extern from * nogil:
    "FASTBP_ACTIVATION(mish, NO_OPTIONS, HAS_SECOND)"
    Loops mish_loops

cdef inline vec mish_exp(vec z) noexcept nogil:
    return vexp_below_one(vmin(vset(by_dtype(20, 40)), z))

cdef inline vec mish "fastbp_mish"(vec z) noexcept nogil:
    cdef vec e = mish_exp(z), w = e * (e + vset(2))
    return vmax(vset(by_dtype(-110, -750)), z) * (w / (w + vset(2)))

cdef inline vec mish_derivative "fastbp_mish_derivative"(vec dy, vec z) noexcept nogil:
    cdef vec e = mish_exp(z), w = e * (e + vset(2)), inverse = vset(1) / (w + vset(2))
    cdef vec steep = clipped(z, by_dtype(-110, -750), by_dtype(20, 40)) * vset(4)
    return dy * (inverse * vfma(steep, e * (vset(1) + e) * inverse, w))

cdef inline vec mish_second "fastbp_mish_second"(vec z) noexcept nogil:
    # 2 g + z g', g = 4 e (1 + e) i^2, g' = 4 e i^2 (1 - 2 e + 4 e i), i = 1 / (w + 2)
    cdef vec e = mish_exp(z), inverse = vset(1) / vfma(e, e + vset(2), vset(2)), steep = vset(4) * e * inverse
    cdef vec bent = vfma(steep, vset(1), vnfma(vset(2), e, vset(1)))
    cdef vec far = clipped(z, by_dtype(-110, -750), by_dtype(20, 40))
    return steep * (inverse * vfma(far, bent, vset(2) + e + e))

declare(b"mish", NEEDS_INPUT, mish_loops)


# --- softplus: y = log(1 + e^(beta z)) / beta = max(z, 0) + log1p(e^-|beta z|) / beta; dz = dy (1 - e^(-beta y))
cdef extern from * nogil:
    "FASTBP_ACTIVATION(softplus, OPTIONS, HAS_SECOND)"
    Loops softplus_loops

cdef inline vec softplus "fastbp_softplus"(vec z, vec beta, vec unused) noexcept nogil:
    return vfma(log1p_below_one(vexp_below_one(minus_magnitude(beta * z))), vset(1) / beta, positive_part(z))

cdef inline vec softplus_derivative "fastbp_softplus_derivative"(vec dy, vec y, vec beta, vec unused) noexcept nogil:
    return dy * (vset(0) - vexpm1(vset(0) - beta * y))

cdef inline vec softplus_second "fastbp_softplus_second"(vec y, vec beta, vec unused) noexcept nogil:
    cdef vec minus_slope = vexpm1(vset(0) - beta * y)
    return vset(0) - beta * (minus_slope * (vset(1) + minus_slope))

declare(b"softplus", NEEDS_OUTPUT, softplus_loops)


# --- softsign: y = z / (1 + |z|); dz = dy (1 - |y|)^2
cdef extern from * nogil:
    "FASTBP_ACTIVATION(softsign, NO_OPTIONS, HAS_SECOND)"
    Loops softsign_loops

cdef inline vec softsign "fastbp_softsign"(vec z) noexcept nogil:
    cdef vec v = clipped(z, by_dtype(-1e30, -1e300), by_dtype(1e30, 1e300))
    return v / (vset(1) + vabs(v))

cdef inline vec softsign_derivative "fastbp_softsign_derivative"(vec dy, vec y) noexcept nogil:
    cdef vec left = vset(1) - vabs(y)
    return dy * (left * left)

cdef inline vec softsign_second "fastbp_softsign_second"(vec y) noexcept nogil:
    # -2 (1 - |y|)^3 with the sign of y; at 0, where there is none, 0
    cdef vec left = vset(1) - vabs(y), bent = vset(-2) * (left * left * left)
    return where_positive(y, bent, vsel(vlt(y, vset(0)), vset(0) - bent, y))

declare(b"softsign", NEEDS_OUTPUT, softsign_loops)


# --- hard_sigmoid: y = min(max((z + 3) / 6, 0), 1); dz = dy / 6 where 0 < y < 1, otherwise 0
cdef extern from * nogil:
    "FASTBP_ACTIVATION(hard_sigmoid, NO_OPTIONS, NO_SECOND)"
    Loops hard_sigmoid_loops

cdef inline vec hard_sigmoid "fastbp_hard_sigmoid"(vec z) noexcept nogil:
    return clipped((z + vset(3)) * vset(0.16666666666666667), 0, 1)

cdef inline vec hard_sigmoid_derivative "fastbp_hard_sigmoid_derivative"(vec dy, vec y) noexcept nogil:
    return vsel(vgt(y, vset(0)) & vlt(y, vset(1)), dy * vset(0.16666666666666667), vset(0))

declare(b"hard_sigmoid", NEEDS_OUTPUT, hard_sigmoid_loops)


# --- hard_tanh: y = min(max(z, -1), 1); dz = dy where |y| < 1, otherwise 0
cdef extern from * nogil:
    "FASTBP_ACTIVATION(hard_tanh, NO_OPTIONS, NO_SECOND)"
    Loops hard_tanh_loops

cdef inline vec hard_tanh "fastbp_hard_tanh"(vec z) noexcept nogil:
    return clipped(z, -1, 1)

cdef inline vec hard_tanh_derivative "fastbp_hard_tanh_derivative"(vec dy, vec y) noexcept nogil:
    return vsel(vlt(vabs(y), vset(1)), dy, vset(0))

declare(b"hard_tanh", NEEDS_OUTPUT, hard_tanh_loops)


# --- relu6: y = min(max(z, 0), 6); dz = dy where 0 < y < 6, otherwise 0
cdef extern from * nogil:
    "FASTBP_ACTIVATION(relu6, NO_OPTIONS, NO_SECOND)"
    Loops relu6_loops

cdef inline vec relu6 "fastbp_relu6"(vec z) noexcept nogil:
    return clipped(z, 0, 6)

cdef inline vec relu6_derivative "fastbp_relu6_derivative"(vec dy, vec y) noexcept nogil:
    return vsel(vgt(y, vset(0)) & vlt(y, vset(6)), dy, vset(0))

declare(b"relu6", NEEDS_OUTPUT, relu6_loops)


# --- hard_swish: y = z hard_sigmoid(z); dz = 0 where z <= -3, dy where z >= 3, between them dy (z / 3 + 1/2)
cdef extern from * nogil:
    "FASTBP_ACTIVATION(hard_swish, NO_OPTIONS, HAS_SECOND)"
    Loops hard_swish_loops

cdef inline vec hard_swish "fastbp_hard_swish"(vec z) noexcept nogil:
    return vmax(vset(-3), z) * hard_sigmoid(z)

cdef inline vec hard_swish_derivative "fastbp_hard_swish_derivative"(vec dy, vec z) noexcept nogil:
    cdef vec between = vsel(vgt(z, vset(-3)), dy * vfma(z, vset(0.33333333333333333), vset(0.5)), vset(0))
    return vsel(vle(vset(3), z), dy, between)

cdef inline vec hard_swish_second "fastbp_hard_swish_second"(vec z) noexcept nogil:
    return vsel(vlt(vabs(z), vset(3)), vset(0.33333333333333333), vset(0))

declare(b"hard_swish", NEEDS_INPUT, hard_swish_loops)
