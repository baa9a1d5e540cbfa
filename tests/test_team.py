"""The team of threads: the same bits for any number of threads, and good manners.

Workers cannot be told what to do, so what they may do wrong is provoked: more threads than processors, busy processors,
starved workers, forks at bad moments. Scripts that fork, limit memory or end in the midst of things run in processes of
their own.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from processes import output, run

import fastbp
from fastbp._runtime import team

MANY = (2, 3, 5, 8)  # threads: some more than this machine has processors

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


Prepare = Callable[..., Callable[[], Any]]


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def same_for_all(compute: Callable[[], Any]) -> None:
    """What compute returns has the same bits for every number of threads."""
    with fastbp.threads(1):
        expected = compute()
    for n in MANY:
        with fastbp.threads(n):
            assert_same_bits(compute(), expected)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = fastbp.get_num_threads()
    yield
    fastbp.set_num_threads(before)


# ---- the same answer -------------------------------------------------------------------------------------------------

SHAPES = [
    (1, 1, 1),
    (1, 700, 900),
    (5, 1100, 613),
    (700, 3, 901),
    (31, 2049, 65),
    (100, 1000, 10),
    (255, 513, 127),
    (385, 129, 1030),
    (600, 600, 600),
    (209, 12288, 20),  # thin ones, in forms of their own
    (3, 40, 30000),
    (30000, 40, 7),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m, k, n", SHAPES)
def test_products_have_the_same_bits(m: int, k: int, n: int, dtype: Any, rng: np.random.Generator) -> None:
    for a_turned, b_turned, out_turned in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 0, 1)]:
        a = rng.standard_normal((k, m) if a_turned else (m, k)).astype(dtype)
        b = rng.standard_normal((n, k) if b_turned else (k, n)).astype(dtype)
        a, b = a.T if a_turned else a, b.T if b_turned else b

        def compute(a: Any = a, b: Any = b, turned: int = out_turned) -> Any:
            out = np.full((n, m) if turned else (m, n), np.nan, dtype)
            return fastbp.matmul(a, b, out=out.T if turned else out)

        same_for_all(compute)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_have_the_same_bits(dtype: Any, rng: np.random.Generator) -> None:
    x, w, dy = (rng.standard_normal(shape).astype(dtype) for shape in [(301, 257), (257, 403), (301, 403)])
    b = rng.standard_normal(403).astype(dtype)
    z = rng.standard_normal((1500, 333)).astype(dtype)
    labels = rng.integers(0, 333, 1500)
    inside = rng.random((1500, 333)).astype(dtype)
    same_for_all(lambda: fastbp.linear(x, w, b))
    same_for_all(lambda: fastbp.linear_backward(dy, x, w))
    same_for_all(lambda: fastbp.matmul_backward(dy, x, w))
    same_for_all(lambda: fastbp.softmax(z))
    same_for_all(lambda: fastbp.softmax(z.T))
    same_for_all(lambda: fastbp.tanh_backward(z, inside[::-1]))
    same_for_all(lambda: fastbp.softmax_nll(z, labels))
    same_for_all(lambda: fastbp.sigmoid_nll(z, inside))
    same_for_all(lambda: fastbp.mse(z, inside, reduction="none"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", sorted(fastbp.reference.ACTIVATIONS))
def test_gradients_and_training_have_the_same_bits(hidden: str, dtype: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((203, 150)).astype(dtype)
    t = rng.integers(0, 11, 203)

    def compute() -> tuple[Any, ...]:
        net = fastbp.MLP([150, 301, 77, 11], hidden=hidden, dtype=dtype, seed=3)
        loss, grads = net.value_and_grad(x, t)
        first = grads.flat.copy()
        dx = net.backward(np.ones_like(net.forward(x))).copy()
        fastbp.train(net, x, t, optimizer=fastbp.Adam(lr=1e-3), epochs=1, batch_size=64, progress=False, seed=1)
        fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=1e-2, momentum=0.9), epochs=1, batch_size=203, progress=False)
        return np.float64(loss), first, dx, net.flat_parameters.copy()

    same_for_all(compute)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 5, 6, 13, 25, 37, 74, 97])
def test_blocks_of_few_rows_have_the_same_bits(rows: int, dtype: str, rng: np.random.Generator) -> None:
    """One row alone and one of several are summed in different orders, where there is one output."""
    net = fastbp.MLP([90, 160, 120, 1], dtype=dtype, loss="mse", seed=1)
    x, t = rng.standard_normal((rows, 90)).astype(dtype), rng.standard_normal((rows, 1)).astype(dtype)

    def compute() -> tuple[Any, ...]:
        loss, grads = net.value_and_grad(x, t)
        return np.float64(loss), grads.flat.copy(), net.forward(x).copy()

    same_for_all(compute)


def test_workers_take_over_the_callers_rounding(rng: np.random.Generator) -> None:
    """Otherwise the bits would depend on which thread computes a tile."""
    upward = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())  # FE_UPWARD
    library = ctypes.util.find_library("m")
    if upward is None or library is None:
        pytest.skip("fesetround is not known here")
    libm = ctypes.CDLL(library)
    a, b = rng.standard_normal((2, 500, 500), dtype=np.float32)
    nearest = fastbp.matmul(a, b)
    assert libm.fegetround() == 0
    libm.fesetround(upward)
    try:
        results = []
        for n in (1, *MANY):
            with fastbp.threads(n):
                results.extend(fastbp.matmul(a, b) for _ in range(5))
        assert libm.fegetround() == upward
    finally:
        libm.fesetround(0)
    for result in results:
        assert_same_bits(result, results[0])
    assert (results[0] != nearest).any()
    assert_same_bits(fastbp.matmul(a, b), nearest)


# ---- many callers ----------------------------------------------------------------------------------------------------


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Run work(0), ..., work(count - 1) at once; raise what any of them raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def body(index: int) -> None:
        try:
            start.wait()
            work(index)
        except BaseException as error:
            errors.append(error)

    all_of_them = [threading.Thread(target=body, args=(index,)) for index in range(count)]
    for thread in all_of_them:
        thread.start()
    for thread in all_of_them:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.serial
@pytest.mark.parametrize("n_threads", [2, 8])
def test_many_python_threads_at_once(n_threads: int, rng: np.random.Generator) -> None:
    """One caller has the team, the others run alone; phases of all lengths follow each other."""
    fastbp.set_num_threads(n_threads)
    jobs = []
    for m, k, n in [(64, 100, 80), (200, 300, 100), (33, 1500, 40), (400, 64, 333)]:
        a, b = rng.standard_normal((m, k), dtype=np.float32), rng.standard_normal((k, n), dtype=np.float32)
        with fastbp.threads(1):
            jobs.append((a, b, fastbp.matmul(a, b)))
    x, t = rng.standard_normal((150, 100), dtype=np.float32), rng.integers(0, 10, 150)
    nets = [fastbp.MLP([100, 128, 10], seed=0) for _ in range(6)]
    with fastbp.threads(1):
        expected = fastbp.MLP([100, 128, 10], seed=0).value_and_grad(x, t)[1].flat.copy()
    end = time.monotonic() + 1.5

    def work(index: int) -> None:
        while time.monotonic() < end:
            for a, b, c in jobs:
                assert_same_bits(fastbp.matmul(a, b), c)
            assert_same_bits(nets[index].value_and_grad(x, t)[1].flat, expected)

    in_threads(work, 6)


@pytest.mark.serial
def test_one_network_in_two_threads_raises() -> None:
    x, t = np.zeros((3000, 500), np.float32), np.zeros(3000, int)
    net = fastbp.MLP([500, 500, 10], seed=0)
    refused = []

    def work(_: int) -> None:
        for _ in range(5):
            try:
                net.value_and_grad(x, t)
            except RuntimeError as error:
                refused.append(str(error))

    for _ in range(20):
        in_threads(work, 2)
        if refused:
            break
    assert refused and all("at work in another thread" in message for message in refused)
    assert np.isfinite(net.value_and_grad(x, t)[0])


def test_small_work_and_single_threads_start_no_worker() -> None:
    code = """
        import numpy as np, fastbp
        from fastbp._runtime import team
        fastbp.set_num_threads(4)
        net = fastbp.MLP([4, 64, 64, 2], seed=0)
        x = np.ones((1, 4), np.float32)
        for _ in range(100):
            net.value_and_grad(x, np.zeros(1, int))
            fastbp.softmax(x), fastbp.sigmoid(x), fastbp.matmul(x.T, x), fastbp.mse(x, x)
        with fastbp.threads(1):
            fastbp.matmul(np.ones((500, 500)), np.ones((500, 500)))
        before = team.started()
        fastbp.matmul(np.ones((500, 500)), np.ones((500, 500)))
        print(before, team.started())
    """
    assert output(code) == "0 3"


# ---- manners ---------------------------------------------------------------------------------------------------------


@pytest.mark.serial
def test_waiting_workers_sleep(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 400, 400), dtype=np.float32)
    fastbp.set_num_threads(8)
    idle = []
    for _ in range(3):
        fastbp.matmul(a, b)
        time.sleep(0.01)  # longer than any worker spins
        before = time.process_time()
        time.sleep(0.5)
        idle.append(time.process_time() - before)
        if idle[-1] < 0.01:
            return
    raise AssertionError(f"seconds of processor time in half a second of nothing: {idle}")


def long_product(times: int = 1) -> Callable[[], Any]:
    a, b = np.ones((2000 * times, 2000), np.float32), np.ones((2000, 2000), np.float32)
    out = np.empty_like(a)
    return lambda: fastbp.matmul(a, b, out=out)


def long_gradient(times: int = 1) -> Callable[[], Any]:
    net = fastbp.MLP([1000, 1000, 1000, 10], seed=0)
    x, t = np.ones((1000 * times, 1000), np.float32), np.zeros(1000 * times, int)
    return lambda: net.value_and_grad(x, t)


def long_epoch(times: int = 1) -> Callable[[], Any]:
    net = fastbp.MLP([300, 300, 10], seed=0)
    x, t = np.ones((5000 * times, 300), np.float32), np.zeros(5000 * times, int)
    optimizer = fastbp.SGD(lr=0.1)
    return lambda: fastbp.train(net, x, t, optimizer=optimizer, epochs=1, batch_size=100, progress=False)


def seconds_of(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def waited_for_a_processor(thread: threading.Thread) -> float:
    """Seconds that a thread was ready to run and did not, where the system tells. Waiting for the GIL is none of it."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/schedstat") as numbers:
            return int(numbers.read().split()[1]) * 1e-9
    except OSError:
        return 0.0


