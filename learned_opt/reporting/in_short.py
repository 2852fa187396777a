"""The top of a report: what a person asks of a run, with the answers, in a fixed order."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence

from learned_opt.core.figures import figure
from learned_opt.evaluation import scores
from learned_opt.evaluation.frames import distinct, groups, select
from learned_opt.evaluation.generalisation import first_failures
from learned_opt.evaluation.results import Results
from learned_opt.evaluation.verdicts import (
    AHEAD,
    BEHIND,
    LEVEL,
    TEST_LOSS,
    Verdict,
    verdicts,
)
from learned_opt.reporting.record import Record
from learned_opt.reporting.result_cards import results_card
from learned_opt.reporting.sections import Part, Sentences

HEADING = "In short"
MOST_SENTENCES = 4  # verdicts that are told one by one
NOT_TRIED = "not tried: a generalisation card does, evaluate theta=FOLDER +card=NAME"


def in_short(
    record: Record, descriptions: Mapping[str, Mapping[str, object]], provenance: Mapping[str, str]
) -> dict[str, list[Part]]:
    """A section for the top of the report.

    Args:
        record: of the run.
        descriptions: task -> what identifies it.
        provenance: command and versions of the run.

    Returns:
        dict[str, list[Part]]: one section; none where the run has come to nothing yet.
    """
    answers = _comparison(record.results) if record.results else {}
    answers["what did training cost?"] = _cost_of_training(record)
    answers["on which data?"] = _data(descriptions)
    if record.metadata:  # of a theta that lies in the folder
        folder = os.path.relpath(record.folder)
        answers["how is it used?"] = f"LearnedOptimizer.from_pretrained({folder!r}, model, inputs)"
    elif not record.results:
        return {}

    answers["how is it repeated?"] = provenance.get("command", "")
    lines = [f"{question} {answer}" for question, answer in answers.items() if answer]
    return {HEADING: [Sentences(lines)]}


def _comparison(results: Results) -> dict[str, str]:
    frame = select(results.frame, axis="")
    reached = []
    heldout = []
    for (task, horizon), rows in groups(frame, ["task", "horizon"]):
        setting = f"{task}, horizon {horizon}"
        for verdict in verdicts(rows, results.learned):
            reached.append((setting, verdict))
        # in a mix a task without a test loss has no number there
        if TEST_LOSS in rows and bool(rows[TEST_LOSS].notna().all()):
            for verdict in verdicts(rows, results.learned, [TEST_LOSS]):
                heldout.append((setting, verdict))

    cards = results_card(results, scores.summarise(results.frame, results.reference))
    carried = []
    for axes in cards.values():
        carried += first_failures(axes, results.reference)

    return {
        "is it better, by how much?": _better(reached) or "no baseline was run",
        "is it better on held-out data?": _better(heldout),
        "how sure is that?": _certainty(results),
        "what qualifies it?": _remarks(results),
        "at what cost?": _cost_of_steps(results),
        "does it carry over?": "; ".join(carried) or NOT_TRIED,
        "did anything diverge?": _divergence(results),
    }


def _better(reached: Sequence[tuple[str, Verdict]]) -> str:
    """The verdicts, or how many there are of each kind where there are many."""
    if len(reached) <= MOST_SENTENCES:
        return "; ".join(f"{setting}, {verdict.sentence}" for setting, verdict in reached)

    counts = []
    for name in dict.fromkeys(verdict.figure for _, verdict in reached):
        words = Counter(verdict.word for _, verdict in reached if verdict.figure == name)
        each = [f"{words[word]} {word}" for word in (AHEAD, LEVEL, BEHIND) if words[word]]
        counts.append(f"{figure(name).label}: {', '.join(each)} the best baseline")
    return "; ".join(counts)


def _certainty(results: Results) -> str:
    frame = select(results.frame, axis="")
    seeds = len(distinct(frame, "seed"))
    words = f"95% intervals, paired over {seeds} held-out seeds"
    if results.meta_trainings:
        return f"{words}; over meta-seeds, see the tables of several meta-trainings"
    return f"{words}; another meta-training of the same optimizer would differ, by how much is open"


def _remarks(results: Results) -> str:
    count = len(results.warnings)
    noun = "remark" if count == 1 else "remarks"
    return f"{count} {noun} under “To be known”" if count else ""


def _cost_of_steps(results: Results) -> str:
    """Time of a step beside that of the reference, and what is left of a gain in steps."""
    frame = select(results.frame, axis="")
    reference = scores.reference_row(distinct(frame, "optimizer"), results.reference)
    if not reference:
        return ""

    medians = frame.groupby("optimizer")[["ms_per_step", "speedup", "time_speedup"]].median()
    learned = medians.loc[[name for name in results.learned if name in medians.index]]
    times = learned["ms_per_step"] / medians.loc[reference, "ms_per_step"]
    words = f"a step takes {_range(times.tolist())} times as long as one of {reference}"
    if learned["time_speedup"].isna().all():
        return words
    steps = _range(learned["speedup"].tolist())
    seconds = _range(learned["time_speedup"].tolist())
    return (
        f"{words}; {reference}'s final loss comes {steps} times as soon in steps, "
        f"{seconds} times in time (medians)"
    )


def _range(values: Sequence[float]) -> str:
    """Of one number itself, of several the lowest and the highest."""
    low = f"{min(values):.2g}"
    high = f"{max(values):.2g}"
    return low if low == high else f"{low} to {high}"


def _divergence(results: Results) -> str:
    counts = []
    for (name,), rows in groups(results.frame, ["optimizer"]):
        diverged = sum(rows["diverged"].tolist())
        if diverged:
            counts.append(f"{name} on {diverged} of {len(rows)} runs")
    return ", ".join(counts) or f"none of {len(results.frame)} runs"


def _cost_of_training(record: Record) -> str:
    facts = record.metadata.get("provenance", {})
    if "meta_training" not in facts:
        return ""
    return f"{facts['meta_training']} for {facts.get('outer_steps', '?')} outer steps"


def _data(descriptions: Mapping[str, Mapping[str, object]]) -> str:
    named = []
    for task, description in descriptions.items():
        if "data" in description:
            named.append(f"{task}: {description['data']}")
    return "; ".join(named)
