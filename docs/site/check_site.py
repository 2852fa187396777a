"""Checks a built site: every public name has an entry, and no page asks another host for anything.

``python docs/site/check_site.py docs/_build`` ends with exit code 1 and a list of what is wrong.
"""

import re
import sys
from pathlib import Path

import api_pages
from sphinx.util.inventory import InventoryFile

# what a browser fetches by itself; links that a reader clicks may lead elsewhere
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc=["']((?:https?:)?//[^"']+)"""
    r"""|<link\b(?=[^>]*\brel=["'](?:stylesheet|preload|preconnect|icon|shortcut icon))[^>]*?"""
    r"""\bhref=["']((?:https?:)?//[^"']+)"""
    r"""|(?:@import\s+(?:url\()?|url\()\s*["']?((?:https?:)?//[^"')]+)""",
    re.IGNORECASE,
)


def names_without_entry(site: Path) -> list[str]:
    """Public classes and functions that the inventory of the site lacks."""
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.loads(file.read(), uri="")
    known = {name for kind in inventory.data.values() for name in kind}

    missing = []
    for module, path in api_pages.modules().items():
        full = [f"{module}.{name}" for name in api_pages.public_names(path)]
        missing += [name for name in full if name not in known]
    return missing


def fetched_from_elsewhere(site: Path) -> list[str]:
    """Addresses of other hosts that a page or a style sheet loads."""
    requests = []
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        for match in FETCHED.finditer(path.read_text(errors="replace")):
            address = next(group for group in match.groups() if group)
            requests.append(f"{path.relative_to(site)} loads {address}")
    return requests


def main(site: Path) -> int:
    """The exit code."""
    faults = [f"no page for {name}" for name in names_without_entry(site)]
    faults += fetched_from_elsewhere(site)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(list(site.rglob('*.html')))} pages, {len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
