"""``python -m learned_opt [VERB] ...``: finds the verb and hands the rest of the words to its file."""

import importlib
import sys

# verb -> what --help says of it; the file of the same name in this folder does it
VERBS = {
    "train": "meta-train on +task=NAME, then compare on held-out seeds; may be left out",
    "evaluate": "compare trained thetas with tuned baselines on held-out seeds",
    "bench": "measure what an inner step, a layer or a deployed step costs",
    "lab": "measure bias, variance and cost of the gradient estimators",
    "zoo": "train a zoo of networks, predict their success from their weights",
    "contest": "train several networks of one task alike",
    "replay": "run again an unroll that was not finite",
    "report": "write the page of finished runs anew, or one that compares several",
    "collect": "one table of a sweep, also while it runs; what to run again",
    "dashboard": "the W&B workspace of a sweep, a run or a project",
}


def main() -> None:
    """Entry point of ``python -m learned_opt`` and of the ``learned-opt`` command."""
    words = sys.argv[1:]
    if words[:1] in (["--help"], ["-h"]):
        print(usage())
        return
    verb = "train"
    if words and words[0] in VERBS:
        verb = words[0]
        del sys.argv[1]
    importlib.import_module(f"learned_opt.commands.{verb}").main()


def usage() -> str:
    """The verbs with a line each."""
    lines = [f"  {verb:<10}{sentence}" for verb, sentence in VERBS.items()]
    return "\n".join(["usage: python -m learned_opt [VERB] ...", "", *lines])
