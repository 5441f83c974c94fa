"""What a person does to a task: clear it, mark it. A clear is a person's word, a mark cancels only by a flag."""

from __future__ import annotations

import time

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import LocalAirflow
from dev.harness.processes import wait_until
from tests.support.stories import Story

# It ends when a test lets it, and not while Airflow takes its time to kill a task and to start the next try.
LONG = "[emulator:seconds=3600]"


def both(airflow: LocalAirflow, emulator: EmulatorClient, dag_id: str, prompt: str) -> list[tuple[Story, bool]]:
    """Start the same story twice, side by side: one keeps its inputs, one has them changed before the clear."""
    return [
        (Story(airflow, emulator, dag_id, f"{changed} {prompt}"), changed == "changed")
        for changed in ("same", "changed")
    ]


def test_clear_while_the_submit_is_under_way(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """
    Cleared in the middle of its POST, the next try finds the job by its intent, unless it now wants another.

    Where the executor reports the killed process as a failure, Airflow counts the next try as a retry, and nothing
    tells otherwise: the job is then kept in either case, and the log says that the inputs have changed.
    """
    stories = both(airflow, emulator, "together", f"clear running [emulator:slow=25] {LONG}")
    for story, changed in stories:
        story.has_jobs(1)
        if changed:
            story.change_inputs()
        story.clear("film")
    for story, changed in stories:
        story.task("film", "deferred", timeout=150)
        story.end_jobs()
        story.ends()
        as_retry = "The inputs have changed since job" in story.log("film")
        assert len(story.jobs()) == 1 + (changed and not as_retry)
        assert story.cancels() == 0


def test_clear_while_deferred(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """Cleared while it waits, the next try goes on with the running job, unless it now wants another."""
    stories = both(airflow, emulator, "together_kill", f"clear deferred {LONG}")
    for story, changed in stories:
        story.task("film", "deferred")
        if changed:
            story.change_inputs()
        story.clear("film")
    for story, changed in stories:
        wait_until(lambda story=story: story.tries("film") == [2], "the second try", 60)
        story.task("film", "deferred")
        story.end_jobs()
        story.ends()
        assert len(story.jobs()) == 1 + changed
        assert story.cancels() == 0
        assert story.xcom("film") == story.jobs()[-1]["jobid"]


def test_clear_after_success_while_the_job_runs(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """A submit that succeeded is cleared while its job still runs: the job is kept if it is still the one wanted."""
    stories = both(airflow, emulator, "apart", f"clear success {LONG}")
    for story, changed in stories:
        story.task("submit", "success")
        story.task("wait", "deferred")
        if changed:
            story.change_inputs()
        story.clear("submit")
    for story, changed in stories:
        wait_until(lambda story=story: story.tries("submit") == [2], "the submit's second try", 60)
        story.task("submit", "success")
        assert len(story.jobs()) == 1 + changed
        assert story.xcom("submit") == story.jobs()[-1]["jobid"]
    for story, _ in stories:
        story.end_jobs()
        story.ends()


def test_clear_after_the_end_makes_a_new_job(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """Cleared after its job has ended, well or badly, a task makes a new one: that is what a clear says."""
    stories = [
        (Story(airflow, emulator, "together", "clear failure [emulator:failed] [emulator:seconds=1]"), "failed"),
        (Story(airflow, emulator, "together", "clear completion [emulator:seconds=1]"), "success"),
    ]
    for story, end in stories:
        assert story.task("film", end)["try_number"] == 1
        # While the run still goes on, Airflow's scheduler may be about to end it, and the clear with it (seen).
        story.ends(end)
        story.clear("film")
    for story, end in stories:
        story.has_jobs(2)
        story.ends(end)
        assert len(story.jobs()) == 2


def test_a_mark_cancels_only_when_failed_and_only_by_the_flag(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """Deferred or on a worker, only a task marked failed cancels its job, and only with cancel_on_kill."""
    cases = [
        ("together_kill", "film", "failed", 1),
        ("apart_kill", "wait", "failed", 1),
        ("together", "film", "failed", 0),
        ("together_kill", "film", "success", 0),
    ]
    stories = [Story(airflow, emulator, dag_id, f"{dag_id} marked {mark} {LONG}") for dag_id, _, mark, _ in cases]
    poking = Story(airflow, emulator, "poking", f"marked while poking {LONG}")
    for story, (_, task_id, _, _) in zip(stories, cases, strict=True):
        story.task(task_id, "deferred")
    for story, (_, task_id, mark, _) in zip(stories, cases, strict=True):
        # Marked before a triggerer has taken it up, a task has nobody to cancel its job.
        wait_until(lambda story=story, task_id=task_id: "starting" in story.log(task_id), "the trigger to run", 60)
        story.mark(task_id, mark)
    poking.task("wait", "running")
    (job,) = poking.jobs()
    wait_until(lambda: job["jobid"] in emulator.counters()["polls"]["by_job"], "the first poke", 60)
    poking.mark("wait", "failed")
    for story, (_, _, mark, cancels) in zip(stories, cases, strict=True):
        story.ends(mark)
        if cancels:
            wait_until(lambda story=story: story.jobs()[0]["status"] == "cancelled", "the job to be cancelled", 60)
    wait_until(lambda: poking.cancels() == 1, "the cancel of a poking sensor's job", 30)
    # By now the triggerer has acted on the marks above, and has time to act on the others.
    time.sleep(10)
    for story, (_, _, _, cancels) in zip(stories, cases, strict=True):
        assert story.cancels() == cancels
        assert (story.jobs()[0]["status"] == "cancelled") == bool(cancels)
