"""Files that are tables: encodings, first lines, quotation marks, and files that are something else."""

import gzip

import pytest

from shared.errors import UserError
from shared.tables.formats import read_table

TEXT = "path,Joy,transcript\nc0.mp4,0.5,café\n"


@pytest.fixture
def read(tmp_path):
    def read(content, name="t.csv", encoding=""):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(tmp_path / name, encoding)

    return read


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_say_so_are_read_without_a_remark(read, encoding):
    table = read(TEXT.encode(encoding))
    assert table.header == ["path", "Joy", "transcript"] and table.rows[0].cells == ["c0.mp4", "0.5", "café"]
    assert table.notes == []


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        *(("cp1252", "“it’s” – naïve €5"), ("cp1252", "¿Qué? ½ 20°C Ärger"), ("latin-1", "déjà vu à Malmö")),
        *(("utf-16-le", "hello there"), ("utf-16-be", "hello there")),
    ],
)
def test_certain_encodings_are_read_and_said(read, encoding, text):
    table = read(f"path,transcript\nc0.mp4,{text}\n".encode(encoding))
    assert table.rows[0].cells[1] == text and "read as" in table.notes[0]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        *(("mac_roman", "café señor"), ("cp1251", "привет"), ("shift_jis", "こんにちは"), ("gb18030", "你好")),
        *(("euc-kr", "안녕"), ("cp437", "über"), ("koi8-r", "да"), ("cp1253", "γεια σας"), ("cp1250", "żółty")),
    ],
)
def test_uncertain_encodings_are_refused_until_they_are_named(read, encoding, text):
    data = f"path,transcript\nc0.mp4,{text}\n".encode(encoding)
    with pytest.raises(UserError, match="line 2 is neither UTF-8 nor certainly Windows-1252; save it as CSV UTF-8"):
        read(data)
    assert read(data, encoding=encoding).rows[0].cells[1] == text


def test_damaged_utf8_names_its_line(read):
    with pytest.raises(UserError, match="line 3 is not UTF-8, though lines before it are"):
        read(TEXT.encode() + "c1.mp4,1,café\n".encode("cp1252"))
    with pytest.raises(UserError, match="no encoding called 'nope'"):
        read(TEXT, encoding="nope")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04xl", "holds an Excel or OpenDocument table, or a zip archive; save it as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0", "holds an old Excel table; save it as CSV UTF-8"),
        (gzip.compress(TEXT.encode(), mtime=0), "holds compressed data; unpack it"),
        (b"PAR1\0\0", "holds Parquet; read it with the layout hf"),
        ("<!DOCTYPE html><table>", "holds HTML or XML"),
        ('[{"path": "c0.mp4"}]', "contains JSON; rename it to .jsonl"),
        ('{"path": "c0.mp4"}\n{"path": "c1.mp4"}', "contains JSON; rename it to .jsonl"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("c0.mp4,0.5\nc1.mp4,1\n", "line 1: 'c0.mp4' is a file, not the name of a column; add a header"),
        ("path,valence\nc0.mp4,0,1\nc1.mp4,0,2\n", "no row fits the header of 2 columns in line 1; line 2 has 3 cells"),
        ("path,Joy,a,Joy\nc0.mp4,0,1,2\n", "two columns are called 'Joy', number 2 and 4"),
        ("", "needs a header"),
    ],
)
def test_what_is_no_table_says_what_to_do(read, content, what):
    with pytest.raises(UserError) as caught:
        read(content)
    assert what in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("sep=;\npath;Joy\nc0.mp4;1\n", "separated by ';', as its first line says"),
        ('"sep=,"\r\npath,Joy\r\nc0.mp4,1\r\n', "separated by ',', as its first line says"),
        ("sep=\t\npath\tJoy\nc0.mp4\t1\n", "separated by '\\t', as its first line says"),
        ("# by X\n# on, Monday\n\npath,Joy\nc0.mp4,1\n", "2 lines of comments before the header are left out"),
        ("path,Joy\n# more\nc0.mp4,1\n", "1 line of comments left out, such as line 2"),
        ("path,Joy\nc0.mp4,1\n\0\0\0\0\n", "1 line of nothing but NUL bytes, such as line 3"),
    ],
)
def test_lines_that_are_no_rows_are_left_out_and_said(read, text, note):
    table = read(text)
    assert table.header == ["path", "Joy"] and [row.cells for row in table.rows] == [["c0.mp4", "1"]]
    assert any(found.startswith(note) for found in table.notes)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "path|Joy|text\nc0|1|a, b; c\n",
            "path;Joy;text\nc0;1;a, b; c\n".replace("; c", " c"),
            "path\tJoy\ttext\nc0\t1\ta, b\n",
        ),
        *("#path,Joy,text\nc0,1,x\n", "path,Joy,text\rc0,1,x\r", "\ufeff path\xa0,Joy ,text,,\nc0,1,x,,\n"),
    ],
)
def test_separators_and_headers_are_recognized(read, text):
    table = read(text)
    assert table.header[:3] == ["path", "Joy", "text"] and table.rows[0].cells[:2] == ["c0", "1"]


def test_quotation_marks_are_words_as_they_were(read):
    text = (
        'path,Joy,transcript\nc0.mp4,0.6,"he said \\"hi, you\\" 0"\nc1.mp4,0.2,"\\"q\\""\nc2.mp4,1,"C:\\new"\n'
        'c3.mp4,1,"a ""b"" c"\nc4.mp4,1,"no" he said\nc5.mp4,1,5" tv\nc6.mp4,1,"two\nlines"\n'
    )
    table = read(text)
    words = [row.cells[2] for row in table.rows]
    assert words == ['he said "hi, you" 0', '"q"', r"C:\new", 'a "b" c', '"no" he said', '5" tv', "two\nlines"]
    assert not any(row.problem for row in table.rows) and [row.line for row in table.rows] == [*range(2, 9)]
    assert any(note.startswith('2 rows with quotation marks written as \\", such as line 2') for note in table.notes)


def test_long_cells_are_read(read):
    table = read(f'path,transcript\nc0.mp4,"{"word, " * 200_000}"\nc1.mp4,x\n')
    assert len(table.rows[0].cells[1]) == 1_199_999 and table.rows[1].cells == ["c1.mp4", "x"]


def test_nul_bytes_in_a_row_are_its_problem(read):
    first, second = read("path,Joy\nc0.mp4,0.\0005\nc1.mp4,1\n").rows
    assert first.problem == "NUL bytes" and not second.problem


def test_repeated_key_in_a_json_line_is_its_problem(read):
    first, second = read('{"path": "c0", "Joy": 1, "Joy": 0}\n{"path": "c1", "Joy": 0}\n', "t.ndjson").rows
    assert first.problem and second.cells == ["c1", "0"]
