"""All addresses of the project, made from the two entries of ``[project.urls]`` in pyproject.toml; pure functions."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: A link or picture of Markdown: what stands before its target, and the target.
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(?=\))")
#: What a program wrote into a page of Markdown, between its two markers.
WRITTEN = re.compile(r"(<!-- addresses:begin -->\n).*?(<!-- addresses:end -->)", re.S)


@dataclass(frozen=True)
class Project:
    """What pyproject.toml says; an address that is not set is empty, and ``pythons`` are those of the classifiers."""

    name: str
    version: str
    repository: str = ""
    documentation: str = ""
    dependencies: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()

    @classmethod
    def from_toml(cls, text: str) -> Project:
        """Read the text of pyproject.toml.

        :raises ValueError: when ``[project.urls]`` has an entry that is made from the two, or is no address on https.
        """
        project = tomllib.loads(text)["project"]
        urls: dict[str, str] = project.get("urls", {})
        for name, url in urls.items():
            if name not in ("Repository", "Documentation"):
                raise ValueError(f"[project.urls] {name}: only Repository and Documentation are set by hand.")
            if not url.startswith("https://") or "..." in url:
                raise ValueError(f"[project.urls] {name} is {url!r}; it must be an address that starts with https://")
        repository, documentation = (urls.get(name, "").rstrip("/") for name in ("Repository", "Documentation"))
        pythons = re.findall(r"Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.M)
        dependencies = tuple(project["dependencies"])
        return cls(project["name"], project["version"], repository, documentation, dependencies, tuple(pythons))

    @property
    def empty(self) -> list[str]:
        """Return the names of the addresses that are not set."""
        values = {"Repository": self.repository, "Documentation": self.documentation}
        return [name for name, value in values.items() if not value]

    def address_of(self, path: str, *, picture: bool = False) -> str:
        """Return the address of a file of this release; a page of the docs is on the site, where there is one."""
        file, _, anchor = path.partition("#")
        anchor = anchor and f"#{anchor}"
        if self.documentation and file.startswith("docs/") and file.endswith(".rst"):
            return f"{self.documentation}/{file.removeprefix('docs/').removesuffix('.rst')}.html{anchor}"
        return f"{self.repository}/{'raw' if picture else 'blob'}/v{self.version}/{file}{anchor}"


def is_relative(target: str) -> bool:
    """Return whether a link leads to a file of the checkout."""
    return not re.match(r"[a-z]+:|#", target)


def relative_links(text: str) -> list[str]:
    """Return the targets of a page's links to files of the checkout; the package's page cannot resolve them."""
    return [target for _, target in LINK.findall(text) if is_relative(target)]


def package_page(text: str, project: Project) -> str:
    """Return the README as it is shown for the package: no relative links, and a badge; as it is without Repository."""
    if not project.repository:
        return text

    def absolute(link: re.Match[str]) -> str:
        before, target = link.groups()
        return before + (project.address_of(target, picture=before[0] == "!") if is_relative(target) else target)

    badge = f"[![Tests]({project.repository}/actions/workflows/tests.yml/badge.svg)]({project.repository}/actions)"
    title, rest = LINK.sub(absolute, text).split("\n", 1)
    return f"{title}\n\n{badge}\n{rest}"


def package_toml(text: str, project: Project) -> str:
    """Return pyproject.toml with all addresses of the package in ``[project.urls]``; as it is without Repository."""
    if not project.repository:
        return text
    issues, changes = f"{project.repository}/issues", project.address_of("CHANGELOG.md")
    head = "[project.urls]\n"
    return text.replace(head, f'{head}Issues = "{issues}"\nChanges = "{changes}"\n', 1)


def issue_config(project: Project) -> str:
    """Return .github/ISSUE_TEMPLATE/config.yml: where to go with what is no public issue."""
    head = (
        "# Written by `nox -s release -- --write` from [project.urls] in pyproject.toml.\nblank_issues_enabled: false\n"
    )
    links = []
    if project.repository:
        links.append(("Vulnerability", f"{project.repository}/security/advisories/new", "Report it in private."))
    if project.documentation:
        page = f"{project.documentation}/troubleshooting.html"
        links.append(("Troubleshooting", page, "What to do if a session is not saved, or a page is not cached."))
    if not links:  # an empty list is not valid there
        return head
    lines = [f"  - name: {name}\n    url: {url}\n    about: {about}\n" for name, url, about in links]
    return f"{head}contact_links:\n{''.join(lines)}"


def security_page(text: str, project: Project) -> str:
    """Return SECURITY.md with the place where to report, between its markers.

    :raises ValueError: when the markers are not there.
    """
    form = f"[form for private reports]({project.repository}/security/advisories/new)"
    by_hand = "On GitHub, open the repository that you cloned, then Security, then Report a vulnerability."
    place = f"Use the {form}." if project.repository else by_hand
    written, count = WRITTEN.subn(rf"\g<1>{place}\n\g<2>", text)
    if count != 1:
        raise ValueError("SECURITY.md needs the markers <!-- addresses:begin --> and <!-- addresses:end --> once.")
    return written
