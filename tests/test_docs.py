"""The documentation: links lead somewhere, and the commands that it names exist."""

import re
from pathlib import Path

import pytest

from landseer.client.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
PAGES = [
    README,
    CONTRIBUTING,
    ROOT / "model_repository" / "README.md",
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "export").rglob("README.md")),
]
MAKEFILE = ROOT / "Makefile"


def prose(page):
    """The page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(page):
    """The relative links of a page, as (path, fragment)."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(page)))
    return [target.partition("#")[::2] for target in targets if not re.match(r"[a-z]+:", target)]


def anchor(heading):
    """The fragment of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).strip().lower()).replace(" ", "-")


def anchors(page):
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)}


def named(page):
    return str(page.relative_to(ROOT))


def lines_of(page, program):
    """The rest of every line of code that starts with a program's name."""
    code = re.findall(r"`[^`]+`|^ *```.*?^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    starts = rf"(?:^|[`$(]|\bor |&& ) *{program} ([a-z].*)"
    return [line.split("#")[0] for block in code for line in re.findall(starts, block, re.MULTILINE)]


def commands_in(page, program):
    """The words that follow a program's name where it is written as code."""
    return {re.match(r"[a-z-]+", line)[0] for line in lines_of(page, program)}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for path, fragment in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{path} does not exist"
        assert not fragment or fragment in anchors(target), f"{target.name} has no heading #{fragment}"


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


def test_every_page_is_reachable_from_the_index():
    reached, waiting = set(), [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [(page.parent / path).resolve() for path, _ in links(page) if path.endswith(".md")]
            waiting = [found for found in waiting if found.exists()]
    assert {named(page) for page in DOCS.rglob("*.md")} <= {named(page) for page in reached}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE.read_text(), re.MULTILINE))
    assert commands_in(page, "make") <= targets


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_landseer_command_exists(page, capsys):
    main(["--help"])
    known = set(re.findall(r"^  ([a-z-]+)  ", capsys.readouterr().out, re.MULTILINE))
    assert "search" in known
    assert commands_in(page, "landseer") <= known


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_option_of_a_landseer_command_exists(page, capsys):
    for line in lines_of(page, "landseer"):
        shown = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", line))
        if not shown:
            continue
        with pytest.raises(SystemExit):
            main([*line.split()[: 2 if line.startswith("data ") else 1], "--help"])
        assert shown <= set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)), line
