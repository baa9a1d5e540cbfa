"""``python -m fastbp accelerate script.py``: the script runs as it does by itself, and what is known is accelerated."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_accelerate import PROGRAMS, always_faster  # noqa: F401  a fixture
from test_cli import python_m_fastbp

from fastbp import cli

DLFS = (PROGRAMS / "dlfs.py").read_text(encoding="utf-8")
COURSE = (PROGRAMS / "deeplearning_ai.py").read_text(encoding="utf-8")
NETWORK = """
import numpy as np
np.random.seed(0)
net = TwoLayerNet(12, 9, 4)
x, t = np.random.rand(8, 12), np.random.randint(0, 4, 8)
for _ in range(3):
    grads = net.gradient(x, t)
    for key in grads:
        net.params[key] -= 0.1 * grads[key]
print(f"loss {net.loss(x, t):.9f}")
"""
STEPS = """
np.random.seed(0)
X, Y = np.random.rand(6, 10), np.ones((1, 10))
parameters = initialize_parameters_deep([6, 4, 1])
for _ in range(3):
    AL, caches = L_model_forward(X, parameters)
    parameters = update_parameters(parameters, L_model_backward(AL, Y, caches), 0.1)
print(f"cost {compute_cost(AL, Y):.9f}")
"""


@pytest.fixture(autouse=True)
def programs_are_imported_anew(tmp_path: Path) -> Iterator[None]:
    """An import that is only looked up runs no hook."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith((str(PROGRAMS), str(tmp_path))):
            del sys.modules[name]


