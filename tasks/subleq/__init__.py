"""A computer of one instruction: machine, assembler, interpreter, programs, ReLU layers."""
