"""What can be made to go wrong: faults scripted over ``/_emulator/faults`` and markers in a prompt.

A **fault** is ``{"on": call, "kind": kind, "times": 1, "after": 0, "jobid": None, ...parameters}``: it
strikes ``times`` calls of that sort after letting ``after`` of them pass. Calls are ``submit``, ``job``,
``list``, ``cancel``, ``account``, ``check``, ``attachment``, and ``callback``, which the emulator makes itself when a
job with a ``replyUrl`` ends. With a ``jobid`` it strikes only calls about that job. One call is struck by one fault,
the oldest first.

=================  =======================================================  ===============================
kind               what the client gets                                     parameters
=================  =======================================================  ===============================
``queue_full``     429 with ``executingJobs``; no job is made               ``retry_after`` (the header)
``discord_429``    429, ``errorDetails`` is a string holding JSON           ``retry_after``, ``unreadable``
``rate_limit``     429 of no particular form                                ``retry_after`` (the header)
``bad_request``    400
``unauthorized``   401
``payment``        402
``forbidden``      403
``not_found``      404 in the API's form
``route_missing``  404 with the web framework's own page
``moderated``      422 with the jobid of a job that has already ended       ``reason``
``failed``         200, but the job has already failed                      ``reason``
``server_error``   500, 502, 503 or 504                                     ``status``, ``work``
``html``           an HTML page instead of JSON                             ``status``, ``work``
``cut``            fewer bytes than announced, then the connection closes   ``bytes``
``drop_before``    the connection is dropped, nothing was done
``drop_after``     the connection is dropped, but the work was done
``slow``           the work is done, the answer comes late                  ``seconds``
``slow_take``      the work is done late, even if the client has gone       ``seconds``
``drip``           the answer comes byte by byte, so long after another     ``seconds``, ``part``
``echo``           an error that repeats Authorization and ``discord``      ``status``
``empty``          no bytes at all                                          ``status``
``list_instead``   a list where an object belongs, or the other way round
``no_jobid``       200 without the jobid
``redirect``       307, or another                                          ``status``, ``location``
``ignore_range``   the whole file although a range was asked for
=================  =======================================================  ===============================

``work`` says whether the job is made all the same (by default only for a 504). ``part`` is ``body``, or ``all`` for
status line and headers as well.

These kinds are about a **job** instead of a call. With ``"on": "submit"`` they belong to the next
``times`` jobs made, together with a fault that strikes the submit; with a ``jobid`` to that job, now.

=================  =======================================================  ===============================
``end_as``         it ends ``failed``, ``moderated`` or ``cancelled``       ``status``, ``reason``
``stuck``          it never ends
``late_listing``   the list shows it only later                             ``seconds``
``unlisted``       the list never shows it
``late_read``      404 for its first reads                                  ``reads``
``no_video``       it completes without attachments
``expired_link``   the first link given out has already expired
=================  =======================================================  ===============================

And these are about the ``callback``:

=================  =======================================================  ===============================
``lost``           it is never made                                         ``share``
``doubled``        it is made twice at once                                 ``share``
``late``           it is made so many seconds after the job's end           ``seconds``, ``share``
``shuffled``       it is made within so many seconds, in no order           ``seconds``, ``share``
=================  =======================================================  ===============================

``share`` says of how many: 0.5 strikes every other callback, and ``times`` counts only those. An early callback, before
the submit's own answer, is what a job of 0 seconds makes of ``slow``; and one whose answer was dropped
(``drop_after``) calls back as well.

Markers in a prompt do the same without a control route: :mod:`airflow_provider_pika.emulator.markers`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_pika.emulator.settings import Pace, number, whole_number

CALLS = ("submit", "job", "list", "cancel", "account", "check", "attachment")

_JSON_CALLS = frozenset(CALLS) - {"attachment"}
# kind -> the calls it can strike and the parameters it takes
CALL_KINDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "queue_full": (frozenset({"submit"}), frozenset({"retry_after"})),
    "discord_429": (_JSON_CALLS, frozenset({"retry_after", "unreadable"})),
    "rate_limit": (frozenset(CALLS), frozenset({"retry_after"})),
    "bad_request": (_JSON_CALLS, frozenset()),
    "unauthorized": (_JSON_CALLS, frozenset()),
    "payment": (_JSON_CALLS, frozenset()),
    "forbidden": (frozenset(CALLS), frozenset()),
    "not_found": (frozenset(CALLS), frozenset()),
    "route_missing": (frozenset(CALLS), frozenset()),
    "moderated": (frozenset({"submit"}), frozenset({"reason"})),
    "failed": (frozenset({"submit"}), frozenset({"reason"})),
    "server_error": (frozenset(CALLS), frozenset({"status", "work"})),
    "html": (frozenset(CALLS), frozenset({"status", "work"})),
    "cut": (frozenset(CALLS), frozenset({"bytes"})),
    "drop_before": (frozenset(CALLS), frozenset()),
    "drop_after": (frozenset(CALLS), frozenset()),
    "slow": (frozenset(CALLS), frozenset({"seconds"})),
    "slow_take": (frozenset(CALLS), frozenset({"seconds"})),
    "drip": (frozenset(CALLS), frozenset({"seconds", "part"})),
    "echo": (_JSON_CALLS, frozenset({"status"})),
    "empty": (frozenset(CALLS), frozenset({"status"})),
    "list_instead": (_JSON_CALLS, frozenset()),
    "no_jobid": (frozenset({"submit", "job"}), frozenset()),
    "redirect": (frozenset(CALLS), frozenset({"status", "location"})),
    "ignore_range": (frozenset({"attachment"}), frozenset()),
    "lost": (frozenset({"callback"}), frozenset({"share"})),
    "doubled": (frozenset({"callback"}), frozenset({"share"})),
    "late": (frozenset({"callback"}), frozenset({"seconds", "share"})),
    "shuffled": (frozenset({"callback"}), frozenset({"seconds", "share"})),
}
JOB_KINDS: dict[str, frozenset[str]] = {
    "end_as": frozenset({"status", "reason"}),
    "stuck": frozenset(),
    "late_listing": frozenset({"seconds"}),
    "unlisted": frozenset(),
    "late_read": frozenset({"reads"}),
    "no_video": frozenset(),
    "expired_link": frozenset(),
}
_ENDINGS = ("failed", "moderated", "cancelled")


@dataclass(frozen=True)
class Traits:
    """
    What is particular about one job.

    :param pace: how it ends, None for what the emulator is set to
    :param end_as: its final state
    :param reason: the words about a bad end
    :param details: more of them
    :param late_reads: how many of its first reads answer 404
    :param late_listing: seconds until the list shows it
    """

    pace: Pace | None = None
    end_as: str = "completed"
    reason: str | None = None
    details: str | None = None
    stuck: bool = False
    late_reads: int = 0
    late_listing: float = 0
    unlisted: bool = False
    no_video: bool = False
    expired_link: bool = False

    def with_kind(self, kind: str, params: dict[str, Any]) -> Traits:
        """Return these traits with one of the job kinds added."""
        if kind == "end_as":
            return replace(self, end_as=params.get("status", "failed"), reason=params.get("reason"))
        if kind == "late_listing":
            return replace(self, late_listing=number("seconds", params.get("seconds", 10)))
        if kind == "late_read":
            return replace(self, late_reads=whole_number("reads", params.get("reads", 1), 10_000))
        flags: dict[str, Any] = {kind: True}
        return replace(self, **flags)


@dataclass
class Fault:
    """
    One scripted fault; see the module's table.

    :param owed: of a fault with a share, how much of the next strike has come together
    """

    on: str
    kind: str
    times: int = 1
    after: int = 0
    jobid: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    owed: float = 0

    @property
    def is_about_job(self) -> bool:
        """Whether it belongs to a job rather than striking a call."""
        return self.kind in JOB_KINDS

    @classmethod
    def from_json(cls, wish: dict[str, Any]) -> Fault:
        """
        Check a fault as a test writes it.

        :raises ValueError: saying what is wrong and what would be right
        """
        params = dict(wish)
        on, kind, jobid = (params.pop(name, None) for name in ("on", "kind", "jobid"))
        times = whole_number("times", params.pop("times", 1), 1_000_000)
        after = int(number("after", params.pop("after", 0)))
        if kind in JOB_KINDS:
            calls, known = frozenset({"submit", "job"} if jobid else {"submit"}), JOB_KINDS[kind]
        elif kind in CALL_KINDS:
            calls, known = CALL_KINDS[kind]
        else:
            raise ValueError(f"unknown kind {kind!r}; known are {', '.join([*CALL_KINDS, *JOB_KINDS])}")
        if on not in calls:
            raise ValueError(f"{kind} can be on {', '.join(sorted(calls))}, not on {on!r}")
        if unknown := set(params) - known:
            raise ValueError(f"{kind} takes {', '.join(sorted(known)) or 'no parameters'}, not {', '.join(unknown)}")
        _check_params(kind, params)
        return cls(on, kind, times, after, jobid, params)


def _check_params(kind: str, params: dict[str, Any]) -> None:
    for name in ("seconds", "retry_after", "bytes", "reads", "share"):
        if name in params:
            number(name, params[name])
    if not 0 < params.get("share", 1) <= 1:
        raise ValueError(f"share must be more than 0 and at most 1, not {params['share']!r}")
    if kind == "end_as" and params.get("status", "failed") not in _ENDINGS:
        raise ValueError(f"end_as takes a status of {', '.join(_ENDINGS)}, not {params['status']!r}")
    if kind == "server_error" and params.get("status", 500) not in (500, 502, 503, 504):
        raise ValueError(f"server_error takes a status of 500, 502, 503 or 504, not {params['status']!r}")
    if kind == "redirect" and params.get("status", 307) not in (301, 302, 303, 307, 308):
        raise ValueError(f"redirect takes a status of 301, 302, 303, 307 or 308, not {params['status']!r}")
    if kind == "drip" and params.get("part", "body") not in ("body", "all"):
        raise ValueError(f"drip takes a part of body or all, not {params['part']!r}")


class FaultScript:
    """The scripted faults that have not struck yet."""

    def __init__(self) -> None:
        self.clear()

    def add(self, fault: Fault) -> None:
        """Put a fault behind the ones already scripted."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Forget every fault, and which prompts a marker has already struck."""
        self._faults: list[Fault] = []
        self._struck_prompts: set[str] = set()

    def pending(self) -> list[Fault]:
        """Return the faults that may still strike."""
        return list(self._faults)

    def take_back(self) -> list[Fault]:
        """Forget the faults that may still strike, and return them."""
        taken, self._faults = self._faults, []
        return taken

    def strike(self, on: str, jobid: str | None = None) -> Fault | None:
        """Return the fault that strikes this call, used up by one, or None."""
        for fault in self._faults:
            if not fault.is_about_job and fault.on == on and fault.jobid in (None, jobid) and self._use(fault):
                return fault
        return None

    def traits(self, traits: Traits) -> Traits:
        """Add what is scripted for the job that is made now."""
        for fault in list(self._faults):
            if fault.is_about_job and self._use(fault):
                traits = traits.with_kind(fault.kind, fault.params)
        return traits

    def strike_prompt(self, prompt: str, fault: Fault | None) -> Fault | None:
        """Return the fault that a marker in the prompt asks for, but only the first time this prompt comes."""
        if fault is None or prompt in self._struck_prompts:
            return None
        self._struck_prompts.add(prompt)
        return fault

    def _use(self, fault: Fault) -> bool:
        if fault.after > 0:
            fault.after -= 1
            return False
        # Evenly spread instead of drawn by lot: a test can tell beforehand how many it strikes.
        fault.owed += fault.params.get("share", 1)
        if fault.owed < 1:
            return False
        fault.owed -= 1
        fault.times -= 1
        if fault.times == 0:
            self._faults.remove(fault)
        return True
