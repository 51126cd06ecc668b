"""`make bench`: run the measures in turns, show medians, and keep them in benchmarks/results/."""

from __future__ import annotations

import argparse
import asyncio
import os
import pstats
import signal
import time

from benchmarks.measures import MEASURES, Found, play, profile
from benchmarks.report import busy_with_others, rows_of, show, write_json
from benchmarks.stage import ROOT, Stage, open_stage

RESULTS = ROOT / "benchmarks" / "results"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES, help="measures; bare always runs")
    parser.add_argument("--rounds", type=int, default=3, help="how often each measure is taken (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of load in the measures that last (default 4)")
    parser.add_argument("--profile", action="store_true", help="instead: the broker of end-to-end under cProfile")
    return parser.parse_args()


async def _measure(stage: Stage, only: set[str], rounds: int, seconds: float) -> None:
    began = time.monotonic()
    found: list[list[Found]] = []
    for number in range(rounds):
        found.append([])
        async for one in play(stage, only, seconds):
            found[-1].append(one)
            print(f"round {number + 1} of {rounds}: {one.measure}", flush=True)
    rows = rows_of(found)
    file = write_json(stage, rows, found, RESULTS)
    print()
    show(rows)
    print("\nto bare: within each round; CPU us: for each event in the broker / PostgreSQL / Valkey / the load")
    took = time.monotonic() - began
    print(f"{rounds} rounds in {took:.0f} s on {os.cpu_count()} CPUs; all figures: {file.relative_to(ROOT)}")
    if (others := busy_with_others(found)) > 0.1:
        print(f"This machine did other work meanwhile, on {others:.1f} CPUs: rates and latencies are worse than true.")


async def _profile(stage: Stage, seconds: float) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / "broker.prof"
    await profile(stage, seconds, file)
    pstats.Stats(str(file)).sort_stats("tottime").print_stats(40)
    print(f"kept as {file.relative_to(ROOT)}")


async def _main(arguments: argparse.Namespace) -> None:
    if (this := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # leave nothing behind
    async with open_stage() as stage:
        if arguments.profile:
            await _profile(stage, arguments.seconds)
        else:
            await _measure(stage, set(arguments.only), arguments.rounds, arguments.seconds)


def main() -> None:
    asyncio.run(_main(_arguments()))


if __name__ == "__main__":
    main()
