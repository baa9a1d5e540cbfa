"""patch, unpatch, patched, and python -m fastbp.sklearn."""

from __future__ import annotations

import doctest
import importlib
import multiprocessing.spawn
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest

pytest.importorskip("sklearn")

import joblib
from joblib.externals.loky import get_reusable_executor
from sklearn import neural_network

import fastbp.sklearn
from fastbp.sklearn import __main__, _patching

NAMES = ("MLPClassifier", "MLPRegressor")
THEIRS = {name: getattr(neural_network, name) for name in NAMES}
OURS = {name: getattr(fastbp.sklearn, name) for name in NAMES}


def public() -> dict[str, Any]:
    return {name: getattr(neural_network, name) for name in NAMES}


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    assert public() == THEIRS
    yield
    fastbp.sklearn.unpatch()
    assert public() == THEIRS


def test_examples_in_docstrings_run() -> None:
    assert doctest.testmod(_patching).failed == 0


# ---- the switch ------------------------------------------------------------------------------------------------------


def test_patch_and_unpatch_are_idempotent() -> None:
    fastbp.sklearn.unpatch()
    assert public() == THEIRS
    for _ in range(2):
        fastbp.sklearn.patch()
        assert public() == OURS
    for _ in range(2):
        fastbp.sklearn.unpatch()
        assert public() == THEIRS


def test_a_name_imported_before_stays() -> None:
    from sklearn.neural_network import MLPClassifier

    with fastbp.sklearn.patched():
        assert MLPClassifier is THEIRS["MLPClassifier"]
        assert isinstance(neural_network.MLPClassifier(), MLPClassifier)


def test_blocks_nest() -> None:
    with fastbp.sklearn.patched():
        with fastbp.sklearn.patched():
            assert public() == OURS
        assert public() == OURS
    assert public() == THEIRS


def test_a_block_ends_where_it_raises() -> None:
    with pytest.raises(ZeroDivisionError), fastbp.sklearn.patched():
        raise ZeroDivisionError
    assert public() == THEIRS


def test_a_block_leaves_what_patch_has_made() -> None:
    fastbp.sklearn.patch()
    with fastbp.sklearn.patched():
        pass
    assert public() == OURS


def test_the_switch_in_a_block_takes_effect_at_its_end() -> None:
    with fastbp.sklearn.patched():
        fastbp.sklearn.patch()
        fastbp.sklearn.unpatch()
        assert public() == OURS
    assert public() == THEIRS
    with fastbp.sklearn.patched():
        fastbp.sklearn.patch()
    assert public() == OURS


def test_blocks_overlap_in_threads() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with fastbp.sklearn.patched():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with fastbp.sklearn.patched():
        thread.start()
        assert inside.wait(30)
    assert public() == OURS, "one block has ended another's"
    leave.set()
    thread.join()
    assert public() == THEIRS


def test_unpatch_leaves_a_class_set_by_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    class Another(THEIRS["MLPRegressor"]):  # type: ignore[misc]
        pass

    fastbp.sklearn.patch()
    with monkeypatch.context() as patch:
        patch.setattr(neural_network, "MLPRegressor", Another)
        fastbp.sklearn.unpatch()
        assert neural_network.MLPRegressor is Another
        patch.undo()
    neural_network.MLPRegressor = THEIRS["MLPRegressor"]


@pytest.mark.parametrize("name", NAMES)
def test_pickles_of_either_kind_are_read_either_way(name: str) -> None:
    X, y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])
    texts = {cls: pickle.dumps(cls(max_iter=1000, tol=0.1).fit(X, y)) for cls in (THEIRS[name], OURS[name])}
    for cls, text in texts.items():
        assert type(pickle.loads(text)) is cls
        with fastbp.sklearn.patched():
            assert type(pickle.loads(text)) is cls


# ---- children --------------------------------------------------------------------------------------------------------


def is_sent() -> bool:
    data = multiprocessing.spawn.get_preparation_data("x")
    return any(type(one) is _patching._PatchOfChild for one in data.values())


def test_children_are_sent_the_patch_while_it_is_on() -> None:
    fastbp.sklearn.patch()
    assert not is_sent()
    for _ in range(2):
        fastbp.sklearn.patch(children=True)
        assert is_sent()
    fastbp.sklearn.patch()
    assert is_sent()
    fastbp.sklearn.unpatch()
    assert not is_sent()
    with fastbp.sklearn.patched():
        assert not is_sent()


def test_pickle_that_a_child_loads_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    text = pickle.dumps(_patching._PatchOfChild())
    path = list(sys.path)
    monkeypatch.setattr(sys, "path", sys.path[-1:])  # a child has its parent's path only later
    pickle.loads(text)
    assert public() == OURS
    assert sys.path == path
    assert is_sent()


@pytest.mark.serial
@pytest.mark.parametrize("method", ["spawn", "forkserver", "loky"])
def test_children_are_patched(method: str) -> None:
    fastbp.sklearn.patch(children=True)
    if method == "loky":
        get_reusable_executor().shutdown(wait=True)  # workers of an earlier test run without the patch
        found = joblib.Parallel(2, backend="loky")(joblib.delayed(processes.module_of_classifier)() for _ in range(2))
        get_reusable_executor().shutdown(wait=True)  # no later test has patched workers
    else:
        with multiprocessing.get_context(method).Pool(1) as pool:
            found = [pool.apply(processes.module_of_classifier)]
    assert set(found) == {"fastbp.sklearn._estimators"}


