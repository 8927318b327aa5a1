"""The pages about data name every reason, issue and fault that the code knows."""

from pathlib import Path

import pytest

from appraiser.data.checking.issues import KINDS as ISSUES
from appraiser.data.dataset import Manifest
from appraiser.data.reasons import REASONS
from appraiser.data.samples.faults import KINDS as FAULTS

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(
    ("page", "names"), [("data_quality.md", [*REASONS, *ISSUES]), ("sample_data.md", FAULTS)], ids=["quality", "sample"]
)
def test_every_name_of_the_code_is_explained(page, names):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_key_of_the_manifest_is_explained():
    text = (DOCS / "data_format.md").read_text(encoding="utf-8")
    assert [name for name in Manifest.model_fields if f"`{name}`" not in text] == []
