"""The app of the process matrix, as a server imports it; its store is named by the environment."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

from flask import Response

sys.path.append(str(Path(__file__).parents[2]))  # the last place: an installed package comes first

from tests.support.forking import app_with_url, look_around

app = app_with_url(os.environ["MATRIX_STORE"], os.environ["MATRIX_ADDRESS"])


@app.after_request
def name_worker(response: Response) -> Response:
    """Say which process answered."""
    response.headers["X-Worker"] = str(os.getpid())
    return response


if os.environ["MATRIX_BEFORE"] == "used":
    look_around(app, "before", Counter())
