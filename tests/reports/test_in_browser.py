"""The page in a real browser: silent, alone, sortable, and as wide as its window."""

import pytest

from browser import Browser, find_browser
from made_study import write_study
from videopool.reports.files import write_report

ORDER = "[...document.querySelectorAll('#points tbody tr')].map(row => row.dataset.point)"
HEADING = "[...document.querySelectorAll('#points thead th')].find(th => th.textContent.trim() === '{}')"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A browser with the page open, and the names of the study's points."""
    find_browser()
    folder = tmp_path_factory.mktemp("browser")
    names = write_study(folder)
    study = folder / "results" / "made"
    write_report(study, "none")
    with Browser() as browser:
        browser.look(1280)
        browser.open(study / "report.html")
        yield browser, names


def click(browser, heading):
    browser.run(HEADING.format(heading) + ".querySelector('button').click()")
    return browser.run(ORDER), browser.run(HEADING.format(heading) + ".getAttribute('aria-sort')")


def test_it_is_silent_and_asks_for_nothing(shown):
    browser, _ = shown
    assert browser.run("document.querySelectorAll('#points tbody tr').length") == 5
    assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.run("document.images.length") > 20
    assert browser.run("typeof hacked") == "undefined"
    assert browser.complaints() == []
    assert {url.rpartition("/")[2] for url in browser.requests()} == {"report.html"}


def test_headings_sort(shown):
    browser, names = shown
    a, b, c = (names[n] for n in "abc")
    unscored = {names["failed"], names["partial"]}
    order, told = click(browser, "score (%)")
    assert (order[:3], told) == ([a, b, c], "descending")
    assert set(order[3:]) == unscored
    order, told = click(browser, "score (%)")
    assert (order[:3], told) == ([c, b, a], "ascending")
    assert set(order[3:]) == unscored  # what is missing stays last
    order, _ = click(browser, "visual tokens")
    assert order == [b, a, names["partial"], names["failed"], c]  # 576 before 144: numbers, not words
    order, told = click(browser, "pooling")
    assert (order, told) == ([a, names["failed"], b, c, names["partial"]], "ascending")
    assert browser.run("document.querySelectorAll('#points [aria-sort]').length") == 1


def test_a_policy_stops_scripts_that_are_not_the_pages_own(shown):
    browser, _ = shown
    script = "document.head.append(Object.assign(document.createElement('script'), {textContent: 'intruder = 1'}))"
    browser.run(script)
    assert browser.run("typeof intruder") == "undefined"
    del browser.events[:]  # the browser complained, as it should


def test_tasks_stand_in_their_groups_and_are_shaded_from_chance(shown):
    browser, names = shown
    assert browser.run("[...document.querySelectorAll('.groups th')].map(th => th.textContent)") == [
        "easy tasks",
        "hard tasks",
    ]
    cell = "document.querySelector('.shaded [data-point=\"{}\"]').cells[{}]"
    shade = f"getComputedStyle({cell}).backgroundColor"

    def depth(point, column):
        return float(browser.run(shade.format(names[point], column)).rstrip(")").replace(",", " ").split()[-1])

    assert depth("c", 1) == depth("c", 2) == 0.0  # 1 of 3 right: below chance
    assert depth("a", 1) > 0.3
    hidden = "getComputedStyle(document.querySelector('.shaded .interval') ?? document.body).display"
    order = "[...document.querySelectorAll('.shaded tbody tr')].map(row => row.dataset.point)"
    browser.run("document.querySelector('.shaded .headings th:last-child button').click()")  # shape_of: 3, 2 and 1 of 3
    assert browser.run(order) == [names["a"], names["b"], names["c"]]
    browser.run("document.getElementById('intervals').click()")
    assert browser.run("document.getElementById('intervals').getAttribute('aria-pressed')") == "true"
    assert browser.run(hidden) != "none"


def test_rows_are_one_line_high_and_names_stay_in_sight(shown):
    browser, _ = shown
    browser.look(1400)
    heights = "[...document.querySelectorAll('.scroll tbody tr')].map(row => row.getBoundingClientRect().height)"
    assert max(browser.run(heights)) < 40
    first = "document.querySelector('#points tbody tr').cells[0].getBoundingClientRect().left"
    before = browser.run(first)
    browser.run("document.querySelector('#points .scroll').scrollLeft = 300")
    assert browser.run(first) == before


@pytest.mark.parametrize("width", [400, 1280, 1400])
def test_it_fits_its_window(shown, width):
    browser, _ = shown
    browser.look(width)
    assert browser.run("innerWidth") == width
    assert browser.run("document.documentElement.scrollWidth") <= width
    beyond = (
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre') "
        f"&& e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert browser.run(beyond) == []


def test_light_and_dark(shown):
    browser, _ = shown
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.look(1280, dark=False)
    assert browser.run(paper) == "rgb(255, 255, 255)"
    browser.look(1280, dark=True)
    assert max(int(n) for n in browser.run(paper)[4:-1].split(",")) < 64
