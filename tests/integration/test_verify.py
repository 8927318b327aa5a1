"""`appraiser verify` against folders and real servers: what is as trained passes, every mistake is named."""

import json
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from services import SETTINGS, running

from appraiser.exporting import export
from appraiser.exporting.export import export_model
from appraiser.exporting.pictures import reference_products
from appraiser.exporting.reference import read_reference
from appraiser.predict import Predictor
from appraiser.serving.chat import Message
from appraiser.serving.service import Service
from appraiser.serving.settings import key_hash

NUM_PRODUCTS = 6
KEY = "a-key-for-tests-of-24-signs"


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The embedded model, which names what it sees and its colour, with six rendered pictures."""
    out = tmp_path_factory.mktemp("verify") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "reference_products", partial(reference_products, count=NUM_PRODUCTS))
        patch.setattr(export, "max_answer_tokens", lambda *_: 40)
        export_model("phi3v-tiny", out, dtype="float32")
    return out


@pytest.fixture
def predictor(exported) -> Predictor:
    """The export as the service loads it; a test may break it."""
    return Predictor.load(str(exported))


@contextmanager
def served(predictor: Predictor, **changes):
    with running(Service(predictor, replace(SETTINGS, model_name="products", **changes))) as address:
        yield address


@contextmanager
def scripted(answer):
    """A server whose every answer is `answer(path, body)`: a status and a document."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.reply(*answer(self.path, body))

        def do_GET(self):
            self.reply(200, {"data": [{"id": "products"}]})

        def reply(self, status, document):
            data = json.dumps(document).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def found(appraiser, *arguments, code: int) -> dict:
    done = appraiser("verify", *arguments, "--json")
    assert done.code == code, done.err + done.out
    return json.loads(done.out)


# ---------------------------------------------------------------------------------------------------------- servers


def test_our_server_answers_as_trained(appraiser, exported, predictor, tmp_path):
    (tmp_path / "key").write_text(f"# the service's\n{KEY}\n")
    with served(predictor, key_hashes=(key_hash(KEY),)) as address:
        keyed = (address + "/v1/", "--reference", exported, "--key-file", tmp_path / "key")
        done = appraiser("verify", *keyed)
        assert (done.code, done.err.strip()) == (0, "")
        assert done.out.splitlines()[-1] == "As trained."
        verdict = found(appraiser, *keyed, "--model", "products", code=0)
        assert verdict["is_as_trained"] is True
        assert verdict["num_same_prompts"] == verdict["num_same_answers"] == NUM_PRODUCTS
        assert 0 <= verdict["largest_distance"] < 0.001
        assert all(finding["ok"] for finding in verdict["findings"])

        refused = appraiser("verify", address, "--reference", exported)
        assert (refused.code, refused.out) == (2, "")
        assert "the key is refused" in refused.err
        assert "fix:   name its file: --key-file" in refused.err
        other = appraiser("verify", *keyed, "--model", "another")
        assert other.code == 2
        assert "this service has one model: products" in other.err
        assert KEY not in done.out + done.err + refused.err + other.err


def test_another_number_of_crops_is_named(appraiser, exported, predictor):
    predictor.backbone.processor.image_processor.num_crops = 4
    with served(predictor) as address:
        verdict = found(appraiser, address, "--reference", exported, code=3)
    assert verdict["num_same_prompts"] == 0
    assert "crops_4" in verdict["cause"]
    assert "at most 4 crop(s) instead of 1" in verdict["findings"][-1]["text"]


def test_a_newline_after_the_picture_tag_is_named(appraiser, exported, predictor, monkeypatch):
    text = Message.text.fget
    monkeypatch.setattr(Message, "text", property(lambda message: "\n" + text(message)))
    with served(predictor) as address:
        verdict = found(appraiser, address, "--reference", exported, code=3)
    assert verdict["num_same_prompts"] == 0
    assert verdict["cause"] == ["newline_after_tag"]
    assert "a newline between picture and question" in verdict["findings"][-1]["text"]


def test_swapped_channels_are_named(appraiser, exported, predictor, monkeypatch):
    processor = predictor.backbone.processor.image_processor
    views = processor.views
    monkeypatch.setattr(
        processor, "views", lambda image, *rest: views(Image.fromarray(np.asarray(image)[..., ::-1].copy()), *rest)
    )
    with served(predictor) as address:
        verdict = found(appraiser, address, "--reference", exported, code=3)
        done = appraiser("verify", address, "--reference", exported)
    assert verdict["num_same_prompts"] == NUM_PRODUCTS, "the prompt is as long as ever"
    assert verdict["num_same_answers"] < NUM_PRODUCTS
    assert verdict["cause"] == ["bgr"]
    assert "are those of pictures with swapped channels (BGR instead of RGB)." in done.out
    assert done.out.splitlines()[-1] == "NOT as trained."


def test_pictures_that_are_not_normalised_are_named(appraiser, exported, predictor):
    processor = predictor.backbone.processor.image_processor
    processor.image_mean, processor.image_std = [0.0] * 3, [1.0] * 3
    with served(predictor) as address:
        verdict = found(appraiser, address, "--reference", exported, code=3)
    assert verdict["cause"] == ["not_normalised"]


def test_other_weights_are_no_known_mistake(appraiser, exported, predictor):
    with torch.no_grad():
        predictor.backbone.network.lm_head.weight.neg_()
    with served(predictor) as address:
        verdict = found(appraiser, address, "--reference", exported, code=3)
    assert verdict["cause"] == []
    assert "No known mistake alone" in verdict["findings"][-1]["text"]


