"""The mnemonics: what each one expands to.

A body is a list of instructions ``a b c``. In it the operands have their names; ``Z`` is a word
that holds 0 between macros, ``T`` a scratch word, ``out`` the output word, ``?`` the next
instruction, ``@6`` the address six words after the macro's first, and a missing c is ``?``.
"""

MACROS: dict[str, tuple[str, str]] = {  # mnemonic -> operands, body
    "SUBLEQ": ("a b c", "a b c"),  # c may be left out
    "SUB": ("a b", "a b"),  # b -= a
    "ADD": ("a b", "a Z; Z b; Z Z"),  # b += a
    "CLR": ("b", "b b"),  # b = 0
    "MOV": ("a b", "a Z; b b; Z b; Z Z"),  # b = a
    "JMP": ("t", "Z Z t"),
    "JLE": ("x t", "Z x t"),  # to t if x <= 0
    "JGT": ("x t", "Z x @6; Z Z t"),  # to t if x > 0
    "LOOP": ("x t", "#1 x @6; Z Z t"),  # x -= 1, then to t if x > 0
    "OUT": ("x", "x out"),
    "HALT": ("", "Z Z @0"),
    # the next two write addresses into their own instructions
    "LOAD": ("p b", "@12 @12; p Z; Z @12; Z Z; 0 Z; b b; Z b; Z Z"),  # b = the word at address p
    "STORE": (  # the word at address p = a
        "a p",
        "T T; p T; @27 @27; T @27; @28 @28; T @28; @31 @31; T @31; a Z; 0 0; Z 0; Z Z",
    ),
}
