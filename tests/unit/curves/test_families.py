import numpy as np
import pytest
from formulas import FORMULAS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from optuna_lcpruner.curves.families import FAMILIES

NAMES = tuple(FAMILIES)

# f(1), f(7), f(1000) from the formulas of Domhan et al. 2015, table 1, with mpmath at 40 digits
# (mp.dps = 40, parameters as decimal strings), rounded to 12 or 13: the source's starting values,
# then two far from them (steep, slow, negative or huge).
VALUES = [
    ("vapor pressure", (-0.622, -0.47, 0.0423), (0.335544732704, 0.545075556669, 0.718728247484)),
    ("vapor pressure", (-3, -40, 0.5), (2.115131037591e-19, 0.0004344930365419, 1.512672024241)),
    ("vapor pressure", (2, 0.5, -1.5), (12.1824939607, 0.4285119505131, 0.0002337793307616)),
    ("pow3", (0.84, 0.52, 0.01), (0.32, 0.3300209175441, 0.3547077635856)),
    ("pow3", (-1e6, -3e4, 2.5), (-970000.0, -999768.5931798, -999999.9990513)),
    ("pow3", (0.9, 0.7, 20), (0.2, 0.9, 0.9)),
    ("log log linear", (1, 1), (0.0, 1.080417818273, 2.067843958823)),
    ("log log linear", (1e-3, 1e-8), (-18.42068074395, -6.242020329434, -4.975109097419)),
    ("log log linear", (3e5, 0.25), (-1.38629436112, 13.27726799247, 14.54418260819)),
    ("Hill3", (0.772, 0.586, 2.461), (0.2864473973961, 0.5006628247339, 0.7498107279194)),
    ("Hill3", (-40, 50, 8), (-2.80259692865e-44, -0.05034029259015, -40.0)),
    ("Hill3", (0.9, 0.05, 5000), (0.3556038949176, 0.3767310252217, 0.4319035880484)),
    ("log power", (0.77, 2.98, -0.51), (0.1382080486801, 0.2857676430773, 0.6784685254337)),
    ("log power", (-2e8, -3, -0.02), (-102999100.3239, -104941881.1916, -109875462.7023)),
    ("log power", (1.5, 4.5, -12), (5.298942858301e-24, 7.334418996343e-14, 1.5)),
    ("pow4", (0.8, 200, 0, 0.1), (0.2112959813475, 0.3153957747351, 0.5049490614663)),
    ("pow4", (0.95, 0.01, 3, 1.7), (0.796383821324, 0.8014527002646, 0.9372269003289)),
    ("pow4", (0.5, 2, -1.5, 6), (-63.5, 0.499999737856, 0.5)),
    ("MMF", (0.7, 0.1, 0.01, 5), (0.10000000006, 0.1000010084183, 0.69999400006)),
    ("MMF", (-3, 12, 2.5, 0.3), (3.475615281422, 1.464289962308, -1.690687662968)),
    ("MMF", (0.9, 0.1, 0.15, 40), (0.1, 0.8004973727396, 0.9)),
    ("exp4", (0.7, 0.8, -0.8, 0.3), (0.4981034820053, 0.5929256654194, 0.6992187582194)),
    ("exp4", (1e3, 1e-4, 5, 1.3), (851.6016814713, 851.7729756132, 932.9343650979)),
    ("exp4", (0.9, 0.02, -20, 3), (0.8999999979797, 0.8999999999978, 0.9)),
    ("Janoschek", (0.73, 0.07, 0.355, 0.46), (0.2672255274823, 0.4531896751255, 0.7298678234867)),
    ("Janoschek", (0.2, 0.9, 1e-5, 2), (0.899993000035, 0.8996570840213, 0.2000317799508)),
    ("Janoschek", (-700, -5000, 3, 0.05), (-914.0843939818, -857.5609255914, -762.1007252623)),
    ("Weibull", (0.7, 0.1, 0.01, 1), (0.1059700997505, 0.1405637080564, 0.6999727600421)),
    ("Weibull", (0.95, 0.3, 0.12, 7), (0.3000002329067, 0.4660981889849, 0.95)),
    ("Weibull", (1e5, -1e5, 40, 0.11), (55394.82668371, 68822.04862088, 91912.05492351)),
    ("ilog2", (0.78, 0.43), (0.1596411324177, 0.5732137108059, 0.7177601299025)),
    ("ilog2", (-1e4, 250), (-10360.67376022, -10120.22458674, -10036.18597099)),
    ("ilog2", (0.6, -0.2), (0.8885390081778, 0.6961796693926, 0.6289487767895)),
]  # fmt: skip

