import pytest


@pytest.fixture(autouse=True)
def scope(no_default_scope):
    """Models of mmdet and mmseg are built here."""
