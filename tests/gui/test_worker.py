"""Background jobs: order, end and errors."""

import re
import threading
import time

import numpy as np
import pytest

from napari_rln.core.errors import ComputeError, RlnError, warn
from napari_rln.core.report import Report, duration
from napari_rln.engine.progress import Progress
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Update, one_step, streamed
from napari_rln.gui.runbar import RunBar


def counting(n, result="result", seconds=0.0, error=None, seen=None):
    def steps():
        try:
            for i in range(n):
                time.sleep(seconds)
                yield Update(Progress(activity="counting", done=i + 1, total=n), i)
            if error:
                raise error
            return result
        finally:
            if seen is not None:
                seen.append("closed")

    return steps


@pytest.fixture
def jobs(qtbot):
    jobs = JobQueue()
    jobs.events = []
    jobs.reported.connect(lambda job, update: jobs.events.append((job.title, update.content)))
    jobs.failed.connect(lambda job, failure: jobs.events.append((job.title, failure.message)))
    jobs.cancelled.connect(lambda job: jobs.events.append((job.title, "cancelled")))
    yield jobs
    jobs.cancel()
    qtbot.waitUntil(lambda: jobs.running is None)


def test_jobs_run_one_after_another_off_the_gui_thread(jobs, idle):
    threads = []

    def steps():
        threads.append(threading.current_thread())
        yield None

    jobs.add(
        BackgroundJob("a", counting(3), done=lambda r: jobs.events.append(("a", r))),
        BackgroundJob("b", counting(1, "other"), done=lambda r: jobs.events.append(("b", r))),
        BackgroundJob("c", steps),
    )
    idle(jobs)
    assert jobs.events == [
        ("a", 0), ("a", 1), ("a", 2), ("a", "result"), ("b", 0), ("b", "other"),
    ]  # fmt: skip
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RlnError("no such"), "no such"),
        (ComputeError("no memory"), "no memory"),
        (RuntimeError("shapes"), "RuntimeError: shapes"),  # as torch raises; superqt loses it
        (MemoryError(), "MemoryError"),
    ],
)
def test_every_error_is_reported_and_the_next_job_runs(jobs, idle, error, sentence):
    left = []
    jobs.add(
        BackgroundJob("bad", counting(1, error=error), stopped=left.append),
        BackgroundJob(
            "good", counting(1), done=lambda result: jobs.events.append(("good", result))
        ),
    )
    idle(jobs)
    assert sentence in dict(jobs.events)["bad"]
    assert jobs.events[-1] == ("good", "result")
    assert left == ["failed"]


def test_cancel_ends_the_running_job_and_removes_the_waiting_ones(jobs, idle, qtbot):
    closed = []
    jobs.add(
        BackgroundJob("a", counting(10_000, seconds=0.01, seen=closed)),
        BackgroundJob("b", counting(1)),
    )
    qtbot.waitUntil(lambda: ("a", 1) in jobs.events)
    began = time.monotonic()
    jobs.cancel()
    idle(jobs)
    assert time.monotonic() - began < 5  # seconds: at its next step, not after all of them
    assert [entry for entry in jobs.events if entry[1] == "cancelled"] == [
        ("b", "cancelled"),
        ("a", "cancelled"),
    ]
    qtbot.waitUntil(lambda: closed == ["closed"])


def test_a_cancelled_job_ends_for_the_user_though_its_step_goes_on(jobs, idle, qtbot):
    step, done = threading.Event(), []

    def steps():
        step.wait(30)
        yield Update(Progress(activity="counting"), "late")
        return "result"

    bar = RunBar(jobs, lambda: jobs.add(BackgroundJob("next", counting(1), done=done.append)))
    qtbot.addWidget(bar)
    jobs.add(BackgroundJob("long", steps, done=done.append, stopped=done.append))
    qtbot.wait(50)
    bar.cancel_button.click()
    qtbot.waitUntil(lambda: jobs.running is None, timeout=2000)
    assert jobs.cancelling
    assert done == ["cancelled"]
    assert bar.message.text() == "Long: cancelled"
    bar.run_button.click()
    assert jobs.waiting
    assert "last step" in bar.message.text()
    step.set()
    idle(jobs)
    assert done == ["cancelled", "result"]
    assert jobs.events == [("long", "cancelled"), ("next", 0)]


