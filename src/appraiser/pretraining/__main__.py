"""Make phi3v-tiny again: `python -m appraiser.pretraining OUT [--looking-steps N] [--telling-steps N] ...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from appraiser.pretraining.pretrain import PretrainingConfig, pretrain


def main() -> None:
    """Parse the command line, train, and say where the model lies."""
    parser = argparse.ArgumentParser(prog="python -m appraiser.pretraining", description=main.__doc__)
    parser.add_argument("out", type=Path, help="folder for the model")
    parser.add_argument("--looking-steps", type=int, default=PretrainingConfig.looking_steps)
    parser.add_argument("--telling-steps", type=int, default=PretrainingConfig.telling_steps)
    parser.add_argument("--processes", type=int, default=PretrainingConfig.num_processes)
    arguments = parser.parse_args()

    def report(stage: str, numbers: dict[str, float]) -> None:
        print(
            f"{stage} {numbers['step']:.0f}/{numbers['of']:.0f}  loss {numbers['loss']:.4f}  "
            f"{numbers['steps_per_s']:.2f} steps/s",
            file=sys.stderr,
            flush=True,
        )

    config = PretrainingConfig(
        looking_steps=arguments.looking_steps,
        telling_steps=arguments.telling_steps,
        num_processes=arguments.processes,
    )
    print(pretrain(arguments.out, config, report))


if __name__ == "__main__":
    main()
