"""Recipes are the book's numbers, and refuse what is not one."""

import dataclasses

import pytest
import yaml

from relish.core.errors import RecipeError
from relish.training.recipe import RECIPES, Recipe, named_recipe, parse_settings, recipe_from_dict


def test_the_book_recipe_has_the_numbers_of_the_book():
    book = named_recipe("book")
    assert (book.learning_rate, book.head_multiplier, book.weight_decay) == (5e-5, 10, 1e-3)
    assert (book.batch_size, book.epochs, book.momentum, book.loss) == (128, 5, 0, "sum")
    scratch = named_recipe("book-scratch")
    assert (scratch.start, scratch.head, scratch.learning_rate, scratch.head_multiplier) == (
        "random",
        "library",
        5e-4,
        1,
    )


def test_the_recipes_of_the_books_other_tab_have_its_numbers():
    tab, scratch = named_recipe("book-mxnet"), named_recipe("book-mxnet-scratch")
    assert (tab.learning_rate, tab.head_multiplier, tab.loss, tab.head) == (0.01, 10, "mean", "xavier-zero")
    assert (scratch.learning_rate, scratch.head_multiplier, scratch.loss) == (0.1, 1, "mean")
    assert (scratch.start, scratch.head) == ("random", "library")
    for recipe in (tab, scratch):
        assert (recipe.weight_decay, recipe.batch_size, recipe.epochs, recipe.momentum) == (1e-3, 128, 5, 0)


@pytest.mark.parametrize("name", ["book-scratch", "frozen", "source-head"])
def test_the_exercises_change_nothing_but_what_they_are_about(name):
    about = {
        "book-scratch": {"name", "start", "head", "learning_rate", "head_multiplier"},
        "frozen": {"name", "freeze"},
        "source-head": {"name", "head"},
    }
    book, other = named_recipe("book").as_dict(), named_recipe(name).as_dict()
    assert {key for key in book if book[key] != other[key]} == about[name]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_yaml(recipe):
    assert recipe_from_dict(yaml.safe_load(yaml.safe_dump(recipe.as_dict()))) == recipe


def test_settings_are_read_as_the_type_of_their_field():
    changed = named_recipe("book").with_settings(parse_settings(["lr=1e-4", "epochs=3", "image_size=none"]))
    assert (changed.learning_rate, changed.epochs, changed.image_size) == (1e-4, 3, None)


def test_an_unknown_key_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match='did you mean "learning_rate"'):
        Recipe().with_settings({"learning_rat": 1})


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match='did you mean "frozen"'):
        named_recipe("frozzen")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 0),
        ("learning_rate", "nan"),
        ("learning_rate", "inf"),
        ("momentum", 1),
        ("weight_decay", -1),
        ("batch_size", 0),
        ("epochs", "2.5"),
        ("image_size", 3),
        ("freeze", "some"),
        ("head", "ones"),
        ("loss", "max"),
    ],
)
def test_a_value_out_of_range_names_its_key(key, value):
    with pytest.raises(RecipeError, match=key):
        Recipe().with_settings({key: value})


@pytest.mark.parametrize("key", ["batch_size", "epochs", "image_size", "momentum", "freeze"])
def test_a_number_too_long_to_be_written_out_is_refused(key):
    """YAML reads one in base 16, and Python cannot show it."""
    with pytest.raises(RecipeError, match=key):
        recipe_from_dict({key: "9" * 5000 if key == "freeze" else 16**6000})


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().epochs = 9  # type: ignore[misc]


@pytest.mark.parametrize("words", [["epochs"], ["epochs=1", "epochs=2"], ["epochs=1", " epochs =2"]])
def test_settings_that_say_nothing_or_two_things_are_refused(words):
    with pytest.raises(RecipeError, match="epochs"):
        parse_settings(words)


def test_a_setting_under_both_of_its_names_is_refused():
    with pytest.raises(RecipeError, match="learning_rate is given twice"):
        Recipe().with_settings({"lr": "1", "learning_rate": "2"})


@pytest.mark.parametrize("key", [1, None, True, (1, 2)])
def test_a_key_that_is_no_text_is_refused(key):
    with pytest.raises(RecipeError, match="a recipe has no"):
        recipe_from_dict({key: 1})


def test_all_but_the_name_makes_two_runs_the_same():
    recipe = Recipe()
    assert set(recipe.identity()) == set(recipe.as_dict()) - {"name"}
    assert dataclasses.replace(recipe, balance="weights").identity() != recipe.identity()
