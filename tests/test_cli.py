"""The command line, in this process and in one of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastbp
from fastbp import cli

# Where the fastbp under test lies. Processes run elsewhere: `-m` would prefer a fastbp/ in the working directory.
PLACE = Path(fastbp.__file__).resolve().parents[1]


def python_m_fastbp(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(PLACE), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "fastbp", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_info_prints_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    printed = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["version"] == fastbp.config()["version"]
    assert fastbp.config().keys() | {"system", "ranks"} == printed.keys()


def test_ranks_are_those_of_the_launcher() -> None:
    assert cli.describe_ranks({}).startswith("1")
    assert cli.describe_ranks({"PMI_SIZE": "4", "PMI_RANK": "3"}) == "4 (this is rank 3)"
    assert cli.describe_ranks({"PMI_SIZE": "four", "PMI_RANK": "3"}).startswith("1")


def test_info_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = python_m_fastbp("info", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert fastbp.config()["version"] in done.stdout


def test_nested_values_are_flattened() -> None:
    nested = {"a": {"b": (1, 2), "c": {"d": None}}, "e": []}
    assert list(cli.flatten(nested)) == [("a.b", "1, 2"), ("a.c.d", "None"), ("e", "")]


@pytest.mark.parametrize("arguments", [["nothing"], [], ["demo", "--slow"]])
def test_wrong_arguments_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    assert error.value.code == 2
    assert "usage: fastbp" in capsys.readouterr().err


def test_an_unknown_command_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["nothing"])
    message = capsys.readouterr().err
    assert all(name in message for name in ("nothing", "info", "demo", "bench"))


def test_the_quick_demo(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the demonstration needs the extra demo")
    pytest.importorskip("matplotlib", reason="the demonstration needs the extra demo")
    done = python_m_fastbp("demo", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = re.search(r"^test accuracy: (\d+\.\d) %$", done.stdout, re.MULTILINE)
    assert accuracy is not None and 90 <= float(accuracy[1]) <= 100
    assert "quick run" in done.stdout
    assert done.stdout.splitlines()[-1] == "picture: ./fastbp-demo.png"
    assert (tmp_path / "fastbp-demo.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("module", ["sklearn.datasets", "matplotlib.figure"])
def test_a_missing_extra_is_named(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # an import of it now fails as if it were not installed
    assert cli.main(["demo", "--quick"]) == 1
    output = capsys.readouterr()
    assert 'pip install "fastbp[demo]"' in output.err
    assert module.partition(".")[0] in output.err
    assert output.out == ""


def test_a_missing_folder_raises_before_the_demo_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn", reason="the demonstration needs the extra demo")
    pytest.importorskip("matplotlib", reason="the demonstration needs the extra demo")
    assert cli.main(["demo", "--picture", str(tmp_path / "nowhere" / "p.png")]) == 1
    output = capsys.readouterr()
    assert "nowhere" in output.err
    assert output.out == ""


def test_the_quick_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for shape in cli.QUICK_SHAPES:
        (line,) = (line for line in lines if line.startswith(shape.name + " "))
        best, median, numpy_best, numpy_median, ratio = map(float, line.removeprefix(shape.name).split())
        assert 0 < best <= median
        assert 0 < numpy_best <= numpy_median
        # The printed times are rounded to 0.1 µs, the ratio to 0.01.
        assert ratio == pytest.approx(numpy_best / best, rel=0.05 / best + 0.05 / numpy_best + 1e-3, abs=0.01)


def test_the_benchmark_refuses_to_time_wrong_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastbp.demo.largest_share", lambda *gradients: float("nan"))
    with pytest.raises(RuntimeError, match="differ by"):
        cli.time_shape(cli.QUICK_SHAPES[0], rounds=1)


def test_without_threadpoolctl_the_threads_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with cli.equal_threads() as text:
        assert "threadpoolctl" in text
