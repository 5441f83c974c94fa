"""The emulator's memory: jobs, the queue and the counters. Pure logic on a clock that a test can turn."""

from __future__ import annotations

import random
import re
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_pika.api.commands import BUTTON, MAX_JOBS_LIMIT
from airflow_provider_pika.api.job import FINAL_STATES
from airflow_provider_pika.emulator.counters import Counters, counters_json
from airflow_provider_pika.emulator.jobs import Job
from airflow_provider_pika.emulator.refusals import Refusal, missing, queue_full, unknown_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_pika.emulator.faults import Traits
    from airflow_provider_pika.emulator.jobs import Submit
    from airflow_provider_pika.emulator.settings import Settings

# The account's own Discord token is nobody's business, so the emulator has none and shows a mask only.
ACCOUNT_DISCORD = "emulator account"
_SHORTEST_SHOWN = 10


class State:
    """
    Everything the emulator remembers.

    :param settings: what it was started with, and goes back to on :meth:`reset`
    :param clock: seconds since the epoch
    :param on_end: called with each job as it ends
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        on_end: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self._start_settings = settings
        self._clock = clock
        self._on_end = on_end
        # Never goes back, not even on a reset: an id from before it must not come to mean another job.
        self._number = 0
        self._last_stamp = 0
        self.reset()

    def reset(self) -> None:
        """Forget all jobs and counters, and go back to the settings of the start."""
        self.settings = self._start_settings
        self.counters = Counters()
        self.account_masks: dict[str, str] = {}
        self.jobs: dict[str, Job] = {}
        self._running: dict[str, Job] = {}
        self._pushed = 0.0

    def now(self) -> float:
        """Return the emulator's time, which :meth:`push_time` can put ahead of the clock."""
        return self._clock() + self._pushed

    def push_time(self, seconds: float) -> None:
        """Let this much time pass at once."""
        self._pushed += seconds
        self.settle()

    def settle(self) -> None:
        """Move on every job whose time has come; those that go by reads are moved by :meth:`read`."""
        now = self.now()
        for job in list(self._running.values()):
            due = job.created + job.pace.seconds
            if job.pace.reads is not None:
                continue
            if due <= now and not job.traits.stuck:
                self.end(job, job.traits.end_as, at=due)
            elif job.status == "started" and now - job.created >= job.pace.seconds / 3:
                job.status, job.updated = "progress", now

    def told(self) -> dict[str, Any]:
        """Return jobs and counters as ``GET /_emulator/counters`` tells them."""
        self.settle()
        return counters_json(self.counters, self.jobs.values())

    def running(self, channel: str | None = None) -> list[Job]:
        """Return the jobs that run now, of one channel or of all."""
        self.settle()
        return [job for job in self._running.values() if channel in (None, job.channel)]

    def listed(self) -> list[str]:
        """Return the jobids the API's list shows."""
        now = self.now()
        delay = self.settings.list_delay
        return [
            job.jobid
            for job in self.running()
            if not job.traits.unlisted and now - job.created >= max(job.traits.late_listing, delay)
        ]

    def submit(self, asked: Submit, traits: Traits, end_now: str | None = None) -> Job:
        """
        Make a job.

        :param end_now: the final state of a job that ends before its submit is answered
        :raises Refusal: if there is no account for it or no room in its queue, or no such button to press
        """
        parent = self._parent(asked) if asked.command is BUTTON else None
        discord = mask(asked.discord) if asked.discord else None
        channel, limit = self._room(asked, [parent.channel] if parent else self._accounts(asked))
        now = self.now()
        self._number += 1
        job = Job(
            number=self._number,
            jobid=self._jobid(now, channel),
            asked=asked,
            shows=parent.shows if parent else asked,
            take=self._number if parent else 0,
            discord=discord or (parent.discord if parent else self.mask_of(channel)),
            channel=channel,
            max_jobs=limit,
            created=now,
            updated=now,
            pace=traits.pace or self.settings.pace,
            traits=traits,
        )
        self.jobs[job.jobid] = job
        self._running[job.jobid] = job
        if end_now:
            self.end(job, end_now)
        else:
            peak = self.counters.peak_running
            peak[channel] = max(
                peak.get(channel, 0),
                sum(job.channel == channel for job in self._running.values()),
            )
        return job

    def note_poll(self, jobid: str) -> None:
        """Count a poll of a job, whatever it is answered; in real time, which pushed time must not gloss over."""
        self.counters.polls.setdefault(jobid, []).append(self._clock())

    def read(self, jobid: str) -> Job:
        """
        Read a job as the API's ``GET`` does, which may be what moves it on.

        :raises Refusal: if there is none, or it does not show itself yet
        """
        self.settle()
        job = self.find(jobid)
        job.reads += 1
        reads = job.reads - job.traits.late_reads
        if reads <= 0:
            raise unknown_job(jobid)
        if job.ended is None and job.pace.reads is not None:
            if reads >= job.pace.reads and not job.traits.stuck:
                self.end(job, job.traits.end_as)
            elif job.status == "started" and reads > 1:
                job.status, job.updated = "progress", self.now()
        if job.ended is not None and job.seen is None:
            job.seen = self.now()
        return job

    def find(self, jobid: str) -> Job:
        """
        Return a job without reading it in the API's sense.

        :raises Refusal: if there is none
        """
        if jobid not in self.jobs:
            raise unknown_job(jobid)
        return self.jobs[jobid]

    def cancel(self, jobid: str) -> Job:
        """
        Cancel a job; one that has ended stays as it is.

        :raises Refusal: if there is none
        """
        self.settle()
        job = self.find(jobid)
        if job.ended is None:
            self.end(job, "cancelled")
        return job

    def set_status(self, job: Job, status: str, content: str | None = None) -> None:
        """Put a job into a state by hand; an unknown one counts as running, as it does for a client."""
        job.content = content or job.content
        if status in FINAL_STATES:
            self.end(job, status)
        else:
            job.status, job.ended, job.updated = status, None, self.now()
            self._running[job.jobid] = job

    def end(self, job: Job, status: str, at: float | None = None) -> None:
        """End a job, once."""
        job.status = status
        job.ended = job.updated = self.now() if at is None else at
        if self._running.pop(job.jobid, None):
            self._on_end(job)

    def mask_of(self, channel: str) -> str:
        """Return the masked Discord token of a configured account."""
        return self.account_masks.get(channel) or mask(ACCOUNT_DISCORD)

    def _parent(self, asked: Submit) -> Job:
        self.settle()
        parent, button = self.find(asked.texts["jobid"]), asked.texts["button"]
        if button not in parent.buttons:
            raise Refusal(400, f"Job {parent.jobid} is {parent.status} and has no button {button}")
        return parent

    def _accounts(self, asked: Submit) -> list[str]:
        channels = self.settings.channels
        if asked.channel and not asked.discord and asked.channel not in channels:
            raise missing(asked.command, f"Channel {asked.channel} is not configured, and no discord was given")
        if not asked.channel and not channels:
            raise missing(asked.command, "No account is configured, and no discord and channel were given")
        return [asked.channel] if asked.channel else list(channels)

    def _room(self, asked: Submit, candidates: list[str]) -> tuple[str, int]:
        with_room = []
        limit = MAX_JOBS_LIMIT
        for channel in candidates:
            limit = asked.max_jobs or self.settings.channels.get(channel, MAX_JOBS_LIMIT)
            if len(self.running(channel)) < limit:
                with_room.append((channel, limit))
        if not with_room:
            executing = [job.jobid for channel in candidates for job in self.running(channel)]
            raise queue_full(executing, limit)
        return random.choice(with_room)

    def _jobid(self, now: float, channel: str) -> str:
        # Several jobs within one millisecond: the later ones are dated ahead, so that no id comes twice.
        self._last_stamp = max(int(now * 1000), self._last_stamp + 1)
        moment = datetime.fromtimestamp(self._last_stamp // 1000, timezone.utc)
        stamp = f"{moment:%Y%m%d%H%M%S}{self._last_stamp % 1000:03d}"
        user = re.match(r"user:\d+", self.settings.token)
        return f"job:{stamp}-{user.group() if user else 'user:1000'}-channel:{channel}-bot:pika"


def mask(secret: str) -> str:
    """Show a Discord token's ends only, as the API does; nothing of one too short to hide in between."""
    if len(secret) < _SHORTEST_SHOWN:
        return "<…secured…>"
    return f"<{secret[:3]}…secured…{secret[-3:]}>"
