"""The app of one contender, as gunicorn imports it; the environment names the contender."""

from __future__ import annotations

import gc
import os

import places  # noqa: F401 - the paths of what follows
from contenders import BY_NAME, make_app
from storage import settings_of

application = make_app(BY_NAME[os.environ["BENCH_CONTENDER"]], settings_of(os.environ["BENCH_STORE"]))
# Contenders import different libraries, and each garbage collection visits all their objects: this costs a page view
# about 4 %, which is a cost of imports and not of sessions.
gc.collect()
gc.freeze()
