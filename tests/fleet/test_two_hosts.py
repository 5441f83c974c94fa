"""The main job on two hosts, and what a local path means there."""

from __future__ import annotations

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.fleet import Fleet
from tests.fleet.conftest import Flying, asked, hosts, paid_once
from tests.support.stories import Story

PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)


def test_six_mapped_jobs_on_two_hosts(fleet: Fleet, flying: Flying) -> None:
    """The submits land on both hosts; each task has one job and one try, and no job is looked at sooner than 10 s."""
    story = flying("two hosts", answer=8, lasts=25, dag_id="mapped")
    paid_once(story)
    assert set(hosts(story).values()) == set(fleet.workers)
    assert set(story.tries("submit") + story.tries("wait")) == {1}
    assert (story.emulator.counters()["polls"]["smallest_gap"] or 10) >= 10
    assert len(fleet.db.spells("deferred", story.dag_id, story.run_id, "wait")) == 6


def test_a_local_path_is_one_hosts_own(fleet: Fleet, emulator: EmulatorClient) -> None:
    """An image that lies on the other host fails its task at once, unpaid; a film lies where its download ran."""
    pictures = fleet.host("worker") / "pictures"
    pictures.mkdir()
    (pictures / "here.png").write_bytes(PNG)
    story = Story(fleet, emulator, "local_paths", "local [emulator:seconds=10]")
    story.ends("failed")
    assert asked(emulator) == len(story.jobs()) == 1
    assert story.task("there", "failed")["try_number"] == 1
    said = "The image 'pictures/here.png' cannot be read: No such file or directory. Nothing was sent."
    assert said in story.log("there")
    (film,) = (fleet.host("worker-2") / "films").iterdir()
    assert story.xcom("download") == [film.as_uri()]
    assert not (fleet.host("worker") / "films").exists()
