"""The assembly that micro-kernels become for a CPU that need not be here."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llvmlite import binding, ir

from netdsl.cpu.micro.turn import Turn

ADDRESS = re.compile(r"(\d*)\((\$\d+)(?:,(\$\d+)(?:,(\d))?)?\)")
SPILL = re.compile(r"vmov\w+\s+%[xyz]mm\d+, -?\d*\(%rsp\)")


def compiled(functions: Iterable[ir.Function], triple: str, cpu: str) -> dict[str, list[str]]:
    """The assembly of functions of one module, each by its name, as for a CPU of LLVM's naming."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    binding.initialize_native_asmparser()
    for function in functions:
        function.linkage = "external"
        module = function.module
    module.triple = triple
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.slp_vectorization = options.loop_vectorization = True
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in machine.emit_assembly(parsed).splitlines():
        label = re.match(r'"?(netdsl\.\w+)"?:', line)
        if label:
            lines = found.setdefault(label[1], [])
        lines.append(line)
    return found


def multiplies(lines: list[str]) -> list[int]:
    """Where the multiply-adds stand, or the products of pairs."""
    return [i for i, line in enumerate(lines) if "fmadd" in line or "vdpbf16ps" in line]


def spilled(lines: list[str]) -> list[str]:
    """What is stored on the stack between the first multiply-add and the last: all of them stand in
    one loop."""
    at = multiplies(lines)
    return [line for line in lines[at[0] : at[-1] + 1] if SPILL.search(line)]


def multiplied(turn: Turn, **taken: int) -> list[tuple[int, int, int]]:
    """What a turn's text multiplies: where a number lies, where 16 weights do, and which sum.

    taken: the registers of its x, w, step and across; weights lie behind all inputs.
    """
    first = len(turn.given) + len(turn.sums)
    known = {f"${first + i}": value for i, value in enumerate(taken.values())}

    def address(text: str) -> int:
        byte, base, rest, times = ADDRESS.fullmatch(text).groups()
        return int(byte or 0) + known[base] + (known[rest] * int(times or 1) if rest else 0)

    found = []
    for line in turn.text.splitlines():
        word, operands = line.split(" ", 1)
        *read, given = re.findall(r"[^,(]*\([^)]*\)|[^, ]+", operands.replace("{1to16}", ""))
        places = [
            address(place) if "(" in place else known[place] for place in map(str.strip, read)
        ]
        if word == "vfmadd231ps":
            found.append((*sorted(places), turn.sums.index(given.strip())))
        else:
            known[given.strip()] = places[0]
    return found
