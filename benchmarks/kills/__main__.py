"""Kill training, preparation, grounding of reports and upload at random moments, and compare the results.

    python -m benchmarks.kills --kills 50 [--seed S] [--only "grounded reports"]

Each workload first runs unbroken. Then it is started again and again in a new folder, killed (SIGKILL) after a random
part of the unbroken time, final save included, and started once more until it finishes. The table says for each
workload how often it was killed, how often finished work was lost after a kill, and how many results differ from the
unbroken one in any file. The exit status is 1 if there was any.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from datasets import disable_progress_bars

from benchmarks.kills.killer import kill_workloads


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="Number of kills over all workloads.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed of the moments.")
    parser.add_argument("--only", help="Name of the only workload to kill.")
    args = parser.parse_args()
    disable_progress_bars()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tallies = kill_workloads(args.kills, args.seed, Path(folder), only=args.only)
    print(f"{'workload':16} {'kills':>6} {'results':>8} {'lost':>6} {'differing':>10}")
    for name, tally in tallies.items():
        print(f"{name:16} {tally.kills:6} {tally.results:8} {tally.lost:6} {tally.differing:10}")
    print(f"{sum(tally.kills for tally in tallies.values())} kills in {time.monotonic() - start:.0f} s")
    return int(any(tally.lost or tally.differing for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
