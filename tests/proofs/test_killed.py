"""The process is killed at every step of a request: the session is the old or the new one, never none, never both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import NamedTuple

import pytest
from flask import Flask

from lazysession import LazySession
from tests.support.killing import NEW, OLD, sid_of
from tests.support.processes import SHARED_STORES, Child, app_on

#: What the steps below the verbs are, where they are not commands on the wire.
BELOW = {"sqlite": "instructions", "files": "lines"}

#: For each request what the old and the new id may open when it was killed, and last, when it came to its end.
STATES = {
    "create": [("none", "none"), ("none", "new")],
    "replace": [("old", "none"), ("new", "none")],
    "rotate": [("old", "none"), ("old", "new"), ("none", "new")],
    "delete": [("old", "none"), ("none", "none")],
    "clear": [("old", "none"), ("none", "none")],
    "start_over": [("old", "none"), ("old", "new"), ("none", "new")],
}


class Killed(NamedTuple):
    """A store, the process in which its requests die, and an app that looks at what is left."""

    store: str
    child: Child
    app: Flask

    def opens(self, sid: str) -> str:
        """Return what an id opens."""
        answer = self.app.test_client(use_cookies=False).get("/look", headers={"Cookie": f"session={sid}"})
        assert answer.status_code == 200
        assert f"={sid};" in answer.headers.get("Set-Cookie", f"={sid};")
        return {"{}": "none", str({"value": OLD}): "old", str({"value": NEW}): "new"}[str(answer.json)]


@pytest.fixture(scope="module", params=SHARED_STORES)
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Killed]:
    """Each store that outlives the process."""
    needs = SHARED_STORES[request.param]
    folder = tmp_path_factory.mktemp("killed")
    address = str(folder) if needs == "folder" else request.getfixturevalue(f"{needs}_url")
    with app_on(request.param, address, LazySession) as app:
        child = Child("tests.support.killing")
        child.tell({"store": request.param, "address": address})
        yield Killed(request.param, child, app)
        child.stop()


@pytest.mark.parametrize("how", ["verbs", "below"])
@pytest.mark.parametrize("path", STATES)
def test_killed(killed: Killed, request: pytest.FixtureRequest, path: str, how: str) -> None:
    """Before and after each verb, and within: at each command on the wire, instruction of SQLite, line on files."""
    steps = BELOW.get(killed.store, "wire") if how == "below" else how
    all_of_them = request.config.getoption("--require-servers") or steps in {"verbs", "wire"}
    # On a busy machine one run may have a step more than the next, where the server's response comes in two pieces.
    for attempts_left in reversed(range(3 if steps == "wire" else 1)):
        *numbers, last = killed.child.ask({"path": path, "how": steps, "every": 1 if all_of_them else 10})
        states = [(killed.opens(sid_of(number, "old")), killed.opens(sid_of(number, "new"))) for number in numbers]
        count = Counter(f"{old}/{new}" for old, new in states)
        print(f"{killed.store}: {path} killed at {len(numbers)} {steps}; old/new id opens {dict(count)}")  # noqa: T201
        assert numbers
        assert set(states) <= set(STATES[path])
        assert set(states) == set(STATES[path]) or not all_of_them
        if states == sorted(states, key=STATES[path].index):
            break
        assert attempts_left, states
    assert (killed.opens(sid_of(last, "old")), killed.opens(sid_of(last, "new"))) == STATES[path][-1]
