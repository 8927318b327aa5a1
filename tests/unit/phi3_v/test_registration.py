"""Registering with the Auto classes, on the transformers versions that are allowed."""

import importlib

import pytest
import transformers

import appraiser.phi3_v


def test_without_torchvision_an_older_transformers_does_not_keep_the_package_from_loading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """transformers 5.17 raises ImportError as soon as AutoImageProcessor is touched and torchvision is absent."""

    class NeedsTorchvision(type):
        def __getattribute__(cls, name: str) -> object:
            raise ImportError("AutoImageProcessor requires the Torchvision library")

    monkeypatch.setattr(transformers, "AutoImageProcessor", NeedsTorchvision("AutoImageProcessor", (), {}))
    assert importlib.reload(appraiser.phi3_v).Phi3VProcessor is not None