HORIZONS = (2, 3, 10, 100, 10_000)
T = np.array([1.0, 2.0, 3.5, 10.0, 77.0, 1e4])


def parameters(name, rng, n):
    """Random parameters of a family inside its bounds, ordinary sizes, shape (n, ...)."""
    u = rng.uniform
    columns = {
        "vapor pressure": [u(-3, 3, n), u(-5, 5, n), u(-0.5, 0.5, n)],
        "pow3": [u(-2, 2, n), u(-2, 2, n), u(0.01, 3, n)],
        "log log linear": [u(0.01, 5, n), u(0.01, 5, n)],
        "Hill3": [u(-2, 2, n), u(0.1, 5, n), u(0.1, 100, n)],
        "log power": [u(-2, 2, n), u(-2, 5, n), u(-5, -0.1, n)],
        "pow4": [u(-2, 2, n), u(0.1, 5, n), u(0, 20, n), u(0.05, 3, n)],
        "MMF": [u(-2, 2, n), u(-2, 2, n), u(0.001, 3, n), u(0.1, 5, n)],
        "exp4": [u(-2, 2, n), u(0.001, 3, n), u(-3, 3, n), u(0.1, 2, n)],
        "Janoschek": [u(-2, 2, n), u(-2, 2, n), u(0.001, 3, n), u(0.1, 2, n)],
        "Weibull": [u(-2, 2, n), u(-2, 2, n), u(0.001, 3, n), u(0.1, 2, n)],
        "ilog2": [u(-2, 2, n), u(-2, 2, n)],
    }
    return np.stack(columns[name], axis=-1)


def test_table_holds_the_eleven_families_in_the_order_of_the_source():
    assert NAMES == (
        "vapor pressure", "pow3", "log log linear", "Hill3", "log power", "pow4", "MMF", "exp4",
        "Janoschek", "Weibull", "ilog2",
    )  # fmt: skip
    assert sum(len(family.parameters) for family in FORMULAS.values()) == 36


@pytest.mark.parametrize("name", NAMES)
def test_entries_are_consistent(name):
    formula = FORMULAS[name]
    assert formula.name == name
    assert len(formula.bounds) == len(formula.parameters)
    assert all(low < high for low, high in formula.bounds)
    assert set(formula.linear) <= set(formula.parameters)
    assert len(formula.linear) <= 2


@pytest.mark.parametrize(("name", "theta", "expected"), VALUES)
def test_values(name, theta, expected):
    assert_allclose(FORMULAS[name].evaluate(theta, [1, 7, 1000]), expected, rtol=1e-11, atol=1e-15)


def test_every_family_has_values():
    assert {name for name, _, _ in VALUES} == set(NAMES)


# One parameterisation is the other, method by method: (name, name, columns -> columns).
REDUNDANCIES = [
    ("log power", "Hill3", lambda a, b, c: (a, -c, np.exp(b))),
    (
        "Weibull",
        "Janoschek",
        lambda alpha, beta, kappa, delta: (alpha, beta, kappa**delta, delta),
    ),
    (
        "exp4",
        "Janoschek",
        lambda c, a, b, alpha: (c, c - np.exp(b), a, alpha),
    ),
    (
        "exp4",
        "Weibull",
        lambda c, a, b, alpha: (c, c - np.exp(b), a ** (1 / alpha), alpha),
    ),
    (
        "Hill3",
        "MMF",
        lambda theta, eta, kappa: (theta, np.zeros_like(theta), 1 / kappa, eta),
    ),
]


@pytest.mark.parametrize(("name", "other", "translate"), REDUNDANCIES)
def test_exact_redundancies(name, other, translate):
    theta = parameters(name, np.random.default_rng(1), 200)
    same = np.stack(translate(*theta.T), axis=-1)
    values = FORMULAS[name].evaluate(theta, T)
    assert np.all(np.isfinite(values))
    assert_allclose(FORMULAS[other].evaluate(same, T), values, rtol=1e-10, atol=1e-12)


def test_pow3_with_positive_a_is_pow4_with_b_zero():
    c, a, alpha = parameters("pow3", np.random.default_rng(2), 200).T
    a = np.abs(a) + 1e-3
    # (a' t)^-alpha = a t^-alpha  with  a' = a^(-1/alpha)
    pow4 = np.stack([c, a ** (-1 / alpha), np.zeros_like(c), alpha], axis=-1)
    pow3 = np.stack([c, a, alpha], axis=-1)
    assert_allclose(
        FORMULAS["pow4"].evaluate(pow4, T), FORMULAS["pow3"].evaluate(pow3, T), rtol=1e-9
    )


