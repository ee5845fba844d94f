"""`python -m benchmarks [NAME ...]`: measures, writes `benchmarks/results`, and prints the table."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cold_call import cold_call, herd
from benchmarks.containers import container_cold_call, container_frozen_call, container_herd
from benchmarks.events import events
from benchmarks.first_prediction import first_prediction
from benchmarks.gateway import gateway
from benchmarks.idle import idle
from benchmarks.image_builds import image_builds
from benchmarks.images import images, resting
from benchmarks.nginx_roles import nginx_roles
from benchmarks.report import picture, table, write
from benchmarks.resting_clip import resting_clip
from benchmarks.result import Benchmark
from benchmarks.warm_call import warm_call

RESULTS = Path(__file__).parent / "results"
BENCHMARKS: dict[str, Benchmark] = {
    "first-prediction": first_prediction,
    "cold-call": cold_call,
    "warm-call": warm_call,
    "gateway": gateway,
    "herd": herd,
    "container-cold-call": container_cold_call,
    "container-frozen-call": container_frozen_call,
    "container-herd": container_herd,
    "nginx-roles": nginx_roles,
    "events": events,
    "idle": idle,
    "image-builds": image_builds,
    "images": images,
    "resting": resting,
    "resting-clip": resting_clip,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, all where none is named; 1 where an answer was wrong or a run stayed void, 2 for an unknown name."""
    if unknown := set(names) - set(BENCHMARKS):
        sys.stderr.write(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}\n")
        return 2
    good = True
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        for name in names or BENCHMARKS:
            began, load_before = time.monotonic(), os.getloadavg()[0]
            for result in BENCHMARKS[name](Path(folder, name), Path(folder, "uv-cache")):
                write(result, RESULTS, load_before)
                good = good and not result.measured.errors and not result.measured.is_void
            sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
    written = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    found = [each for each in written if "figures" in each]  # other comparisons lie there too, in forms of their own
    (RESULTS / "table.md").write_text(table(found))
    (RESULTS / "ratios.svg").write_text(picture(found))
    sys.stdout.write(table(found))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
