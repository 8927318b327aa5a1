"""Models and tables by Hub id, from a Hub on loopback: what a user's first command does, without the internet.

The client reads its address from the environment when it is imported, so every load runs in a process of its own.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import COMMIT, Hub, start
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import tiny_backbone

MODEL = "microsoft/Phi-3-vision-128k-instruct"
TABLE = "DBQ/Burberry.Product.prices.United.States"


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    server = start(hub)
    yield hub
    server.shutdown()
    server.server_close()


def run(hub: Hub, home: Path, code: str) -> dict:
    """Run `code` as a user of this Hub; it prints one JSON document."""
    own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home / "hf"), "HOME": str(home), "HF_HUB_OFFLINE": "0"}
    own |= dict.fromkeys(("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_PROGRESS_BARS"), "1")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | own, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:] + "\n".join(hub.asked[-20:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def published_model(folder: Path) -> dict:
    """A small random Phi-3-Vision laid out as published: sharded weights with an index, auto_map, code files."""
    tiny_backbone(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, inside in shards.items():
        save_file({name: weights[name] for name in inside}, folder / shard, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in weights.values())},
        "weight_map": {name: shard for shard, inside in shards.items() for name in inside},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "_name_or_path": "Phi-3-vision-128k-instruct",
        "architectures": ["Phi3VForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_phi3_v.Phi3VConfig",
            "AutoModelForCausalLM": "modeling_phi3_v.Phi3VForCausalLM",
        },
        "_attn_implementation": "flash_attention_2",
    }
    (folder / "config.json").write_text(json.dumps(config))
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    preprocessor |= {
        "auto_map": {
            "AutoProcessor": "processing_phi3_v.Phi3VProcessor",
            "AutoImageProcessor": "image_processing_phi3_v.Phi3VImageProcessor",
        },
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    for name in ("configuration_phi3_v", "modeling_phi3_v", "processing_phi3_v", "image_processing_phi3_v"):
        (folder / f"{name}.py").write_text("raise SystemExit('code of the repository was run')\n")
    return {name: float(tensor.double().sum()) for name, tensor in weights.items()}


LOAD = f"""
import json, sys
from appraiser.backbone import load
backbone = load({MODEL!r})
sums = {{name: float(tensor.double().sum()) for name, tensor in backbone.network.state_dict().items()}}
print(json.dumps({{"sums": sums, "attention": backbone.config._attn_implementation, "crops": backbone.num_crops,
                   "remote": [name for name in sys.modules if "transformers_modules" in name]}}))
"""


def test_a_model_by_hub_id_is_loaded_as_published_and_none_of_its_code_is_asked_for(hub, tmp_path):
    sums = published_model(tmp_path / "model")
    hub.repositories["model", MODEL] = tmp_path / "model"
    loaded = run(hub, tmp_path, LOAD)
    assert loaded["sums"] == sums, "the published tensor names, every value as it was written"
    assert loaded["remote"] == []
    assert loaded["attention"] != "flash_attention_2"
    assert loaded["crops"] == 1
    assert [line for line in hub.asked if line.endswith(".py")] == []
    assert any(line.startswith("GET") and "model-00002-of-00002.safetensors" in line for line in hub.asked)


FAIL = """
import json
from appraiser.backbone import load
from appraiser.data.building.build import build_dataset
from appraiser.errors import AppraiserError
said = []
for action in (lambda: load("nobody/nothing"), lambda: build_dataset("hub:nobody/nothing", "out")):
    try:
        action()
    except AppraiserError as error:
        said.append([type(error).__name__, str(error)])