def test_a_job_is_not_started_twice(jobs):
    jobs.add(BackgroundJob("a", counting(1000, seconds=0.01), key=1))
    with pytest.raises(RlnError, match="under way"):
        jobs.add(BackgroundJob("a", counting(1), key=1))
    jobs.add(BackgroundJob("a", counting(1), key=2))
    assert len(jobs.waiting) == 1


def test_a_job_is_paused_and_resumed(jobs, idle, qtbot):
    jobs.add(BackgroundJob("a", counting(60, seconds=0.01)))
    qtbot.waitUntil(lambda: len(jobs.events) > 3)
    jobs.toggle_pause()
    qtbot.waitUntil(lambda: jobs.paused)
    qtbot.wait(50)  # what was on its way arrives
    count = len(jobs.events)
    qtbot.wait(100)
    assert len(jobs.events) == count
    jobs.toggle_pause()
    idle(jobs)
    assert len(jobs.events) == 60


def test_napari_is_busy_during_a_job_so_that_closing_it_asks(viewer, jobs, idle):
    tasks = viewer.__wrapped__.window._task_status_manager
    assert not tasks.is_busy()
    jobs.add(BackgroundJob("many", counting(400)))
    assert tasks.is_busy()
    idle(jobs)
    assert not tasks.is_busy()


def test_a_step_without_a_count_is_not_animated(viewer, jobs, idle, qtbot):
    """An animated bar redraws the whole window 30 times a second."""
    bar = RunBar(jobs, lambda: None)
    qtbot.addWidget(bar)
    found = []
    jobs.reported.connect(lambda *_: found.append((bar.bar.maximum(), bar.bar.value())))
    jobs.add(BackgroundJob("a", one_step("preparing", lambda: 1)))
    idle(jobs)
    assert found == [(1, 0)]


def test_jobs_of_another_window_are_not_shown(jobs, idle, qtbot):
    bars = [RunBar(jobs, lambda: None, window=window) for window in ("", "batch")]
    for bar in bars:
        qtbot.addWidget(bar)
    jobs.add(BackgroundJob("a", counting(1, error=RlnError("boom")), window="batch"))
    idle(jobs)
    assert [bar.message.text() for bar in bars] == ["", "A: boom"]
    assert [bar.warning.text() for bar in bars] == ["", ""]


def test_the_name_of_an_image_stays_as_it_is_and_is_said_once(jobs, idle, qtbot):
    bar = RunBar(jobs, lambda: None)
    qtbot.addWidget(bar)
    steps = one_step("counting", lambda: warn("img: repaired 3 isolated hot voxels."))
    jobs.add(BackgroundJob("img \N{MIDDLE DOT} RLD", steps, is_named=True))
    idle(jobs)
    assert bar.message.text() == "img \N{MIDDLE DOT} RLD: done"
    assert bar.warning.text() == "img \N{MIDDLE DOT} RLD: repaired 3 isolated hot voxels."


def test_only_our_warnings_are_for_the_user(jobs, idle):
    import warnings

    warned = []

    def steps():
        warn("look here")
        warnings.warn("a library's own", UserWarning, stacklevel=1)
        yield None

    jobs.warned.connect(lambda job, sentence: warned.append(sentence))
    jobs.add(BackgroundJob("a", steps))
    idle(jobs)
    assert warned == ["look here"]


def test_simultaneous_jobs_get_their_own_warnings(jobs, idle):
    others, warned, both = JobQueue(), [], threading.Barrier(2)

    def steps(number):
        def work():
            both.wait(30)
            warn(f"from {number}")
            both.wait(30)
            yield None

        return work

    for number, each in enumerate((jobs, others)):
        each.warned.connect(lambda job, sentence: warned.append((job.title, sentence)))
        each.add(BackgroundJob(f"work {number}", steps(number)))
    idle(jobs)
    idle(others)
    assert sorted(warned) == [("work 0", "from 0"), ("work 1", "from 1")]


