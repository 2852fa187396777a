"""The lines at the top of a report: what came out, what qualifies it, how to use and repeat it."""

import os
from collections.abc import Mapping, Sequence

from learned_opt.reporting.record import Record
from learned_opt.reporting.sections import Part, Sections, Sentences

HEADING = "In short"
RESULT = "Result: "  # how headings of comparisons start
REMARKS = "To be known"


def in_short(
    record: Record, sections: Sections, provenance: Mapping[str, str]
) -> dict[str, list[Part]]:
    """A section for the top of the report, out of what is below it.

    Args:
        record: of the run.
        sections: of the report: heading -> parts.
        provenance: command and versions of the run.

    Returns:
        dict[str, list[Part]]: one section; none where the run has come to nothing yet.
    """
    lines = []
    for heading, parts in sections.items():
        sentences = _sentences(parts)
        if heading.startswith(RESULT) and sentences:
            lines.append(f"{heading.removeprefix(RESULT)}: {sentences[0]}")

    remarks = len(_sentences(sections.get(REMARKS, [])))
    if remarks:
        verb = "qualifies" if remarks == 1 else "qualify"
        noun = "remark" if remarks == 1 else "remarks"
        lines.append(f"{remarks} {noun} under “{REMARKS}” {verb} this")

    if record.metadata:  # of a theta that lies in the folder
        folder = os.path.relpath(record.folder)
        lines.append(f"to use it: LearnedOptimizer.from_pretrained({folder!r}, model, inputs)")
    if lines and "command" in provenance:
        lines.append(f"to repeat it: {provenance['command']}")
    return {HEADING: [Sentences(lines)]} if lines else {}


def _sentences(parts: Sequence[Part]) -> list[str]:
    return [line for part in parts if isinstance(part, Sentences) for line in part.lines]
