"""The app of one contender, as gunicorn imports it; the environment says which."""

from __future__ import annotations

import gc
import os

import places  # noqa: F401 - the paths of what follows
import views
from contenders import BY_NAME
from storage import settings_of

_view = views.BY_NAME[os.environ["BENCH_VIEW"]]
application = _view.make_app(BY_NAME[os.environ["BENCH_CONTENDER"]], settings_of(os.environ["BENCH_STORE"]))
# Contenders import different libraries, and each garbage collection visits all their objects: this costs a page view
# about 4 %, which is a cost of imports and not of sessions.
gc.collect()
gc.freeze()
