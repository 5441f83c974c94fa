"""What a soak came to, in figures that can be kept and added up."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from typing_extensions import Self

from dev.soak.judge import NO_JOB, Verdict, film_of
from dev.soak.run import Soak
from dev.soak.weather import film


@dataclass
class Figures:
    """
    The figures of one soak, or of several pieces of one.

    :param wanted: how many submits it is to have in the end
    :param broken_off: pieces that did not come to their end, of which only excess jobs and cancels count
    :param late: the seconds after which the list showed each job, summed
    """

    wanted: int
    asked: int = 0
    minutes: float = 0.0
    pieces: int = 0
    broken_off: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    freezes: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    lost_answers: Counter[str] = field(default_factory=Counter)
    taken_late: int = 0
    late: int = 0
    spoilt: Counter[str] = field(default_factory=Counter)
    outages: int = 0
    films: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    tries: int = 0
    adopted: int = 0
    cancelled: int = 0
    excess: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, soak: Soak, verdict: Verdict, *, wanted: int) -> Self:
        """Take the figures of a soak that has ended."""
        return cls(
            wanted=wanted,
            asked=soak.asked,
            minutes=soak.minutes,
            pieces=1,
            kills=soak.chaos.kills,
            freezes=soak.chaos.freezes,
            restarts=soak.chaos.restarts,
            lost_answers=soak.weather.lost,
            taken_late=soak.weather.slow,
            late=sum(film(soak.seed, soak.first + number).late for number in range(soak.asked)),
            spoilt=soak.weather.spoilt,
            outages=soak.weather.outages,
            films=Counter(verdict.films),
            jobs=verdict.jobs,
            tries=verdict.tries,
            adopted=verdict.adopted,
            cancelled=verdict.cancelled,
            excess=verdict.excess,
            lost=verdict.lost,
            unknown=verdict.unknown,
            strange=verdict.strange,
        )

    @classmethod
    def broken(cls, counters: dict[str, Any], *, wanted: int) -> Self:
        """
        Take what a piece that did not come to its end has broken already.

        :param counters: the emulator's
        """
        films = Counter(map(film_of, counters["jobs"]))
        return cls(
            wanted=wanted,
            broken_off=1,
            excess=[f"{prompt}, broken off: {count} jobs" for prompt, count in films.items() if count > 1],
            cancelled=sum(counters["cancels"].values()),
        )

    @classmethod
    def read(cls, path: Path, *, wanted: int) -> Self:
        """Read what was kept, nothing yet if there is no such file."""
        kept = json.loads(path.read_text()) if path.exists() else {}
        figures = cls(**{**kept, "wanted": wanted})
        for about in fields(figures):
            if isinstance(value := getattr(figures, about.name), dict):
                setattr(figures, about.name, Counter(value))
        return figures

    def keep(self, path: Path) -> None:
        """Keep the figures in a file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".half")
        half.write_text(json.dumps(vars(self), indent=1) + "\n")
        half.replace(path)

    def add(self, piece: Figures) -> None:
        """Add the figures of a further piece."""
        for about in fields(self):
            if about.name != "wanted":
                setattr(self, about.name, getattr(self, about.name) + getattr(piece, about.name))

    @property
    def good(self) -> bool:
        """Whether no rule was broken, and nothing failed for a reason that is not told of."""
        return not (self.excess or self.lost or self.cancelled or self.strange)

    def tell(self) -> None:
        """Print what is wrong, and the table."""
        for what in ("excess", "lost", "unknown", "strange"):
            for line in getattr(self, what):
                print(f"  {what}: {line}", flush=True)
        print(f"\n{self.table()}\n", flush=True)

    def table(self) -> str:
        """Return the closing table."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.films.items()))
        unpaid = sum(line.endswith(NO_JOB) for line in self.unknown)
        pieces = f", in {self.pieces} pieces" if self.pieces > 1 else ""
        pieces += f"; {self.broken_off} broken off and not counted" if self.broken_off else ""
        rows = {
            "submits asked for": f"{self.asked} of {self.wanted}{pieces}",
            "processes killed": f"{self.kills.total()} in {self.minutes:.0f} min: {_kinds(self.kills)}",
            "processes frozen and thawed": f"{self.freezes.total()}: {_kinds(self.freezes)}",
            "restarted": _kinds(self.restarts),
            "answers to submits lost": f"{self.lost_answers.total()}: {_kinds(self.lost_answers)}",
            "submits taken late": str(self.taken_late),
            "jobs listed late": f"all, by {self.late / max(1, self.asked):.0f} s on average",
            "reads spoilt": f"{self.spoilt.total()}: {_kinds(self.spoilt)}",
            "failures of the secrets backend": str(self.outages),
            "jobs made": str(self.jobs),
            "submit tasks ended": states,
            "tries in all": str(self.tries),
            "jobs found again (adopted), by a callback or on the list": str(self.adopted),
            "outcome unknown, said so, paid at most once": f"{len(self.unknown)}, {unpaid} of them without a job",
            "failed for another reason": str(len(self.strange)),
            "**excess jobs**": f"**{len(self.excess)}**",
            "**lost jobids**": f"**{len(self.lost)}**",
            "**jobs cancelled**": f"**{self.cancelled}**",
        }
        if not self.restarts:
            del rows["restarted"]
        return "\n".join(["| what | result |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _kinds(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counter.most_common() if count) or "none"
