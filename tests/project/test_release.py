"""The release: addresses that are made from two, what the wheel has to have, and what is still missing."""

from __future__ import annotations

import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "docs" / "release"))

import addresses
import contents
import release
from addresses import Project

NOWHERE = Project("shop", "1.2.3")
SOMEWHERE = replace(NOWHERE, repository="https://code.example/o/shop", documentation="https://docs.example/shop")
README = "# Shop\n\nSee [the\nguide](docs/guide.rst#a), [us](https://x.example), ![it](docs/it.svg), [here](#shop).\n"
TOML = (
    '[project]\nname = "shop"\nversion = "1.2.3"\ndependencies = ["flask>=3.0"]\nclassifiers = ["P :: Python :: 3.9"]\n'
)


def this_project() -> Project:
    """Read pyproject.toml."""
    return Project.from_toml((release.ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_this_project_can_be_read() -> None:
    """pyproject.toml has the entries from which everything else is made."""
    project = this_project()
    assert project.name == "lazysession"
    assert contents.oldest(project.dependencies) == ["flask==3.0", "flask-session==0.8"]
    assert project.pythons == ("3.10", "3.11", "3.12", "3.13", "3.14")


def test_the_files_have_the_addresses_of_pyproject() -> None:
    """``nox -s release -- --write`` would change nothing."""
    assert release.outdated(this_project()) == [], "run: nox -s release -- --write"


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ("", NOWHERE),
        ("[project.urls]\n", NOWHERE),
        ('[project.urls]\nRepository = "https://code.example/o/shop/"\n', replace(SOMEWHERE, documentation="")),
    ],
)
def test_an_address_that_is_not_set_is_empty(urls: str, expected: Project) -> None:
    """A table without entries, and no table, are no error; a slash at the end does not count."""
    found = Project.from_toml(TOML + urls)
    assert found == replace(expected, dependencies=("flask>=3.0",), pythons=("3.9",))


@pytest.mark.parametrize("entry", ['Repository = "https://..."', 'Documentation = "x"', 'Issues = "https://x.example"'])
def test_an_entry_that_is_no_address_is_refused(entry: str) -> None:
    """The placeholder, something without https, and an address that is made from the two are errors that name it."""
    with pytest.raises(ValueError, match=entry.split()[0]):
        Project.from_toml(f"{TOML}[project.urls]\n{entry}\n")


def test_relative_links_are_found() -> None:
    """Links and pictures of the checkout count; links to other hosts and within the page do not."""
    assert addresses.relative_links(README) == ["docs/guide.rst#a", "docs/it.svg"]


def test_the_package_page_has_no_relative_link() -> None:
    """A page of the docs is linked on the site, another file and a picture in the repository at the tag."""
    page = addresses.package_page(README, SOMEWHERE)
    assert addresses.relative_links(page) == []
    assert "[the\nguide](https://docs.example/shop/guide.html#a), [us](https://x.example)" in page
    assert "![it](https://code.example/o/shop/raw/v1.2.3/docs/it.svg), [here](#shop)" in page
    without_site = addresses.package_page(README, replace(SOMEWHERE, documentation=""))
    assert "(https://code.example/o/shop/blob/v1.2.3/docs/guide.rst#a)" in without_site


def test_the_package_page_has_a_badge_below_its_title() -> None:
    """The badge shows the workflow of the tests, which is there."""
    assert (release.ROOT / ".github/workflows/tests.yml").exists()
    lines = addresses.package_page(README, SOMEWHERE).splitlines()
    assert lines[:2] == ["# Shop", ""]
    assert lines[2].startswith("[![Tests](https://code.example/o/shop/actions/workflows/tests.yml/badge.svg)]")


def test_without_a_repository_nothing_is_rewritten() -> None:
    """No address is invented."""
    assert addresses.package_page(README, NOWHERE) == README
    assert addresses.package_toml("[project.urls]\n", NOWHERE) == "[project.urls]\n"
    assert "https:" not in addresses.issue_config(NOWHERE)


def test_the_package_names_where_issues_and_changes_are() -> None:
    """The metadata of the package has the addresses that are made from the repository's."""
    toml = addresses.package_toml('[project.urls]\nRepository = "r"\n', SOMEWHERE)
    assert 'Issues = "https://code.example/o/shop/issues"\n' in toml
    assert 'Changes = "https://code.example/o/shop/blob/v1.2.3/CHANGELOG.md"\nRepository = "r"\n' in toml


def test_the_issue_form_leads_elsewhere() -> None:
    """One link leads to the private report of a vulnerability, the other to the page that may help."""
    config = addresses.issue_config(SOMEWHERE)
    assert "url: https://code.example/o/shop/security/advisories/new\n" in config
    assert "url: https://docs.example/shop/troubleshooting.html\n" in config
    assert (release.ROOT / "docs" / "troubleshooting.rst").exists()


def test_the_security_page_is_written_again_and_again() -> None:
    """What stands between the markers is replaced, and nothing else; without the markers it is an error."""
    page = "# Security\n<!-- addresses:begin -->\nold\n<!-- addresses:end -->\nend\n"
    once = addresses.security_page(page, SOMEWHERE)
    assert "(https://code.example/o/shop/security/advisories/new)" in once
    assert "old" not in once
    assert once.endswith("end\n")
    assert addresses.security_page(once, SOMEWHERE) == once
    with pytest.raises(ValueError, match="markers"):
        addresses.security_page("# Security\n", SOMEWHERE)


