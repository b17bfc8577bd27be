import gzip
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from llmctl.errors import UserError
from llmctl.msr.data.readers import open_source
from llmctl.msr.data.rows import read_rows
from llmctl.msr.recipe import SourceSettings
from llmctl.msr.types import Event, Item


def source(tmp_path, interactions, items, **settings):
    """A reader on two files with these names and texts."""
    for name, text in (interactions, items):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    paths = {"interactions": tmp_path / interactions[0], "items": tmp_path / items[0]}
    return open_source(SourceSettings.model_validate({**paths, **settings}))


ITEMS = ("items.csv", "item,title\nA,One\n")


def test_microlens_pairs_are_read_in_order_whatever_the_line_ends(tmp_path):
    pairs = ("pairs.tsv", "7\t3 1 2\r\n\r\n9\t1\r\n")
    found = source(tmp_path, pairs, ("t.csv", '\ufeffitem,title\n1,"a ""b"",\nc"\n2,\n'), format="microlens")
    assert [(e.user, e.item) for e in found.events()] == [("7", "3"), ("7", "1"), ("7", "2"), ("9", "1")]
    times = [e.timestamp for e in found.events()]
    assert times == sorted(times) and not found.has_times
    assert list(found.items()) == [Item("1", 'a "b", c'), Item("2", "")]


@pytest.mark.parametrize("line", ["7 1 2 3", "\t1 2", "7\t1\t2"])
def test_a_line_that_is_no_pair_is_named(tmp_path, line):
    found = source(tmp_path, ("pairs.tsv", f"1\t2 3\n{line}\n"), ITEMS, format="microlens")
    with pytest.raises(UserError, match=r"pairs\.tsv, line 2: .* is not a user, one tab, and item ids"):
        list(found.events())


def test_amazon_reviews_and_metadata_are_joined_by_parent(tmp_path):
    review = {"user_id": "U", "asin": "child", "parent_asin": "P", "timestamp": 1588615855070, "rating": 5.0}
    meta = {"parent_asin": "P", "title": "  A \n toy", "features": ["soft", "red"], "description": []}
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "P.jpg").write_bytes(b"")
    found = source(
        tmp_path,
        ("reviews.jsonl.gz", gzip.compress((json.dumps(review) + "\n").encode())),
        ("meta.jsonl", json.dumps(meta) + "\n"),
        format="amazon",
        images=tmp_path / "pictures",
    )
    assert list(found.events()) == [Event("U", "P", 1588615855070.0)]
    assert list(found.items()) == [Item("P", "A toy", "soft red", str(tmp_path / "pictures" / "P.jpg"))]


def test_any_columns_and_dates_may_be_used(tmp_path):
    columns = {"user": "who", "item": "what", "timestamp": "when", "title": "name", "image": "file"}
    found = source(
        tmp_path,
        ("seen.tsv", "who\twhat\twhen\nann\tx\t1970-01-02\nbob\ty\t1970-01-01T01:00:00+01:00\ncy\tz\t2.5\n"),
        ("items.jsonl", '{"what": "x", "name": "X", "file": "x.png"}\n{"what": 5, "name": null}\n'),
        columns=columns,
    )
    assert [e.timestamp for e in found.events()] == [86400.0, 0.0, 2.5]
    first = next(iter(found.items()))
    assert first == Item("x", "X", image=str(tmp_path / "x.png"))


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    rows = [{"user": "a,\tb", "item": "1"}, {"user": 'say "hi"', "item": "2"}]
    (tmp_path / "f.csv").write_text('user,item\n"a,\tb",1\n"say ""hi""",2\n')
    (tmp_path / "f.tsv").write_text('user\titem\n"a,\tb"\t1\n"say ""hi"""\t2\n')
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "f.jsonl").write_text(text)
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    for name in ("f.csv", "f.tsv", "f.jsonl", "f.jsonl.gz", "f.parquet"):
        assert [dict(row.fields) for row in read_rows(tmp_path / name)] == rows, name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item\na,b\n", r"line 2: no column 'timestamp', only 'user', 'item'"),
        ("user,item,timestamp\na,b\n", r"line 2: 2 fields, but the header names 3 columns"),
        ("user,item,timestamp\na,,1\n", r"line 2: column 'item' is empty"),
        ("user,item,timestamp\na,b,1\na,b,soon\n", r"line 3: column 'timestamp' is 'soon'"),
        ("user,item,timestamp\na,b,nan\n", r"line 2: column 'timestamp' is 'nan'"),
        ("user,user,timestamp\na,b,1\n", r"line 1: column 'user' is there twice"),
        ("", r"is empty: a first line"),
    ],
)
def test_a_broken_table_is_told_with_file_and_line(tmp_path, text, message):
    with pytest.raises(UserError, match=r"seen\.csv.*" + message):
        list(source(tmp_path, ("seen.csv", text), ITEMS).events())


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("r.jsonl", b'{"user_id": "a"', r"line 1: not a JSON object"),
        ("r.jsonl", b"[1]\n", r"line 1: a JSON list"),
        ("r.jsonl", b'{"a": 1}\n\xff\n', r"line 2: not UTF-8|line 1: not UTF-8"),
        ("r.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 5000)[:40], r"damaged or cut off"),
        ("r.jsonl.gz", b"plain", r"damaged or cut off"),
        ("r.parquet", b"plain", r"no readable Parquet file"),
        ("r.xlsx", b"", r"unknown kind"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(read_rows(tmp_path / name))


def test_missing_files_and_folders_are_named_by_their_setting(tmp_path):
    (tmp_path / "a.csv").write_text("x\n")
    with pytest.raises(UserError, match=r"data\.items is .*none\.csv, which is not there"):
        open_source(SourceSettings(interactions=tmp_path / "a.csv", items=tmp_path / "none.csv"))
    with pytest.raises(UserError, match=r"data\.interactions is .* is a folder"):
        open_source(SourceSettings(interactions=tmp_path, items=tmp_path / "a.csv"))
    with pytest.raises(UserError, match=r"data\.images is .*no such folder"):
        open_source(
            SourceSettings(interactions=tmp_path / "a.csv", items=tmp_path / "a.csv", images=tmp_path / "no")
        )
