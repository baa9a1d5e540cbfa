"""The benchmark of several ranks: the model's formulas, what a time line is made of, and that a wrong rank is found."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # for bench; last, so that an installed fastbp is the one under test

from bench import cost_model, distributed, overlap, rank  # noqa: E402
from bench.cost_model import Link, Stage  # noqa: E402
from bench.rivals import SHAPES, Shape  # noqa: E402
from fastbp._core.sharing import pieces_of  # noqa: E402

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or MPIEXEC is None, reason="needs mpi4py and mpiexec"
)


# ---- sums ------------------------------------------------------------------------------------------------------------


def test_sums_by_hand() -> None:
    """p = 8, n = 1000 bytes, alpha = 1 s, 100 bytes a second, adding 500 bytes a second."""
    link = Link(1.0, 100.0, 500.0)
    assert cost_model.ring(8, 1000, link) == pytest.approx(14 + 2 * 7 / 8 * 10 + 7 / 8 * 2)
    assert cost_model.rabenseifner(8, 1000, link) == pytest.approx(6 + 2 * 7 / 8 * 10 + 7 / 8 * 2)
    assert cost_model.recursive_doubling(8, 1000, link) == pytest.approx(3 * (1 + 10 + 2))
    assert cost_model.tree(8, 1000, link) == pytest.approx(3 * (2 * (1 + 10) + 2))


@pytest.mark.parametrize("p", [2, 64, 4096])
def test_sums_in_the_limits(p: int) -> None:
    """Without latency a ring's time tends to 2 n/B; without bytes each costs its number of steps."""
    n, wide, slow = 1e9, Link(0.0, 1e9), Link(1.0, math.inf)
    for sum_of in (cost_model.ring, cost_model.rabenseifner):
        assert sum_of(p, n, wide) == pytest.approx(2 * (p - 1) / p)
    assert cost_model.tree(p, n, wide) == pytest.approx(2 * math.log2(p))
    steps = {name: sum_of(p, 0, slow) for name, sum_of in cost_model.SUMS.items()}
    log = math.log2(p)
    assert steps == {"ring": 2 * (p - 1), "Rabenseifner": 2 * log, "recursive doubling": log, "tree": 2 * log}


def test_one_rank_has_nothing_to_sum() -> None:
    assert {sum_of(1, 1e6, Link(1.0, 1.0, 1.0)) for sum_of in cost_model.SUMS.values()} == {0.0}


def test_ranks_beyond_a_power_of_two() -> None:
    link = Link(1.0, 100.0, 500.0)
    beyond = 2 * (1 + 10) + 2
    for sum_of in (cost_model.rabenseifner, cost_model.recursive_doubling):
        assert sum_of(9, 1000, link) == pytest.approx(sum_of(8, 1000, link) + beyond)
    assert cost_model.tree(9, 1000, link) == pytest.approx(4 * (2 * (1 + 10) + 2))


def test_quickest_sum_follows_from_the_size() -> None:
    link = Link(1e-6, 1e9)
    assert cost_model.quickest(64, 8, link)[1] == "recursive doubling"
    assert cost_model.quickest(64, 1e8, link)[1] == "Rabenseifner"
    assert cost_model.quickest(6, 1e9, link)[1] == "ring"


def test_a_link_is_found_again() -> None:
    sizes = (64, 4096, 65_536, 1_000_000)
    link = cost_model.fit_link(sizes, [3e-6 + n / 5e9 for n in sizes], 1.0)
    assert link.alpha == pytest.approx(3e-6) and link.bandwidth == pytest.approx(5e9)


# ---- a step ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SHAPES[2], SHAPES[4], SHAPES[5]], ids=lambda shape: shape.name)
@pytest.mark.parametrize("overlaps", [True, False])
def test_pieces_are_those_of_the_engine(shape: Shape, overlaps: bool) -> None:
    """Their number and bytes; a small network has one."""
    import fastbp

    net = fastbp.MLP(shape.sizes, loss="softmax_nll", init="zeros")
    mine = list(cost_model.cut_in_pieces(cost_model.perceptron(shape, 1), overlaps))
    theirs = pieces_of(net, overlaps)
    assert len(mine) == len(theirs)
    for (n_bytes, _), (first, end, _) in zip(mine, theirs, strict=True):
        assert n_bytes == pytest.approx(4 * (end - first), abs=256)


