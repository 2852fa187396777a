"""A run of a program: load, execute with progress, save where it stopped."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
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
    """Where a run stands: memory and pc after some instructions.

    Args:
        machine: sizes.
        memory: M words.
        pc: address of the next instruction.
        steps: instructions that were executed.
    """

    machine: Machine
    memory: list[int]
    pc: int = 0
    steps: int = 0

    def save(self, path: Path) -> None:
        """Write JSON that ``load`` reads; an error leaves the file that was there before.

        Raises:
            ValueError: the file cannot be written.
        """
        saved = {
            "num_words": self.machine.num_words,
            "word_bits": self.machine.word_bits,
            "pc": self.pc,
            "steps": self.steps,
            "memory": self.memory,
        }

        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(json.dumps(saved) + "\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ValueError(f"cannot write {path}: {error.strerror}.") from error


def load(file: str, num_words: int, word_bits: int, values: Mapping[str, int]) -> State:
    """The state before a program, or a saved one.

    Args:
        file: a source file, the name of a library program, or a ``.json`` that ``State.save``
            wrote.
        num_words: of the machine for a source file.
        word_bits: the same.
        values: label -> word in place of the one in the source file.

    Raises:
        ValueError: the file cannot be read, the program is wrong or too large, or a label is
            unknown.
    """
    path = Path(file)
    if path.suffix == ".json":
        return _load_state(path)
    if not path.is_file() and (LIBRARY / f"{file}.subleq").is_file():
        path = LIBRARY / f"{file}.subleq"
    if not path.is_file():
        names = ", ".join(sorted(program.stem for program in LIBRARY.glob("*.subleq")))
        raise ValueError(f"no file {file}, and no program of that name in the library: {names}.")

    machine = Machine(num_words, word_bits)
    program = assemble(_read(path), path.name)
    for label, value in values.items():
        address = program.labels.get(label, -1)
        if not 0 <= address < len(program.words):
            labels = ", ".join(sorted(program.labels))
            raise ValueError(f"{path.name} has no label {label!r}, it has {labels}.")
        program.words[address] = value
    return State(machine, program.image(machine))


def execute(state: State, engine: Engine, max_steps: int, on_step: Callable[[Step], None]) -> bool:
    """Run until the program halts; ``state`` is always whole, also after an exception.

    Args:
        state: changed in place.
        engine: executes the instructions.
        max_steps: most instructions since the program's start.
        on_step: called with every executed instruction, the one that halts included.

    Returns:
        bool: whether it halted.
    """
    progress_time = time.monotonic()
    progress_steps = state.steps

    while state.steps < max_steps:
        memory, pc, steps = engine(state.memory, state.pc, min(BLOCK, max_steps - state.steps))
        halted = steps[-1].halts
        state.memory = memory
        state.pc = pc
        state.steps += len(steps) - halted  # the one that halts changes nothing and does not count

        for step in steps:
            on_step(step)
        if halted:
            return True

        seconds = time.monotonic() - progress_time
        if seconds > PATIENCE:
            rate = (state.steps - progress_steps) / seconds
            print(f"{state.steps:,} instructions, {rate:,.0f} a second", file=sys.stderr)
            progress_time += seconds
            progress_steps = state.steps
    return False


def _load_state(path: Path) -> State:
    try:
        saved = json.loads(_read(path))
        machine = Machine(saved["num_words"], saved["word_bits"])
        memory = [int(word) for word in saved["memory"]]
        state = State(machine, memory, int(saved["pc"]), int(saved["steps"]))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no saved state: {type(error).__name__} {error}.") from error

    fits = all(machine.word(word) == word for word in memory)
    if len(memory) != machine.num_words or not fits:
        raise ValueError(f"{path} is no saved state: its memory is not {machine.num_words} words.")
    return state


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}.") from error