# ---- python -m fastbp.sklearn ----------------------------------------------------------------------------------------

# What a program can see of how it was started.
PROGRAM = """
import sys, __main__
print(sys.argv)
print([sys.path[0]])
print(__name__, __main__.__dict__ is globals(), globals().get("__file__"))
print(__package__, type(__builtins__).__name__, __spec__ and __spec__.name)
package = sys.modules.get("sklearn.neural_network")
print(package and package.MLPClassifier.__module__, file=sys.stderr)
sys.exit(int(sys.argv[-1]) if sys.argv[-1].isdigit() else 0)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for directory in ("scripts", "package", "empty"):
        (tmp_path / directory).mkdir()
    (tmp_path / "scripts" / "script.py").write_text(PROGRAM)
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)
    (tmp_path / "package" / "module.py").write_text(PROGRAM)
    (tmp_path / "-dashed.py").write_text(PROGRAM)
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_a_process(*command: str) -> tuple[str, str, int]:
    """What python itself makes of a command."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=100)
    return done.stdout, done.stderr, done.returncode


@pytest.fixture
def here(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str, int]]:
    """What our command line makes of it, in this process: an import of scikit-learn takes longer than all else."""

    def run(*command: str) -> tuple[str, str, int]:
        monkeypatch.setattr(sys, "path", ["", *sys.path])
        monkeypatch.setattr(sys, "argv", ["fastbp.sklearn", *command])
        monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
        for name in [name for name in sys.modules if name.partition(".")[0] == "package"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        code: object = 0
        try:
            __main__.main(list(command))
        except SystemExit as error:
            code = error.code or 0
        printed = capsys.readouterr()
        if not isinstance(code, int):
            return printed.out, f"{printed.err}{code}\n", 1
        return printed.out, printed.err, code

    return run


@pytest.mark.parametrize(
    "command",
    [
        ("scripts/script.py", "a", "-b", "--", "3"),
        ("./scripts/../scripts/script.py",),
        ("package", "0"),
        ("app.zip", "x"),
        ("-m", "package", "-m", "4"),
        ("-mpackage.module", "-c"),
        ("-c", PROGRAM, "-c", "7"),
        ("-c" + PROGRAM, "-h"),
    ],
    ids=["script", "path", "directory", "zip", "-m package", "-m glued", "-c", "-c glued"],
)
def test_program_sees_pythons_own_environment(
    command: tuple[str, ...], here: Callable[..., tuple[str, str, int]]
) -> None:
    out, err, code = here(*command)
    theirs = in_a_process(*command)
    assert (out, code) == (theirs[0], theirs[2])
    assert err.startswith("fastbp.sklearn")


def test_a_script_behind_dashes(here: Callable[..., tuple[str, str, int]]) -> None:
    out, _, code = here("--", "-dashed.py", "5")
    assert (out.splitlines()[0], code) == ("['-dashed.py', '5']", 5)


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ((), 2, "nothing to run"),
        (("--",), 2, "nothing to run"),
        (("nowhere.py",), 2, "can't open file 'nowhere.py'"),
        (("-m",), 2, "argument expected for the -m option"),
        (("-c",), 2, "argument expected for the -c option"),
        (("-x", "script.py"), 2, "unknown option -x"),
        (("empty",), 1, "can't find '__main__' module in 'empty'"),
        (("-m", "no_such_module"), 1, "No module named no_such_module"),
        (("-m", "no_such_package.module"), 1, "No module named no_such_package.module"),
    ],
)
def test_wrong_use_prints_a_message(
    command: tuple[str, ...], code: int, message: str, here: Callable[..., tuple[str, str, int]]
) -> None:
    _, err, ended = here(*command)
    assert ended == code
    assert message in err


def test_help(here: Callable[..., tuple[str, str, int]]) -> None:
    out, err, code = here("--help")
    assert (err, code) == ("", 0)
    assert out.startswith("usage: python -m fastbp.sklearn")


def test_missing_dependency_of_a_package_is_named(place: Path, here: Callable[..., tuple[str, str, int]]) -> None:
    (place / "package" / "__init__.py").write_text("import no_such_module")
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'"):
        here("-m", "package.module")


def test_a_program_from_end_to_end(place: Path) -> None:
    """In a process of its own, with a safe path."""
    code = """
    import sys
    from sklearn.neural_network import MLPRegressor

    print(MLPRegressor.__module__, sys.path[0] == sys.argv[1])
    sys.exit(11)
    """
    (place / "program.py").write_text(textwrap.dedent(code))
    path = os.pathsep.join(filter(None, [str(processes.PLACE), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fastbp.sklearn", "program.py", path.split(os.pathsep)[0]],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.stdout.strip(), done.returncode) == ("fastbp.sklearn._estimators True", 11), done.stderr