print(json.dumps(said))
"""


def test_an_id_that_does_not_exist_is_one_short_error_with_a_fix(hub, tmp_path):
    (model, model_text), (table, table_text) = run(hub, tmp_path, FAIL)
    assert (model, table) == ("CheckpointError", "DataError")
    for text in (model_text, table_text):
        assert "nobody/nothing" in text
        assert "fix:" in text
        assert "Traceback" not in text


def picture(number: int) -> bytes:
    cells = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((45, 45), Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


def burberry_rows(endpoint: str, count: int = 40) -> list[dict]:
    rows = []
    for number in range(count):
        levels = [("APPAREL", "COATS", "TRENCH"), ("APPAREL", "COATS", "N.A."), ("BAGS", "N.A.", "N.A.")][number % 3]
        rows.append({
            "website_name": "Burberry", "competence_date": "2023-11-06", "country_code": "USA", "currency_code": "USD",
            "brand": "BURBERRY", "category1_code": levels[0], "category2_code": levels[1], "category3_code": levels[2],
            "product_code": str(80_000_000 + number), "title": f"Article number {number}",
            "itemurl": f"https://us.example/p{number}", "imageurl": f"{endpoint}/pictures/{number}.jpg",
            "full_price": 990.0 + number, "price": 100.0 + number, "full_price_eur": 900.5 + number,
            "price_eur": 90.5 + number, "flg_discount": 1,
        })  # fmt: skip
    return rows


BUILD = """
import json
from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import open_dataset
from appraiser.data.fetch import FetchPolicy
from appraiser.errors import DataError
policy = FetchPolicy(allow_private=frozenset(["127.0.0.1:{port}"]), num_retries=0)
refused = ""
try:
    build_dataset("hub:{table}", "{out}-refused", fetch=FetchPolicy(num_retries=0))
except DataError as error:
    refused = str(error)
manifest = build_dataset("hub:{table}", "{out}", fetch=policy, max_quarantined=0.1)
dataset = open_dataset("{out}")
records = {{r.id: [r.title, r.category, r.price, r.currency, len(r.images[0]), r.extra["full_price_eur"]]
           for name in manifest.splits for r in dataset.split(name)}}
print(json.dumps({{"manifest": manifest.model_dump(mode="json"), "records": records, "refused": refused}}))
"""


def test_the_burberry_table_by_hub_id_becomes_a_data_set(hub, tmp_path):
    rows = burberry_rows(hub.endpoint)
    hub.pictures = {f"{number}.jpg": picture(number) for number in range(40)}
    del hub.pictures["7.jpg"]
    hub.pictures["8.jpg"] = picture(8)[:200]
    (tmp_path / "table" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table" / "data" / "train-00000-of-00001.parquet")
    (tmp_path / "table" / "README.md").write_text("---\nlicense: unknown\n---\n# Burberry web scraped data\n")
    hub.repositories["dataset", TABLE] = tmp_path / "table"
    built = run(hub, tmp_path, BUILD.format(port=hub.port, table=TABLE, out=tmp_path / "out"))
    manifest, records = built["manifest"], built["records"]
    assert "none of the first 20 pictures could be fetched: 20 blocked_address" in built["refused"]
    assert (manifest["rows_in"], manifest["ok"], manifest["currency"]) == (40, 38, "USD")
    assert manifest["quarantined_by_reason"] == {"http_4xx": 1, "truncated": 1}
    assert manifest["fields"]["price"] == ["full_price"]
    assert manifest["source"] == f"hub:{TABLE}"
    for number, row in enumerate(rows):
        if number in (7, 8):
            assert row["product_code"] not in records
            continue
        title, category, price, currency, size, euros = records[row["product_code"]]
        assert (title, price, currency) == (row["title"], 990.0 + number, "USD")
        assert category == ("TRENCH", "COATS", "BAGS")[number % 3]
        assert size == len(picture(number))
        assert euros == 900.5 + number, "own columns are not rounded"
    # `datasets` asks whether there is a loading script, to refuse it (HEAD); none is ever downloaded.
    assert [line for line in hub.asked if line.endswith(".py") and not line.startswith("HEAD")] == []


def pictured(folder: Path, splits: dict[str, range], readme: str = "") -> None:
    """A repository with pictures inside its Parquet files and classes by number."""
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    classes = ClassLabel(names=["bags", "coats"])
    features = Features({"image": ImageFeature(), "label": classes, "title": Value("string")})
    (folder / "data").mkdir(parents=True)
    for split, numbers in splits.items():
        rows = {
            "image": [{"bytes": picture(number), "path": None} for number in numbers],
            "label": [number % 2 for number in numbers],
            "title": [f"Bag {number}" for number in numbers],
        }
        Dataset.from_dict(rows, features=features).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(readme or "---\nlicense: cc-by-4.0\n---\n")


READ = """
import json, logging
from pathlib import Path
said = []
class Keep(logging.Handler):
    def emit(self, record): said.append(record.getMessage())
