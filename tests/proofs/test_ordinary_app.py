"""An ordinary shop whose requests all overlap: what is refused and lost, compared with Flask-Session."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from tests.support import tables
from tests.support.processes import Child
from tests.support.served import Answer, Connection, open_shared

SEED = 20261127
VISITORS = 8
TABS = 3
#: Pairs of requests that each visitor makes.
PAIRS = 100
#: What the visitors do, and how often.
ACTIONS = {"/": 15, "/product/1": 20, "/product/2": 20, "/cart": 12, "/account": 6, "add": 20, "language": 3, "sign": 3}
#: Where a POST leads.
NEXT = {"add": "/cart", "language": "/", "sign": "/account"}

Pair = list[tuple[int, str]]  # for each of two tabs, its number and what it does

HEAD = ("With every request overlapping another", "Flask-Session", "LazySession")
GENERATED = tables.ROOT / "docs" / "_generated" / "ordinary.rst"
#: What writes the table, and the packages whose versions it names.
COMMAND = "pytest tests/proofs/test_ordinary_app.py"
PACKAGES = ("flask", "flask-session", "werkzeug", "redis", "flask-login", "flask-wtf")


def plan(seed: int) -> list[Pair]:
    """Return what a visitor does; the page that a POST leads to is its tab's next request."""
    draw, pairs = random.Random(seed), []
    following: dict[int, str] = {}
    for _ in range(PAIRS):
        pair: Pair = []
        for tab in draw.sample(range(TABS), 2):
            (action,) = draw.choices(list(ACTIONS), list(ACTIONS.values()))
            action = following.pop(tab, action)
            if action in {"language", "sign"} and pair and pair[0][1] == action:
                action = "/"  # of two at once, either may be the last
            if action in NEXT:
                following[tab] = NEXT[action]
            pair.append((tab, action))
        pairs.append(pair)
    return pairs


class Visitor:
    """One browser with several tabs, which share its cookie, and what its responses said."""

    def __init__(self, number: int, port: int) -> None:
        self._number = number
        self.counts: Counter[str] = Counter()
        self._connections = [Connection(port) for _ in range(TABS)]
        self._thread = ThreadPoolExecutor(1)
        self._cookie: str | None = None
        self._token = ""
        self._language = self._user = ""
        self._numbers = itertools.count()
        self._added: set[str] = set()
        self._flashed: set[str] = set()
        self._shown: set[str] = set()

    def visit(self) -> Counter[str]:
        """Make all requests of the plan, and return the counts."""
        self._language = _find("lang", self._look("/"))
        for number, pair in enumerate(plan(SEED + self._number)):
            self._run_pair(f"{self._number}-{number}", pair)
        in_cart = set(re.findall(r"item\d+", self._look("/cart")))
        self._look("/")  # shows what is left of the messages
        lost, unseen = self._added - in_cart, self._flashed - self._shown
        self.counts.update(added=len(self._added), lost_items=len(lost), unseen=len(unseen))
        self.counts.update(flashed=len(self._flashed))
        self._thread.shutdown()
        for connection in self._connections:
            connection.close()
        return self.counts

    def _run_pair(self, name: str, pair: Pair) -> None:
        """Make two requests at once; look afterwards whether a new language and a login are there."""
        items = [f"item{next(self._numbers)}" for _ in pair]
        other = self._thread.submit(self._request, *pair[1], items[1], name)
        answers = [self._request(*pair[0], items[0], name), other.result()]
        self._keep_cookies(answers)
        done = []
        for (_, action), item, answer in zip(pair, items, answers, strict=True):
            self._note(action, item, answer)
            done += [action] if answer.status in {200, 302} else []
        self.counts["both_added"] += done.count("add") == 2
        if "language" in done:
            self._language = self._other_language()
        if "sign" in done:
            self._user = "" if self._user else "ada"
        if {"language", "sign"} & set(done):
            self._look_for_losses(done)

    def _look_for_losses(self, done: list[str]) -> None:
        page = self._look("/")
        language, user = _find("lang", page), _find("user", page)
        self.counts.update(languages=done.count("language"), signs=done.count("sign"))
        self.counts.update(lost_languages=language != self._language, lost_signs=user != self._user)
        self._language, self._user = language, user

    def _request(self, tab: int, action: str, item: str, pair: str) -> Answer:
        """Make one request of a pair; two of these run at once, and change nothing of the visitor."""
        connection, headers = self._connections[tab], {"X-Pair": pair}
        if action not in NEXT:
            return connection.get(action, self._cookie, **headers)
        path, form = self._form(action, item)
        return connection.post(path, {**form, "csrf_token": self._token}, self._cookie, **headers)

    def _form(self, action: str, item: str) -> tuple[str, dict[str, str]]:
        if action == "add":
            return "/cart", {"item": item}
        if action == "language":
            return "/language", {"lang": self._other_language()}
        return ("/logout" if self._user else "/login"), {"name": "ada", "message": item}

    def _other_language(self) -> str:
        return "en" if self._language == "de" else "de"

    def _note(self, action: str, item: str, answer: Answer) -> None:
        """Record what the response to one request of a pair said."""
        self.counts.update(["requests", f"status {answer.status}"])
        if answer.status == 409:
            self.counts.update(["refused", f"refused {action}" if action in NEXT else "refused views"])
        if answer.status == 302 and action == "add":
            self._added.add(item)
        if answer.status == 302 and action in {"add", "sign"}:
            self._flashed.add(item)
        self._read(answer)

    def _look(self, path: str) -> str:
        """Return a page that is loaded while no other request runs."""
        answer = self._connections[0].get(path, self._cookie)
        assert answer.status == 200, answer
        self._keep_cookies([answer])
        self._read(answer)
        return answer.body

    def _read(self, answer: Answer) -> None:
        """Read a page: its form's token, and the messages."""
        if answer.status == 200:
            self._token = _find("token", answer.body)
            self._shown |= set(re.findall(r"message\">\S+ (item\d+)", answer.body))

    def _keep_cookies(self, answers: list[Answer]) -> None:
        """Keep the new id where a login gave one: the network decides which of two responses a browser has last."""
        cookies = [answer.cookie for answer in answers if answer.cookie is not None]
        new = [cookie for cookie in cookies if cookie != self._cookie]
        self.counts["old id sent with the new"] += bool(new) and self._cookie in cookies
        self._cookie = (new or [self._cookie])[-1]