class Counter:
    """A Python thread that counts, and how fast it does while it has a processor or waits for the GIL."""

    def __init__(self) -> None:
        self.count = 0
        self.stop = False
        self.thread = threading.Thread(target=self.count_up)

    def count_up(self) -> None:
        while not self.stop:
            self.count += 1

    def speed(self, seconds: float, step: Callable[[], Any]) -> float:
        """Counts a second while `step` is called for so long."""
        begin, count, waited = time.perf_counter(), self.count, waited_for_a_processor(self.thread)
        while time.perf_counter() < begin + seconds:
            step()
        counted, elapsed = self.count - count, time.perf_counter() - begin
        return counted / (elapsed - (waited_for_a_processor(self.thread) - waited))

    def __enter__(self) -> Counter:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop = True
        self.thread.join()


def best_share(work: Callable[[], Any], tries: int) -> tuple[float, list[float]]:
    """Of many tries: other load on the machine can only spoil one."""
    shares: list[float] = []
    with Counter() as counter:
        while len(shares) < tries and max(shares, default=0) < 0.8:
            undisturbed = counter.speed(0.1, lambda: time.sleep(0.1))
            shares.append(counter.speed(0.15, work) / undisturbed)
    return max(shares), shares


@pytest.mark.serial
@pytest.mark.skipif(processors() < 2, reason="the counting thread needs a processor of its own")
@pytest.mark.parametrize("prepare", [long_product, long_gradient, long_epoch])
def test_a_counting_thread_keeps_its_speed(prepare: Prepare) -> None:
    """No GIL: at least 80 % of what it counts undisturbed."""
    work = prepare()
    with fastbp.threads(1):
        work()
        best, shares = best_share(work, tries=20)
    assert best >= 0.8, shares


