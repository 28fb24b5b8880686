"""The files of a run folder, as strangers may have left them."""

import pytest

from relish.core.errors import RunError
from relish.core.run_folder import RunFolder


@pytest.mark.parametrize(
    "content",
    [
        *("epochs: !!int ''", "momentum: !!bool x", "momentum: !!timestamp x", "? []\n: 1", "a: [" + "[" * 600),
        *("\tepochs: 1", "a: b: c", "epochs: \x1b[2J", "- 1", "!!python/object/apply:os.getcwd []"),
    ],
)
def test_a_recipe_file_that_cannot_be_read_is_one_line(tmp_path, content):
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(RunError, match=r"recipe\.yaml") as refused:
        RunFolder(tmp_path).read_recipe()
    assert len(str(refused.value).splitlines()) == 1
