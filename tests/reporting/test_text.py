"""Figures in a terminal: tables that can be read back."""

from relish.reporting.text import text_table


def test_a_table_sets_numbers_to_the_right_and_takes_words_literally():
    lines = text_table(["recipe", "accuracy"], [["[red]book[/red]", "0.94"], ["x", "0.9412"]], right=[1]).splitlines()
    assert "[red]book[/red]" in lines[2]
    assert len({len(lines[2]), len(lines[3])}) == 1


def test_a_wide_table_is_neither_wrapped_nor_cut():
    long = ["x" * 300, "y" * 200]
    assert text_table(["a", "b"], [long]).count("\n") == 2
    assert all(word in text_table(["a", "b"], [long]) for word in long)
