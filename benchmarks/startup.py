"""How long a chapter's first cell takes, beside the imports that it cannot do without.

    python benchmarks/startup.py --out benchmarks/results/startup.json

Each way runs in processes of its own, in turns; the median counts. The floor of importing
``course_utils`` is importing some of the standard library, that of ``setup`` is importing torch.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from course_utils._setup import versions

WAYS = {
    "standard library": "import json, dataclasses, pathlib, typing",
    "import course_utils": "import course_utils",
    "import torch": "import torch",
    "setup": "from course_utils import setup; setup('02_sft', profile='tiny')",
}


def seconds_of(code: str) -> float:
    """Seconds that a fresh Python needs for the code, without its own start."""
    timed = f"import time; start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    line = [sys.executable, "-c", timed]
    out = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return float(out.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a .json file; default: print only")
    args = parser.parse_args()
    for code in WAYS.values():  # so that no way pays for reading the disk
        seconds_of(code)
    taken = [{name: seconds_of(code) for name, code in WAYS.items()} for _ in range(args.rounds)]
    median = {name: statistics.median(row[name] for row in taken) for name in WAYS}
    result = {
        "versions": versions(),
        "seconds": {name: round(value, 4) for name, value in median.items()},
        "ratios": {
            "import course_utils/standard library": round(
                median["import course_utils"] / median["standard library"], 2
            ),
            "setup/import torch": round(median["setup"] / median["import torch"], 2),
        },
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
