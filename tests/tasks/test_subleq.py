"""SUBLEQ programs: assembler, both engines, the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tasks.networks.looped_relu import SubleqNetwork
from tasks.subleq.__main__ import main
from tasks.subleq.assembler import AssemblyError, assemble
from tasks.subleq.engines import interpreter, network_engine
from tasks.subleq.machine import Machine
from tasks.subleq.running import LIBRARY, State, execute, load
from tests.tasks.test_subleq_network import random_machines

FIBONACCI = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181]
RUNS = [  # program, words for its labels, what it writes out
    ("multiply", {}, [63]),
    ("multiply", {"a": -12, "b": 13}, [-156]),
    ("multiply", {"a": 12, "b": -13}, [-156]),
    ("multiply", {"a": -3, "b": -5}, [15]),
    ("multiply", {"a": 0, "b": 5}, [0]),
    ("divide", {}, [14, 2]),
    ("divide", {"a": 6, "b": 7}, [0, 6]),
    ("divide", {"a": 21, "b": 7}, [3, 0]),
    ("gcd", {}, [12]),
    ("gcd", {"a": 17, "b": 5}, [1]),
    ("gcd", {"a": 9, "b": 9}, [9]),
    ("fibonacci", {}, FIBONACCI),
    ("fibonacci", {"n": 1}, [0]),
    ("primes", {}, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]),
    ("bubble_sort", {}, [-9, -3, 0, 1, 5, 7, 7, 12]),
    ("matrix_product", {}, [19, -10, -13, 50]),
    ("reverse", {}, [ord(character) for character in "ULeR depool"]),
]


def outputs(name: str, values: dict, engine_of, most: int = 10_000) -> tuple[list[int], State]:
    state = load(name, 512, 16, values)
    written = []

    def on_step(step) -> None:
        if step.b == state.machine.num_words - 1:
            written.append(step.value)

    assert execute(state, engine_of(state.machine), most, on_step)
    return written, state


@pytest.mark.parametrize(("name", "values", "expected"), RUNS)
def test_library_on_the_interpreter(name, values, expected) -> None:
    assert outputs(name, values, interpreter)[0] == expected


def test_every_program_of_the_library_is_tested() -> None:
    assert {name for name, _, _ in RUNS} == {path.stem for path in LIBRARY.glob("*.subleq")}


@pytest.mark.parametrize("name", ["gcd", "divide"])
def test_programs_on_the_network_step_for_step(name) -> None:
    check_lock_step(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in LIBRARY.glob("*.subleq")))
def test_the_whole_library_on_the_network_step_for_step(name) -> None:
    check_lock_step(name, 512)


def check_lock_step(name: str, num_words: int) -> None:
    """After every block both engines report the same instructions and leave the same memory."""
    state = load(name, num_words, 16, {})
    interpret = interpreter(state.machine)
    run_network = network_engine(SubleqNetwork(num_words, 16))
    memory = state.memory
    pc = state.pc
    executed = 0
    halted = False
    while not halted:
        result = interpret(memory, pc, 64)
        assert run_network(memory, pc, 64) == result
        memory, pc, steps = result
        executed += len(steps)
        halted = steps[-1].halts
    print(f"{name}: {executed - 1:,} instructions, all equal")


@pytest.mark.parametrize(("num_words", "word_bits"), [(4, 4), (16, 8), (64, 32), (8, 62)])
def test_integer_step_equals_the_interpreter(num_words, word_bits) -> None:
    machine = Machine(num_words, word_bits)
    memory, pc, _ = random_machines(machine, 60)
    engine = interpreter(machine)
    expected = [
        engine(words, at, 1) for words, at in zip(memory.tolist(), pc.tolist(), strict=True)
    ]
    after, following = machine.step(memory, pc)
    assert after.tolist() == [words for words, _, _ in expected]
    assert following.tolist() == [at for _, at, _ in expected]


MACRO_RUNS = {  # source, with words p = 5, q = -2, r = 0 -> r when it halts
    "ADD p, r\nADD q, r": 3,
    "ADD p, p\nMOV p, r": 10,
    "SUB p, r": -5,
    "MOV p, p\nMOV p, r": 5,
    "MOV #-7, r\nCLR r": 0,
    "JLE q, yes\nMOV #1, r\nyes: ADD #2, r": 2,
    "JLE p, yes\nMOV #1, r\nyes: ADD #2, r": 3,
    "JGT p, yes\nMOV #1, r\nyes: ADD #2, r": 2,
    "JGT q, yes\nMOV #1, r\nyes: ADD #2, r": 3,
    "JGT zero, yes\nMOV #1, r\nyes: ADD #2, r\nJMP end\nzero: .data 0\nend: CLR zero": 3,
    "again: ADD #3, r\nLOOP p, again": 15,
    "MOV #q, pointer\nLOAD pointer, r": -2,
    "MOV #r, pointer\nSTORE p, pointer\nSTORE q, pointer": -2,
    "MOV #r, pointer\nSTORE p, pointer\nLOAD pointer, q\nADD q, r\nSTORE r, pointer": 10,
    "SUBLEQ p, r, skip\nMOV #9, r\nskip: SUB #1, r": -6,
    "SUBLEQ q, r": 2,
    "SUB three + 1, r\nJMP end\nthree: .data 3, 4\nend: SUB end - 2, r": -7,
}


@pytest.mark.parametrize("source", MACRO_RUNS)
def test_macros(source) -> None:
    machine = Machine(256, 16)
    data = "p: .data 5\nq: .data -2\nr: .zero 1\npointer: .data 0"
    program = assemble(f"{source}\nHALT\n{data}")
    memory, _, steps = interpreter(machine)(program.image(machine), 0, 1000)
    assert steps[-1].halts
    assert machine.signed(memory[program.labels["r"]]) == MACRO_RUNS[source]
    assert all(memory[program.labels[name]] == 0 for name in ("Z",) if name in program.labels)


def test_data_text_and_comments() -> None:
    program = assemble(
        '; nothing\nx: .data 1, -2, y ; words\ny: .text "a;\\"\\n" ; characters\n\n  .zero 2'
    )
    assert program.words == [1, -2, 3, ord("a"), ord(";"), ord('"'), ord("\n"), 0, 0]
    assert program.labels == {"out": -1, "x": 0, "y": 3}
    assert program.image(Machine(16, 8))[:3] == [1, 254, 3]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "MOV #1, x\nx: .data 0\nFOO x",
            "f.subleq:3: unknown mnemonic 'FOO', known are SUBLEQ, SUB",
        ),
        ("\nOUT y", "f.subleq:2: label 'y' is not defined"),
        ("x: .data 1\nx: .data 2", "f.subleq:2: label 'x' is defined twice"),
        ("Z: .data 1", "f.subleq:1: label 'Z' is reserved"),
        ("MOV a", "f.subleq:1: MOV takes the operands a b, got a"),
        ("HALT 3", r"f.subleq:1: HALT takes the operands \(none\), got 3"),
        ("OUT 1 2", "f.subleq:1: '1 2' is no number, label or sum of them"),
        (".data 1,,2", "f.subleq:1: '' is no number"),
        ('.text "abc', "f.subleq:1: a string is not closed"),
        (".text abc", 'f.subleq:1: .text needs a string in "quotes"'),
        (".zero -1", "f.subleq:1: .zero needs a positive number of words, got '-1'"),
        (".zero ²", "f.subleq:1: .zero needs a positive number of words, got '²'"),
        (
            "\n.zero 100000000000",
            "f.subleq:2: .zero 100000000000 is too large: a program has at most 1048576 words",
        ),
        (".zero 1000000\n.zero 99999", "f.subleq:2: a program has at most 1048576 words"),
        (".zero " + "9" * 5000, "f.subleq:1: a number has at most 20 digits, got 5000"),
        (".data " + "9" * 5000, "f.subleq:1: a number has at most 20 digits, got 5000"),
        (".data", "f.subleq:1: .data needs at least one word"),
        ("\n.data 256", "f.subleq:2: 256 does not fit a word of 8 bits"),
        (".data -129", "f.subleq:1: -129 does not fit"),
        (".zero 15\n.zero 4", "f.subleq:2: the program needs 19 words, but a memory of 16 has 15"),
    ],
)
def test_wrong_programs_are_named_with_file_and_line(source, message) -> None:
    with pytest.raises(AssemblyError, match=message):
        assemble(source, "f.subleq").image(Machine(16, 8))


def test_command_prints_result_steps_and_speed(capsys) -> None:
    assert main(["run", "gcd", "--words", "64", "--set", "a=30", "--set", "b=12"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "6\n"
    assert "halted: 38 instructions, 874 layer calls, " in captured.err
    assert main(["run", "gcd", "--engine", "interpreter", "--trace"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 42  # every instruction, the one that halts, and the result
    assert lines[0].startswith("pc     0  [51] -= [49] = 36")


def test_command_prints_characters(capsys) -> None:
    assert main(["run", "reverse", "--engine", "interpreter", "--text"]) == 0
    assert capsys.readouterr().out == "ULeR depool\n"


@pytest.mark.parametrize("engine", ["network", "interpreter"])
def test_endless_loop_ends_at_the_limit_and_goes_on(engine, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "count.subleq").write_text("loop: ADD #1, n\nSUBLEQ Z, Z, loop\nn: .data 0\n")
    common = ["--engine", engine, "--words", "16", "--bits", "8"]
    assert main(["run", "count.subleq", *common, "--max-steps", "41"]) == 3
    assert "still running at the limit of 41 instructions" in capsys.readouterr().err
    saved = json.loads((tmp_path / "count.state.json").read_text())
    assert saved["steps"] == 41

    later = ["--engine", engine, "--max-steps", "100", "--save", "later.json"]
    assert main(["run", "count.state.json", *later]) == 3
    whole = [*common, "--max-steps", "100", "--save", "whole.json"]
    assert main(["run", "count.subleq", *whole]) == 3
    assert json.loads(Path("later.json").read_text()) == json.loads(Path("whole.json").read_text())


def test_interrupt_saves_a_whole_state(tmp_path, monkeypatch, capsys) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.subleq.run_command.execute", interrupted)
    assert main(["run", "gcd"]) == 130
    assert load("gcd.state.json", 0, 0, {}) == load("gcd", 256, 16, {})
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["gcd", "--words", "32"],
            "gcd.subleq:6: the program needs 52 words, but a memory of 32 has 31",
        ),
        (["gcd", "--words", "100"], "num_words must be a power of two and at least 4, got 100"),
        (["gcd", "--bits", "7"], "word_bits must be from 8 (an address of 256 words) to 62, got 7"),
        (["gcd", "--set", "q=1"], "gcd.subleq has no label 'q'"),
        (["nothing"], "no file nothing, and no program of that name in the library: bubble_sort, "),
        (["gcd", "--max-steps", "0"], "--max-steps must be at least 1, got 0"),
        (["gcd", "--animate", "a.mp4"], "--animate writes .gif or .png, got a.mp4"),
        (["gcd", "--bits", "32", "--compact"], "torch.float32 is exact up to 16777216"),
        (["broken.json"], "broken.json is no saved state: KeyError 'num_words'"),
        (["gcd", "--words", "many"], "argument --words: invalid int value: 'many'; see"),
        (["gcd", "--set", "a"], "argument --set: needs LABEL=NUMBER, got 'a'; see"),
        ([], "the following arguments are required: file; see python -m tasks.subleq run --help."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments, message, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{}")
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_verb_is_one_sentence(capsys) -> None:
    assert main(["walk"]) == 2
    error = capsys.readouterr().err
    assert "invalid choice: 'walk'" in error
    assert error.count("\n") == 1


def test_an_interrupt_outside_of_a_run_is_a_line(monkeypatch, capsys) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.subleq.bench.measure", interrupted)
    assert main(["bench"]) == 130
    assert capsys.readouterr().err == "subleq: interrupted.\n"


def test_a_state_that_cannot_be_written_is_one_sentence(tmp_path, capsys) -> None:
    path = tmp_path / "missing" / "state.json"
    assert main(["run", "gcd", "--words", "64", "--max-steps", "2", "--save", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"subleq: cannot write {path}: No such file or directory.\n" in error


def test_an_output_that_nobody_reads_is_no_traceback() -> None:
    command = f"{sys.executable} -m tasks.subleq run fibonacci --engine interpreter --trace | true"
    result = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in result.stderr
    assert result.returncode == 141


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; from tasks.subleq.__main__ import _parser; _parser().format_help(); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


@pytest.mark.usefixtures("real_pictures")
def test_pictures(tmp_path) -> None:
    sizes = ["--words", "64", "--bits", "8", "--max-steps", "4"]
    common = ["run", "gcd", *sizes, "--engine", "interpreter", "--save", str(tmp_path / "s")]
    for name in ("a.png", "a.gif"):
        assert main([*common, "--animate", str(tmp_path / name)]) == 3
    with Image.open(tmp_path / "a.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
    with Image.open(tmp_path / "a.gif") as frames:
        assert frames.n_frames == 4


def test_batch_of_machines_runs_on_one_program() -> None:
    """gcd of 50 pairs at once."""
    program = load("gcd", 64, 8, {})
    machine = Machine(64, 8)
    labels = assemble((LIBRARY / "gcd.subleq").read_text()).labels
    memory = torch.tensor(program.memory).repeat(50, 1)
    memory[:, labels["a"]] = torch.arange(1, 51)
    memory[:, labels["b"]] = 12
    network = SubleqNetwork(64, 8)
    state, steps = network.run(network.encode(memory, torch.zeros(50, dtype=torch.long)), 1000)
    expected = [torch.gcd(torch.tensor(a), torch.tensor(12)).item() for a in range(1, 51)]
    assert machine.decode(state)[0][:, labels["b"]].tolist() == expected
    assert steps.max() < 1000
