"""Key files: what is read, and what is refused without showing a key."""

import pytest

from appraiser.errors import ConfigError
from appraiser.key_file import read_keys

KEY = "a-key-that-nobody-guesses"


def test_keys_stand_one_a_line(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# the shop\n{KEY}\n\n  another-key-of-it \n")
    assert read_keys(path) == [KEY, "another-key-of-it"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there is no key"),
        ("# none\n", "there is no key"),
        (f"{KEY}\nwith blank in it now\n", "key 2"),
        ("schl\u00fcssel-der-passt\n", "key 1"),
    ],
)
def test_what_is_no_key_is_refused(tmp_path, text, problem):
    path = tmp_path / "keys"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=problem) as error:
        read_keys(path)
    assert KEY not in str(error.value)


def test_a_key_that_could_be_guessed_is_refused(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"{KEY}\nshort-key\n")
    with pytest.raises(ConfigError, match=r"key 2 of .*keys is shorter than 16") as error:
        read_keys(path, min_length=16)
    assert KEY not in str(error.value)
    assert "short-key" not in str(error.value)
    assert read_keys(path) == [KEY, "short-key"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the key file .*absent"):
        read_keys(tmp_path / "absent")