_PARTS = {"lang": r'lang="(\w+)"', "user": r'id="user">(\w*)<', "token": r'name="csrf_token" value="([^"]+)"'}


def _find(part: str, page: str) -> str:
    found = re.search(_PARTS[part], page)
    assert found, page
    return found[1]


@pytest.fixture(scope="module")
def server() -> Generator[Child]:
    """The process that serves the shop."""
    child = Child("tests.support.ordinary")
    yield child
    child.stop()


@pytest.fixture(params=["redis", "sqlite"])
def shared(request: pytest.FixtureRequest) -> Generator[tuple[str, str]]:
    """The name and address of each store."""
    yield from open_shared(request)


def traffic(server: Child, shared: tuple[str, str], *, lazy: bool) -> Counter[str]:
    """Return what the visitors count on one store."""
    store, address = shared
    port = server.ask({"store": store, "address": address, "lazy": lazy, "settings": {}})
    with ThreadPoolExecutor(VISITORS) as threads:
        counts = sum(threads.map(lambda number: Visitor(number, port).visit(), range(VISITORS)), Counter[str]())
    errors = server.ask("stop")
    print(f"{'LazySession' if lazy else 'Flask-Session'} on {store}: {dict(sorted(counts.items()))} {errors or ''}")  # noqa: T201
    return counts


def rows(counts: tuple[Counter[str], Counter[str]]) -> list[tuple[str, str, str]]:
    """Return the rows of the table, for Flask-Session and LazySession."""

    def row(label: str, lost: str, of: str) -> tuple[str, str, str]:
        one, two = (f"{each[lost]:,} of {each[of]:,}" for each in counts)
        return label, one, two

    return [
        row("Requests refused with a 409", "refused", "requests"),
        row("Page views among them", "refused views", "requests"),
        row("Cart items lost", "lost_items", "added"),
        row("Language switches lost", "lost_languages", "languages"),
        row("Logins and logouts lost", "lost_signs", "signs"),
        row("Messages never shown", "unseen", "flashed"),
    ]


def test_ordinary_app(server: Child, shared: tuple[str, str], request: pytest.FixtureRequest) -> None:
    """Under 1 % is refused, no page view is; no language or login is lost, a cart item only where two were added."""
    theirs, ours = traffic(server, shared, lazy=False), traffic(server, shared, lazy=True)
    table = rows((theirs, ours))
    for line in table:
        print("{:30} {:>16} {:>16}".format(*line))  # noqa: T201
    if shared[0] == "redis" and request.config.getoption("--write-tables"):
        made = tables.made_by(COMMAND, PACKAGES, Redis.from_url(shared[1]).info("server")["redis_version"])
        GENERATED.write_text(f"{made}\n{tables.list_table(HEAD, table, (50, 25, 25))}", encoding="utf-8")
    assert {name for name in ours if name.startswith("status")} <= {"status 200", "status 302", "status 409"}
    assert theirs["requests"] == ours["requests"] == VISITORS * PAIRS * 2
    assert ours["refused"] < ours["requests"] / 100
    assert ours["refused views"] == 0
    assert ours["lost_languages"] == ours["lost_signs"] == 0
    assert ours["lost_items"] <= ours["both_added"]  # where both requests add one, one of the two
    assert ours["lost_items"] <= theirs["lost_items"]
    assert ours["unseen"] <= theirs["unseen"]
