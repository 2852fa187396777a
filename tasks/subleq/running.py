"""A run of a program: load, execute with progress, save where it stopped."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.subleq.assembler import assemble
from tasks.subleq.engines import Engine, Step
from tasks.subleq.machine import Machine

BLOCK = 32  # instructions between two looks at the clock
PATIENCE = 2.0  # seconds between two lines of progress
LIBRARY = Path(__file__).parent / "programs"


@dataclass
class State:
    """Where a run stands: memory and pc after some instructions."""

    machine: Machine
    memory: list[int]
    pc: int = 0
    steps: int = 0

    def save(self, path: Path) -> None:
        """Write JSON that ``load`` reads."""
        sizes = {"num_words": self.machine.num_words, "word_bits": self.machine.word_bits}
        path.write_text(
            json.dumps({**sizes, "pc": self.pc, "steps": self.steps, "memory": self.memory}) + "\n"
        )


def load(file: str, num_words: int, word_bits: int, values: dict[str, int]) -> State:
    """The state before a program, or a saved one.

    Args:
        file: a source file, the name of a library program, or a ``.json`` that ``State.save`` wrote.
        num_words: of the machine for a source file.
        word_bits: the same.
        values: label -> word in place of the one in the source file.

    Raises:
        ValueError: the file cannot be read, the program is wrong or too large, or a label is unknown.
    """
    path = Path(file)
    if path.suffix == ".json":
        return _load_state(path)
    if not path.is_file() and (LIBRARY / f"{file}.subleq").is_file():
        path = LIBRARY / f"{file}.subleq"
    if not path.is_file():
        names = ", ".join(sorted(program.stem for program in LIBRARY.glob("*.subleq")))
        raise ValueError(f"no file {file}, and no program of that name in the library: {names}.")
    machine, program = Machine(num_words, word_bits), assemble(_read(path), path.name)
    for label, value in values.items():
        if not 0 <= program.labels.get(label, -1) < len(program.words):
            raise ValueError(
                f"{path.name} has no label {label!r}, it has {', '.join(sorted(program.labels))}."
            )
        program.words[program.labels[label]] = value
    return State(machine, program.image(machine))


def execute(state: State, engine: Engine, max_steps: int, see: Callable[[Step], None]) -> bool:
    """Run until the program halts; ``state`` is always whole, also after an exception.

    Args:
        state: changed in place.
        engine: what executes.
        max_steps: most instructions since the program's start.
        see: called with every executed instruction, the one that halts included.

    Returns:
        bool: whether it halted.
    """
    shown, shown_steps = time.monotonic(), state.steps
    while state.steps < max_steps:
        memory, pc, steps = engine(state.memory, state.pc, min(BLOCK, max_steps - state.steps))
        halted = steps[-1].halts
        state.memory, state.pc, state.steps = memory, pc, state.steps + len(steps) - halted
        for step in steps:
            see(step)
        if halted:
            return True
        now = time.monotonic()
        if now - shown > PATIENCE:
            rate = (state.steps - shown_steps) / (now - shown)
            print(f"{state.steps:,} instructions, {rate:,.0f} a second", file=sys.stderr)
            shown, shown_steps = now, state.steps
    return False


def _load_state(path: Path) -> State:
    try:
        saved = json.loads(_read(path))
        machine = Machine(saved["num_words"], saved["word_bits"])
        state = State(
            machine, [int(word) for word in saved["memory"]], int(saved["pc"]), int(saved["steps"])
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no saved state: {type(error).__name__} {error}.") from error
    if len(state.memory) != machine.num_words or not all(
        machine.word(word) == word for word in state.memory
    ):
        raise ValueError(f"{path} is no saved state: its memory is not {machine.num_words} words.")
    return state


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}.") from error