def test_a_step_of_one_rank_by_hand() -> None:
    """Three times the forward pass's operations, and three passes over the gradient."""
    stages = [Stage(4_000_000, 1e9), Stage(8_000_000, 2e9)]
    seconds = cost_model.step_seconds(stages, 1, Link(1.0, 1.0), 1e10, 1e9)
    assert seconds == pytest.approx(3 * 3e9 / 1e10 + 3 * 12e6 / 1e9)


def test_overlap_by_hand() -> None:
    """Two layers of 4 MB: the sum of the upper one runs beside the backward pass of the lower one."""
    stages, link, flops = [Stage(4_000_000, 1e9), Stage(4_000_000, 1e9)], Link(0.0, 4e6), 1e9
    each, forward = 1.0, 2.0  # a sum on two ranks: 2 * 1/2 * 4 MB / (4 MB/s)
    seconds = cost_model.step_seconds(stages, 2, link, flops, math.inf)
    assert [n for n, _ in cost_model.cut_in_pieces(stages, True)] == [4_000_000, 4_000_000]
    assert seconds == pytest.approx(forward + 4 + each, rel=1e-4)
    apart = cost_model.step_seconds(stages, 2, link, flops, math.inf, overlaps=False)
    assert apart == pytest.approx(forward + 4 + 2 * each, rel=1e-4)


def test_networks_of_the_predictions() -> None:
    counts = {workload.name: workload.n_parameters for workload in cost_model.workloads()}
    assert counts["alexnet"] == 62_378_344 and counts["vgg16"] == 138_357_544
    assert counts["GPT-2 small"] == 124_439_808 and counts["GPT-2 XL"] == 1_557_611_200


def test_predictions_get_better_with_the_link_and_worse_with_ranks() -> None:
    for workload in cost_model.workloads():
        rows = cost_model.predictions(workload)
        assert len(rows) == 2 + len(cost_model.RANKS) and len(rows[0]) == 1 + len(cost_model.GIGABITS)
        seconds = [
            [cost_model.step_seconds(workload.stages, p, cost_model.link_of(rate), 2e12, 2e11) for p in (8, 256, 4096)]
            for rate in cost_model.GIGABITS
        ]
        assert (np.diff(seconds, axis=0) <= 0).all() and (np.diff(seconds, axis=1) >= 0).all()


def test_predicted_step_of_this_machine() -> None:
    """With an infinitely quick link p ranks take a p-th of the arithmetic; more ranks than processors gain nothing."""
    shape, free = Shape.parse("100-100-10@64"), Link(0.0, math.inf)
    for p, expected in ((2, 0.5), (4, 0.5)):
        made = cost_model.predicted_step(shape, p, 1.0, free, math.inf, processors=2)
        assert made == pytest.approx(expected)


# ---- what is made of the times ---------------------------------------------------------------------------------------

TIMES = {"alone step": 1.0, "fastbp step": 0.7, "fastbp local": 0.5, "fastbp sums": 0.4, "ddp step": 1.4}
ROW = {"name": SHAPES[-1].name, "gradient_bytes": 10**9, "minimum": TIMES, "median": TIMES, "processor": TIMES}


def test_hidden_and_attainable_by_hand() -> None:
    assert distributed.hidden(TIMES) == pytest.approx(0.5)
    assert distributed.attainable(ROW, 90e9) == pytest.approx(1 / (0.5 + 0.1))