Command = Callable[..., tuple[str, str]]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a script, given as text; return what it printed, and the report."""

    def run(text: str, *arguments: str, name: str = "script.py") -> tuple[str, str]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert cli.main(["accelerate", str(tmp_path / name), *arguments]) == 0
        return parts(capsys.readouterr().out)

    return run


def parts(printed: str) -> tuple[str, str]:
    text, _, report = printed.rpartition("\n\n")
    return text, report


@pytest.fixture
def by_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a script as it is; return what it printed."""

    def run(path: Path, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        monkeypatch.syspath_prepend(str(path.parent))
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


def swapped(report: str) -> dict[str, bool]:
    """Return the rows of a report: what, before its comma, and whether it was swapped."""
    rows = (re.split(r"\s{2,}", row) for row in report.splitlines()[1:])
    return {row[0].partition(",")[0]: row[1] == "yes" for row in rows}


# ---- what is accelerated ---------------------------------------------------------------------------------------------


def test_classes_of_the_script_itself_are_accelerated(command: Command, by_itself: Any, tmp_path: Path) -> None:
    text, report = command(DLFS + NETWORK)
    assert swapped(report) == {"TwoLayerNet.gradient": True, "TwoLayerNet.predict": True}
    assert text + "\n" == by_itself(tmp_path / "script.py")


def test_functions_of_the_script_itself_are_accelerated(command: Command, by_itself: Any, tmp_path: Path) -> None:
    text, report = command(COURSE + STEPS)
    assert swapped(report) == {"L_model_forward": True, "L_model_backward": True, "update_parameters": True}
    assert text + "\n" == by_itself(tmp_path / "script.py")


@pytest.mark.parametrize("line", ["from course import *", "from course import L_model_forward", "import course as c"])
def test_what_a_script_imports_is_accelerated_before_its_names_go_anywhere(
    command: Command, tmp_path: Path, line: str
) -> None:
    (tmp_path / "course.py").write_text(COURSE, encoding="utf-8")
    name = "c.L_model_forward" if "as" in line else "L_model_forward"
    other = "c.initialize_parameters_deep" if "as" in line else "initialize_parameters_deep"
    more = "from course import *\n" if other not in line else ""
    text, report = command(f"import numpy as np\n{line}\n{more}{name}(np.ones((6, 3)), {other}([6, 4, 1]))\nprint(3)\n")
    assert (text, swapped(report)) == ("3", {"L_model_forward": True})


def test_packages_are_looked_through(command: Command, tmp_path: Path) -> None:
    (tmp_path / "book" / "common").mkdir(parents=True)
    (tmp_path / "book" / "common" / "nets.py").write_text(DLFS, encoding="utf-8")
    text, report = command("from book.common.nets import TwoLayerNet\n" + NETWORK)
    assert swapped(report)["TwoLayerNet.gradient"] and text.startswith("loss ")


def test_what_is_defined_below_a_condition_is_accelerated(command: Command) -> None:
    body = "".join(f"    {line}\n" for line in DLFS.splitlines())
    _, report = command(f"if True:\n{body}" + NETWORK)
    assert swapped(report)["TwoLayerNet.gradient"]


def test_functions_that_are_defined_before_what_they_call_wait_for_it(command: Command) -> None:
    cut = COURSE.index("def L_model_forward")
    end = COURSE.index("def compute_cost")
    head = COURSE.index("VERSION = 3")
    moved = COURSE[:head] + COURSE[cut:end] + COURSE[head:cut] + COURSE[end:]
    _, report = command(moved + STEPS)
    assert swapped(report)["L_model_forward"]


def test_functions_that_are_defined_once_more_count(command: Command, by_itself: Any, tmp_path: Path) -> None:
    again = "def sigmoid(Z):\n    return 0.9 / (1 + np.exp(-Z)), Z\n"
    text, report = command(COURSE + STEPS + again + STEPS)
    assert not all(swapped(report).values())
    assert text + "\n" == by_itself(tmp_path / "script.py")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("dlfs", ["--network", "MultiLayerNet"]),
        ("nielsen", []),
        ("deeplearning_ai", []),
        ("scratch", []),
        ("numpy_ml", []),
    ],
)
def test_programs_print_the_same_losses(
    name: str, arguments: list[str], by_itself: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    for module in PROGRAMS.glob("*.py"):  # another test of this process may have imported them
        monkeypatch.delitem(sys.modules, module.stem, raising=False)
    path = PROGRAMS / f"train_{name}.py"
    assert cli.main(["accelerate", str(path), "--quick", *arguments]) == 0
    text, report = parts(capsys.readouterr().out)
    assert text + "\n" == by_itself(path, "--quick", *arguments)
    assert any(swapped(report).values())


@pytest.mark.parametrize("name", ["deeplearning_ai", "scratch", "numpy_ml"])
def test_programs_that_accelerate_themselves_print_the_same_losses(name: str, by_itself: Any) -> None:
    pytest.importorskip("sklearn")
    path = PROGRAMS / f"train_{name}.py"
    plain = by_itself(path, "--quick")
    assert by_itself(path, "--quick", "--accelerate") == plain


def test_a_script_with_nothing_known_says_so(command: Command) -> None:
    assert command("print(1)\n") == ("1", "fastbp: no program that is known was run.\n")


# ---- as by itself ----------------------------------------------------------------------------------------------------

ENVIRONMENT = '''"""A script."""
from __future__ import annotations
import sys, pathlib, pickle
def f(x: Unknown) -> Unknown: return x
class C: pass
print(__name__, __doc__, __file__, __spec__, __package__, sys.argv[1:], f.__annotations__, C.__module__)
print(sys.path[0], sys.modules["__main__"].C is C, type(pickle.loads(pickle.dumps(C()))) is C)
print(pathlib.Path(sys.argv[0]).name, __builtins__.len([1]), sys._getframe().f_code.co_name)
import beside
'''


def test_a_script_finds_what_it_finds_by_itself(command: Command, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("print(__name__)\n")
    before = list(sys.path), sys.argv, sys.modules["__main__"], list(sys.meta_path)
    text, _ = command(ENVIRONMENT, "--quick", "a b", "-x")
    script = [sys.executable, str(tmp_path / "script.py"), "--quick", "a b", "-x"]
    assert text + "\n" == subprocess.run(script, capture_output=True, text=True, timeout=60).stdout
    assert (list(sys.path), sys.argv, sys.modules["__main__"], list(sys.meta_path)) == before


ENDS = {
    "sys.exit(3)": (SystemExit, 3),
    "sys.exit('no')": (SystemExit, 1),
    "sys.exit()": (SystemExit, 0),
    "1 / 0": (ZeroDivisionError, 1),
    "import missing_module_of_no_one": (ModuleNotFoundError, 1),
}


@pytest.mark.parametrize("line", ENDS)
def test_exceptions_pass_and_the_report_is_printed(
    command: Command, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    with pytest.raises(ENDS[line][0]):
        command(DLFS + NETWORK + f"import sys\n{line}\n")
    text, report = parts(capsys.readouterr().out)
    assert text.startswith("loss ") and swapped(report)["TwoLayerNet.gradient"]


@pytest.mark.parametrize("line", ["sys.exit(3)", "1 / 0"])
def test_the_exit_code_is_the_scripts(tmp_path: Path, line: str) -> None:
    (tmp_path / "script.py").write_text(f"import sys\nprint('here')\n{line}\n")
    done = python_m_fastbp("accelerate", "script.py", cwd=tmp_path)
    assert done.returncode == ENDS[line][1]
    assert done.stdout == "here\n\nfastbp: no program that is known was run.\n"
    assert ("ZeroDivisionError" in done.stderr and 'script.py", line 3, in <module>' in done.stderr) == (
        line == "1 / 0"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


def test_a_script_that_is_not_there_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["accelerate", str(tmp_path / "none.py")]) == 2
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["print(1)\nreturn 3\n", "print(1)\nx = = 3\n", "print(1)\nx: int\nglobal x\n"])
def test_a_syntax_error_raises_before_anything_runs(command: Command, capsys: Any, text: str) -> None:
    with pytest.raises(SyntaxError):
        command(text)
    assert "1" not in capsys.readouterr().out


def test_modules_are_as_they_were_behind_it(command: Command, tmp_path: Path) -> None:
    (tmp_path / "accelerated_nets.py").write_text(DLFS, encoding="utf-8")
    command("from accelerated_nets import TwoLayerNet\n" + NETWORK)
    assert not hasattr(sys.modules["accelerated_nets"].TwoLayerNet.gradient, "__wrapped__")
