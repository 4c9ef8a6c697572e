"""The filter language: what it means, and where it says a mistake is."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.filters.expression import AllOf, AnyOf, Comparison, Not
from landseer.ensemble.filters.parser import MOST_COMPARISONS, MOST_DEPTH, parse


def shown(one):
    """An expression, with all parentheses."""
    if isinstance(one, Comparison):
        value = repr(one.value.text) if one.value.quoted else one.value.text
        return f"{'ID' if one.field is None else one.field} {one.operator} {value}"
    if isinstance(one, Not):
        return f"not({shown(one.term)})"
    assert isinstance(one, AllOf | AnyOf)
    return f"{'all' if isinstance(one, AllOf) else 'any'}({', '.join(map(shown, one.terms))})"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ('place = "Ely" AND year > 1990 AND tags:"gothic"', "all(place = 'Ely', year > 1990, tags : 'gothic')"),
        # OR binds tighter than AND, unlike in most languages.
        ("a=1 AND b=2 OR c=3", "all(a = 1, any(b = 2, c = 3))"),
        ("a = 1 OR b = 2 AND c = 3", "all(any(a = 1, b = 2), c = 3)"),
        ("(a = 1 AND b = 2) OR c = 3", "any(all(a = 1, b = 2), c = 3)"),
        ("a = 1 b = 2", "all(a = 1, b = 2)"),
        ("NOT a = 1 OR b = 2", "any(not(a = 1), b = 2)"),
        ("-a = 1 -(b = 2)", "all(not(a = 1), not(b = 2))"),
        ('NOT "-a" = 1', "not(-a = 1)"),
        ("- a != -1.5e3", "not(a != -1.5e3)"),
        ('id:"photos/*"', "ID : 'photos/*'"),
        ('metadata.id = x AND "id" = y', "all(id = x, id = y)"),
        ('metadata."a b" = x AND "c.d" = y AND e.f = z', "all(a b = x, c.d = y, e.f = z)"),
        ("metadata:year", "year : *"),
        ("taken >= 2012-04-21T11:30:00-04:00", "taken >= 2012-04-21T11:30:00-04:00"),
        ("a='x'AND(b<=2)", "all(a = 'x', b <= 2)"),
    ],
)
def test_what_a_filter_means(text, meaning):
    assert shown(parse(text).root) == meaning


def test_escapes_and_wildcards():
    value = parse(r'''a = "it\"s \* \\ *.jpg"''').root.value
    assert value.pieces == ('it"s * \\ ', ".jpg")
    assert parse("a:*").root.value.anything


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_a_blank_filter_is_none(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("year > ", "year >: expected a value after column 6"),
        ("year > AND a = 1", "expected a value at column 8, got AND"),
        ("gothic", "expected = != < <= > >= or : after column 6; a value alone finds nothing"),
        ("place = New York", "after column 16; a value alone finds nothing"),
        ("a = 1 and b = 2", "write AND in capitals at column 7"),
        ("a = 1 AND", "expected a comparison after column 9"),
        ("(a = 1", "expected AND, OR or ) after column 6"),
        ("a = 1)", "expected AND, OR or the end at column 6, got )"),
        ("()", "expected a comparison at column 2, got )"),
        ("near(a, 3)", "there are no functions, at column 1"),
        ("a = (1 OR 2)", "expected a value at column 5, got (; for one of several values write (a = 1 OR a = 2)"),
        ('a = "x', "the quote at column 5 has no end"),
        ("a = x,y", "expected AND, OR or the end at column 6, got ,"),
        ("a ! b", "did not expect ! at column 3; put names and values with such characters in quotes"),
        ("a == 1", "expected a value at column 4, got ="),
        ("metadata = 3", "`metadata` is a map, at column 12"),
        ("metadata. = 3", "expected the name of a field at column 11, got ="),
        ("NOT NOT a = 1", "expected a comparison at column 5, got NOT"),
        ("NOT -a = 1", "put a name that begins with - in quotes, at column 5"),
        ("--a = 1", "put a name that begins with - in quotes, at column 2"),
        ("x" * 5000, "got 5,000 characters; expected at most 4,096"),
    ],
)
def test_a_mistake_is_shown_by_its_column(text, message):
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert caught.value.field == "filter" and message in caught.value.description


def test_depth_and_length_are_bounded():
    assert parse("(" * MOST_DEPTH + "a = 1" + ")" * MOST_DEPTH)
    with pytest.raises(InvalidInput, match=f"more than {MOST_DEPTH} parentheses within each other at column 21"):
        parse("(" * 2000 + "a = 1")
    assert parse(" OR ".join(["a = 1"] * MOST_COMPARISONS))
    with pytest.raises(InvalidInput, match=f"more than {MOST_COMPARISONS} comparisons"):
        parse("a=1 " * (MOST_COMPARISONS + 1))


def test_an_error_in_a_long_filter_quotes_the_place():
    text = " AND ".join(f"field{place} = {place}" for place in range(50)) + " AND year >" + " AND a = 1" * 30
    with pytest.raises(InvalidInput, match=r"^filter: ….*year > AND a.*…: expected a value at column \d+, got AND$"):
        parse(text)


PARTS = [
    "a",
    "id",
    "metadata",
    "AND",
    "OR",
    "NOT",
    "-",
    "(",
    ")",
    "=",
    "!=",
    "<",
    ":",
    "*",
    '"x y"',
    "'",
    "\\",
    ".",
    ",",
    "1",
    " ",
]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=15).map(" ".join) | st.text(max_size=20))
@example("a:" + "(" * 30)
def test_any_text_is_a_filter_or_an_error_with_a_column(text):
    try:
        found = parse(text)
    except InvalidInput as error:
        assert "column " in str(error)
    else:
        assert found is None or shown(found.root)