logging.getLogger("appraiser").addHandler(Keep())
from appraiser.data.sources import open_source
from appraiser.errors import DataError
found = {{}}
for name in {names}:
    try:
        source = open_source(name)
        found[name] = [[row["title"], row["label"], len(row["image"]["bytes"])] for _, row in source.rows()]
    except DataError as error:
        found[name] = str(error)
kept = [str(path) for path in Path("{home}").rglob("*") if path.suffix in (".arrow", ".parquet")]
print(json.dumps({{"found": found, "said": said, "kept": kept, "licence": source.licence}}))
"""


def test_splits_and_configurations_of_the_hub_are_streamed_and_what_is_left_out_is_said(hub, tmp_path):
    pictured(tmp_path / "plain", {"train": range(6), "test": range(6, 9), "holdout": range(9, 11)})
    configs = "".join(f"- config_name: {name}\n  data_files: data/{name}-*\n" for name in ("winter", "summer"))
    pictured(tmp_path / "seasons", {"winter": range(4), "summer": range(4, 6)}, f"---\nconfigs:\n{configs}---\n")
    hub.repositories["dataset", "shop/plain"] = tmp_path / "plain"
    hub.repositories["dataset", "shop/seasons"] = tmp_path / "seasons"
    names = [
        "hub:shop/plain",
        "hub:shop/plain@test",
        "hub:shop/plain@val",
        "hub:shop/seasons/summer",
        "hub:shop/seasons",
    ]
    read = run(hub, tmp_path, READ.format(names=names, home=tmp_path / "hf"))
    rows = [[f"Bag {number}", ("bags", "coats")[number % 2], len(picture(number))] for number in range(11)]
    found = read["found"]
    assert found["hub:shop/plain"] == rows[:6]
    assert found["hub:shop/plain@test"] == rows[6:9]
    assert found["hub:shop/seasons/summer"] == rows[4:6]
    assert "no split 'val'" in found["hub:shop/plain@val"]
    assert "train, test, holdout" in found["hub:shop/plain@val"]
    assert "winter" in found["hub:shop/seasons"], "the message names the configurations there are"
    assert read["said"] == [
        "read the split train of shop/plain, left out test, holdout",
        "read the split test of shop/plain@test, left out train, holdout",
    ]
    assert read["kept"] == [], "nothing of the set is kept on disk"
    assert {line.split("/resolve/")[1].split("/")[0] for line in hub.asked if ".parquet" in line} == {COMMIT}


BUILD_PICTURES = """
import json
from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import open_dataset
from appraiser.data.fetch import FetchPolicy
policy = FetchPolicy(allow_private=frozenset(["127.0.0.1:{port}"]), num_retries=0)
manifest = build_dataset("hub:shop/files", "{out}", fetch=policy)
dataset = open_dataset("{out}")
records = {{r.title: len(r.images[0]) for name in manifest.splits for r in dataset.split(name)}}
print(json.dumps({{"records": records, "quarantined": manifest.quarantined_by_reason, "licence": manifest.licence}}))
"""


def test_pictures_that_are_files_of_a_repository_are_fetched_from_it(hub, tmp_path):
    place = tmp_path / "files" / "train"
    place.mkdir(parents=True)
    lines = []
    for number in range(20):
        (place / f"bag {number}.jpg").write_bytes(picture(number))
        lines.append(json.dumps({"file_name": f"bag {number}.jpg", "title": f"Bag {number}"}) + "\n")
    (place / "metadata.jsonl").write_text("".join(lines))
    (tmp_path / "files" / "README.md").write_text("---\nlicense: mit\n---\n")
    hub.repositories["dataset", "shop/files"] = tmp_path / "files"
    built = run(hub, tmp_path, BUILD_PICTURES.format(port=hub.port, out=tmp_path / "out"))
    assert built["records"] == {f"Bag {number}": len(picture(number)) for number in range(20)}
    assert built["quarantined"] == {}
