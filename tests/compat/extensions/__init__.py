"""The real extensions of Flask, each in a small app of its own: run by ``nox -s extensions`` alone."""

from __future__ import annotations

from . import connecting_out, guarding, showing, signing_in

EXTENSIONS = (*showing.EXTENSIONS, *signing_in.EXTENSIONS, *guarding.EXTENSIONS, *connecting_out.EXTENSIONS)
