"""Progress: when something is shown, where, and in which form; with a clock and a stream of the tests' own."""

from __future__ import annotations

import importlib.util
import io
import sys

import numpy as np
import pytest

from fastbp.training import progress


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def without_tqdm(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tqdm" else find_spec(name))
    monkeypatch.setitem(sys.modules, "tqdm", None)  # an import of it fails


@pytest.fixture
def with_tqdm():
    pytest.importorskip("tqdm", reason="tqdm is not installed")


def run(option, *, terminal, seconds, epochs=None, val_loss=None):
    """What a training of so many epochs, each of so many seconds, writes."""
    stream, clock = Stream(terminal), Clock()
    reporter = progress.make(option, epochs or len(seconds), stream=stream, clock=clock)
    for index, duration in enumerate(seconds):
        clock.now += duration
        reporter.epoch(index, 1 / (index + 1), val_loss)
    reporter.close()
    reporter.close()
    return stream.getvalue()


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_auto_is_silent_for_two_seconds_and_then_writes_a_line_every_five():
    text = run("auto", terminal=False, seconds=[1.0] * 14)
    assert text.splitlines() == [
        "epoch 2/14  loss 0.5  2.0 s",
        "epoch 7/14  loss 0.142857  7.0 s",
        "epoch 12/14  loss 0.0833333  12.0 s",
        "epoch 14/14  loss 0.0714286  14.0 s",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_auto_says_nothing_of_a_short_training(terminal):
    assert run("auto", terminal=terminal, seconds=[0.01] * 150) == ""


@pytest.mark.parametrize("option", [True, "lines"])
def test_true_and_lines_start_at_once_and_end_with_the_last_epoch(option):
    text = run(option, terminal=False, seconds=[0.001] * 1000)
    assert text.splitlines() == ["epoch 1/1000  loss 1  0.0 s", "epoch 1000/1000  loss 0.001  1.0 s"]


def test_the_last_epoch_is_written_once_and_also_where_training_stops_early():
    assert run("lines", terminal=False, seconds=[6.0, 6.0]).count("\n") == 2
    text = run("lines", terminal=False, seconds=[1.0] * 3, epochs=10)
    assert text.splitlines() == ["epoch 1/10  loss 1  1.0 s", "epoch 3/10  loss 0.333333  3.0 s"]


def test_lines_show_the_validation_loss():
    text = run("lines", terminal=False, seconds=[1.0], val_loss=0.25)
    assert text == "epoch 1/1  loss 1  val_loss 0.25  1.0 s\n"


def test_a_training_that_ends_before_its_first_epoch_writes_nothing():
    assert run("lines", terminal=False, seconds=[], epochs=3) == ""


@pytest.mark.parametrize("option", ["auto", True])
def test_a_terminal_without_tqdm_gets_lines(option, without_tqdm):
    assert run(option, terminal=True, seconds=[3.0]) == "epoch 1/1  loss 1  3.0 s\n"


def test_lines_can_be_had_on_a_terminal():
    assert run("lines", terminal=True, seconds=[1.0]) == "epoch 1/1  loss 1  1.0 s\n"


# ---- the bar ---------------------------------------------------------------------------------------------------------


def test_auto_shows_a_bar_on_a_terminal_after_two_seconds(with_tqdm):
    stream, clock = Stream(True), Clock()
    reporter = progress.make("auto", 4, stream=stream, clock=clock)
    clock.now += 1.9
    reporter.epoch(0, 1.0)
    assert stream.getvalue() == ""
    clock.now += 0.2
    reporter.epoch(1, 0.5, 0.75)
    reporter.epoch(2, 0.25, 0.5)
    reporter.close()
    text = stream.getvalue()
    last = text.split("\r")[-1]
    assert "3/4" in last
    assert "loss=0.25, val_loss=0.5" in last
    reporter.epoch(3, 0.1)  # too late: no second bar
    assert stream.getvalue() == text


@pytest.mark.parametrize(("option", "terminal"), [(True, True), ("bar", True), ("bar", False)])
def test_the_bar_can_be_had_from_the_start(option, terminal, with_tqdm):
    stream = Stream(terminal)
    reporter = progress.make(option, 4, stream=stream, clock=Clock())
    assert "0/4" in stream.getvalue()
    reporter.close()


def test_the_rate_counts_the_epochs_before_the_bar(with_tqdm):
    stream, clock = Stream(True), Clock()
    reporter = progress.make("auto", 100, stream=stream, clock=clock)
    for index in range(50):
        clock.now += 0.5
        if index < 49:
            continue  # a first look after 25 seconds
        reporter.epoch(index, 1.0)
    reporter.close()
    assert "00:25<" in stream.getvalue().split("\r")[-1]


def test_a_bar_without_tqdm_names_the_extra(without_tqdm):
    with pytest.raises(ImportError, match=r'^progress="bar" needs tqdm: pip install "fastbp\[demo\]"$'):
        progress.make("bar", 3)


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_false_is_silent(terminal):
    assert run(False, terminal=terminal, seconds=[100.0] * 3) == ""


@pytest.mark.parametrize("option", ["yes", "", "Auto", None, 1, 0, 2.0, ["auto"]])
def test_unknown_options_raise_and_list_the_known_ones(option):
    with pytest.raises(
        ValueError, match=r"^progress must be one of 'auto', True, False, 'bar', 'lines', got"
    ) as caught:
        progress.make(option, 3)
    assert str(caught.value).endswith(f"got {option!r}")


def test_standard_error_is_the_default(capsys):
    reporter = progress.make("lines", 1)
    reporter.epoch(0, 0.5)
    reporter.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("epoch 1/1  loss 0.5  ")


def test_a_program_without_standard_error_gets_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    reporter = progress.make(True, 1)
    reporter.epoch(0, 0.5)
    reporter.close()


# ---- within an epoch -------------------------------------------------------------------------------------------------


def test_lines_within_an_epoch_say_rows_loss_and_what_is_left():
    stream, clock = Stream(False), Clock()
    reporter = progress.make("auto", 4, stream=stream, clock=clock)
    for done in range(1000, 5000, 1000):
        clock.now += 3.0
        reporter.rows(1, done, 5000, 1 / done)
    reporter.rows(2, 70, None, 0.5)
    clock.now += 9.0
    reporter.rows(2, 90, None, 0.5)
    assert stream.getvalue().splitlines() == [
        "epoch 2/4  rows 1000/5000  loss 0.001  3.0 s, about 7 s left",
        "epoch 2/4  rows 3000/5000  loss 0.000333333  9.0 s, about 14 s left",
        "epoch 3/4  rows 90  loss 0.5  21.0 s",
    ]
    reporter.epoch(2, 0.25)
    reporter.close()
    assert stream.getvalue().splitlines()[-1] == "epoch 3/4  loss 0.25  21.0 s"


def test_the_bar_moves_within_an_epoch(with_tqdm):
    stream, clock = Stream(True), Clock()
    reporter = progress.make("bar", 4, stream=stream, clock=clock)
    reporter.rows(1, 10, 100, 0.5)
    assert "rows=" not in stream.getvalue()  # not a tenth of a second since it was drawn
    clock.now += 0.2
    reporter.rows(1, 25, 100, 0.5)
    last = stream.getvalue().split("\r")[-1]
    assert " 1.25/4 " in last and "rows=25/100, loss=0.5" in last and " 31%" in last
    reporter.epoch(1, 0.25)
    clock.now += 0.2
    reporter.rows(2, 50, None, 0.125)
    last = stream.getvalue().split("\r")[-1]
    assert " 2/4 " in last and "rows=50, loss=0.125" in last
    reporter.close()


def test_auto_shows_no_bar_within_the_first_two_seconds(with_tqdm):
    stream, clock = Stream(True), Clock()
    reporter = progress.make("auto", 4, stream=stream, clock=clock)
    clock.now += 1.5
    reporter.rows(0, 10, 100, 0.5)
    assert stream.getvalue() == ""
    clock.now += 1.0
    reporter.rows(0, 20, 100, 0.5)
    assert "0.2/4" in stream.getvalue()
    reporter.close()


def test_numpys_bools_are_pythons(capsys):
    assert isinstance(progress.make(np.False_, 3), progress.Silent)
    assert isinstance(progress.make(np.True_, 3, stream=Stream(False)), progress.Lines)
    with pytest.raises(ValueError, match="progress must be one of"):
        progress.make(np.int64(1), 3)


class Watching:
    """A reporter that writes down what it is told."""

    looks_within = True

    def __init__(self):
        self.told = []

    def rows(self, index, done, total, loss):
        self.told.append((index, done, total, loss))

    def epoch(self, index, loss, val_loss=None, *, val_score=None):
        self.told.append((index, loss))

    def close(self):
        pass


@pytest.mark.parametrize("form", ["arrays", "shuffled", "fraction", "batches"])
def test_train_reports_within_long_epochs_and_changes_no_bit(form, monkeypatch):
    """By a clock of the test's own, on which a batch takes 0.2 s."""
    import fastbp
    from fastbp.training import _loop

    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(200, 4)), rng.integers(0, 3, 200)
    data = (x, t) if form != "batches" else ([(x[i : i + 10], t[i : i + 10]) for i in range(0, 200, 10)],)
    options = {"shuffle": form != "arrays", "validation_fraction": 0.25 if form == "fraction" else 0.0}
    if form == "batches":
        options = {}
    results, steps = [], _loop.Run._steps_in_engine
    for reporter in (progress.Silent(), Watching()):
        monkeypatch.setattr(_loop.reporting, "make", lambda *_, reporter=reporter: reporter)
        monkeypatch.setattr(_loop, "SLOW", 6 * 4 * 3 * 10 * 2)  # a first guess of two batches
        net = fastbp.MLP([4, 5, 3], dtype="float64", seed=0)
        now = [0.0]

        def slow(self, piece, now=now):
            now[0] += 0.2 * piece.count
            return steps(self, piece)

        monkeypatch.setattr(_loop.Run, "_steps_in_engine", slow)
        monkeypatch.setattr(_loop.time, "perf_counter", lambda now=now: now[0])
        history = fastbp.train(net, *data, optimizer=fastbp.Adam(), epochs=2, batch_size=10, **options)
        results.append((history.loss, net.flat_parameters.tolist()))
    assert results[0] == results[1]
    rows = [told for told in reporter.told if len(told) == 4]
    count, batches = (150, 15) if form == "fraction" else (200, 20)
    assert {told[2] for told in rows} == {None if form == "batches" else count}
    assert len(rows) > batches // 4 and all(0 < told[1] <= count for told in rows)
    first = [told[1] for told in rows if told[0] == 0]
    assert first == sorted(first)
    assert rows[0][3] != rows[-1][3]


def test_an_epoch_that_is_short_stays_one_call(monkeypatch):
    import fastbp
    from fastbp.training.data import Rows

    counts, piece = [], Rows.piece
    monkeypatch.setattr(Rows, "piece", lambda self, count: (made := piece(self, count), counts.append(made.count))[0])
    x, t = np.ones((300, 4), np.float32), np.zeros(300, int)
    fastbp.train(fastbp.MLP([4, 8, 3], seed=0), x, t, optimizer=fastbp.SGD(), epochs=3, batch_size=10, progress="lines")
    assert counts == [30, 30, 30]


def test_steps_in_python_are_reported_from_the_first_on(monkeypatch):
    """By a clock of the test's own, on which a batch takes 0.2 s: looks are at most half a second apart."""
    import fastbp
    from fastbp.training import _loop

    now, reporter = [0.0], Watching()

    class Slow(fastbp.Tanh):
        kind = None

        def forward(self, x):
            now[0] += 0.2
            return super().forward(x)

    monkeypatch.setattr(_loop.reporting, "make", lambda *_: reporter)
    monkeypatch.setattr(_loop.time, "perf_counter", lambda: now[0])
    net = fastbp.Network(fastbp.Linear(4, 3), Slow(), loss="softmax_nll", seed=0)
    x, t = np.ones((200, 4), np.float32), np.zeros(200, int)
    fastbp.train(net, x, t, optimizer=fastbp.SGD(), epochs=1, batch_size=10)
    assert [told[1] for told in reporter.told if len(told) == 4] == list(range(10, 200, 20))


def test_a_first_guess_counts_the_cost_of_a_step(monkeypatch):
    """With 2 µs for each of its steps an epoch of 300 takes longer than the 0.1 ms of this test's patience."""
    import fastbp
    from fastbp.training import _loop
    from fastbp.training.data import Rows

    counts, piece = [], Rows.piece
    monkeypatch.setattr(Rows, "piece", lambda self, count: (made := piece(self, count), counts.append(made.count))[0])
    monkeypatch.setattr(_loop, "WATCH", 1e-4)
    x, t = np.ones((300, 4), np.float32), np.zeros((300, 1), np.float32)
    net = fastbp.MLP([4, 1], loss="mse", seed=0)
    fastbp.train(net, x, t, optimizer=fastbp.SGD(), epochs=1, batch_size=1, progress="lines")
    assert 40 <= counts[0] <= 50 and sum(counts) == 300


# ---- after a resume --------------------------------------------------------------------------------------------------


def test_lines_after_a_resume_divide_by_the_share_of_this_call():
    stream, clock = Stream(False), Clock()
    reporter = progress.make("lines", 10, 8.5, stream=stream, clock=clock)
    clock.now += 4.0
    reporter.rows(8, 75, 100, 0.5)  # a quarter of an epoch in 4 s: five quarters are left
    assert stream.getvalue() == "epoch 9/10  rows 75/100  loss 0.5  4.0 s, about 20 s left\n"


def test_the_bar_after_a_resume_begins_where_the_run_was(with_tqdm):
    stream, clock = Stream(True), Clock()
    reporter = progress.make("auto", 100, 50.0, stream=stream, clock=clock)
    clock.now += 25.0
    reporter.epoch(74, 1.0)  # 25 epochs in 25 s: 25 are left
    reporter.close()
    assert "75/100 [00:25<00:2" in stream.getvalue().split("\r")[-1]


def test_train_tells_where_a_resumed_run_begins(monkeypatch, tmp_path):
    import fastbp
    from fastbp.training import _loop

    begun = []
    monkeypatch.setattr(
        _loop.reporting, "make", lambda option, epochs, begun_at: (progress.Silent(), begun.append(begun_at))[0]
    )
    x, t = np.ones((50, 4), np.float32), np.zeros(50, int)
    batches = [(x[:20], t[:20]), (x[20:], t[20:])]
    for name, data, steps, expected in (
        ("rows", (x, t), 4, 1 + 20 / 50),
        ("epochs", (x, t), 6, 2.0),
        ("batches", (batches,), 3, 1.0),
    ):
        for most in (steps, steps + 1):
            net, path = fastbp.MLP([4, 3], seed=0), tmp_path / f"{name}.ckpt"
            options = {"epochs": 9, "max_steps": most, "checkpoint": path, "resume": True}
            fastbp.train(net, *data, optimizer=fastbp.SGD(), batch_size=20, **options)
        assert begun[-2:] == [0.0, expected]
