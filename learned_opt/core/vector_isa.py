"""Which vector instructions generated code may use, found out in a fraction of Inductor's time.

Inductor builds and loads a small library for every instruction set of the processor, in every
process that compiles, and then uses the widest. Where the widest one works, so do those that it
contains.
"""

import os
from functools import cache

from torch._inductor import config as inductor
from torch._inductor import cpu_vec_isa


@cache
def try_widest() -> None:
    """Try the widest instruction set alone; what does not work is left to Inductor's trials."""
    if "ATEN_CPU_CAPABILITY" in os.environ:  # the user asks for another one
        return

    supported = set(cpu_vec_isa.x86_isa_checker())
    candidates = []
    for isa in cpu_vec_isa.supported_vec_isa_list:
        if supported.issuperset(str(isa).split()):
            candidates.append(isa)

    if candidates and candidates[0]:
        with inductor.patch({"cpp.vec_isa_ok": True}):
            cpu_vec_isa.valid_vec_isa_list()  # which Inductor asks once
