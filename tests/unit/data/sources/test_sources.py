"""Sources that are no tables: class folders, and the conversation files of other trainers."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from conftest import shared_folder

from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import SPLIT_NAMES, open_dataset
from appraiser.data.pictures import encode
from appraiser.data.sources import open_source
from appraiser.errors import DataError
from tests.tiny import formula_picture

ANSWER = "Product: Mini Check Wool Coat, Category: COATS, Full Price: 1290"


def picture(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(formula_picture(40, 30, number)))
    return path


def rows_of(path: Path) -> list[dict]:
    return [row for _, row in open_source(str(path)).rows()]


def write(path: Path, entries: object) -> Path:
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_folders_named_after_their_category(tmp_path):
    for number, name in enumerate(["coats/a.jpg", "coats/sub/b.PNG", "bags/ä.jpeg"]):
        picture(tmp_path / name, number)
    (tmp_path / "coats" / "notes.txt").write_text("no picture")
    assert rows_of(tmp_path) == [
        {"image": "bags/ä.jpeg", "category": "bags"},
        {"image": "coats/a.jpg", "category": "coats"},
        {"image": "coats/sub/b.PNG", "category": "coats"},
    ]


def test_split_folders_are_no_categories(tmp_path):
    for name in ("train/coats/a.jpg", "test/bags/b.jpg"):
        picture(tmp_path / name)
    assert rows_of(tmp_path) == [
        {"image": "test/bags/b.jpg", "category": "bags", "source_split": "test"},
        {"image": "train/coats/a.jpg", "category": "coats", "source_split": "train"},
    ]


def test_pictures_outside_of_any_category_are_refused_and_so_is_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="no table in") as caught:
        open_source(str(tmp_path))
    assert "products.csv" in caught.value.fix
    picture(tmp_path / "coats" / "a.jpg")
    picture(tmp_path / "loose.jpg")
    with pytest.raises(DataError, match=r"loose\.jpg lies in no category's folder"):
        open_source(str(tmp_path))


def test_another_picture_in_the_folder_is_another_source(tmp_path):
    picture(tmp_path / "coats" / "a.jpg")
    before = open_source(str(tmp_path)).sha256
    assert open_source(str(tmp_path)).sha256 == before
    picture(tmp_path / "coats" / "b.jpg")
    assert open_source(str(tmp_path)).sha256 != before


LLAVA = [
    {"id": "a", "image": "a.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": ANSWER}]},
    {"id": "b", "image": ["b.jpg", "c.jpg"], "conversations": [
        {"from": "human", "value": "What is this?"}, {"from": "gpt", "value": ANSWER.replace("1290", "80")}]},
]  # fmt: skip
MESSAGES = [
    {"messages": [{"role": "system", "content": "Be brief."},
                  {"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "What?"}]},
                  {"role": "assistant", "content": [{"type": "text", "text": "A coat"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"},
                                               {"type": "image_url", "image_url": {"url": "https://shop.example/b"}}]},
                  {"role": "assistant", "content": "A bag"}], "images": None},
    {"images": ["c.jpg"], "messages": [{"role": "user", "content": "<image>What?"},
                                       {"role": "assistant", "content": ANSWER}]},
]  # fmt: skip


def test_conversations_whose_answers_have_our_form_are_taken_apart(tmp_path):
    rows = rows_of(write(tmp_path / "train.json", LLAVA))
    assert [row["images"] for row in rows] == [["a.jpg"], ["b.jpg", "c.jpg"]]
    assert [(row["id"], row["title"], row["category"], row["price"]) for row in rows] == [
        ("a", "Mini Check Wool Coat", "COATS", 1290.0),
        ("b", "Mini Check Wool Coat", "COATS", 80.0),
    ]


def test_answers_whose_prices_name_a_currency_stay_whole(tmp_path):
    entries = json.loads(json.dumps(LLAVA).replace("1290", "$1290"))
    rows = rows_of(write(tmp_path / "train.json", entries))
    assert [row["title"] for row in rows] == [ANSWER.replace("1290", "$1290"), ANSWER.replace("1290", "80")]


def test_otherwise_the_answer_is_the_title(tmp_path):
    rows = rows_of(write(tmp_path / "chat.json", MESSAGES))
    assert [row["title"] for row in rows] == ["A coat", "A bag", ANSWER]
    assert rows[0]["images"] == ["a.jpg"]
    assert rows[2]["images"] == ["c.jpg"]
    assert rows[0]["question"] == "What?"
    assert json.loads(rows[0]["conversation"])[0]["content"] == "Be brief.", "what has no column is kept"
    assert "conversation" not in rows[2]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"a": 1}', "no list of conversations"),
        ("[1]", "entry 1 has neither conversations nor messages"),
        ('[{"messages": ["x"]}]', "entry 1 has neither"),
        ("[", "is no JSON"),
    ],
)
def test_what_is_no_conversation_file_is_said(tmp_path, text, what):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(DataError, match=what):
        open_source(str(tmp_path / "bad.json"))


def test_a_conversation_file_becomes_a_data_set(tmp_path):
    entries = []
    for number in range(8):
        data = base64.b64encode(picture(tmp_path / f"{number}.jpg", number).read_bytes()).decode()
        place = f"{number}.jpg" if number % 2 else f"data:image/jpeg;base64,{data}"
        place = "data:image/jpeg;base64,%%%" if number == 6 else place
        entries.append(LLAVA[0] | {"id": f"c{number}", "image": place})
    manifest = build_dataset(write(tmp_path / "train.json", entries), tmp_path / "out", max_quarantined=0.5)
    assert (manifest.ok, manifest.quarantined_by_reason) == (7, {"bad_url": 1})
    assert manifest.task_fields == ("title", "category", "price")


def test_worn_clothes_build_by_class_folder_as_they_do_by_their_table(tmp_path):
    source = shared_folder("real/worn_clothes")
    table = rows_of(source)
    for row in table:
        target = tmp_path / "folders" / row["category"] / Path(row["image"]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((source / row["image"]).read_bytes())
    manifest = build_dataset(tmp_path / "folders", tmp_path / "out")
    assert (manifest.rows_in, manifest.ok) == (len(table), len(table))
    data = open_dataset(tmp_path / "out")
    categories = sorted(record.category for split in SPLIT_NAMES for record in data.split(split))
    assert categories == sorted(row["category"] for row in table)
