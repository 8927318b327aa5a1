"""What a person sees in the terminal while work goes on: bars, the plan of a run, the table of scores.

Progress and warnings go to stderr; shared by the commands and the demo.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from appraiser.config import RunConfig
    from appraiser.training.session import TrainingPlan
    from appraiser.training.trainer import RunSummary

stderr = Console(stderr=True)
SECONDS_PER_LINE = 60.0
"""Of progress where there is no terminal."""


class WarningLines(logging.Handler):
    """Warnings of the package as lines between the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        stderr.print(f"warning: {record.getMessage()}", highlight=False, markup=False)


def drawing_workers(wanted: int | None, rows: int) -> int:
    """Processes that draw: none is worth its start for less than 200 pictures."""
    return max(1, min(wanted or min(os.cpu_count() or 1, 8), rows // 200))


def check_workers(wanted: int | None) -> int:
    """Processes that measure pictures."""
    return wanted or min(os.cpu_count() or 1, 8)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr; yields a function that takes the number done. Nothing where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True) as progress:
        task = progress.add_task(label, total=total or None)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per stage: number done and of all, rate, time left. Where stderr is no terminal, a line a minute.

    What a stage has done when it is first reported counts as done before: it is not in its rate.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, Any] = {}
    began: dict[str, tuple[float, int]] = {}
    lines_at: dict[str, float] = {}
    with Progress(*columns, console=stderr, transient=True) as progress:

        def report(what: str, done: int, total: int) -> None:
            now = time.monotonic()
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, completed=done, rate="")
                began[what], lines_at[what] = (now, done), now
                return
            moment, before = began[what]
            rate = (done - before) / max(now - moment, 1e-9)
            progress.update(tasks[what], completed=done, rate=f"{rate:.3g}/s")
            if not stderr.is_terminal and now - lines_at[what] >= SECONDS_PER_LINE:
                lines_at[what] = now
                left = f"{(total - done) / rate / 60:.0f} min left" if done > before else "time left unknown"
                stderr.print(f"{what}: {done:,} of {total:,}, {rate:.3g}/s, {left}", highlight=False, markup=False)

        yield report


def _cost(plan: TrainingPlan, config: RunConfig) -> str:
    """Time and memory of the run, from the step that the preflight measured."""
    step_s, left = plan.cost.seconds, (plan.num_steps or 0) - plan.begins_at
    length = f"; {left} steps take about {left * step_s / 60:.1f} minutes" if left > 0 else ""
    limit = f" (run.max_minutes {config.run.max_minutes:g})" if length and config.run.max_minutes else ""
    return (
        f"A step takes about {step_s:.2f} s and {plan.cost.memory_gib:.1f} GiB{length}{limit}, validation not counted."
    )


def train_with_progress(config: RunConfig, *, dry_run: bool = False, resume: bool = False) -> RunSummary:
    """Run training with a progress bar on stderr; prints the plan first."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from appraiser.training.trainer import train as run_training

    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=stderr) as progress:
        task = progress.add_task("checking", total=1.0)

        def on_plan(plan: TrainingPlan) -> None:
            flight = plan.preflight
            if plan.begins_at:
                stderr.print(f"Going on after step {plan.begins_at}.", highlight=False)
            norms = ", ".join(f"{part} {norm:.2g}" for part, norm in flight.gradient_norms.items())
            length = f"{plan.num_steps} steps" if plan.num_steps else f"steps for {config.run.max_minutes:g} minutes"
            stderr.print(
                f"{plan.num_records} records, {length}; {plan.num_trained / 1e6:.2f} of "
                f"{plan.num_parameters / 1e6:.2f} million parameters trained; {plan.num_crops} crop(s), "
                f"{flight.num_image_tokens} image tokens of {flight.num_tokens}, {flight.num_supervised_tokens} "
                f"supervised:\n  {flight.supervised_text!r}\nThe picture reaches the model: another one changes "
                f"the logits by up to {flight.logit_change:.3g}; gradient norms: {norms}.\n{_cost(plan, config)}",
                highlight=False,
                markup=False,
            )

        def report(what: str, numbers: dict[str, float]) -> None:
            if what == "train":
                of = f"/{numbers['of']:.0f}" if "of" in numbers else ""
                progress.update(
                    task,
                    completed=numbers["done"],
                    description=f"step {numbers['step']:.0f}{of}  loss {numbers['train/loss']:.3f}  "
                    f"{numbers['train/pictures_per_s']:.0f} pictures/s",
                )
            elif what == "see":
                progress.update(
                    task,
                    completed=numbers["done"] / numbers["of"],
                    description=f"seeing pictures {numbers['done']:.0f}/{numbers['of']:.0f}",
                )
            else:
                shown = [
                    f"{key.removeprefix('eval/')} {value:.3f}"
                    for key, value in numbers.items()
                    if key.startswith("eval/")
                ]
                stderr.print(f"validation at step {numbers['step']:.0f}: {', '.join(shown)}", highlight=False)

        summary = run_training(config, progress=report, on_plan=on_plan, dry_run=dry_run, resume=resume)
    for warning in summary.warnings:
        stderr.print(f"warning: {warning}", highlight=False, markup=False)
    return summary


COLUMNS = (
    ("price off (median)", "price", "median_ape", "{:.1%}"),
    ("within 20 %", "price", "within_20", "{:.1%}"),
    ("category", "category", "accuracy", "{:.1%}"),
    ("title chrF", "title", "chrf", "{:.1f}"),
)


def score_table(scores: dict[str, Any]) -> str:
    """Model, before, baselines, controls and oracle in one plain table."""
    rows = [("fine-tuned model" if "before" in scores else "this model", scores)]
    if "before" in scores:
        rows.append(("before fine-tuning", scores["before"]))
    rows += [(name.replace("_", " "), part) for name, part in scores.get("baselines", {}).items()]
    rows += [(f"{name.replace('_', ' ')} pictures", part) for name, part in scores.get("controls", {}).items()]
    if scores.get("oracle"):
        rows.append(("oracle", scores["oracle"]))
    columns = [column for column in COLUMNS if any(column[2] in part.get(column[1], {}) for _, part in rows)]
    width = max(len(name) for name, _ in rows)
    lines = [" " * width + "".join(f"{title:>20}" for title, *_ in columns)]
    for name, part in rows:
        cells = [
            form.format(part[field][metric]["value"]) if metric in part.get(field, {}) else "-"
            for _, field, metric, form in columns
        ]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)