def test_without_the_weights_the_cause_is_left_open(appraiser, exported, predictor, tmp_path):
    light = shutil.copytree(exported, tmp_path / "light", ignore=shutil.ignore_patterns("*.safetensors"))
    predictor.backbone.processor.image_processor.num_crops = 4
    with served(predictor) as address:
        verdict = found(appraiser, address, "--reference", light, code=3)
    assert (verdict["cause"], verdict["num_same_prompts"]) == ([], 0)
    assert "the reference has no weights to try" in verdict["findings"][-1]["text"]


def test_a_server_without_probabilities_is_asked_again_without(appraiser, exported):
    answers = iter(read_reference(exported).products)
    seen: list[dict] = []

    def answer(path, body):
        seen.append(body)
        if "logprobs" in body:
            return 400, {"error": {"message": "unknown field"}}
        product = next(answers)
        message = {"role": "assistant", "content": " " + product.answer}
        return 200, {"choices": [{"message": message}], "usage": {"prompt_tokens": product.num_prompt_tokens}}

    with scripted(answer) as address:
        verdict = found(appraiser, address, "--reference", exported, code=0)
    assert (verdict["num_same_answers"], verdict["largest_distance"]) == (NUM_PRODUCTS, None)
    assert "Probabilities of tokens were not compared" in str(verdict["findings"])
    assert ["logprobs" in body for body in seen] == [True] + [False] * NUM_PRODUCTS
    picture, text = seen[-1]["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert text == {"type": "text", "text": "What is shown in this image?"}
    assert (seen[-1]["temperature"], seen[-1]["max_tokens"]) == (0, 40)


@pytest.mark.parametrize(
    ("status", "document", "code", "said"),
    [
        (500, {"error": "out of \x1b[31mmemory"}, 3, "HTTP 500"),
        (400, {"error": {"message": "pictures are not taken"}}, 3, "pictures are not taken"),
        (404, {}, 2, "not found (HTTP 404)"),
        (307, {}, 3, "HTTP 307"),
        (200, [1], 3, "no JSON object"),
        (200, {"choices": []}, 3, "not in the OpenAI form"),
    ],
)
def test_a_server_that_errs_is_told_from_a_wrong_one(appraiser, exported, status, document, code, said):
    paths: list[str] = []

    def answer(path, body):
        paths.append(path)
        return status, document

    with scripted(answer) as address:
        done = appraiser("verify", address, "--reference", exported)
    assert (done.code, done.out) == (code, ""), done.err
    assert said in done.err
    assert "\x1b" not in done.err
    assert "  fix:   " in done.err
    assert set(paths) == {"/v1/chat/completions"}, "no redirect is followed"


def test_a_server_that_is_not_there_and_other_misuse(appraiser, exported, tmp_path, monkeypatch):
    with scripted(lambda *_: (200, {})) as address:
        pass
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.7:3128")
    done = appraiser("verify", address, "--reference", exported)
    assert (done.code, done.out) == (2, "")
    assert f"nobody answers at {address}/v1/models" in done.err

    def refused(*arguments) -> str:
        done = appraiser("verify", *arguments)
        assert (done.code, done.out) == (2, ""), done.err
        return done.err

    assert "name the export that it serves: --reference" in refused(address)
    assert "are for servers" in refused(exported, "--model", "x")
    assert "no address of a server" in refused("http://user:secret@host", "--reference", exported)
    assert "secret" not in refused("http://user:secret@host", "--reference", exported)
    (tmp_path / "empty").write_text("# none\n")
    assert "there is no key in" in refused(address, "--reference", exported, "--key-file", tmp_path / "empty")
    missing = appraiser("verify", tmp_path / "absent")
    assert missing.code == 3
    assert "no folder at" in missing.err


# ---------------------------------------------------------------------------------------------------------- folders


def test_the_export_and_a_copy_of_it_are_as_trained(appraiser, exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "copy")
    for arguments in ((exported,), (copy,), (copy, "--reference", exported)):
        verdict = found(appraiser, *arguments, code=0)
        assert verdict["num_same_prompts"] == verdict["num_same_answers"] == NUM_PRODUCTS
        assert verdict["largest_distance"] < 1e-6


def test_a_folder_with_other_crops_is_named(appraiser, exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "copy")
    path = copy / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_crops": 4}))
    verdict = found(appraiser, copy, code=3)
    said = " ".join(finding["text"] for finding in verdict["findings"] if not finding["ok"])
    assert "preprocessor_config.json was changed" in said
    assert "at most 4 crop(s); in training it was 1" in said
    assert f"{NUM_PRODUCTS} of {NUM_PRODUCTS} prompts are not those of training" in said


def test_a_flipped_weight_is_found_with_and_without_the_manifest(appraiser, exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    norm = weights["model.norm.weight"]
    norm.view(torch.int32)[norm.abs().argmax()] ^= -(2**31)  # the bit of the sign
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    verdict = found(appraiser, copy, code=3)
    assert verdict["findings"][0]["text"] == "Files are not as they were exported: model.safetensors was changed."
    (copy / "manifest.json").unlink()
    verdict = found(appraiser, copy, code=3)
    assert verdict["num_same_prompts"] == NUM_PRODUCTS
    assert any("answers differ" in finding["text"] or "nats apart" in finding["text"]
               for finding in verdict["findings"] if not finding["ok"])  # fmt: skip


def test_weights_that_do_not_fit_are_an_error(appraiser, exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"no tensors")
    done = appraiser("verify", copy)
    assert (done.code, done.out) == (3, "")
    assert "cannot be loaded through the Auto classes" in done.err
    (copy / "reference/01.jpg").unlink()
    shutil.copyfile(exported / "model.safetensors", copy / "model.safetensors")
    assert "lacks its reference picture reference/01.jpg" in appraiser("verify", copy).err
