"""Run benchmarks and keep what they print in benchmarks/results, from where `docs/measured.py` takes its tables.

    python benchmarks/record.py [grid] [layers] [...] [--as-avx2]

On a machine that is quiet otherwise. Each file says the command, the processor, the day and the releases. `--as-avx2`
hides AVX-512 from numba, OpenCV and the frameworks, as on a processor that has AVX2 only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
COMMANDS = {
    "grid": "benchmarks/grid.py --sizes 256,1024,2048,4096 --seconds 0.2 --patience 0.03",
    "layers": "benchmarks/layers.py --batches 1",
    "learning": "benchmarks/learning.py",
    "native": "benchmarks/native.py",
    "reproducible": "benchmarks/reproducible.py",
    "photographs": "benchmarks/filter_folder.py",
    "cluster": "benchmarks/cluster.py",
    "dask-image": "benchmarks/beside_dask_image.py",
}
WITHOUT_AVX512 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c",
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}
RELEASES = ("convlab", "numpy", "scipy", "numba", "opencv-python-headless", "dask", "dask-image")
FRAMEWORKS = ("torch", "jax", "flax", "tensorflow", "tensorflow-cpu", "keras", "mxnet")


def releases() -> str:
    """What is installed here."""
    installed = {each.name.lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()}
    return ", ".join(f"{name} {installed[name]}" for name in (*RELEASES, *FRAMEWORKS) if name in installed)


def record(name: str) -> None:
    """Run one benchmark; its file is replaced once it has ended well."""
    from convlab.compiled.instructions import instruction_set
    from convlab.planning.costs import processor

    command = COMMANDS[name].split()
    print(f"$ python {COMMANDS[name]}", flush=True)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    hidden = " (AVX-512 hidden)" if "NUMBA_CPU_NAME" in os.environ else ""
    lines = (
        f"`python {COMMANDS[name]}` on {processor()}{hidden}, {date.today():%-d %B %Y}.",
        "",
        f"With {releases()}.",
        "",
        *(line.rstrip() for line in done.stdout.strip().splitlines()),
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.{instruction_set().lower()}.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COMMANDS)}")
    parser.add_argument("--as-avx2", action="store_true")
    arguments = parser.parse_args()
    if unknown := {*arguments.names} - {*COMMANDS}:
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    if arguments.as_avx2:
        os.environ.update(WITHOUT_AVX512)  # before numba is imported
    for name in arguments.names or COMMANDS:
        record(name)


if __name__ == "__main__":
    main()
