"""gunicorn's configuration with ``-c``: gevent patches before ``--preload`` imports the app."""

from __future__ import annotations

import gevent.monkey

gevent.monkey.patch_all()
