"""The scripts of the Redis adapter, and how they are run; some accounts and servers run none."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("lazysession")

#: Seconds for which a process remembers that scripts are refused. Then it tries one again, which costs one trip.
REFUSED_FOR = 60.0

# Milliseconds throughout. ARGV[1] is the time to live from now, and ARGV[2] how much left is enough: the touch is due
# unless the key has more than that left, and not more than ARGV[1], with a second of tolerance. A failed PEXPIRE (a
# read-only replica, for example) must not fail the read, hence pcall.
_TOUCH_IF_DUE = """
local left, ttl, enough = redis.call('PTTL', KEYS[1]), tonumber(ARGV[1]), tonumber(ARGV[2])
if left == -2 or not ttl or left <= ttl + 1000 and left > enough then return {left, 0, payload} end
local answer = redis.pcall('PEXPIRE', KEYS[1], ttl)
return {left, type(answer) == 'table' and answer.err and -1 or answer, payload}
"""
_COMPARE = """
local current = redis.call('GET', KEYS[1])
if current ~= ARGV[1] then return current end
"""

#: Sent along with a GET. That fails for a key of another type, which is another program's: its expiry must stay.
#: Accounts that were made for earlier versions may not use TYPE; a GET in the script finds out as well, and is slower
#: with large payloads.
TOUCH_IF_DUE = f"""
local payload
local kind = redis.pcall('TYPE', KEYS[1]).ok or type(redis.pcall('GET', KEYS[1]))
if kind ~= 'string' then return {{-2, 0}} end
{_TOUCH_IF_DUE}"""

#: The same with the payload, the last of what it returns; empty arguments for no touch.
READ = f"""
local payload = redis.call('GET', KEYS[1])
if not payload then return false end
{_TOUCH_IF_DUE}"""

# Each of the next three returns 1 when it is done, the current payload where that is not the expected ARGV[1], and nil
# when there is none.

#: ARGV[2] is the new payload, and ARGV[3] its time to live; empty to keep what is left.
REPLACE = f"""{_COMPARE}
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
else redis.call('PSETEX', KEYS[1], ARGV[3], ARGV[2]) end
return 1
"""

DELETE = f"""{_COMPARE}
redis.call('UNLINK', KEYS[1])
return 1
"""

TOUCH = f"""{_COMPARE}
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""

#: Returns what it deletes.
TAKE = """
local current = redis.call('GET', KEYS[1])
if current then redis.call('UNLINK', KEYS[1]) end
return current
"""

DIGESTS = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (READ, TOUCH_IF_DUE, REPLACE, DELETE, TOUCH, TAKE)
}

#: Sends a command; any, as the answer depends on the command.
Send = Callable[..., Any]


class Scripts:
    """Runs scripts of one key by their digest, and remembers for a minute that they are refused.

    :param send: sends a command to the server.
    :param clock: the present time, in seconds since the epoch.
    """

    def __init__(self, send: Send, clock: Callable[[], float]) -> None:
        self._send = send
        self._clock = clock
        self._refused_until: float | None = None

    @property
    def refused(self) -> bool:
        """Whether a script was refused within the last minute."""
        return self._refused_until is not None and self._clock() < self._refused_until

    def run(self, script: str, key: str, *arguments: Any, otherwise: Callable[[], Any]) -> Any:
        """Run a script and return its result.

        :param otherwise: returns the same result without a script; called if scripts are refused.
        :raises Exception: the client's own, for any other error.
        """
        if self.refused:
            return otherwise()
        try:
            return self._send("EVALSHA", DIGESTS[script], 1, key, *arguments)
        except Exception as error:
            if not is_about_scripts(error):
                raise
            answer = error
        return self.run_after(answer, script, key, *arguments, otherwise=otherwise)

    def run_after(self, error: Exception, script: str, key: str, *arguments: Any, otherwise: Callable[[], Any]) -> Any:
        """Return the result of a script whose digest was sent already, and refused with an error about scripts.

        A server that has not seen it (a restart, a failover) gets its text.
        """
        if _is_unknown_script(error):
            try:
                return self._send("EVAL", script, 1, key, *arguments)
            except Exception as refusal:
                if not is_refused(refusal):
                    raise
        self._remember_refusal()
        return otherwise()

    def _remember_refusal(self) -> None:
        if self._refused_until is None:
            logger.warning(
                "Redis runs no scripts for this account: changes of sessions take up to four round trips. Allow them "
                "with ACL SETUSER ... +eval +evalsha. Logged once per process."
            )
        self._refused_until = self._clock() + REFUSED_FOR


def class_names(answer: object) -> set[str]:
    """Return the names of an error's class and of those that it is derived from: each client library has its own."""
    return {kind.__name__ for kind in type(answer).__mro__}


def is_refused(answer: object) -> bool:
    """Return whether a command is refused to the account (``NOPERM``), or unknown to the server or a proxy.

    The client libraries take the code off the message and, of the two, have a class for ``NOPERM`` alone.
    """
    names, said = class_names(answer), str(answer)
    unknown = said.removeprefix("ERR ").startswith("unknown command")
    # NOPERM for a key is not counted: no other command could use that key either.
    return ("NoPermissionError" in names and "command" in said) or ("ResponseError" in names and unknown)


def is_about_scripts(answer: object) -> bool:
    """Return whether the server does not know the digest, or runs no scripts for this account."""
    return _is_unknown_script(answer) or is_refused(answer)


def _is_unknown_script(answer: object) -> bool:
    return type(answer).__name__ == "NoScriptError"  # by name: each client library has a class of its own
