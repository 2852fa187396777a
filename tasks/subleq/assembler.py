"""Assembler: text to a memory image.

A line is ``label: MNEMONIC operand, operand ; comment``; every part may be missing. An operand is
an address: a label, a number, ``label + 1``, ``?`` (the next instruction), or ``#5``, the address
of a constant that the assembler places behind the program. ``.data 1, -2, label`` places words,
``.text "abc"`` characters and ``.zero 8`` zeros; ``macros.py`` lists the mnemonics. The label
``out`` is the output word, address -1.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from tasks.subleq.machine import Machine
from tasks.subleq.macros import MACROS

# label, mnemonic and operands, in which a string may hold anything
LINE = re.compile(r'\s*(?:([A-Za-z_]\w*)\s*:)?\s*([^\s;]+)?((?:[^;"]|"(?:[^"\\]|\\.)*")*)')
TERM = re.compile(r"\s*([+-]?)\s*([A-Za-z_]\w*|\d+)\s*")  # one of a sum: sign, label or number
LARGEST_PROGRAM = 2**20  # words; what is much larger is a slip, and would fill the memory
MOST_DIGITS = 20  # of a number; a word has at most 62 bits
SCRATCH = ("Z", "T")
RESERVED = (*SCRATCH, "out")


class AssemblyError(ValueError):
    """Something wrong in a program; the message starts with file and line."""


class Word(NamedTuple):
    """One word of the image before the labels are known.

    Args:
        expression: a sum of labels and numbers, or ``#`` and such a sum.
        line: in the file.
    """

    expression: str
    line: int


@dataclass
class Program:
    """A program without a machine.

    Args:
        name: of the file.
        words: integers, to be taken modulo 2^N.
        lines: line in the file of every word.
        labels: address of every label.
    """

    name: str
    words: list[int]
    lines: list[int] = field(repr=False)
    labels: dict[str, int]

    def image(self, machine: Machine) -> list[int]:
        """All M words of the memory.

        Raises:
            AssemblyError: the program is larger than the memory, or a number does not fit a word.
        """
        room = machine.num_words - 1  # beside the output word
        if len(self.words) > room:
            raise AssemblyError(
                f"{self.name}:{self.lines[room]}: the program needs {len(self.words)} words, but a "
                f"memory of {machine.num_words} has {room} beside the output word."
            )

        lowest = -(1 << (machine.word_bits - 1))
        highest = (1 << machine.word_bits) - 1
        for value, line in zip(self.words, self.lines, strict=True):
            if not lowest <= value <= highest:
                raise AssemblyError(
                    f"{self.name}:{line}: {value} does not fit a word of {machine.word_bits} bits."
                )

        zeros = [0] * (machine.num_words - len(self.words))
        return [machine.word(value) for value in self.words] + zeros


def assemble(text: str, name: str = "program") -> Program:
    r"""Assemble a program.

    Args:
        text: source.
        name: of the file, for messages.

    Raises:
        AssemblyError: an unknown mnemonic, a wrong operand, a label that is missing or defined
            twice.

    >>> assemble("SUB x, y\nx: .data 5\ny: .data 7").words
    [3, 4, 3, 5, 7]
    """
    assembler = _Assembler(name)
    for line, source in enumerate(text.splitlines(), 1):
        assembler.statement(source, line)
    return assembler.finish()


class _Assembler:
    def __init__(self, name: str) -> None:
        self.name = name
        self.line = 1
        self.words: list[Word] = []
        self.labels: dict[str, int] = {"out": -1}

    def statement(self, source: str, line: int) -> None:
        """Place the words of one line."""
        self.line = line
        match = LINE.match(source)
        if match is None or source[match.end() :].lstrip()[:1] not in ("", ";"):
            self._fail(f"a string is not closed in {source.strip()!r}")

        label, word, rest = match.groups()
        if label:
            self._define(label)
        if word is None:
            return

        rest = rest.strip()
        if word == ".text":
            self._emit([str(ord(character)) for character in self._string(rest)])
        elif word == ".zero":
            self._emit(["0"] * self._count(rest))
        elif word == ".data":
            self._emit(_operands(rest) or self._fail(".data needs at least one word"))
        else:
            self._instruction(word.upper(), _operands(rest))

    def finish(self) -> Program:
        """Place constants and scratch words, then look up the labels."""
        for word in list(self.words):
            name = word.expression
            is_constant = name.startswith("#")
            if name not in self.labels and (is_constant or name in SCRATCH):
                self.labels[name] = len(self.words)
                self.words.append(Word(name[1:] if is_constant else "0", word.line))

        values = [self._value(word) for word in self.words]
        lines = [word.line for word in self.words]
        return Program(self.name, values, lines, self.labels)

    def _define(self, label: str) -> None:
        if label in RESERVED:
            self._fail(f"label {label!r} is reserved")
        if label in self.labels:
            self._fail(f"label {label!r} is defined twice")
        self.labels[label] = len(self.words)

    def _instruction(self, mnemonic: str, operands: list[str]) -> None:
        """Place the words of a macro."""
        if mnemonic not in MACROS:
            known = ", ".join(MACROS)
            self._fail(f"unknown mnemonic {mnemonic!r}, known are {known}, .data, .text and .zero")
        names, body = MACROS[mnemonic]
        meanings = self._bind(mnemonic, names.split(), operands)

        first = len(self.words)
        for i in range(len(body)):
            meanings.setdefault(f"@{i}", str(first + i))
        for instruction in body.split(";"):
            following = str(len(self.words) + 3)
            words = [*instruction.split(), "?"][:3]  # a missing c is the next instruction
            expressions = [meanings.get(word, word) for word in words]
            self._emit([following if word == "?" else word for word in expressions])

    def _bind(self, mnemonic: str, names: list[str], operands: list[str]) -> dict[str, str]:
        """Operand by name in the macro's body."""
        bound = dict(zip(names, operands, strict=False))
        if mnemonic == "SUBLEQ":
            bound.setdefault("c", "?")

        if len(bound) != len(names) or len(operands) > len(bound):
            expected = " ".join(names) or "(none)"
            self._fail(
                f"{mnemonic} takes the operands {expected}, got {', '.join(operands) or 'none'}"
            )
        return bound

    def _emit(self, expressions: list[str]) -> None:
        if len(self.words) + len(expressions) > LARGEST_PROGRAM:
            self._fail(f"a program has at most {LARGEST_PROGRAM} words")
        self.words += [Word(expression, self.line) for expression in expressions]

    def _value(self, word: Word) -> int:
        """The number that an expression stands for, once all labels are known."""
        self.line = word.line
        if word.expression.startswith("#"):
            return self.labels[word.expression]

        total = 0
        position = 0
        while position < len(word.expression) or position == 0:
            term = TERM.match(word.expression, position)
            if term is None or (position and not term[1]):
                self._fail(f"{word.expression!r} is no number, label or sum of them")
            sign = -1 if term[1] == "-" else 1
            total += sign * self._number(term[2])
            position = term.end()
        return total

    def _number(self, name: str) -> int:
        if name.isdecimal():
            return self._integer(name)
        if name not in self.labels:
            self._fail(f"label {name!r} is not defined")
        return self.labels[name]

    def _string(self, rest: str) -> str:
        if len(rest) < 2 or rest[0] != '"' or rest[-1] != '"':
            self._fail(f'.text needs a string in "quotes", got {rest!r}')
        return re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), rest[1:-1])

    def _count(self, rest: str) -> int:
        count = self._integer(rest) if rest.isdecimal() else 0
        if count < 1:
            self._fail(f".zero needs a positive number of words, got {rest!r}")
        if count > LARGEST_PROGRAM:
            self._fail(f".zero {count} is too large: a program has at most {LARGEST_PROGRAM} words")
        return count

    def _integer(self, digits: str) -> int:
        if len(digits) > MOST_DIGITS:
            self._fail(f"a number has at most {MOST_DIGITS} digits, got {len(digits)}")
        return int(digits)

    def _fail(self, message: str) -> NoReturn:
        raise AssemblyError(f"{self.name}:{self.line}: {message}.")


def _operands(rest: str) -> list[str]:
    return [operand.strip() for operand in rest.split(",")] if rest else []
