"""An export asked in a process of its own, which loads it as anybody would: through the Auto classes, without network.

Run as `python -m appraiser.exporting.fresh JOB`, where JOB is a folder with job.json; it leaves the answers there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

import appraiser
from appraiser.backbone import Reader, model_folder  # registers phi3_v with the Auto classes
from appraiser.data.pictures import decode, read_bytes
from appraiser.errors import CheckpointError
from appraiser.exporting.answers import ATTENTION, Answer, Question, ask, read_answers, write_answers

_JOB = "job.json"
_DONE = "answered "


def ask_afresh(
    folder: Path,
    questions: Sequence[tuple[str, Sequence[str]]],
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """Answers of an exported folder, loaded in a new process.

    Args:
        questions: prompts with the paths of their pictures in `folder`.

    Raises:
        CheckpointError: it could not be loaded or asked there.
    """
    with tempfile.TemporaryDirectory(prefix="appraiser-export-") as place:
        job = {
            "folder": str(folder.resolve()),
            "questions": questions,
            "device": str(device),
            "num_threads": torch.get_num_threads(),
        }
        (Path(place) / _JOB).write_text(json.dumps(job), encoding="utf-8")
        with (Path(place) / "stderr.txt").open("w+", encoding="utf-8") as said:
            with subprocess.Popen(
                # -P: a folder called appraiser where the user happens to stand is not this package
                [sys.executable, "-P", "-m", __spec__.name, place],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=_environment(),
            ) as process:
                try:
                    _follow(process, progress)
                finally:
                    process.kill()
            said.seek(0)
            lines = said.read().strip().splitlines()
        if process.returncode != 0:
            raise CheckpointError(
                f"the export cannot be loaded in a fresh process: {_end(process.returncode, lines)}",
                fix="nothing was left behind; if memory was short, close other programs and export again",
            )
        return read_answers(Path(place))


def _end(code: int, lines: Sequence[str]) -> str:
    """Why a process ended: its last words, unless it was killed."""
    if code < 0:
        return f"it was ended by signal {-code}"
    return lines[-1][:300] if lines else f"it ended with {code} and said nothing"


def _environment() -> dict[str, str]:
    """This process's own, without network, and with this very package in front."""
    environment = dict(os.environ)
    source = str(Path(appraiser.__file__).parents[1])
    return environment | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONPATH": os.pathsep.join(filter(None, (source, environment.get("PYTHONPATH")))),
    }


def _follow(process: subprocess.Popen[str], progress: Callable[[int], None] | None) -> None:
    """Wait for the end, reporting what the process says it has done."""
    for line in process.stdout or ():
        if progress and line.startswith(_DONE):
            progress(int(line.removeprefix(_DONE)))
    process.wait()


def main() -> None:
    """In the new process."""
    place = Path(sys.argv[1])
    job = json.loads((place / _JOB).read_text(encoding="utf-8"))
    torch.set_num_threads(job["num_threads"])
    folder = Path(job["folder"])
    model, processor = load_automatically(folder)
    questions = [
        Question(prompt, tuple(decode(read_bytes(folder / path)) for path in paths))
        for prompt, paths in job["questions"]
    ]
    reader = Reader(processor, str(folder))
    answers = ask(model.to(job["device"]), reader, questions, lambda done: print(f"{_DONE}{done}", flush=True))
    write_answers(answers, place)


def load_automatically(folder: Path) -> tuple[Any, Any]:
    """Model in float32 and processor of an exported folder, by the Auto classes; an adapter on its base by PEFT."""
    is_adapter = (folder / "adapter_config.json").is_file()
    name = _base_of(folder) if is_adapter else str(folder)
    model, info = AutoModelForImageTextToText.from_pretrained(
        name, dtype=torch.float32, attn_implementation=ATTENTION, use_safetensors=True, output_loading_info=True
    )
    if info["missing_keys"] or info["unexpected_keys"]:
        raise ValueError(f"tensors are missing or unknown: {sorted(info['missing_keys'] | info['unexpected_keys'])}")
    if is_adapter:
        model.generation_config = GenerationConfig.from_pretrained(folder)
        model = _with_adapter(model, folder)
    return model, AutoProcessor.from_pretrained(folder)


def _base_of(folder: Path) -> str:
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return model_folder(settings["base_model_name_or_path"])


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel  # seconds, which whole weights need not wait for
    from safetensors.torch import load_file

    from appraiser.adapters import TRAINED_PARTS

    if (folder / TRAINED_PARTS).is_file():
        model.load_state_dict(load_file(folder / TRAINED_PARTS), strict=False)
    return PeftModel.from_pretrained(model, str(folder))


if __name__ == "__main__":
    main()