@pytest.mark.serial
@pytest.mark.skipif(processors() < 2, reason="the counting thread needs a processor of its own")
def test_the_counting_thread_notices_the_gil() -> None:
    """The measure measured: work that keeps the GIL leaves a counting thread half of its speed at most."""
    assert best_share(lambda: sum(range(1_000_000)), tries=3)[0] < 0.75


@pytest.mark.serial
def test_results_are_right_on_busy_processors(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 300, 300), dtype=np.float32)
    with fastbp.threads(1):
        expected = fastbp.matmul(a, b)
    burn = f"import os\nwhile os.getppid() == {os.getpid()}: pass"  # no longer than this process lives
    others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(2)]
    try:
        for n in MANY:
            with fastbp.threads(n):
                for _ in range(40):
                    assert_same_bits(fastbp.matmul(a, b), expected)
    finally:
        for other in others:
            other.kill()
            other.wait()


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="the system does not say how often threads slept")
def test_a_sleeping_worker_is_woken_for_much_work_or_for_a_burst() -> None:
    """How often a worker has gone to sleep: by 20 small calls apart, 20 large ones, and 500 small ones in a row."""
    code = """
        import os, time
        import numpy as np, fastbp
        from fastbp._runtime import dispatch
        before = set(os.listdir("/proc/self/task"))
        fastbp.set_num_threads(2)
        rows = 100 if dispatch.supported()[0] != "baseline" else 25
        small = np.ones((rows, 200), np.float32), np.ones((200, 100), np.float32)
        large = np.ones((600, 600), np.float32), np.ones((600, 600), np.float32)
        fastbp.matmul(*large)
        (worker,) = set(os.listdir("/proc/self/task")) - before
        def sleeps():
            time.sleep(0.02)
            with open(f"/proc/self/task/{worker}/status") as lines:
                return next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
        counts = [sleeps()]
        for pair in (small, large):
            for _ in range(20):
                fastbp.matmul(*pair)
                time.sleep(0.005)
            counts.append(sleeps())
        for _ in range(500):
            fastbp.matmul(*small)
        counts.append(sleeps())
        print(*np.diff(counts))
    """
    apart, large, burst = map(int, output(code).split())
    assert apart == 0 and large >= 10 and burst >= 1


