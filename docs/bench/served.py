"""The app of one contender, as gunicorn imports it: which one, the environment says."""

from __future__ import annotations

import gc
import os

import places  # noqa: F401 - the paths of what follows
from contenders import BY_NAME, make_app
from storage import settings_of

application = make_app(BY_NAME[os.environ["BENCH_CONTENDER"]], settings_of(os.environ["BENCH_STORE"]))
# Contenders load different libraries, and each garbage collection looks at all that is loaded: a matter of imports,
# which costs a page view some 4 % and would be taken for a cost of sessions.
gc.collect()
gc.freeze()