def test_updates_are_thinned_except_the_last_and_required_ones():
    def steps():
        for i in range(1, 101):
            yield Report(phase="deconvolve", done=i, total=100, seconds=0)
        return "done"

    work = streamed(steps(), lambda r: r.done, every_s=60, always=lambda r: r.done in (7, 8))
    updates = [update for update in work if update]
    assert [update.content for update in updates] == [1, 7, 8, 100]


def test_the_bar_says_that_a_job_pauses_is_paused_and_goes_on(jobs, idle, qtbot):
    bar = RunBar(
        jobs, lambda: jobs.add(BackgroundJob("a", counting(8, seconds=0.2))), can_pause=True
    )
    qtbot.addWidget(bar)
    bar.run_button.click()
    qtbot.waitUntil(lambda: "counting" in bar.message.text())
    bar.pause_button.click()
    assert bar.message.text() == "A: pausing after this step\N{HORIZONTAL ELLIPSIS}"
    assert not bar.pause_button.isEnabled()
    qtbot.waitUntil(lambda: jobs.paused)
    assert re.fullmatch(
        r"A: paused \(counting \d of 8\), nothing is computed. Press Resume to go on.",
        bar.message.text(),
    )
    assert (bar.pause_button.text(), bar.pause_button.isEnabled()) == ("Resume", True)
    bar.pause_button.click()
    qtbot.waitUntil(lambda: not jobs.paused)
    assert re.match(r"A: counting \d of 8", bar.message.text())
    idle(jobs)
    assert bar.message.text() == "A: done"


def test_names_keep_their_letters_and_refusals_go_when_something_changes(jobs, viewer, qtbot):
    viewer.add_image(np.zeros((4, 4)), name="movie two")

    def refuse():
        raise RlnError("movie two is a plane; choose a stack.")

    bar = RunBar(jobs, refuse)
    qtbot.addWidget(bar)
    bar.show_message("movie two \N{MIDDLE DOT} RLD: done")
    assert bar.message.text() == "movie two \N{MIDDLE DOT} RLD: done"
    bar.forget_refusal()
    assert bar.message.text()  # it is none
    bar.show_message("scan_3.tif has no voxel size")
    assert bar.message.text().startswith("scan_3")
    bar.show_message("the voxel size is missing")
    assert bar.message.text().startswith("The")
    bar.run_button.click()
    assert bar.message.text().startswith("movie two is a plane")
    bar.forget_refusal()
    assert not bar.message.text()


def test_the_bar_shows_progress_errors_and_takes_a_double_click_for_one(jobs, idle, qtbot):
    def run():
        jobs.add(BackgroundJob("a", counting(100, seconds=0.01)))

    bar = RunBar(jobs, run, can_pause=True)
    qtbot.addWidget(bar)
    bar.run_button.click()
    bar.run_button.click()
    assert "under way" in bar.message.text()
    assert not jobs.waiting
    qtbot.waitUntil(lambda: "counting" in bar.message.text())
    assert bar.bar.maximum() == 100
    bar.cancel_button.click()
    idle(jobs)
    assert bar.message.text() == "A: cancelled"
    jobs.add(BackgroundJob("b", counting(1, error=RuntimeError("boom"))))
    idle(jobs)
    assert "boom" in bar.message.text()
    jobs.add(BackgroundJob("c", counting(1)))
    idle(jobs)
    assert bar.message.text() == "C: done"
    assert "boom" in bar.warning.text()  # and the details can still be read
    assert bar.details_button.isVisibleTo(bar)
    bar.details_button.click()
    assert duration(0.2) == "less than 1 s"
    assert duration(75) == "75 s"
    assert duration(600) == "10 min"
    assert duration(7200) == "2.0 h"