def test_tables_of_ranks_by_hand() -> None:
    limits = distributed.Limits("float32", 2, 1e11, {"update": 90e9, "copy": 1.0, "triad": 1.0})
    assert distributed.table_of_times([ROW], "minimum").splitlines()[1].split()[-4:] == ["-", "1400", "ms", "2.00"]
    cells = distributed.table_of_sums([ROW], limits).splitlines()[1]
    assert "50%" in cells and "1.67" in cells and "0.86 (bar 0.9)" in cells
    slower = {**ROW, "minimum": {**TIMES, "fastbp step": 2.0}}
    assert distributed.verdicts([ROW]) == [] and "slower on ranks" in distributed.verdicts([slower])[0]


# ---- a time line -----------------------------------------------------------------------------------------------------


def recorded(late: float = 0.0) -> dict[str, Any]:
    """A step of three pieces, whose last two are of one unit; the loss is sum 0."""
    calls = [
        ["meet", -1, 0.0, 0.1, False],
        ["start", 0, 1.0, 1.0, False],
        ["start", 1, 2.0, 2.0, False],
        ["test", 0, 2.2, 2.3, True],
        ["test", 1, 2.3, 2.4, False],
        ["start", 2, 4.0, 4.0, False],
        ["start", 3, 4.0, 4.0, False],
        ["wait", 0, 4.0, 4.0, True],
        ["wait", 1, 4.0, 4.5, True],
        ["wait", 2, 5.0, 5.2, True],
        ["wait", 3, 5.4, 5.5, True],
    ]
    moved = [[what, i, begin + late, end + late, back] for what, i, begin, end, back in calls]
    return {"begin": late, "end": 6.0 + late, "calls": moved}


def test_spans_of_a_time_line() -> None:
    pieces = [[20, 30, 2], [10, 20, 0], [0, 10, 0]]
    spans = overlap.spans_of(recorded(7.0), pieces, 7.0)
    assert spans["forward"] == pytest.approx((0.1, 1.0))
    assert [entry["unit"] for entry in spans["backward"]] == [2, 0]
    np.testing.assert_allclose([entry["span"] for entry in spans["backward"]], [(1.0, 2.0), (2.0, 4.0)])
    np.testing.assert_allclose(spans["on its way"], [(2.0, 4.5), (4.0, 5.2), (4.0, 5.5)])
    np.testing.assert_allclose(spans["update"], [(4.5, 5.0), (5.2, 5.4), (5.5, 6.0)])
    # On the way from 2.0 to 5.5; in calls for 0.2 in tests and 0.8 in waits.
    assert overlap.hidden_part(spans) == pytest.approx((3.5 - 1.0) / 3.5)


def test_spans_that_overlap() -> None:
    assert overlap.covered([(0, 2), (1, 3), (5, 6)]) == 4
    assert overlap.without([(0, 10)], [(2, 3), (9, 12)]) == [(0, 2), (3, 9)]
    assert overlap.without([(0, 1)], [(0, 1)]) == [] and overlap.without([(0, 1)], [(1, 2)]) == [(0, 1)]


def test_the_quickest_step_is_drawn(tmp_path: Path) -> None:
    pieces = [[20, 30, 2], [10, 20, 0], [0, 10, 0]]
    slow = {**recorded(), "end": 9.0}
    ranks = [{"steps": [slow, recorded(20.0)], "pieces": pieces} for _ in range(2)]
    record = overlap.quickest(Shape.parse("4-3-2@5"), ranks)
    assert [line["end"] for line in record["ranks"]] == [6.0, 6.0]
    assert "3 pieces" in overlap.describe(json.loads(json.dumps(record)))
    pytest.importorskip("matplotlib")
    overlap.draw(record, tmp_path / "overlap.png")
    assert (tmp_path / "overlap.png").stat().st_size > 10_000


def test_a_recorder_changes_nothing() -> None:
    import fastbp
    from fastbp import distributed as ranks

    x, t = np.ones((8, 20), np.float32), np.arange(8) % 5

    def steps(comm: Any) -> tuple[Any, Any]:
        nets = [fastbp.MLP([20, 900, 900, 5], seed=0) for _ in range(2)]
        recorder = overlap.Recorder(comm)
        for net, its in zip(nets, (comm, recorder), strict=True):
            net.train_step(x, t, fastbp.SGD(lr=0.1), comm=its)
        np.testing.assert_array_equal(nets[0].flat_parameters, nets[1].flat_parameters)
        return recorder.end(), pieces_of(nets[0], True)

    for step, pieces in ranks.run_in_threads(2, steps):
        spans = overlap.spans_of(step, pieces, step["begin"])
        assert len(spans["on its way"]) == len(spans["update"]) == len(pieces) > 1
        assert 0 <= spans["forward"][0] <= spans["forward"][1] <= spans["backward"][0]["span"][1] <= spans["end"]


