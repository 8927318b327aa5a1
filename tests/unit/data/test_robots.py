"""robots.txt as RFC 9309 has it; whatever a stranger writes in it, reading it never raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appraiser.data.robots import RobotRules, parse_robots


def allows(text: str, path: str) -> bool:
    return parse_robots(text.encode(), "appraiser").allows(path)


def test_without_rules_everything_is_allowed():
    assert parse_robots(b"", "appraiser") == RobotRules(())
    assert allows("User-agent: *\nDisallow:\n", "/a")


@pytest.mark.parametrize(
    ("text", "path", "is_allowed"),
    [
        ("User-agent: *\nDisallow: /a", "/a/b", False),
        ("User-agent: *\nDisallow: /a", "/b", True),
        ("USER-AGENT: *\r\nDISALLOW:/a # why\r\n", "/a", False),
        ("\ufeffUser-agent: *\nDisallow: /", "/a", False),
        ("Disallow: /", "/a", True),  # belongs to no group
        # Our own group counts alone; a product token may have a version behind it, and stands for whole words.
        ("User-agent: *\nDisallow: /\n\nUser-agent: Appraiser/1.0\nDisallow: /b", "/a", True),
        ("User-agent: other\nUser-agent: appraiser\nDisallow: /a", "/a", False),
        ("User-agent: appraiser\nDisallow: /a\nUser-agent: other\nDisallow: /b", "/b", True),
        ("User-agent: appraiser\nDisallow: /a\n\nUser-agent: appraiser\nDisallow: /b", "/a", False),
        ("User-agent: appraiserbot\nDisallow: /", "/a", True),
        ("User-agent: *\nCrawl-delay: 3\nSitemap: https://x/\nDisallow: /a", "/a", False),
        # The longest path counts, wherever it stands; of two of one length the one that allows.
        ("User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/b/c", True),
        ("User-agent: *\nAllow: /a/b\nDisallow: /a", "/a/c", False),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", True),
        # Wildcards.
        ("User-agent: *\nDisallow: /*.gif$", "/x/y.gif", False),
        ("User-agent: *\nDisallow: /*.gif$", "/x/y.gif?size=2", True),
        ("User-agent: *\nDisallow: /*?", "/x?size=2", False),
        ("User-agent: *\nDisallow: /*?", "/x", True),
        ("User-agent: *\nDisallow: /a*b*c", "/a--b--c--", False),
        ("User-agent: *\nDisallow: /a*b*c", "/a--c--b", True),
        ("User-agent: *\nDisallow: /a$", "/a", False),
        ("User-agent: *\nDisallow: /a$", "/ab", True),
        ("User-agent: *\nDisallow: /aba*ba$", "/aba", True),  # the two pieces may not overlap
        ("User-agent: *\nDisallow: *", "/", False),
        # One spelling of escapes; %2F is not a slash.
        ("User-agent: *\nDisallow: /tasche-%c3%a4", "/tasche-%C3%A4", False),
        ("User-agent: *\nDisallow: /tasche-ä", "/tasche-%C3%A4", False),
        ("User-agent: *\nDisallow: /%7Ejoe", "/~joe/a", False),
        ("User-agent: *\nDisallow: /a%2Fb", "/a/b", True),
    ],
)
def test_rules(text, path, is_allowed):
    assert allows(text, path) is is_allowed


@pytest.mark.parametrize(
    "line",
    ["Crawl-delay: ²", "Request-rate: ²/³", "Disallow: //[x", "Disallow: http://\u2100/", "User-agent:", ":", "\0",
     "Crawl-delay: " + "9" * 5000],
)  # fmt: skip
def test_lines_that_make_no_sense_are_passed_over(line):
    assert not allows(f"{line}\nUser-agent: *\n{line}\nDisallow: /a\n{line}", "/a")


@given(st.binary(max_size=300), st.text(max_size=50))
def test_reading_never_raises(data, path):
    head = b"User-agent: *\nDisallow: "
    for text in (data, head + data, head + data + b"\nAllow: /" + data):
        parse_robots(text, "appraiser").allows("/" + path.encode("utf-8", "replace").decode())


def test_many_stars_take_no_time():
    assert allows(f"User-agent: *\nDisallow: {'/a*' * 5000}b", "/a" * 10_000)
