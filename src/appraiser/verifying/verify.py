"""Replays an export's reference products somewhere else, and says whether that is the model as it was trained."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from appraiser.backbone import Reader, first_line
from appraiser.errors import CheckpointError, ConfigError
from appraiser.exporting.reference import Reference, ReferenceAnswer, read_reference
from appraiser.key_file import read_keys
from appraiser.training.checkpoint import MANIFEST, find_damage
from appraiser.verifying.cause import CauseFinder
from appraiser.verifying.client import Server, is_url
from appraiser.verifying.folder import load_folder, picture_bytes, questions_of, replay_in_folder
from appraiser.verifying.mistakes import question_of
from appraiser.verifying.replay import Comparison, Replayed, compare

SERVER_TOLERANCE = 0.1
"""Nats. The fine-tuned phi3v-tiny in bfloat16 instead of float32 moves probabilities by up to 0.024 and changes answers
where two tokens were up to 0.06 apart; mistakes that leave the prompt's length alone move them by 0.27 and more."""
FOLDER_TOLERANCE = 0.001
"""Nats. A folder is asked in float32, as it was for the reference; another machine's kernels round in another order."""
DEFAULT_MAX_TOKENS = 96

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Finding:
    """A sentence with its evidence, and whether it is as it should be."""

    ok: bool
    text: str


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Args:
        cause: names of the mistakes that explain what differs; several where the pictures cannot tell them apart.
        largest_distance, mean_distance: of the tokens of equal answers, in nats; None where there were none to compare.
    """

    target: str
    reference: str
    is_as_trained: bool
    num_products: int
    num_same_prompts: int | None
    num_same_answers: int
    largest_distance: float | None
    mean_distance: float | None
    cause: tuple[str, ...]
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def verify(
    target: str | Path,
    *,
    reference: str | Path | None = None,
    key_file: Path | None = None,
    model: str | None = None,
    tolerance: float | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Compare a folder or a server with an export.

    Args:
        target: an export or a copy of one, or the address of an OpenAI-compatible server.
        reference: the export to compare with; None: the folder itself.
        key_file: holds the server's key.
        model: what the server calls the model; None: the only one that it has.
        tolerance: nats that probabilities may be apart; None: SERVER_TOLERANCE or FOLDER_TOLERANCE.
        progress: called with (what, done, total).

    Raises:
        CheckpointError: no such export, or a server that answers with errors.
        ConfigError: a server without a reference, nobody there, a key that is refused.
    """
    if is_url(str(target)):
        if reference is None:
            raise ConfigError(
                "what the server should answer is not known", fix="name the export that it serves: --reference EXPORT"
            )
        return _verify_server(str(target), Path(reference), key_file, model, tolerance or SERVER_TOLERANCE, progress)
    if key_file or model:
        raise ConfigError("--key-file and --model are for servers", fix="leave them out, or name an http:// address")
    folder = Path(target)
    if not folder.is_dir():
        raise CheckpointError(f"no folder at {folder}", fix="name an export, or a server's address with http://")
    return _verify_folder(folder, Path(reference or folder), tolerance or FOLDER_TOLERANCE, progress)


def _verify_server(
    url: str, reference: Path, key_file: Path | None, model: str | None, tolerance: float, progress: Progress | None
) -> Verdict:
    expected = read_reference(reference)
    reader = _reader(reference)
    max_tokens = _max_tokens(reference)
    found = []
    with Server(url, None if key_file is None else read_keys(key_file)[0], model) as server:
        for product in expected.products:
            pictures = [picture_bytes(reference, path) for path in product.pictures]
            answer = server.ask(question_of(product.prompt), pictures, max_tokens)
            found.append(Replayed(answer.text, answer.num_prompt_tokens, answer.logprobs))
            if progress:
                progress("asking the server", len(found), len(expected.products))
    compared = [compare(reader, *pair) for pair in zip(expected.products, found, strict=True)]
    findings = _findings(compared, found, tolerance)
    cause: tuple[str, ...] = ()
    if not all(finding.ok for finding in findings):
        cause, more = _cause(reference, expected, compared, found, progress)
        findings.append(more)
    return _verdict(url, reference, compared, findings, cause)


def _verify_folder(folder: Path, reference: Path, tolerance: float, progress: Progress | None) -> Verdict:
    expected = read_reference(reference)
    findings = []
    damage = find_damage(folder) if (folder / MANIFEST).is_file() else None
    if damage:
        findings.append(Finding(False, f"Files are not as they were exported: {damage}."))
    model, reader = load_folder(folder)

    def report(done: int) -> None:
        if progress:
            progress("asking the folder", done, len(expected.products))

    found = replay_in_folder(model, reader, reference, expected.products, report)
    if expected.num_crops not in (None, reader.num_crops):
        findings.append(
            Finding(
                False,
                f"Its preprocessor_config.json cuts pictures into at most {reader.num_crops} crop(s); in training it "
                f"was {expected.num_crops}.",
            )
        )
    compared = [compare(reader, *pair) for pair in zip(expected.products, found, strict=True)]
    findings += _findings(compared, found, tolerance)
    return _verdict(str(folder), reference, compared, findings, ())


def _reader(reference: Path) -> Reader:
    """The export's processor, without its weights."""
    try:
        return Reader(AutoProcessor.from_pretrained(reference), str(reference))
    except Exception as error:  # the libraries' readers raise everything; all mean the same to the user
        raise CheckpointError(
            f"the processor of {reference} cannot be loaded: {first_line(error)}", fix="export the model again"
        ) from error


def _max_tokens(reference: Path) -> int:
    """The longest answer that the export allows itself."""
    path = reference / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return int(settings.get("max_new_tokens") or DEFAULT_MAX_TOKENS)


