"""Where everything on the page comes from: files and their hashes, versions, the recipe's settings, the commands."""

from __future__ import annotations

from edgecnn import __version__
from edgecnn.bundle import Bundle
from edgecnn.report.html import pairs, section


def versions(bundle: Bundle) -> str:
    """The section of the tools that made the bundle."""
    tools: dict[str, str] = {"edgecnn": __version__}
    for record in bundle.stages.values():
        tools |= record.made_on
    return section("Made with", pairs(sorted(tools.items())), closed=True)
