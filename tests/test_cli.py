"""The command line, in this process and in one of its own."""

from __future__ import annotations

import json
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
    table, _, advice = capsys.readouterr().out.partition("\n\n")
    printed = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in table.splitlines())
    assert printed["version"] == fastbp.config()["version"]
    machine = {name for name in cli.describe_machine() if name != "cache"}
    assert {name for name in printed if not name.startswith("cache.")} == fastbp.config().keys() | machine
    head, *lines = advice.splitlines()
    assert head == "what is fast here, and why"
    assert lines and all(re.match(r"  [+-] \S", line) for line in lines)
    assert fastbp.config()["isa"] in advice


def test_ranks_are_those_of_the_launcher() -> None:
    assert cli.describe_ranks({}).startswith("1")
    assert cli.describe_ranks({"PMI_SIZE": "4", "PMI_RANK": "3"}) == "4 (this is rank 3)"
    assert cli.describe_ranks({"PMI_SIZE": "four", "PMI_RANK": "3"}).startswith("1")


def test_info_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["threads"] == fastbp.get_num_threads()
    assert found["machine"]["processors"] >= 1
    assert all(isinstance(line["good"], bool) and line["text"] for line in found["advice"])


MACHINE = {
    "processors": 8,
    "processors_limit": None,
    "threads_from": "processors",
    "cache": {"L1": 2**15, "L2": 2**20, "L3": 2**25},
    "memory": 2**34,
    "memory_limit": None,
    "load": 0.5,
}
CONFIG = {"isa": "avx2", "isa_supported": ("avx2", "baseline"), "threads": 8, "debug": False}


def advice(config: dict[str, object], machine: dict[str, object]) -> dict[str, bool]:
    return {text: good for good, text in cli.advise({**CONFIG, **config}, {**MACHINE, **machine})}


def test_advice_names_what_holds_back() -> None:
    assert [text for text, good in advice({}, {}).items() if not good] == [
        "beyond the L3 cache the memory's bandwidth limits small batches: larger ones read less"
    ]
    cases: list[tuple[dict[str, object], dict[str, object], str]] = [
        ({"isa": "baseline"}, {}, "FASTBP_ISA=baseline holds the kernels back: this processor has avx2"),
        ({"debug": True}, {}, "a build with checks (FASTBP_DEBUG=1): every kernel is several times slower"),
        ({}, {"load": 9.0}, "the machine is busy (load 9 on 8 processors): times will vary"),
        (
            {"threads": 1},
            {"threads_from": "OMP_NUM_THREADS"},
            "1 of 8 processors in use, by OMP_NUM_THREADS",
        ),
        (
            {},
            {"processors_limit": 2.5},
            "8 threads by processors, but 2.5 processors: they take turns; set FASTBP_NUM_THREADS",
        ),
    ]
    for config, machine, text in cases:
        assert advice(config, machine)[text] is False


def test_advice_counts_parameters() -> None:
    texts = list(advice({}, {"memory_limit": 2**30}))
    assert "up to 130 thousand parameters and their gradients (float32) stay in the L2 cache" in texts
    assert "up to 4.2 million parameters and their gradients (float32) stay in the L3 cache" in texts
    assert (
        "Adam takes 16 bytes for each parameter: the container's limit of 1 GiB has room for 67 million parameters"
        in texts
    )
    # A system that tells nothing.
    texts = list(advice({}, {"cache": {}, "memory": None, "load": None}))
    assert len(texts) == 2


def test_caches_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [("Data", "1", "48K"), ("Instruction", "1", "32K"), ("Unified", "2", "2048K"), ("Unified", "3", "30M")]
    for i, entries in enumerate(kinds):
        (tmp_path / f"index{i}").mkdir()
        for name, text in zip(("type", "level", "size"), entries, strict=True):
            (tmp_path / f"index{i}" / name).write_text(f"{text}\n")
    (tmp_path / "index9").mkdir()
    monkeypatch.setattr(cli, "SYSTEM_CACHES", str(tmp_path))
    assert cli.caches() == {"L1": 48 * 2**10, "L2": 2 * 2**20, "L3": 30 * 2**20}
    monkeypatch.setattr(cli, "SYSTEM_CACHES", str(tmp_path / "nowhere"))
    assert cli.caches() == {}


@pytest.mark.parametrize(
    ("n", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (2**20, "1 MiB"), (1023 * 2**30, "1023 GiB"), (None, "None")]
)
def test_bytes_are_shown_in_their_unit(n: int | None, text: str) -> None:
    assert cli.describe_bytes(n) == text


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
    message = capsys.readouterr().err
    assert re.fullmatch(r"fastbp( demo)?: error: .* \(see fastbp( demo)? --help\)\n", message)


def test_an_unknown_command_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["nothing"])
    message = capsys.readouterr().err
    assert all(name in message for name in ("nothing", "info", "demo", "bench", "train", "predict"))


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


def test_the_benchmark_for_programs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "QUICK_SHAPES", cli.QUICK_SHAPES[:1])
    assert cli.main(["bench", "--quick", "--json"]) == 0
    (shape,) = json.loads(capsys.readouterr().out)["shapes"]
    assert (shape["sizes"], shape["batch"]) == ([4, 64, 64, 2], 1)
    assert shape["ratio"] == pytest.approx(shape["numpy"]["min"] / shape["fastbp"]["min"])


@pytest.mark.parametrize("command", [[], ["info"], ["bench"], ["train"], ["predict"]])
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main([*command, "--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert f"examples:\n  {' '.join(['fastbp', *command])}" in text or "FASTBP" in text
    if not command:
        assert "exit codes:" in text


def test_the_benchmark_refuses_to_time_wrong_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastbp.demo.largest_share", lambda *gradients: float("nan"))
    with pytest.raises(RuntimeError, match="differ by"):
        cli.time_shape(cli.QUICK_SHAPES[0], rounds=1)


def test_without_threadpoolctl_the_threads_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with cli.equal_threads() as text:
        assert "threadpoolctl" in text
