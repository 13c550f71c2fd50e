"""Tests that zarr-python and tensorstore can read a dataset right after ``kill -9``, without a repair.

``python tests/campaigns/after_kill.py --count 100 --samples 500 --seed 1 [--option codec=blosc-lz4] [--save]``

A writer of thousands of frames is killed by another process. ``open_dataset`` immediately reads every
acknowledged frame. The other programs read a sample of each dataset after ``recover`` and, if there is no
codec, also right after the kill.
"""

import argparse
import random
import sys
import tempfile
import time

import results
from kills import Campaign, Kill
from others import Others
from variants import Variant, add_arguments, variant_of
from writer import Job, write

COUNT = 4000
FEWEST = 600  # frames before the kill, so that there are enough to sample from


def jobs_of(variant: Variant) -> dict[str, Job]:
    """Return the jobs by name."""

    def job(shard: int, **values: object) -> Job:
        return Job("", variant.backend, count=COUNT, options={"shard": shard, **variant.options}, **values)

    return {
        "without a plan": job(64),
        "planned, batches": job(300, planned=True, batch=8),
        "planned, positions": job(128, planned=True, positions=3),
    }


def main() -> int:
    """Run the campaign, print the results, and return 1 if a promise was broken."""
    options = argparse.ArgumentParser(description="other programs read after kill -9")
    options.add_argument("--count", type=int, default=100)
    options.add_argument("--samples", type=int, default=500, help="frames that each other program reads")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument(
        "--folder", help="the folder for datasets; by default, the folder for temporary files"
    )
    options.add_argument("--save", action="store_true", help="save the figures for the documentation")
    add_arguments(options)
    options.set_defaults(backend="ome-zarr")
    given = options.parse_args()
    variant = variant_of(given)
    began = time.monotonic()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder, Others() as others:
        jobs = jobs_of(variant)
        write(Job(f"{folder}/first", variant.backend, count=2, options=variant.options), lambda line: None)
        campaign = Campaign(folder, variant, others, samples=given.samples, jobs=jobs)
        for number in range(given.count):
            name = list(jobs)[number % len(jobs)]
            lines = rng.randint(FEWEST, COUNT - 100) // jobs[name].batch
            campaign.run(Kill(name, frames=lines, delay_s=rng.expovariate(2000)), number)
            if number % 10 == 9:
                print(f"{number + 1} kills, {len(campaign.broken)} broken promises", flush=True)
    figures = {
        "kills": campaign.figures.pop("killed", 0),
        **campaign.figures,
        "seconds": round(time.monotonic() - began),
    }
    command = (
        f"python tests/campaigns/after_kill.py --count {given.count} --samples {given.samples} "
        f"--seed {given.seed}"
    )
    return results.conclude(
        "after_kill", command, given.seed, figures, campaign.broken, keep=given.save, variant=variant
    )


if __name__ == "__main__":
    sys.exit(main())