@pytest.mark.serial
@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE") or processors() < 2, reason="needs Linux and two processors")
def test_the_caller_does_not_wait_for_a_worker_that_has_taken_nothing() -> None:
    """Workers that hardly ever run: idle priority, on a processor that something else keeps busy.

    Were a phase to end only when all workers have seen it, each would take as long as such a worker sleeps: hundreds of
    times the work itself. (One that has taken a task is waited for; the median does not see that.)
    """
    code = """
        import os, subprocess, sys, time
        import numpy as np, fastbp
        from fastbp._runtime import team
        here, there = sorted(os.sched_getaffinity(0))[:2]
        before = set(os.listdir("/proc/self/task"))
        a = np.ones((300, 300), np.float32)
        fastbp.set_num_threads(4)
        fastbp.matmul(a, a)
        workers = [int(task) for task in set(os.listdir("/proc/self/task")) - before]
        assert len(workers) == team.started() == 3, workers
        burn = f"import os; os.sched_setaffinity(0, [{there}])\\nwhile os.getppid() == {os.getpid()}: pass"
        busy = subprocess.Popen([sys.executable, "-c", burn])
        os.sched_setaffinity(0, [here])
        for worker in workers:
            os.sched_setaffinity(worker, [there])
            os.sched_setscheduler(worker, os.SCHED_IDLE, os.sched_param(0))
        time.sleep(0.3)
        def median(n):
            seconds = []
            with fastbp.threads(n):
                for _ in range(41):
                    begin = time.perf_counter()
                    fastbp.matmul(a, a)
                    seconds.append(time.perf_counter() - begin)
            return sorted(seconds)[20]
        try:
            print(next((True for _ in range(5) if median(4) < 5 * median(1)), False))
        finally:
            busy.kill()
            busy.wait()
    """
    assert output(code) == "True"


