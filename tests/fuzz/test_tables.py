"""Tables with hostile cells and columns, and with damaged bytes: every row is an image, or the table is refused."""

import csv
import io
import json
import unicodedata
from pathlib import Path

import pyarrow as pa
from hypothesis import strategies as st
from pyarrow import parquet

from relish.data.sources import find_dataset
from tests.fuzz.harness import folder, fuzz, kept_in
from tests.fuzz.mutation import WORDS, mutated

FILES = ("a.png", "b c.png", "é.png", "sub/d.png")
COLUMNS = ("path", "label", "split", "file_name", "Label", " path ", "is_valid", "labels", "image", "fname", "id", "")
SPLITS = ("train", "test", "validation", "valid", "", "Train", "holdout")

paths = st.one_of(st.sampled_from(FILES), st.sampled_from(FILES), st.sampled_from(WORDS))
labels = st.one_of(st.sampled_from(["cat", "dog", "007", "NA", "Cat"]), st.sampled_from(WORDS))
cells = st.one_of(paths, labels, st.sampled_from(SPLITS), st.sampled_from(["True", "False", "1"]))
headers = st.one_of(
    st.just(["path", "label"]),
    st.just(["path", "label", "split"]),
    st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4),
)


@st.composite
def rows(draw, header):
    """Rows that mostly fit the header."""
    kinds = {"path": paths, "file_name": paths, "fname": paths, "label": labels, "split": st.sampled_from(SPLITS)}
    row = st.tuples(*(kinds.get(name, cells) for name in header)).map(list)
    return draw(st.lists(st.one_of(row, row, row, st.lists(cells, max_size=4)), max_size=5))


tables = headers.flatmap(lambda header: st.tuples(st.just(header), rows(header)))


def as_csv(table, separator: str = ",", encoding: str = "utf-8", end: str = "\n") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([table[0], *table[1]])
    return text.getvalue().encode(encoding, errors="replace")


def as_jsonl(table) -> bytes:
    header, filled = table
    return "\n".join(json.dumps(dict(zip(header, row, strict=False))) for row in filled).encode()


values = st.one_of(
    *[st.none(), st.booleans(), st.integers(-2, 3), st.floats(), st.binary(max_size=6), st.sampled_from(FILES)],
    *[st.sampled_from(WORDS), st.lists(st.sampled_from(["cat", "dog", 1, None]), max_size=3)],
    st.fixed_dictionaries({"bytes": st.binary(max_size=20) | st.none(), "path": st.sampled_from(WORDS) | st.none()}),
)
TYPES = (
    *[pa.string(), pa.large_string(), pa.binary(), pa.int64(), pa.float32(), pa.bool_(), pa.timestamp("ns")],
    *[pa.list_(pa.string()), pa.dictionary(pa.int32(), pa.string()), pa.decimal128(5, 2), pa.duration("s")],
    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
)


@st.composite
def parquet_bytes(draw) -> bytes:
    """A Parquet file of a few columns, each of one type, with what Hugging Face writes beside it."""
    columns, length = {}, draw(st.integers(0, 3))
    for name in draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=3, unique=True)):
        form = draw(st.sampled_from(TYPES))
        columns[name] = _fitting(draw(st.lists(values, min_size=length, max_size=length)), form)
    features = {"label": {"_type": "ClassLabel", "names": draw(st.lists(st.sampled_from(WORDS), max_size=3))}}
    features |= draw(st.just({}) | st.just({"image": {"_type": "Image"}}) | st.just({"label": 3}))
    told = (
        json.dumps({"info": {"features": features}}) if draw(st.booleans()) else draw(st.sampled_from(["", "[", "{}"]))
    )
    file = io.BytesIO()
    parquet.write_table(pa.table(columns).replace_schema_metadata({"huggingface": told}), file)
    return file.getvalue()


def _fitting(column: list[object], form: pa.DataType) -> pa.Array:
    """The values that the type takes, and nothing where it takes them not."""
    try:
        return pa.array(column, form)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        if len(column) < 2:
            return pa.nulls(len(column), form)
        return pa.concat_arrays([_fitting([value], form) for value in column])


GOOD = (["path", "label", "split"], [["a.png", "cat", "train"], ["b c.png", "dog", "train"], ["é.png", "cat", "test"]])
TEXTS = [as_csv(GOOD), as_csv(GOOD, ";", "utf-8-sig", "\r\n"), as_csv(GOOD, "\t", "utf-16"), as_jsonl(GOOD)]


def _parquet_seed(**columns: object) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


PARQUETS = [
    _parquet_seed(path=["a.png", "b c.png"], label=["cat", "dog"]),
    _parquet_seed(
        image=[{"bytes": b"\x89PNG1", "path": "x.png"}, {"bytes": b"\xff\xd8\xff2", "path": None}], label=["c", "d"]
    ),
]

files = st.one_of(
    tables.map(lambda table: ("t.csv", table, as_csv(table))),
    st.tuples(tables, st.sampled_from([";", "\t", "|"]), st.sampled_from(["utf-8", "utf-16", "latin-1"])).map(
        lambda given: ("t.csv", None, as_csv(*given))
    ),
    tables.map(lambda table: ("t.jsonl", None, as_jsonl(table))),
    st.tuples(st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "metadata.csv"]), st.none(), mutated(TEXTS)),
    st.tuples(st.just("t.parquet"), st.none(), parquet_bytes()),
    st.tuples(st.just("t.parquet"), st.none(), mutated(PARQUETS)),
    st.tuples(st.sampled_from(["t.json", "t.xlsx", "t.parquet", "t.csv"]), st.none(), mutated([*TEXTS, *PARQUETS])),
)


@fuzz(files, examples=150)
def test_a_row_is_an_image_or_the_table_is_refused(given):
    name, table, content = given
    with folder() as here:
        for file in FILES:
            (here / file).parent.mkdir(exist_ok=True)
            (here / file).write_bytes(b"\x89PNG\r\n\x1a\n")
        (here / name).write_bytes(content)
        with kept_in(here.parent / "home"):
            found = find_dataset(str(here / name), learnable=False)
            images = [path for split in found.splits.values() for path in split.paths]
            assert all(path.is_file() for path in images)
            for word in (*found.classes, *found.warnings):
                assert word.encode()  # can be written and shown
            if table is not None and table[0][:2] == ["path", "label"]:
                assert {str(path.resolve()) for path in images} == named(table[1], here)


def named(filled: list[list[str]], here: Path) -> set[str]:
    """The files in the rows of a plain table that was not refused; a name may lack its ending."""
    paths = [here / unicodedata.normalize("NFC", row[0].strip()) for row in filled if any(c.strip() for c in row)]
    return {str((path if path.is_file() else path.with_name(f"{path.name}.png")).resolve()) for path in paths}
