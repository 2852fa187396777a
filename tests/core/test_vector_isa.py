"""Vector instructions of generated code."""

import platform

import pytest
from torch._inductor import cpu_vec_isa

from learned_opt.core.vector_isa import try_widest


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere there is one set to try")
def test_one_trial_finds_what_all_trials_find(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    expected = cpu_vec_isa.pick_vec_isa()

    tried = []
    check_build = cpu_vec_isa.VecISA.check_build

    def noted(isa: cpu_vec_isa.VecISA, code: str) -> bool:
        tried.append(str(isa))
        return check_build(isa, code)

    monkeypatch.setattr(cpu_vec_isa.VecISA, "check_build", noted)
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    try_widest.cache_clear()
    try_widest()
    assert cpu_vec_isa.pick_vec_isa() == expected
    assert set(tried) <= {str(expected)}


def test_what_fails_is_left_to_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    for isa in cpu_vec_isa.supported_vec_isa_list:
        monkeypatch.setattr(type(isa), "__bool__", lambda _: False)
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    try_widest.cache_clear()
    try_widest()
    monkeypatch.undo()
    assert cpu_vec_isa.valid_vec_isa_list.cache_info().currsize == 0


def test_the_user_may_ask_for_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    try_widest.cache_clear()
    try_widest()
    assert cpu_vec_isa.valid_vec_isa_list.cache_info().currsize == 0