def test_failing_thread_creation_is_no_error() -> None:
    code = """
        import resource, os, sys
        if os.environ.get("LIMITED") != "1":
            # The stack of a new thread is as large as a process's limit says when it starts.
            hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
            if hard != resource.RLIM_INFINITY:
                sys.exit(77)
            resource.setrlimit(resource.RLIMIT_STACK, (1 << 40, hard))
            resource.setrlimit(resource.RLIMIT_AS, (1 << 36, resource.getrlimit(resource.RLIMIT_AS)[1]))
            os.environ["LIMITED"] = "1"
            os.execv(sys.executable, sys.orig_argv)
        import numpy as np, fastbp
        from fastbp._runtime import team
        fastbp.set_num_threads(4)
        x = np.ones((1000, 500), np.float32)
        assert (fastbp.matmul(x, x.T) == 500).all()
        net = fastbp.MLP([500, 300, 10], seed=0)
        loss, grads = net.value_and_grad(x, np.zeros(1000, int))
        assert np.isfinite(grads.flat).all()
        print(team.started())
    """
    done = run(code, OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if done.returncode == 77:
        pytest.skip("the limit of the stack cannot be raised here")
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stdout + done.stderr


def test_a_process_may_end_within_a_product() -> None:
    code = """
        import threading, time
        import numpy as np, fastbp
        fastbp.set_num_threads(8)
        a = np.ones((800, 800), np.float32)
        def forever():
            while True:
                fastbp.matmul(a, a)
        for _ in range(2):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.05)
    """
    for _ in range(4):
        assert output(code) == ""


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def send() -> Iterator[Callable[[Callable[[], None], float], list[float]]]:
    """Return a function that lets a handler run in so many seconds, and returns a list that then gets the time.

    (SIGALRM is pytest-timeout's.)
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGUSR1"):
        pytest.skip("needs signals")
    before = signal.getsignal(signal.SIGUSR1)
    timers = []

    def set_handler(handler: Callable[[], None], seconds: float) -> list[float]:
        sent: list[float] = []

        def signal_now() -> None:
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, lambda *_: handler())
        timers.append(threading.Timer(seconds, signal_now))
        timers[-1].start()
        return sent

    yield set_handler
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGUSR1, before)


class Rang(Exception):
    """What a handler raises."""


@pytest.mark.serial
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("prepare", [long_product, long_gradient, long_epoch])
def test_a_signal_handler_that_raises_ends_the_call(prepare: Prepare, n_threads: int, send: Any) -> None:
    """Signals are heard every 100 ms, and the call takes three times as long: the best of several tries counts.

    The signal comes in the first half of the call, which would take longer than that half if it did not hear it.
    """

    def ring() -> None:
        raise Rang

    shares: list[float] = []
    times, work = 1, prepare()
    with fastbp.threads(n_threads):
        work()
        for _ in range(30):
            whole, begin = seconds_of(work), time.perf_counter()
            if whole < 0.3:
                times *= 2
                work = prepare(times)
                work()  # which makes the buffers
                continue
            with pytest.raises(Rang):
                sent = send(ring, whole / 10)
                while True:
                    work()
            ended = time.perf_counter()
            if sent[0] < begin + whole / 2:  # else the machine was too busy to send it in time
                shares.append((ended - sent[0]) / whole)
                if shares[-1] <= 0.4:
                    break
        work()
    assert min(shares) <= 0.4, shares


@pytest.mark.serial
@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_signal_handler_may_compute(n_threads: int, send: Any, rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 1600, 1600))
    inner = []
    with fastbp.threads(1):
        expected, small = fastbp.matmul(a, b), fastbp.matmul(a[:300], b)
    with fastbp.threads(n_threads):
        for rings in range(3):
            send(lambda: inner.append(fastbp.matmul(a[:300], b)), 0.01)
            while len(inner) <= rings:
                assert_same_bits(fastbp.matmul(a, b), expected)
    for result in inner:
        assert_same_bits(result, small)


# ---- fork ------------------------------------------------------------------------------------------------------------

# What the scripts below share. `wait` returns a child's exit code, or kills it.
FORKING = """
import os, signal, sys, threading, time
import numpy as np, fastbp
from fastbp._runtime import team
fastbp.set_num_threads(3)
rng = np.random.default_rng(0)
a, b = rng.standard_normal((2, 400, 400), dtype=np.float32)
x, t = rng.standard_normal((300, 200), dtype=np.float32), rng.integers(0, 10, 300)
net = fastbp.MLP([200, 200, 10], seed=0)
with fastbp.threads(1):
    product, gradient = fastbp.matmul(a, b), net.value_and_grad(x, t)[1].flat.copy()

def right(net=net):
    same = np.array_equal(fastbp.matmul(a, b), product)
    return same and np.array_equal(net.value_and_grad(x, t)[1].flat, gradient)

def child(body):
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            code = 0 if body() else 1
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    return pid

def wait(pid):
    for _ in range(2000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"
"""


def forking(code: str) -> str:
    # Python >= 3.12 warns where a process with threads forks: that is what is tested.
    return output(FORKING + textwrap.dedent(code), warnings="ignore::DeprecationWarning")


@pytest.mark.serial
@needs_fork
def test_fork_with_a_warm_team() -> None:
    code = """
        def fresh():
            before = team.started()
            return right() and before == 0 and team.started() == 2 and wait(child(right)) == 0
        assert right() and team.started() == 2
        codes = [wait(child(fresh)) for _ in range(5)]
        assert right()
        print(codes)
    """
    assert forking(code) == "[0, 0, 0, 0, 0]"


@pytest.mark.serial
@needs_fork
def test_fork_while_others_compute() -> None:
    """In the child no product is in progress: the team and the network are free."""
    code = """
        stop = False
        def compute():
            while not stop:
                fastbp.matmul(a, b)
        def train():
            while not stop:
                net.value_and_grad(x, t)
        others = [threading.Thread(target=body) for body in (compute, compute, train)]
        for other in others:
            other.start()
        codes = []
        for i in range(30):
            time.sleep(0.001 * (i % 7))
            codes.append(wait(child(right)))
        stop = True
        for other in others:
            other.join()
        print(set(codes), right())
    """
    assert forking(code) == "{0} True"


@pytest.mark.serial
@needs_fork
def test_fork_from_another_thread() -> None:
    """The thread that forked is the child's main thread: there, signals are heeded."""
    code = """
        def interrupted():
            def ring(*_):
                raise TimeoutError
            big = np.ones((4000, 4000))
            out = np.ones((4000, 4000))
            signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            try:
                fastbp.matmul(big, big, out=out)
            except TimeoutError:
                return (out != 4000).any() and right()
        right()
        codes = []
        thread = threading.Thread(target=lambda: codes.append(wait(child(interrupted))))
        thread.start()
        thread.join()
        print(codes)
    """
    assert forking(code) == "[0]"


@pytest.mark.serial
@needs_fork
def test_fork_by_a_signals_handler() -> None:
    """The parent's product goes on; the child's cannot where workers had part in it, and says so."""
    code = """
        pid = None
        def ring(*_):
            global pid
            pid = os.fork()
        signal.signal(signal.SIGALRM, ring)
        big = np.ones((2500, 2500))
        for n in (1, 3):
            with fastbp.threads(n):
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                try:
                    done = (fastbp.matmul(big, big) == 2500).all()
                except RuntimeError as error:
                    done = "forked" in str(error) and n > 1
                if pid == 0:
                    os._exit(0 if done and right() else 1)
                print(done, wait(pid))
    """
    assert forking(code) == "True 0\nTrue 0"


@pytest.mark.serial
@needs_fork
def test_a_pool_of_forked_processes() -> None:
    code = """
        import multiprocessing
        def work(i):
            return right() and right(fastbp.MLP([200, 200, 10], seed=0))
        right()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(set(pool.map(work, range(8))))
    """
    assert forking(code) == "{True}"


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_under_joblib(backend: str) -> None:
    """Also nested: each job of loky's runs threads that compute in their turn."""
    pytest.importorskip("joblib")
    code = f"""
        import joblib, numpy as np
        def inner(a):
            import fastbp
            return fastbp.matmul(a, a.T), fastbp.get_num_threads()
        def outer(a):
            return joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(inner)(a) for _ in range(2))
        a = np.random.default_rng(0).standard_normal((300, 300))
        expected = inner(a)[0]
        results = sum(joblib.Parallel(n_jobs=2, backend="{backend}")(joblib.delayed(outer)(a) for _ in range(4)), [])
        assert all(np.array_equal(c, expected) for c, _ in results)
        print(*sorted(set(n for _, n in results)))
    """
    printed = output(code, warnings="default", FASTBP_NUM_THREADS="" if backend == "loky" else "3")
    if backend == "threading":
        assert printed == "3"
    else:
        # loky divides the processors among its jobs by OMP_NUM_THREADS, and we raise_if_interrupted it.
        assert printed == str(max(1, processors() // 2))


def test_started_and_get_process() -> None:
    assert team.started() >= 0
    assert team.get_process() == fastbp.get_num_threads()


# ---- a thread that another one waits for -----------------------------------------------------------------------------


@pytest.mark.serial
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_thread_that_is_asked_to_stop_raises(n_threads: int) -> None:
    """Its computation ends soon; the next one goes on, until the next request."""
    a = np.ones((1500, 1500))
    cancellation, seen = team.Cancellation(), []

    def compute() -> None:
        for _ in range(2):
            try:
                with fastbp.threads(n_threads):
                    while True:
                        fastbp.matmul(a, a)
                        made.set()
            except KeyboardInterrupt:
                seen.append(fastbp.matmul(a, a)[0, 0])

    made = threading.Event()
    thread = threading.Thread(target=cancellation.call, args=(compute, True))
    thread.start()
    for requests in (1, 2):
        assert made.wait(60)
        cancellation.request()
        while len(seen) < requests:
            assert thread.is_alive() or len(seen) == requests
            time.sleep(0.01)
        made.clear()
    thread.join(60)
    assert seen == [1500.0, 1500.0]


def test_requests_of_a_cancellation() -> None:
    cancellation = team.Cancellation()

    def heeds() -> bool:
        try:
            team.raise_if_interrupted()
        except KeyboardInterrupt:
            return True
        return False

    assert not heeds()
    cancellation.request()
    assert not heeds(), "only a thread that listens"
    assert cancellation.call(heeds, False) and not cancellation.call(heeds, True)
    assert cancellation.call(lambda: [heeds(), heeds()], False) == [True, False], "once for a request"
    with pytest.raises(ZeroDivisionError), cancellation:
        assert not cancellation.is_closed
        1 / 0  # noqa: B018
    assert cancellation.is_closed and cancellation.call(heeds, False) and not heeds()


# ---- where workers run -----------------------------------------------------------------------------------------------

PLACES = """
import json, os, time
import numpy as np, fastbp
from fastbp._runtime import team
x = np.ones((400, 400))
fastbp.set_num_threads(3)
def look():
    for _ in range(6):          # on a busy machine a worker may not have come to its sleep
        fastbp.matmul(x, x)
        time.sleep(0.02)
    fastbp.matmul(x, x)
    return [(sorted(os.sched_getaffinity(thread)), kept_off) for thread, kept_off in team.places_of_workers()]
seen = [look()]
allowed = os.sched_getaffinity(0)
os.sched_setaffinity(0, {min(allowed)})
seen.append(look())
os.sched_setaffinity(0, allowed)
seen.append(look())
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, json.dumps(look()).encode())
    os._exit(0)
os.wait()
seen.append(json.loads(os.read(read, 100_000)))
print(json.dumps({"allowed": sorted(allowed), "seen": seen}))
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not say where threads run")
@pytest.mark.parametrize("places", ["", "0"])
def test_workers_are_kept_off_the_processor_of_their_caller(places: str) -> None:
    """From the first call after a sleep on, after the affinity has changed, and in a forked process."""
    found = json.loads(output(PLACES, FASTBP_PLACE_THREADS=places, warnings="ignore"))
    allowed, (first, narrowed, widened, forked) = found["allowed"], found["seen"]
    assert [len(look) for look in found["seen"]] == [2, 2, 2, 2]
    if places == "0":
        assert all(look == [[allowed, -1]] * 2 for look in (first, widened, forked))
        return
    for look in (first, widened, forked):
        for processors, kept_off in look:
            assert kept_off in allowed
            assert processors == ([cpu for cpu in allowed if cpu != kept_off] or allowed)
    assert narrowed == [[[min(allowed)], min(allowed)]] * 2


def test_a_wrong_switch_is_an_error() -> None:
    done = run("import fastbp", FASTBP_PLACE_THREADS="yes")
    assert done.returncode != 0 and "FASTBP_PLACE_THREADS must be 0 or 1, got 'yes'" in done.stderr