# -------------------------------------------------------------------------------------------------------- sentences


def _findings(compared: Sequence[Comparison], found: Sequence[Replayed], tolerance: float) -> list[Finding]:
    findings = [_about_prompts(compared), _about_answers(compared, tolerance), _about_logprobs(compared, tolerance)]
    pixels = [comparison for comparison in compared if comparison.other_pixels]
    if pixels and all(finding.ok for finding in findings):
        findings.append(
            Finding(
                True,
                f"{len(pixels)} of {len(compared)} pictures have pixels that differ in bits from the recorded ones, "
                "which changes nothing else: another version or machine rounds in another way.",
            )
        )
    elif pixels:
        findings.append(Finding(False, f"{len(pixels)} of {len(compared)} pictures are processed to other pixels."))
    return findings


def _about_prompts(compared: Sequence[Comparison]) -> Finding:
    other = [comparison for comparison in compared if comparison.has_other_prompt]
    count = len(compared)
    if other:
        first = other[0]
        there, here = first.prompt_tokens or (0, 0)
        how = f"{there} tokens instead of {here}" if there != here else "as many tokens, but other ones"
        return Finding(False, f"{len(other)} of {count} prompts are not those of training: {how} ({first.picture}).")
    known = sum(comparison.prompt_tokens is not None for comparison in compared)
    if known < count:
        return Finding(
            True, f"How many tokens prompts have is known for {known} of {count}: not compared for the rest."
        )
    return Finding(True, f"All {count} prompts have as many tokens as in training, pictures included.")


def _about_answers(compared: Sequence[Comparison], tolerance: float) -> Finding:
    count, other = len(compared), [comparison for comparison in compared if not comparison.is_same]
    clear = [comparison for comparison in other if comparison.is_clear(tolerance)]
    if not other:
        return Finding(True, f"All {count} answers are the recorded ones.")
    if clear:
        first = clear[0]
        return Finding(
            False,
            f"{len(other)} of {count} answers differ, {len(clear)} of them by more than rounding: {first.found!r} "
            f"instead of {first.expected!r} ({first.picture}).",
        )
    gap = max(comparison.gap or 0.0 for comparison in other)
    return Finding(
        True,
        f"{count - len(other)} of {count} answers are the recorded ones; {len(other)} part where two tokens were "
        f"nearly equally likely (at most {gap:.2g} nats apart; allowed: {tolerance:g}).",
    )


def _about_logprobs(compared: Sequence[Comparison], tolerance: float) -> Finding:
    distances = [distance for comparison in compared for distance in comparison.distances]
    if not distances:
        return Finding(True, "Probabilities of tokens were not compared: no equal answer has them on both sides.")
    largest, mean = max(distances), statistics.fmean(distances)
    ok = all(distance <= tolerance for distance in distances)  # a NaN is not
    return Finding(
        ok,
        f"Probabilities of the {len(distances)} tokens of equal answers are up to {largest:.2g} nats apart, "
        f"{mean:.2g} on average ({'allowed' if ok else 'but allowed'}: {tolerance:g}).",
    )


def _cause(
    reference: Path,
    expected: Reference,
    compared: Sequence[Comparison],
    found: Sequence[Replayed],
    progress: Progress | None,
) -> tuple[tuple[str, ...], Finding]:
    """Names of the mistakes that explain it, and the sentence about them."""
    try:
        model, reader = load_folder(reference)
    except CheckpointError as error:
        return (), Finding(False, f"The cause was not looked for, as the reference has no weights to try: {error.what}")
    own = [compare(reader, *pair) for pair in _own(model, reader, reference, expected.products, progress)]
    if any(comparison.other_ids or comparison.is_clear(SERVER_TOLERANCE) for comparison in own):
        return (), Finding(
            False, f"The cause was not looked for: {reference} itself is not as trained; verify that folder first."
        )
    finder = CauseFinder(model, reader, questions_of(reference, expected.products))

    def report(done: int, total: int) -> None:
        if progress:
            progress("trying known mistakes", done, total)

    cause = finder.find(found, [comparison.is_same for comparison in compared], report)
    if cause is None:
        return (), Finding(
            False, "No known mistake alone gives these answers: several at once, other weights, or another one."
        )
    count = len(compared)
    share = (
        f"All {count} answers are" if cause.num_explained == count else f"{cause.num_explained} of {count} answers are"
    )
    what = ", or of ".join(mistake.what for mistake in cause.mistakes)
    return tuple(mistake.name for mistake in cause.mistakes), Finding(False, f"{share} those of {what}.")


def _own(
    model: Any, reader: Reader, reference: Path, products: Sequence[ReferenceAnswer], progress: Progress | None
) -> list[tuple[ReferenceAnswer, Replayed]]:
    """The reference's own answers on this machine."""

    def report(done: int) -> None:
        if progress:
            progress("asking the reference", done, len(products))

    return list(zip(products, replay_in_folder(model, reader, reference, products, report), strict=True))


def _verdict(
    target: str,
    reference: Path,
    compared: Sequence[Comparison],
    findings: Sequence[Finding],
    cause: tuple[str, ...],
) -> Verdict:
    distances = [distance for comparison in compared for distance in comparison.distances]
    counted = [comparison for comparison in compared if comparison.prompt_tokens is not None or comparison.other_ids]
    return Verdict(
        target=target,
        reference=str(reference),
        is_as_trained=all(finding.ok for finding in findings),
        num_products=len(compared),
        num_same_prompts=sum(not comparison.has_other_prompt for comparison in counted) if counted else None,
        num_same_answers=sum(comparison.is_same for comparison in compared),
        largest_distance=max(distances, default=None),
        mean_distance=statistics.fmean(distances) if distances else None,
        cause=cause,
        findings=tuple(findings),
    )
