from search.report.words import cell_text, duration, flat, millions, size_text


def test_figures_in_words():
    assert duration(4.21) == "4.2 s" and duration(200) == "3 min 20 s" and duration(3840) == "1 h 04 min"
    assert millions(3349342) == "3.35 M" and millions(7090) == "7,090"


def test_sizes_of_spaces():
    assert size_text(6561) == "6,561"
    assert size_text(1037664180**2) == "1.08\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10¹⁸"


def test_cells_of_tables():
    assert cell_text(None) == "–" and cell_text(12345) == "12,345" and cell_text(-0.5) == "\N{MINUS SIGN}0.50"
    assert flat({"a": {"b": [1, 2.5]}, "c": "x"}) == [("a.b", "1, 2.5"), ("c", "x")]
