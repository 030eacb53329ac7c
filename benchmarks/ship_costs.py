"""Make what `convlab tune` has measured on this machine the table that convlab ships for its instruction set.

    convlab tune && python benchmarks/ship_costs.py

On a processor with AVX-512, `NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma,+f16c ATEN_CPU_CAPABILITY=avx2
ONEDNN_MAX_CPU_ISA=AVX2 DNNL_MAX_CPU_ISA=AVX2 XLA_FLAGS=--xla_cpu_max_isa=AVX2` before both measures as if it had AVX2.
"""

from __future__ import annotations

import json
from pathlib import Path

from convlab.compiled.instructions import instruction_set
from convlab.planning import costs

SHIPPED = Path(costs.__file__).with_name("costs.json")


def main() -> None:
    shipped, measured = (json.loads(path.read_text()) for path in (SHIPPED, costs.user_file()))
    # Environments may have measured several versions of a framework; the last one counts.
    measured["backends"] = {name: dict([*tables.items()][-1:]) for name, tables in measured["backends"].items()}
    shipped[instruction_set()] = measured
    SHIPPED.write_text(json.dumps(shipped, indent=1) + "\n")


if __name__ == "__main__":
    main()