@pytest.mark.parametrize("name", NAMES)
def test_curve_is_asymptote_plus_amplitude_times_kernel(name):
    formula = FORMULAS[name]
    family = FAMILIES[name]
    theta = parameters(name, np.random.default_rng(3), 100)
    asymptote, amplitude, shape = formula.split(*theta.T)
    assert len(shape) == len(formula.shape)
    shapes = np.stack(shape, axis=-1) if shape else np.empty((len(theta), 0))
    phi = family.kernels(shapes, T)
    assert phi.shape == (len(theta), T.size)
    assert_allclose(
        asymptote[:, None] + amplitude[:, None] * phi,
        formula.evaluate(theta, T),
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("name", NAMES)
def test_linear_parameters_leave_the_shape_alone(name):
    formula = FORMULAS[name]
    theta = parameters(name, np.random.default_rng(4), 20)
    moved = theta.copy()
    for parameter in formula.linear:
        moved[:, formula.parameters.index(parameter)] += 0.1
    for before, after in zip(formula.split(*theta.T)[2], formula.split(*moved.T)[2], strict=True):
        assert_allclose(after, before, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_vectorised_is_looped(name):
    formula = FORMULAS[name]
    theta = parameters(name, np.random.default_rng(5), 6).reshape(2, 3, -1)
    together = formula.evaluate(theta, T)
    assert together.shape == (2, 3, T.size)
    for i, j in np.ndindex(2, 3):
        one = [formula.evaluate(theta[i, j], [t])[0] for t in T]
        assert_allclose(together[i, j], one, rtol=1e-14)
    assert formula.evaluate(theta[0, 0], 5.0).shape == (1,)


anything = st.floats(allow_nan=True, allow_infinity=True)
positions = st.lists(st.floats(min_value=1, allow_infinity=True), min_size=1, max_size=4)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(data=st.data())
def test_never_nan_never_a_warning(name, data):
    t, n = data.draw(positions), len(FORMULAS[name].shape)
    shape = data.draw(st.lists(anything, min_size=n, max_size=n))
    phi = FAMILIES[name].kernels(np.array(shape), t)
    assert phi.shape == (len(t),)
    assert not np.any(np.isnan(phi))
    assert not np.any(phi == np.inf)


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("name", NAMES)
def test_shape_grid_is_valid_and_finite(name, horizon):
    formula = FORMULAS[name]
    family = FAMILIES[name]
    shapes = family.shape_grid(float(horizon))
    assert shapes.ndim == 2
    assert shapes.shape[1] == len(formula.shape)
    assert len(shapes) >= 1
    assert np.all(np.isfinite(shapes))
    bounds = dict(zip(formula.parameters, formula.bounds, strict=True))
    for column, parameter in zip(shapes.T, formula.shape, strict=True):
        low, high = bounds.get(parameter, (0.0, np.inf))  # a ratio of two positive ones
        assert np.all((column >= low) & (column <= high))
    t = np.unique(np.linspace(1, horizon, 50).round())
    phi = family.kernels(shapes, t)
    assert np.all(np.isfinite(phi))
    steps = np.diff(phi, axis=1)
    if name != "vapor pressure":  # exp(b/t + c ln t), b < 0 <= c, is monotone too; checked below
        assert np.all(np.all(steps >= 0, axis=1) | np.all(steps <= 0, axis=1))
    else:
        assert np.all(steps >= 0)


def test_shape_scales_follow_the_horizon():
    # The kernel on t / horizon is the same set of curves at every horizon, for the scale families.
    for name in ("Hill3", "log power", "MMF", "exp4", "Janoschek", "Weibull"):
        family = FAMILIES[name]
        short = family.kernels(family.shape_grid(100.0), [10.0, 50.0, 100.0])
        long = family.kernels(family.shape_grid(1000.0), [100.0, 500.0, 1000.0])
        assert_allclose(long, short, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("t", [[0.5, 1.0], [np.nan], [[1.0, 2.0]], -3.0])
def test_bad_positions(t):
    with pytest.raises(ValueError, match="positions must be one-dimensional and at least 1"):
        FAMILIES["pow3"].kernels([[1.0]], t)


def test_the_table_is_read_only():
    with pytest.raises(TypeError):
        FAMILIES["pow3"] = FAMILIES["pow4"]