def test_the_wheel_has_both_halves_and_no_tests() -> None:
    """A file that git tracks and the wheel lacks is named, and one that the wheel should not have."""
    tracked = ["lazysession/a.py", "lazysession/backends", "backends/b.py", "tests/test_a.py", "README.md"]
    whole = ["lazysession/a.py", "lazysession/backends/b.py", "shop-1.2.3.dist-info/METADATA"]
    assert contents.differences(tracked, whole, NOWHERE) == []
    assert contents.differences(tracked, [*whole[:1], "tests/test_a.py"], NOWHERE) == [
        "the wheel lacks lazysession/backends/b.py",
        "the wheel has tests/test_a.py, which is no file of the package",
    ]


def test_what_the_changelog_lacks() -> None:
    """A release needs its section with a date, and no fragment may be left."""
    assert contents.unreleased("## 1.2.3 (2026-11-27)\n", ["README.md"], "1.2.3") == []
    lacking = contents.unreleased("## 1.2.3 (not released)\n", ["README.md", "7.fixed.md"], "1.2.3")
    assert [line.split()[0] for line in lacking] == ["1", "a"]


def test_a_python_that_is_not_here_is_named() -> None:
    """A wheel that was not tried on the oldest and the newest Python is not ready."""
    assert contents.not_tried(["3.10", "3.11", "3.14"], ["3.10", "3.11"]) == ["a run on Python 3.14"]
    assert contents.not_tried(["3.10", "3.11", "3.14"], ["3.10", "3.14"]) == []


KINDS = addresses.tomllib.loads((release.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"][
    "type"
]
CHANGES = release.ROOT / "docs" / "changes"


def test_every_fragment_of_the_changelog_has_a_kind() -> None:
    """``nox -s changelog`` takes each: it is named by an issue or a word, and by a kind that README.md explains."""
    kinds = [kind["directory"] for kind in KINDS]
    fragments = [path.name for path in CHANGES.iterdir() if path.name != "README.md"]
    assert [name for name in fragments if not re.fullmatch(rf"(\d+|\+[\w-]+)\.({'|'.join(kinds)})\.md", name)] == []
    assert re.findall(r"^\| `(\w+)` \|", (CHANGES / "README.md").read_text(encoding="utf-8"), re.M) == kinds


def test_the_changelog_has_a_place_for_the_next_release() -> None:
    """The line below which a release is put stands there once, and the site shows the whole file."""
    text = (release.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.startswith("# Changelog\n\n<!-- towncrier: each release is put below this line -->\n")
    assert "{include} ../CHANGELOG.md" in (release.ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")


def test_the_last_line() -> None:
    """It says that the files are ready, or what is missing, the empty addresses first."""
    assert contents.last_line(SOMEWHERE, [], ["dist/a", "dist/b"]) == "Ready to upload: dist/a and dist/b."
    assert contents.last_line(NOWHERE, ["x"], []) == (
        "Not ready to upload. Missing: Repository and Documentation in [project.urls] of pyproject.toml; x."
    )


def test_a_wrong_tag_stops_the_release() -> None:
    """The workflow that uploads gives its tag, which must be that of the version."""
    with pytest.raises(SystemExit, match=r"v0\.0\.0"):
        release.main(["--tag", "v0.0.0"])


@pytest.mark.parametrize(
    ("lacking", "empty", "arguments", "status"),
    [
        ([], [], ["--tag"], 0),
        (["x"], [], ["--tag"], 1),
        ([], ["Repository"], ["--tag"], 1),
        (["x"], ["Repository"], [], 0),
    ],
)
def test_what_is_missing_stops_an_upload(
    monkeypatch: pytest.MonkeyPatch, lacking: list[str], empty: list[str], arguments: list[str], status: int
) -> None:
    """It is an error for the workflow that uploads, and only told to those who try the build."""
    monkeypatch.setattr(Project, "empty", property(lambda _: empty))
    monkeypatch.setattr(release, "release", lambda _project: ["dist/a"])
    monkeypatch.setattr(release, "missing", lambda _project: lacking)
    assert release.main([*arguments, f"v{this_project().version}"][: 2 * len(arguments)]) == status


def test_a_step_that_fails_stops_the_release() -> None:
    """The last line names the command, below its own words."""
    with pytest.raises(SystemExit, match=r"(?s)its words.*Not ready to upload\. This failed: .*python"):
        release.run(sys.executable, "-c", "import sys; sys.exit('its words')")
    with pytest.raises(SystemExit, match=r"Not ready to upload\. no-such-program is not installed\."):
        release.run("no-such-program")


def test_a_wheel_that_lacks_a_file_stops_the_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was built is compared with the checkout before anything is tried."""

    def run(*_command: object) -> str:
        tmp_path.mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "shop-1.2.3-py3-none-any.whl", "w") as wheel:
            wheel.writestr("lazysession/a.py", "")
        return ""

    monkeypatch.setattr(release, "DIST", tmp_path)
    monkeypatch.setattr(release, "run", run)
    monkeypatch.setattr(release, "copy_checkout", lambda *_: ["lazysession/a.py", "lazysession/b.py"])
    with pytest.raises(SystemExit, match=r"the wheel lacks lazysession/b\.py"):
        release.build(NOWHERE)
