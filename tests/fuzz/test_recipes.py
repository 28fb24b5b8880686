"""Recipes as YAML files and as words of `--set`: what is taken is what was given, and anything else is refused."""

import json

import yaml
from hypothesis import strategies as st

from relish.core.io import write_yaml
from relish.core.run_folder import RunFolder
from relish.training.recipe import RECIPES, SHORT, Recipe, named_recipe, parse_settings, recipe_from_dict
from tests.fuzz.harness import folder, fuzz, kept_in
from tests.fuzz.mutation import WORDS, changed, mutated, words

FIELDS = tuple(Recipe().as_dict())
TAGGED = (
    "!!int ''",
    "!!float ''",
    "!!bool x",
    "!!timestamp x",
    "!!binary '*'",
    "!!python/object:os.system []",
    "&a [*a]",
)
FRAGMENTS = (
    "? []\n: 1",
    "a: &a [1]\nb: *a",
    "<<: *x",
    "- 1",
    "%YAML 9.9",
    "---\n---",
    "a: [" + "[" * 400,
    "\t",
    "epochs: 0x" + "f" * 6000,
    "batch_size: 0x" + "f" * 6000,
    "image_size: 1e3",
    "freeze: " + "'" + "9" * 5000 + "'",
    "2026-13-45",
)
SEEDS = [yaml.safe_dump(recipe.as_dict()).encode() for recipe in RECIPES.values()]

plain = st.one_of(
    *[st.none(), st.booleans(), st.integers(), st.floats(), words, st.just(16**6000), st.just([]), st.just({"a": 1})],
    *[st.integers(-1, 20), st.floats(-1, 2), st.sampled_from(["sgd", "adamw", "cosine", "half", "none", "12"])],
)
numbers = st.one_of(
    *[st.integers().map(str), st.floats().map(str), st.sampled_from(WORDS), st.text(max_size=8)],
    *[st.integers(-1, 20).map(str), st.sampled_from(["1e-4", "None", "sgd", "adamw", "cosine", "half", "True", " 3 "])],
)
keys = st.one_of(st.sampled_from([*FIELDS, *SHORT]), st.sampled_from([" epochs", "epochs ", "lr ", "Epochs"]), words)
settings = st.lists(st.one_of(st.builds("{}={}".format, keys, numbers), words), max_size=4)
yaml_files = st.one_of(
    changed(Recipe().as_dict(), plain).map(lambda content: _yaml(content).encode(errors="replace")),
    st.tuples(st.sampled_from(FIELDS), st.sampled_from(TAGGED)).map(lambda pair: f"{pair[0]}: {pair[1]}\n".encode()),
    st.lists(st.sampled_from(FRAGMENTS), max_size=3).map(lambda parts: "\n".join(parts).encode()),
    st.dictionaries(st.integers() | st.none() | st.booleans() | words, plain, max_size=3).map(
        lambda content: _yaml(content).encode(errors="replace")
    ),
    mutated(SEEDS),
)


def _yaml(content: object) -> str:
    try:
        return yaml.safe_dump(content, allow_unicode=True)
    except ValueError:  # a number of too many digits; YAML reads it in base 16
        return json.dumps({key: str(value)[:20] for key, value in content.items() if not isinstance(value, int)}) + "\n"


given = st.one_of(yaml_files, st.tuples(st.sampled_from([*RECIPES, "boook", "\x1b"]), settings))


@fuzz(given, examples=200)
def test_a_recipe_is_what_was_given_or_refused(example):
    with folder() as here, kept_in(here):
        recipe = _from_words(*example) if isinstance(example, tuple) else _from_yaml(here, example)
        assert recipe_from_dict(recipe.as_dict()) == recipe
        write_yaml(here / "again.yaml", recipe.as_dict())
        assert recipe_from_dict(yaml.safe_load((here / "again.yaml").read_text(encoding="utf-8"))) == recipe


def _from_yaml(here, content: bytes) -> Recipe:
    run = RunFolder(here)
    run.recipe.write_bytes(content)
    found = run.read_recipe()
    recipe = recipe_from_dict(found)
    taken = recipe.as_dict()
    assert set(found) <= set(taken)
    return recipe


def _from_words(name: str, given: list[str]) -> Recipe:
    settings = parse_settings(given)
    recipe = named_recipe(name).with_settings(settings)
    taken = [SHORT.get(word.partition("=")[0].strip(), word.partition("=")[0].strip()) for word in given]
    assert len(set(taken)) == len(taken), f"one of {taken} was not used"
    assert set(taken) <= set(recipe.as_dict())
    return recipe
