"""`fastbp train` and `fastbp predict`: tables of all kinds, what is learnt of them, and what is said of a wrong one."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import cli
from fastbp.io import _columns, _tables, _terminal, saving
from fastbp.training import _tabular

ROWS = 120


def rows(n: int = ROWS) -> list[dict[str, Any]]:
    """A table whose words and numbers both tell of its class, and whose value is a sum of them."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        colour = ("red", "green", "blue")[i % 3]
        height, weight = rng.normal(170 + 10 * (colour == "red"), 3), rng.normal(60, 5)
        kind = "tall" if height > 173 else "short"
        price = 2 * height - weight + {"red": 0, "green": 20, "blue": 40}[colour]
        made.append({"height": height, "weight": weight, "colour": colour, "kind": kind, "price": price})
    return made


def write_csv(path: Path, table: Sequence[Mapping[str, Any]], delimiter: str = ",") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(table)
    return path


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_csv(tmp_path / "data.csv", rows())


def run(*arguments: str | Path) -> int:
    return cli.main([os.fspath(argument) for argument in arguments])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that an error is."""
    found = capsys.readouterr()
    assert found.out == ""
    (line,) = found.err.splitlines()
    return line


# ---- both commands ---------------------------------------------------------------------------------------------------


def test_a_classifier_is_trained_and_predicts(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", data, "--target", "kind", "--ignore", "price", "--no-picture", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["task"], report["classes"], report["rows"]) == ("classification", ["short", "tall"], ROWS)
    assert (report["rows_for_training"], report["rows_for_validation"]) == (96, 24)
    assert report["inputs"] == 2 + 3
    assert report["scores"]["accuracy"] > 0.85 > report["baseline"]["accuracy"] > 0.4
    assert report["sizes"] == [5, 64, 64, 2]
    assert 1 <= report["best_epoch"] <= report["epochs"] <= 500
    assert report["model"] == str(data.with_name("data-model.npz")) and report["picture"] is None

    assert run("predict", "data-model.npz", data, "--probabilities") == 0
    found = capsys.readouterr()
    predictions = list(csv.DictReader(io.StringIO(found.out)))
    assert [*predictions[0]] == ["kind", "P(short)", "P(tall)"] and len(predictions) == ROWS
    for row in predictions:
        short, tall = float(row["P(short)"]), float(row["P(tall)"])
        assert short + tall == pytest.approx(1, abs=1e-6)
        assert row["kind"] == ("tall" if tall > short else "short")
    right = np.mean([row["kind"] == true["kind"] for row, true in zip(predictions, rows(), strict=True)])
    assert found.err == f"scores: accuracy {right:.4g}\n"


def test_a_regressor_predicts_in_the_units_of_its_target(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", data, "--target", "price", "--ignore", "kind", "--no-picture", "--epochs", "200") == 0
    out = capsys.readouterr().out
    assert re.search(r"^target +price: regression \(120 different numbers\)$", out, re.MULTILINE)
    assert run("predict", "data-model.npz", data, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    truth = np.array([row["price"] for row in rows()])
    predicted = np.array(found["predictions"]["price"])
    assert found["scores"]["mae"] == pytest.approx(abs(predicted - truth).mean())
    assert found["scores"]["r2"] > 0.9
    assert "inputs" in out and "R²" in out


def test_the_file_is_also_a_network(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", data, "--target", "kind", "--epochs", "3", "--no-picture") == 0
    net = fastbp.load("data-model.npz")
    own, encoding = _tabular.load("data-model.npz")
    assert isinstance(net, fastbp.MLP) and net.sizes[-1] == 2
    table = _tables.read_table(data)
    labels, probabilities = _tabular.predict(own, encoding, table)
    assert (net.predict(encoding.encode(table)) == labels).all()
    assert probabilities is not None
    assert (net.predict_proba(encoding.encode(table)) == probabilities).all()


def test_the_same_seed_gives_the_same_model(data: Path) -> None:
    for name in ("a.npz", "b.npz"):
        assert run("train", data, "--target", "kind", "--epochs", "3", "--no-picture", "--model", name) == 0
    assert (fastbp.load("a.npz").flat_parameters == fastbp.load("b.npz").flat_parameters).all()


@pytest.mark.parametrize("target", ["kind", "price"])
def test_the_picture(target: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert run("train", data, "--target", target, "--epochs", "3") == 0
    assert data.with_name("data-model.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert run("train", data, "--target", target, "--epochs", "3", "--picture", "own.png", "--validation", "0") == 0
    assert Path("own.png").stat().st_size > 10_000
    assert "picture   own.png" in capsys.readouterr().out


def test_without_matplotlib_there_is_no_picture(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    assert run("train", data, "--target", "kind", "--epochs", "1") == 0
    found = capsys.readouterr()
    assert 'note: no picture: that needs matplotlib (pip install "fastbp[demo]")' in found.err
    assert re.search(r"^picture +none$", found.out, re.MULTILINE)
    assert run("train", data, "--target", "kind", "--picture", "p.png") == 1
    assert error_of(capsys) == 'fastbp train: error: --picture needs matplotlib: pip install "fastbp[demo]"'


def test_output_in_files(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", data, "--target", "kind", "--epochs", "2", "--no-picture") == 0
    for name in ("out.csv", "out.tsv", "out.npz"):
        assert run("predict", "data-model.npz", data, "--output", name, "--probabilities") == 0
        table = _tables.read_table(name)
        assert list(table.columns) == ["kind", "P(short)", "P(tall)"] and table.rows == ROWS
    capsys.readouterr()
    assert run("predict", "data-model.npz", data, "--output", "out.csv", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["predictions"], report["output"]) == (None, "out.csv")


def test_without_a_validation_all_rows_train(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--validation", "0", "--epochs", "4", "--no-picture", "--json", "--threads", "1", "--hidden", "0")
    assert run("train", data, "--target", "kind", *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows_for_training"], report["rows_for_validation"], report["epochs"]) == (ROWS, 0, 4)
    assert report["scored_on"] == "training rows" and len(report["sizes"]) == 2


def test_rows_without_a_target_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = rows()
    for row in table[:5]:
        row["kind"] = ""
    data = write_csv(tmp_path / "data.csv", table)
    assert run("train", data, "--target", "kind", "--epochs", "2", "--no-picture") == 0
    assert "120 rows, 5 without a target left out; 92 for training, 23 for validation" in capsys.readouterr().out
    # No score of rows of which one has no target.
    assert run("predict", tmp_path / "data-model.npz", data) == 0
    assert capsys.readouterr().err == ""


def test_missing_values_and_new_words_are_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = rows()
    for i in range(0, ROWS, 7):
        table[i]["height"] = "NA"
    for i in range(0, ROWS, 11):
        table[i]["colour"] = ""
    data = write_csv(tmp_path / "data.csv", table)
    assert run("train", data, "--target", "price", "--ignore", "kind", "--no-picture", "--epochs", "5") == 0
    new = [{"weight": "", "height": "?", "colour": "violet", "other": "x"}]
    capsys.readouterr()
    assert run("predict", tmp_path / "data-model.npz", write_csv(tmp_path / "new.csv", new)) == 0
    found = capsys.readouterr()
    name, value = found.out.split()
    assert name == "price" and np.isfinite(float(value))
    assert found.err.splitlines() == ["note: column 'colour' has values that training never saw: 'violet'"]


def test_numbers_can_be_categories_and_names_can_lack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{i % 4},{i % 2}" for i in range(40)]
    data = tmp_path / "plain.csv"
    data.write_text("\n".join(lines))
    options = ("--target", "column_2", "--no-header", "--no-picture", "--json")
    assert run("train", data, *options, "--categorical", "column_1") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["inputs"], report["task"], report["classes"]) == (4, "classification", [0, 1])
    assert report["scores"]["accuracy"] == 1
    assert run("predict", tmp_path / "plain-model.npz", data, "--no-header", "--json") == 0
    assert json.loads(capsys.readouterr().out)["predictions"]["column_2"] == [i % 2 for i in range(40)]


def test_a_training_that_diverges_fails_and_writes_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", data, "--target", "price", "--lr", "1e30", "--no-picture", "--quiet") == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:")]
    assert len(errors) == 1 and "error: the " in errors[0]
    assert not Path("data-model.npz").exists()


def test_interrupted_is_130(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_tabular, "fit", interrupted)
    assert run("train", data, "--target", "kind", "--no-picture") == 130
    assert error_of(capsys) == "fastbp train: error: interrupted"


def test_a_reader_that_has_seen_enough_is_no_error(data: Path) -> None:
    assert run("train", data, "--target", "kind", "--epochs", "1", "--no-picture") == 0
    place = Path(fastbp.__file__).resolve().parents[1]
    code = "import sys; from fastbp.cli import main; sys.exit(main(['predict', 'data-model.npz', 'data.csv']))"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=closed,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(place)},
            timeout=120,
        )
    assert (done.returncode, done.stderr) == (0, b"")


# ---- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "kin"], "--target: expected a column of data.csv .* got 'kin'; did you mean 'kind'?"),
        (["--target", "kind", "--ignore", "size"], "--ignore: expected a column .* got 'size'"),
        (["--target", "kind", "--ignore", "kind"], "--ignore: 'kind' is the target, expected another column"),
        (["--target", "kind", "--categorical", "a"], "--categorical: expected a column"),
        (
            ["--target", "kind", "--model", "m.pt"],
            r"--model: expected a name that ends in .npz or .safetensors, got 'm.pt'",
        ),
        (["--target", "kind", "--model", "no/m.npz"], "--model: there is no directory 'no'"),
        (["--target", "kind", "--picture", "data.csv"], "--picture: 'data.csv' is the data"),
    ],
)
def test_arguments_that_do_not_fit_end_with_2(
    arguments: list[str], message: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(data.parent.iterdir())
    assert run("train", "data.csv", *arguments) == 2
    assert re.match(f"fastbp train: error: {message}", error_of(capsys))
    assert set(data.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --target"),
        (["--target", "kind", "--epochs", "0"], "argument --epochs: expected a whole number >= 1, got '0'"),
        (["--target", "kind", "--epochs", "x"], "argument --epochs: expected a whole number >= 1, got 'x'"),
        (["--target", "kind", "--lr", "nan"], "argument --lr: expected a number above 0, got 'nan'"),
        (["--target", "kind", "--validation", "1"], "argument --validation: expected a share of the rows"),
        (["--target", "kind", "--hidden", "64,-1"], "argument --hidden: expected whole numbers such as 64,64"),
        (["--target", "kind", "--delimiter", "::"], "argument --delimiter: expected one character"),
        (["--target", "kind", "--threads", "65"], "argument --threads: expected a whole number from 1 to 64, got '65'"),
        (["--target", "kind", "--task", "both"], "argument --task: invalid choice: 'both'"),
    ],
)
def test_options_that_cannot_be_read_end_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        run("train", "data.csv", *arguments)
    assert error.value.code == 2
    assert error_of(capsys).startswith(f"fastbp train: error: {message}")


def test_a_file_that_is_not_there_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.csv"
    assert run("train", missing, "--target", "a", "--no-picture") == 2
    assert error_of(capsys) == f"fastbp train: error: {missing}: No such file or directory"
    assert run("predict", tmp_path / "none.npz", missing) == 2
    assert error_of(capsys).endswith("none.npz: No such file or directory")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " is empty"),
        ("a,b\n", " has no rows"),
        ("a,b\n1,2\n3\n", "line 3 of .* has 1 fields, expected 2 as in the first line"),
        ("a,a\n1,2\n", " has two columns 'a', expected names that differ"),
        ("1,2\n3,4\n", "has numbers .'1', ...., expected the names of the columns; with --no-header"),
        ("a,b\n1,x\n2,y\n", "has 2 rows with a target, expected 10 or more"),
        ("a,b\n" + "1,x\n" * 20, "the target 'b' of .* is always 'x', expected two values or more"),
        ("a,b\n" + "1,x\n1,y\n" * 20, "has no column to predict 'b' from .'a': one value only"),
        ("a,b\n" + "1,x\ninf,y\n" * 20, r"column 'a' of .* has inf \(row 2\), expected finite numbers"),
        ("a,b\n" + "1e300,x\n-1e300,y\n" * 20, "column 'a' of .* has numbers as large as 1e.300, too large to scale"),
    ],
)
def test_tables_that_cannot_be_used_end_with_1(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.csv"
    data.write_text(text)
    assert run("train", data, "--target", "b" if "b" in text else "a", "--no-picture") == 1
    assert re.search(message, error_of(capsys))
    assert not (tmp_path / "data-model.npz").exists()


def test_words_are_no_target_of_a_regression(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "data.csv", "--target", "kind", "--task", "regression", "--no-picture") == 1
    assert re.search("the target 'kind' of data.csv has '(tall|short)', expected numbers", error_of(capsys))


def test_predictions_of_another_table_are_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", data, "--target", "price", "--ignore", "kind", "--epochs", "1", "--no-picture") == 0
    capsys.readouterr()
    other = write_csv(data.with_name("other.csv"), [{"height": 1.0, "size": 2.0}])
    assert run("predict", "data-model.npz", other) == 1
    line = error_of(capsys)
    assert "lacks 'weight', 'colour' that the model reads: its columns are 'height', 'size'" in line
    table = rows(3)
    table[1]["height"] = "high"
    assert run("predict", "data-model.npz", write_csv(other, table)) == 1
    assert "column 'height' of " in (line := error_of(capsys))
    assert "has 'high' (row 2), expected numbers as in training" in line
    assert run("predict", "data-model.npz", data, "--probabilities") == 2
    assert "--probabilities: expected a model of classes, got one of values ('price')" in error_of(capsys)
    assert run("predict", "data-model.npz", data, "--output", "a.xls") == 2
    assert "--output: expected a name that ends in one of .csv, .tsv, .npz, got 'a.xls'" in error_of(capsys)


def test_other_models_are_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fastbp.MLP([2, 3], seed=0).save("net.npz")
    assert run("predict", "net.npz", data) == 1
    assert "net.npz does not say how it reads a table" in error_of(capsys)
    Path("text.npz").write_text("no model")
    assert run("predict", "text.npz", data) == 1
    assert "text.npz is damaged" in error_of(capsys)


NUMBER = {"kind": "number", "name": "a", "mean": 0.0, "scale": 1.0, "has_missing": False}
CATEGORY = {"kind": "category", "name": "b", "categories": ["x", "y"], "has_missing": False, "has_others": True}
TARGET = {"name": "t", "task": "classification", "classes": ["u", "v"], "mean": 0.0, "scale": 1.0}
GOOD: dict[str, Any] = {"version": 1, "inputs": [NUMBER, CATEGORY], "target": TARGET}


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {},
        GOOD | {"version": 2},
        GOOD | {"inputs": []},
        GOOD | {"inputs": [NUMBER]},  # fits not the network
        GOOD | {"inputs": [NUMBER | {"scale": 0.0}, CATEGORY]},
        GOOD | {"inputs": [NUMBER | {"mean": "0"}, CATEGORY]},
        GOOD | {"inputs": [NUMBER | {"has_missing": 1}, CATEGORY]},
        GOOD | {"inputs": [NUMBER | {"more": 1}, CATEGORY]},
        GOOD | {"inputs": [NUMBER, CATEGORY | {"categories": ["x", "x"]}]},
        GOOD | {"inputs": [NUMBER, CATEGORY | {"categories": [1, 2]}]},
        GOOD | {"inputs": [NUMBER, CATEGORY | {"kind": "date"}]},
        GOOD | {"inputs": ["a", "b"]},
        GOOD | {"target": TARGET | {"classes": ["u", 1]}},
        GOOD | {"target": TARGET | {"classes": ["u"]}},
        GOOD | {"target": TARGET | {"task": "regression"}},
        GOOD | {"target": TARGET | {"task": "ranking"}},
        GOOD | {"target": None},
    ],
)
def test_entries_that_do_not_fit_are_refused(entry: Any, tmp_path: Path) -> None:
    net = fastbp.MLP([4, 2], seed=0, classes=["u", "v"])
    saving.write(net, tmp_path / "good.npz", {"table": json.dumps(GOOD)})
    assert _tabular.load(tmp_path / "good.npz")[1].to_data() == GOOD
    saving.write(net, tmp_path / "bad.npz", {"table": json.dumps(entry)})
    with pytest.raises(ValueError, match=r"bad\.npz holds no model of a table that can be read"):
        _tabular.load(tmp_path / "bad.npz")


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".txt", "|"), (".tsv", "\t")])
def test_text_is_read_whatever_cuts_it(suffix: str, delimiter: str, tmp_path: Path) -> None:
    table = [{"a": 1.5, "b": 'x "y"', "c d": "ü, \n;"}, {"a": -2.0, "b": "z", "c d": ""}]
    found = _tables.read_table(write_csv(tmp_path / f"t{suffix}", table, delimiter))
    assert list(found.columns) == ["a", "b", "c d"] and found.rows == 2
    assert found.columns["a"].tolist() == [1.5, -2.0]
    assert found.columns["b"].tolist() == ['x "y"', "z"]
    assert found.columns["c d"].tolist() == ["ü, \n;", None]


def test_compressed_text_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress("\ufeffa,b\r\n1,x\r\n\r\n2,y\r\n".encode()))
    found = _tables.read_table(path)
    assert found.columns["a"].tolist() == [1, 2] and found.columns["b"].tolist() == ["x", "y"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"t\.csv\.gz is damaged or no text"):
        _tables.read_table(path)


def test_a_column_that_turns_into_text_late_keeps_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tables, "CHUNK", 2)
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n01,x,1\n2.50,y,2\n3,z,\nA4,NA,None\n-,v,5\n")
    found = _tables.read_table(path)
    assert found.columns["a"].tolist() == ["01", "2.50", "3", "A4", "-"]
    assert found.columns["b"].tolist() == ["x", "y", "z", None, "v"]
    assert np.array_equal(found.columns["c"], [1, 2, np.nan, np.nan, 5], equal_nan=True)
    assert _tables.read_table(path, text=["c"]).columns["c"].tolist() == ["1", "2", None, "None", "5"]


def test_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("größe,b\n1,2\n".encode("cp1252"))
    with pytest.raises(
        ValueError, match=r"is not in UTF-8 .*: convert it, for example: iconv -f cp1252 -t utf-8 t\.csv"
    ):
        _tables.read_table(path)


def test_arrays_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, x=np.arange(12).reshape(3, 2, 2), y=np.array(["a", "", "c"]), z=np.array([True, False, True]))
    found = _tables.read_table(path)
    assert list(found.columns) == ["x_0", "x_1", "x_2", "x_3", "y", "z"]
    assert found.columns["x_3"].tolist() == [3, 7, 11]
    assert found.columns["y"].tolist() == ["a", None, "c"]
    assert found.columns["z"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones(3), "y": np.ones(4)}, r"the array 'y' of .* has 4 rows, expected 3 as 'x' has"),
        ({"x": np.float64(3)}, r"the array 'x' of .* is float64 of shape \(\), expected numbers or strings"),
        ({"x": np.ones(3, complex)}, "the array 'x' of .* is complex128"),
        ({"x": np.array([{}, {}])}, r"is damaged or no .npz file of plain arrays: Object arrays cannot be loaded"),
        ({"x_0": np.ones(2), "x": np.ones((2, 2))}, "has two columns 'x_0': 'x' has more than one column"),
        ({}, "has no rows"),
    ],
)
def test_arrays_that_are_no_table_are_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        _tables.read_table(tmp_path / "t.npz")


def test_archives_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"is damaged or no \.npz file"):
        _tables.read_table(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY no header")
    with pytest.raises(ValueError, match=r"is damaged or no \.npz file"):
        _tables.read_table(path)
    with pytest.raises(ValueError, match=r"has the suffix '.xls', expected one of .csv, .tsv"):
        _tables.read_table(tmp_path / "t.xls")


def test_parquet_is_read_by_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame itself comes from here: whether pandas has a reader of parquet is its own affair."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    columns = {
        "a": pandas.array([1, None, 3], dtype="Int64"),
        "b": ["x", None, "z"],
        "c": pandas.Categorical(["u", "v", "u"]),
        "d": [True, False, True],
        "e": np.array([1.5, np.nan, 2], np.float32),
    }
    frame = pandas.DataFrame(columns)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(pandas, "read_parquet", lambda path: frame)
    found = _tables.read_table(tmp_path / "t.parquet").columns
    assert np.array_equal(found["a"], [1, np.nan, 3], equal_nan=True)
    assert found["b"].tolist() == ["x", None, "z"]
    assert found["c"].tolist() == ["u", "v", "u"]
    assert found["d"].tolist() == [1, 0, 1]
    assert np.array_equal(found["e"], [1.5, np.nan, 2], equal_nan=True)


def test_without_pandas_parquet_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"needs pandas and pyarrow \(pip install pandas pyarrow\)"):
        _tables.read_table(tmp_path / "t.parquet")


# ---- columns ---------------------------------------------------------------------------------------------------------


def table_of(**columns: Any) -> _tables.Table:
    made = {n: np.array(c, object if any(isinstance(v, str) for v in c) else float) for n, c in columns.items()}
    return _tables.Table("t.csv", made)


def test_numbers_are_standardised_by_the_training_rows() -> None:
    table = table_of(a=[1.0, 3.0, np.nan, 100.0], t=[0, 1, 0, 1])
    target, _ = _columns.target_of(table, "t", None)
    encoding, _ = _columns.encoding_of(table, np.array([0, 1, 2]), target, ["a"])
    assert encoding.inputs == (_columns.Number("a", 2.0, 1.0, True),)
    assert encoding.encode(table).tolist() == [[-1, 0], [1, 0], [0, 1], [98, 0]]


def test_words_have_an_input_each() -> None:
    table = table_of(a=["y", "x", "y", None, "z"], t=[0, 1, 0, 1, 0])
    target, _ = _columns.target_of(table, "t", None)
    encoding, _ = _columns.encoding_of(table, np.arange(4), target, ["a"])
    assert encoding.inputs == (_columns.Category("a", ("x", "y"), True, False),)
    # A word that training never saw is none of them.
    assert encoding.encode(table).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_rare_words_share_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_columns, "MAX_CATEGORIES", 2)
    table = table_of(a=["c", "b", "a", "b", "c", "d"], t=[0, 1, 0, 1, 0, 1])
    target, _ = _columns.target_of(table, "t", None)
    encoding, _ = _columns.encoding_of(table, np.arange(6), target, ["a"])
    assert encoding.inputs == (_columns.Category("a", ("b", "c"), False, True),)
    assert encoding.encode(table_of(a=["b", "new", "c", None])).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_words_that_occur_once_share_an_input_among_many() -> None:
    words = [f"w{i // 2}" for i in range(40)] + ["once", "single"]
    table = table_of(a=words, t=[i % 2 for i in range(42)])
    target, _ = _columns.target_of(table, "t", None)
    encoding, _ = _columns.encoding_of(table, np.arange(42), target, ["a"])
    (column,) = encoding.inputs
    assert isinstance(column, _columns.Category) and column.has_others
    assert set(column.categories) == {f"w{i}" for i in range(20)}
    assert encoding.encode(table_of(a=["once", "w0", "new"]))[:, -1].tolist() == [1, 0, 1]


def test_columns_that_say_nothing_are_left_out() -> None:
    n = 60
    table = table_of(
        id=list(range(7, 7 + n)),
        same=[3.0] * n,
        word=["x"] * n,
        name=[f"name {i}" for i in range(n)],
        empty=[np.nan] * n,
        x=list(range(n)),  # as such a good input
        t=[i % 2 for i in range(n)],
    )
    target, _ = _columns.target_of(table, "t", None)
    names = [name for name in table.columns if name != "t"]
    encoding, left_out = _columns.encoding_of(table, np.arange(n), target, names)
    assert [column.name for column in encoding.inputs] == ["x"]
    assert left_out == {
        "id": "numbers the rows",
        "same": "one value only",
        "word": "one value only",
        "name": "60 words that are all different",
        "empty": "no values",
    }
    text = _tabular.describe_columns(encoding, left_out)
    assert text.startswith("1 of numbers: 1 inputs; left out: 'id' (numbers the rows), 'same', 'word' (one value only)")


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([0, 1, 2] * 5, "classification", (0, 1, 2)),
        ([0.5, 1, 2] * 5, "regression", ()),
        (list(range(21)), "regression", ()),
        (["b", "a"] * 5, "classification", ("a", "b")),
    ],
)
def test_the_task_follows_from_the_target(values: list[Any], task: str, classes: tuple[Any, ...]) -> None:
    target, reason = _columns.target_of(table_of(t=values), "t", None)
    assert (target.task, target.classes) == (task, classes) and reason
    asked, _ = _columns.target_of(table_of(t=values), "t", "classification")
    assert len(asked.classes) == len(set(values))
    assert (asked.encode(table_of(t=values).columns["t"]) >= 0).all()


# ---- text for terminals ----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert _terminal.Style(Terminal())("red", "x") == "\x1b[31mx\x1b[0m"
    assert _terminal.Style(io.StringIO())("red", "x") == _terminal.Style(None)("red", "x") == "x"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert _terminal.Style(io.StringIO()).is_coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert not _terminal.Style(Terminal()).is_coloured
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not _terminal.Style(Terminal()).is_coloured


def test_tables_are_aligned_and_printable() -> None:
    lines = _terminal.aligned([("name", "n"), ("日本", "10"), ("a\x1b[31m", "7"), ("e\u0301", "1")], "lr")
    assert lines == ["name        n", "日本       10", "a\\x1b[31m   7", "e\u0301           1"]


def test_a_terminal_gets_an_aligned_table(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", data, "--target", "kind", "--epochs", "2", "--no-picture", "--quiet") == 0
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("NO_COLOR", "1")
    assert run("predict", "data-model.npz", data) == 0
    head, *lines = screen.getvalue().splitlines()
    assert head.split() == ["row", "kind"] and len(lines) == ROWS
    assert {len(line) for line in [head, *lines]} == {len(head)}
