"""What may be asked: every way out of the store that was found is tried on the real thing."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.store.readonly import QueryError, check_question

FUNCTIONS = frozenset({"file", "url", "s3", "numbers", "eval", "input", "view", "executable"})

GOOD = [
    "SELECT 1",
    "select 1;",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "WITH 1 AS x SELECT x",
    "SELECT 'a file; into outfile ''x''' AS note -- file('x')",
    "SELECT /* file('x') /* nested */ */ input FROM purchases_log",
    "SELECT count() FROM numbers(3)",
    "SHOW TABLES",
    "DESCRIBE TABLE visits",
    "EXPLAIN SELECT 1",
    'SELECT `a``b` FROM (SELECT 1 AS "a`b")',
]
BAD = [
    "",
    " -- nothing",
    "INSERT INTO visits_log (version) VALUES (1)",
    "DROP TABLE visits_log",
    "SET readonly = 0",
    "SYSTEM FLUSH LOGS",
    "KILL QUERY WHERE 1",
    "USE system",
    "SELECT 1; DROP TABLE visits_log",
    "SELECT file('{secret}')",
    "SELECT `file`('{secret}')",
    "SELECT \"file\"('{secret}')",
    "SELECT arrayMap(file, ['{secret}'])",
    "SELECT * APPLY(file) FROM (SELECT '{secret}')",
    "SELECT * APPLY file FROM (SELECT '{secret}')",
    "SELECT /**/ file /**/ ('{secret}')",
    "SELECT * FROM file('{secret}', LineAsString)",
    "DESCRIBE file('{secret}')",
    "DESCRIBE url('http://192.0.2.1/')",
    "SELECT * FROM s3('http://192.0.2.1/bucket/key')",
    "SELECT * FROM eval('SELECT file(''{secret}'')')",
    "SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1 into/**/outfile '{out}'",
    "(SELECT 1) INTO OUTFILE '{out}'",
    "SELECT * FROM executable('id', CSV, 'a String')",
    "SELECT ‘ ' ’, file('{secret}'), ‘ ' ’",
    "SELECT $a$ ' $a$, file('{secret}'), $a$ ' $a$",
    "SELECT a$b$, file('{secret}'), a$b$ FROM (SELECT 1 AS a$b$)",
    "SELECT `fi\\le`('{secret}')",
    "SELECT 'not closed",
    "SELECT /* not closed",
    "SELECT 1\0",
]


@pytest.mark.parametrize("sql", GOOD)
def test_questions_about_the_store_pass(sql):
    check_question(sql, FUNCTIONS)


@pytest.mark.parametrize("sql", BAD)
def test_everything_else_is_refused(sql):
    with pytest.raises(QueryError):
        check_question(sql.format(secret="/x", out="/x"), FUNCTIONS)


def test_the_message_names_what_was_refused():
    with pytest.raises(QueryError, match="OUTFILE reaches outside"):
        check_question("SELECT 1 INTO OUTFILE 'x'", FUNCTIONS)


@pytest.fixture(scope="module")
def store(new_store):
    return new_store()


@pytest.mark.parametrize("sql", BAD)
def test_the_store_itself_gives_nothing_away(store, tmp_path, sql):
    secret, out = tmp_path / "secret.txt", tmp_path / "out.txt"
    secret.write_text("top secret\n")
    with pytest.raises(QueryError) as refused:
        store.ask(sql.format(secret=secret, out=out))
    assert "top secret" not in str(refused.value)
    assert not out.exists()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM `{secret}`",
        "SELECT * FROM default.`{secret}`",
        "DESCRIBE `{secret}`",
        "SELECT * FROM '{secret}'",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_threads = 1",
    ],
)
def test_what_the_reading_lets_through_the_session_refuses(store, tmp_path, sql):
    secret = tmp_path / "secret.txt"
    secret.write_text("top secret\n")
    with pytest.raises(QueryError) as refused:
        store.ask(sql.format(secret=secret))
    assert "top secret" not in str(refused.value)


@pytest.mark.parametrize("sql", [sql for sql in GOOD if "a``b" not in sql])
def test_what_may_be_asked_is_answered(store, sql):
    assert store.ask(sql, "JSON")


MARKS = st.sampled_from([*"'\"`\\;-/*#$()\n ‘’“”\0", "--", "/*", "*/", "file", "''", "$a$"])


@given(st.lists(MARKS, max_size=12).map("".join))
@example("'\\'")
@example("`")
def test_no_text_hides_a_file_behind_itself(store, text):
    """Whatever stands before it: a call that would run is seen, or the text is refused."""
    sql = f"SELECT {text} , file('/proc/self/comm')"
    try:
        check_question(sql, FUNCTIONS)
    except QueryError:
        return
    try:
        answer = store._ask(sql, "TSV").decode(errors="replace")
    except Exception:
        return
    with open("/proc/self/comm") as comm:
        assert comm.read().strip() not in answer
