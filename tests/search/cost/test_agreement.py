import pytest

from search.cost.agreement import agreement, printed_value


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [("5.3", 5.3e6, 1e5), ("4.383312", 4383312, 1), ("0.39B", 3.9e8, 1e7), ("4.1G", 4.1e9, 1e8), ("23", 23e6, 1e6)],
)
def test_printed_values(text, value, unit):
    assert printed_value(text) == (pytest.approx(value), pytest.approx(unit))


@pytest.mark.parametrize("text", ["", "5,3", "about 5", "5.M", "-3"])
def test_what_is_no_count(text):
    with pytest.raises(ValueError, match="no printed count"):
        printed_value(text)


@pytest.mark.parametrize(
    ("count", "printed", "status"),
    [
        (5_250_000, "5.3", "exact"),
        (5_349_999, "5.3", "exact"),
        (5_360_000, "5.3", "exact (truncated)"),
        (5_399_999, "5.3", "exact (truncated)"),
        (5_400_001, "5.3", "close"),
        (5_200_000, "5.3", "close"),
        (5_190_000, "5.3", "mismatch"),
        (385_815_000, "0.39B", "exact"),
        (37_745_884_000, "37B", "exact (truncated)"),
        (4_393_771_000, "4.2B", "mismatch"),
    ],
)
def test_status_at_the_printed_precision(count, printed, status):
    found = agreement(count, printed)
    assert found.status == status
    assert found.difference == pytest.approx(count / printed_value(printed)[0] - 1)
