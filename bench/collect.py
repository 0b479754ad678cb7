"""How many rows a second `darkroom collect` brings, and whether ten times the rows take ten times as long.

The server is tests/support/server.py in a process of its own, on the same machine: 16 px PNG pictures, each with bytes of its own, no delay. What is
measured is a whole run: table, downloads, decoding, hashes, journal, manifest. Then the same run again, which finds everything there.

    python bench/collect.py [--rows 1000 10000] [--jobs 16] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from darkroom.data.fetch import Limits
from darkroom.jobs.collect import Collect, collect

TESTS = Path(__file__).parents[1] / "tests"


def timed(source: Path, to: Path, jobs: int) -> tuple[int, float]:
    """Pictures that a run brought, and its seconds."""
    begun = time.perf_counter()
    found = collect(Collect(source, to, limits=Limits(jobs=jobs, per_host=jobs)))
    return found.new, time.perf_counter() - begun


def measured(address: str, folder: Path, rows: int, jobs: int) -> dict[str, float]:
    source, to = folder / f"{rows}.txt", folder / f"set-{rows}"
    source.write_text("\n".join(f"{address}/picture/{number}.png" for number in range(rows)), encoding="utf-8")
    brought, first = timed(source, to, jobs)
    assert brought == rows, f"{brought} of {rows} came"
    brought, again = timed(source, to, jobs)
    assert brought == 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": rows, "seconds": round(first, 2), "rows_per_second": round(rows / first), "rerun_seconds": round(again, 2), "peak_mib": round(peak)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-m", "support.server"], stdout=subprocess.PIPE, text=True, cwd=TESTS)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as folder:
            found = [measured(address, Path(folder), rows, given.jobs) for rows in given.rows]
    finally:
        server.kill()
    print(json.dumps(found) if given.json else "\n".join(str(row) for row in found))


if __name__ == "__main__":
    main()
