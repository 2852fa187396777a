"""A computer of one instruction: machine, assembler, interpreter, programs, and the ReLU network that is it."""