# ---- ranks -----------------------------------------------------------------------------------------------------------


def test_a_wrong_step_is_found() -> None:
    one = rank.Rank(0, 1)
    before, gradient = np.ones(5000, np.float32), np.full(5000, 0.5, np.float32)
    after = before - np.float32(rank.RATE) * gradient
    assert one.sample(gradient, before, after)["digest"] != one.sample(gradient, after, after - 0.05)["digest"]
    with pytest.raises(ArithmeticError, match="the step is off"):
        one.sample(gradient, before, before)


class Answers:
    """A group that answers what it is told to."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)

    def ask(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        return self._answers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient": np.array([1.0, 2.1])}, "ddp is off"),
        ({"loss": 0.6}, "ddp is off"),
        ({"loss": math.nan}, "ddp is off"),
        ({"digest": 4}, "differ between ranks"),
    ],
)
def test_a_rank_that_disagrees_is_found(change: dict[str, Any], message: str) -> None:
    right = {"gradient": np.array([1.0, 2.0]), "loss": 0.5, "digest": 3, "versions": "1"}
    given = distributed.parse(["--quick"])
    groups: Any = {"alone": Answers(right), "ddp": Answers(right, right)}
    assert distributed.check(groups, given, SHAPES[0]) == {"alone": "1", "ddp": "1"}
    groups["ddp"] = Answers(right, {**right, **change})
    with pytest.raises(ArithmeticError, match=message):
        distributed.check(groups, given, SHAPES[0])


@needs_mpi
@pytest.mark.serial
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--json", "{tmp}/ranks.json"], ("speed-up", "sums alone", "64-100-10@200", "slower on ranks")),
        (["--model", "--shapes", "64-100-10@200"], ("GPT-2 XL", "predicted / measured", "step of 64-100-10@200, 4")),
        (["--timeline", "{tmp}/line.json", "--shapes", "64-100-10@200"], ("1 pieces", "picture: ")),
    ],
    ids=["comparison", "model", "timeline"],
)
def test_the_benchmark_of_ranks_runs(options: list[str], expected: tuple[str, ...], tmp_path: Path) -> None:
    options = [option.replace("{tmp}", str(tmp_path)) for option in options]
    command = [sys.executable, "-m", "bench.distributed", "--quick", "--rounds", "1", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(text in done.stdout for text in expected), done.stdout


# ---- job files -------------------------------------------------------------------------------------------------------


def test_job_for_slurm_is_a_shell_script() -> None:
    script = ROOT / "examples" / "jobs" / "train.sbatch"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = script.read_text(encoding="utf-8")
    options = [line for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert len(options) >= 5 and all(option.startswith("#SBATCH --") for option in options)
    # sbatch reads no options after the first command
    assert text.index("set -euo") > text.rindex("#SBATCH")


def test_job_for_kubernetes_is_an_mpi_job() -> None:
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((ROOT / "examples" / "jobs" / "kubernetes.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    spec = job["spec"]
    launcher, workers = (spec["mpiReplicaSpecs"][name] for name in ("Launcher", "Worker"))
    command = launcher["template"]["spec"]["containers"][0]["command"]
    (worker,) = workers["template"]["spec"]["containers"]
    assert int(command[command.index("-n") + 1]) == workers["replicas"] * spec["slotsPerWorker"]
    assert command[command.index("FASTBP_NUM_THREADS") + 1] == worker["resources"]["limits"]["cpu"]
    assert worker["resources"]["limits"] == worker["resources"]["requests"]
    assert all(isinstance(word, str) for word in command + worker["command"])
