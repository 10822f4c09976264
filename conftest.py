"""Say in one line what the tests need, before anything fails to be imported."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path


def is_installed(package: str) -> bool:
    """Return whether a distribution is installed."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def missing_packages(project: str) -> list[str]:
    """Return the packages of the group "test" that are not installed, without those that not every Python has.

    :param project: the text of ``pyproject.toml``; Python 3.10 cannot parse it.
    """
    group = re.search(r"^test = \[\n(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    names = re.findall(r'^ *"([\w-]+)[^;"]*"', group[1] if group else "", re.MULTILINE)
    return [name for name in names if not is_installed(name)]


if missing := missing_packages(Path(__file__).with_name("pyproject.toml").read_text(encoding="utf-8")):
    what = f"{len(missing)} packages that are not installed, such as {missing[0]}"
    raise SystemExit(f"The tests need {what}. Run `nox -s quick`: it installs them (see CONTRIBUTING.md).")
if find_spec("lazysession.backends") is None:  # lazysession/backends is a text file, with the target of the link in it
    raise SystemExit(
        "This checkout has no links, as on Windows. Install it first: pip install -e . (see CONTRIBUTING.md)."
    )
