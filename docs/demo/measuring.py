"""The comparison: both shops serve the same page views, one after the other; each view is counted by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from browser import Answer, Browser, Visit
from contender import Contender
from counting import RedisCounter, StoreCounts
from scenario import JOURNEY, REQUESTS_OF_A_VIEW, Step, journeys
from stores import Sessions


@dataclass
class Tally:
    """The cost of some page views for one contender."""

    answers: list[Answer] = field(default_factory=list)
    cpu_seconds: float = 0.0
    store: StoreCounts = field(default_factory=StoreCounts)
    seconds: list[float] = field(default_factory=list)

    @property
    def views(self) -> int:
        """The number of page views."""
        return len(self.seconds)

    def count(self, wanted: Callable[[Answer], object]) -> int:
        """Return how many of the responses are wanted."""
        return sum(bool(wanted(answer)) for answer in self.answers)

    @property
    def requests(self) -> int:
        """The number of requests."""
        return len(self.answers)

    @property
    def cookies_set(self) -> int:
        """The number of Set-Cookie headers."""
        return sum(answer.cookies_set for answer in self.answers)

    @property
    def varies_by_cookie(self) -> int:
        """The number of responses with ``Vary: Cookie``."""
        return self.count(lambda answer: answer.varies_by_cookie)

    def add(self, visit: Visit, store: StoreCounts, cpu_seconds: float) -> None:
        """Count one page view."""
        self.answers += visit.answers
        self.cpu_seconds += cpu_seconds
        self.store += store
        self.seconds.append(visit.seconds)


@dataclass
class Result:
    """The cost of the whole run for one contender, and that of each step of the journey."""

    total: Tally = field(default_factory=Tally)
    by_step: dict[str, Tally] = field(default_factory=dict)

    def add(self, step: Step, visit: Visit, store: StoreCounts, cpu_seconds: float) -> None:
        """Count one page view."""
        for tally in (self.total, self.by_step.setdefault(step.title, Tally())):
            tally.add(visit, store, cpu_seconds)


@dataclass
class Comparison:
    """Both results, and every response in which the two shops differed."""

    store: str
    store_versions: list[str] = field(default_factory=list)
    results: dict[Sessions, Result] = field(default_factory=lambda: {sessions: Result() for sessions in Sessions})
    differences: list[str] = field(default_factory=list)

    @property
    def before(self) -> Result:
        """The result of Flask-Session alone."""
        return self.results[Sessions.FLASK_SESSION]

    @property
    def after(self) -> Result:
        """The result of LazySession."""
        return self.results[Sessions.LAZY]


class Measurement:
    """Takes both contenders through the same journeys, view by view; each is first in every other view."""

    def __init__(self, contenders: list[Contender], redis: RedisCounter | None) -> None:
        self._contenders = contenders
        self._redis = redis

    def run(self, comparison: Comparison, views: int, on_view: Callable[[], None]) -> None:
        """Measure that many page views; ``on_view`` is called after each one of each contender."""
        self._journey((JOURNEY[3], JOURNEY[-1]), Comparison(comparison.store), lambda: None)  # opens the connections
        for steps in journeys(views):
            self._journey(steps, comparison, on_view)

    def _journey(self, steps: tuple[Step, ...], comparison: Comparison, on_view: Callable[[], None]) -> None:
        with ExitStack() as closing:
            visitors = [(one, closing.enter_context(Browser(one.origin))) for one in self._contenders]
            for step in steps:
                visits = {}
                for contender, browser in visitors:
                    visits[contender.sessions] = self._view(step, contender, browser, comparison)
                    on_view()
                comparison.differences += differences(step, visits)
                visitors.reverse()

    def _view(self, step: Step, contender: Contender, browser: Browser, comparison: Comparison) -> Visit:
        cpu, store = self._read(contender)
        visit = step.take(browser)
        cpu_after, store_after = self._read(contender)
        comparison.results[contender.sessions].add(step, visit, store_after - store, cpu_after - cpu)
        return visit

    def _read(self, contender: Contender) -> tuple[float, StoreCounts]:
        meter = contender.meter()
        return meter.cpu_seconds, meter.counts if self._redis is None else self._redis.counts()


def differences(step: Step, visits: dict[Sessions, Visit]) -> list[str]:
    """Return every path whose two responses differ, or are errors, in one step; and pages that are not complete."""
    expected = REQUESTS_OF_A_VIEW + (step.fields is not None)
    found = [
        f"{step.title}: {sessions.title} got {len(visit.answers)} requests, not {expected}"
        for sessions, visit in visits.items()
        if len(visit.answers) != expected
    ]
    before, after = visits[Sessions.FLASK_SESSION].contents, visits[Sessions.LAZY].contents
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path, (0, "")), after.get(path, (0, ""))
        if one != other or one[0] >= 500:
            found.append(f"{step.title}: the responses of {path} are {one[0]} and {other[0]}, with other content")
    return found
