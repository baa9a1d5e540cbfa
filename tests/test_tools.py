"""The tools that judge the tests: planted faults (tools/mutants.py) and covered lines (tools/covered.py)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import covered  # noqa: E402
import mutants  # noqa: E402

sys.path.remove(str(ROOT / "tools"))


def test_the_text_of_each_fault_occurs_once_in_its_source() -> None:
    sources = mutants.patched_sources(ROOT / "src_pyx" / "fastbp")
    assert len({fault.name for fault in mutants.FAULTS}) == len(mutants.FAULTS)
    for number, fault in enumerate(mutants.FAULTS):
        call = f"fault({number})" if fault.is_kernel else f"fault_of({number}, "
        assert call in sources[fault.file]


def test_each_fault_names_existing_tests() -> None:
    for fault in mutants.FAULTS:
        texts = [path.read_text() for file in fault.test_files if (path := ROOT / "tests" / file).exists()]
        assert texts, fault.name
        names = " ".join(name for text in texts for name in re.findall(r"def (test_\w+)", text))
        for word in filter(None, fault.words.split(" or ")):  # in a test's name, or in that of a case
            assert word in names or any(f'"{word}"' in text for text in texts), f"{fault.name}: {word}"


def test_a_fault_whose_text_is_not_unique_raises() -> None:
    fault = mutants.Fault("swapped", "engine", "_x.pyx", "a - b", "b - a if FAULT else a - b", "x", "size")
    assert mutants.patched("y = a - b", fault, 7) == "y = b - a if fault_of(7, size) else a - b"
    for source in ("y = a + b", "y = a - b; z = a - b"):
        with pytest.raises(ValueError, match=f"swapped: its text occurs {source.count('a - b')} times in _x.pyx"):
            mutants.patched(source, fault, 7)


def test_a_kernels_fault_has_a_variant_for_each_instruction_set_and_dtype() -> None:
    kernel = mutants.Fault("k", "math", "_kernels/math.pxi", "a", "FAULT", "ulp")
    engine = mutants.Fault("e", "engine", "_engine/graph.pyx", "a", "FAULT", "engine", "itemsize")
    found = [variant.setting for variant in mutants.variants([kernel, engine], True, ["avx2", "baseline"])]
    assert found == ["k:avx2:float", "k:avx2:double", "k:baseline:float", "k:baseline:double", "e::float", "e::double"]


def test_generated_lines_lead_back_to_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covered, "COPY", tmp_path)
    (tmp_path / covered.SOURCES).mkdir(parents=True)
    (tmp_path / covered.SOURCES / "_x.pxi").touch()
    generated = [
        "static void f(void) {",
        '  /* "fastbp/_x.pxi":12',
        " *     y = x             # <<<<<<<<<<<<<<",
        "*/",
        "  y = x;",
        '  /* "numpy/__init__.pxd":3',
        "*/",
        "  g();",
        '  /* "fastbp/_x.pxi":13',
        "  h();",
        "  /* function exit code */",
        "}",
    ]
    (tmp_path / "x.c").write_text("\n".join(generated))
    lines = covered.source_lines(tmp_path / "x.c")
    place = f"{covered.SOURCES}/_x.pxi"
    assert [lines[n] for n in (1, 5, 8, 10, 12)] == [None, (place, 12), None, (place, 13), None]


def test_lost_lines_are_found_where_a_file_has_changed_too() -> None:
    before = covered.File([1, 2, 3], [1, 2], {1: "a", 2: "b", 3: "c"})
    same = covered.File([1, 2, 3], [1, 3], before.text)
    assert covered.lost(before, same) == ["2: b"]
    moved = covered.File([1, 5, 6], [1], {1: "new", 5: "b", 6: "c"})
    assert covered.lost(before, moved) == ["5: b"]
    assert covered.ranges([1, 2, 3, 5, 8, 9]) == "1-3 5 8-9"
