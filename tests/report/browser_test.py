"""report.html in a headless Chromium: nothing is loaded from a network, the controls move the
numbers to those of the scores, sorting, filtering and downloads work, and axe-core finds no serious
problem in the light and the dark theme.

Needs chromium and chromium-driver (apt-get install chromium chromium-driver), selenium and, for the
accessibility check, axe-core (npm pack axe-core, unpacked in build/axe); .ci/run installs them.
"""

import base64
import csv
import io
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

import mia_jax
from mia_jax.report import html
from tests.report import records_test

webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium==4.51.0")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
AXE = ROOT / "build" / "axe" / "package" / "axe.min.js"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="apt-get install chromium chromium-driver"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
N, M = 400, 8
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def audit():
    """An audit of 8 planted models in turn: two attacks, two classes, one of which leaks more, and
    a group whose name is HTML.
    """
    return planted()


def planted(leak=0.6):
    """The audit of the models whose losses on members are `leak` times as large, or less."""
    rng = np.random.default_rng(0)
    member_MN = np.array([rng.permutation(N) < N // 2 for _ in range(M)])
    y_N = np.arange(N) % 2
    loss_MN = rng.exponential(size=(M, N)) * np.where(member_MN, leak - 0.3 * y_N, 1.0)
    return mia_jax.audit(
        shadow_loss=loss_MN,
        shadow_member=member_MN,
        labels=y_N,
        slices="class",
        groups={HOSTILE: range(0, N, 2)},
        attacks=dict(loss=dict(name="threshold", signal="loss"), offset=dict(signal="loss")),
        draws=80,
    )


def over_epochs(report):
    """A section `epochs` in which the attacks grow from epoch to epoch to their last numbers."""
    from mia_jax.measures import epochs
    from mia_jax.metrics import rows as result_rows

    rows = [r for r in result_rows.main_rows(report["results"]) if r["target"] is None]
    numbers = ("value", "low", "high")
    grown = [
        row | {key: row[key] * e / 4 for key in numbers if row[key] is not None} | dict(epoch=e)
        for e in range(1, 5)
        for row in rows
    ]
    accuracy = [
        dict(epoch=e, train_accuracy=0.6 + e / 10, validation_accuracy=0.7 + 0.02 * (e % 3))
        for e in range(1, 5)
    ]
    return epochs.points(accuracy, grown)


GUARANTEE = dict(
    epsilon=1.0, delta=1e-5, accountant="pld", adjacency="add_remove", sampling="poisson",
    unit="example", noise_multiplier=1.0, clip_norm=1.0, steps=100, expected_batch=10,
    others=dict(rdp=1.2), method="taps", refused=[], notes=[], covers="the models",
    not_covered=["the hyperparameters"],
)  # fmt: skip


@pytest.fixture(scope="module")
def page(audit, tmp_path_factory):
    """The page's folder, with report.html and report.json: the audit, attacks over 4 epochs, and a
    claim of differential privacy.
    """

    report = audit.report | dict(epochs=over_epochs(audit.report), guarantee=GUARANTEE)
    folder = tmp_path_factory.mktemp("page")
    (folder / "report.html").write_text(html.report(report), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1200,1600",
        f"user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", dict(browser="ALL", performance="ALL"))
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(folder), "download.prompt_for_download": False}
    )
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.downloads = folder
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    browser.get_log("browser"), browser.get_log("performance")
    browser.get((page / "report.html").as_uri())
    return browser


def at(opened, name):
    return opened.find_element(By.CSS_SELECTOR, f'[data-testid="{name}"]')


def table(element) -> list[list[str]]:
    """The cells of the body of a table."""
    return [
        [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")]
        for row in element.find_elements(By.CSS_SELECTOR, "tbody tr")
    ]


def percent(value: float) -> str:
    """A rate as the page writes it: 0.52%, 8.2%."""
    return f"{100 * value:.{2 if abs(value) < 0.00995 else 1}f}%"


def downloaded(opened, name: str) -> str:
    """The text of a file that the page has just saved."""
    from selenium.webdriver.support.ui import WebDriverWait

    path = opened.downloads / name
    WebDriverWait(opened, 10).until(lambda _: path.exists() and path.stat().st_size)
    text = path.read_text(encoding="utf-8")
    path.unlink()
    return text


def test_nothing_is_asked_of_a_network_and_the_console_is_silent(opened):
    at(opened, "open-all").click()
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked
    assert not [entry for entry in opened.get_log("browser") if entry["level"] != "INFO"]


def test_the_slider_shows_the_numbers_of_the_scores(opened, audit):
    """TPR, counts, realized FPR and precision are counted again from the scores of all targets."""
    slider = at(opened, "fpr")
    member_TN = audit.evidence["member_TN"] & audit.evidence["evaluated_TN"]
    other_TN = ~audit.evidence["member_TN"] & audit.evidence["evaluated_TN"]
    for keys in ([], [Keys.ARROW_RIGHT] * 5, [Keys.ARROW_LEFT] * 8):
        slider.send_keys(*keys) if keys else None
        text = at(opened, "fpr-value").text
        fpr = float(text.removesuffix("%")) / 100
        rows = opened.find_elements(
            By.CSS_SELECTOR, '[data-testid="roc-point"] tbody tr[data-attack]'
        )
        assert rows
        for row in rows:
            score_TN = audit.target_scores(row.get_attribute("data-attack"))
            inside, outside = score_TN[member_TN], np.sort(score_TN[other_TN])[::-1]
            allowed = max(1, int(np.floor(fpr * len(outside) * (1 + 1e-9))))
            # the step rule: the lowest threshold with at most `allowed` false positives
            false = allowed if outside[allowed - 1] > outside[allowed] else None
            assert false is not None, "the planted scores have no ties"
            true = int((inside > outside[allowed]).sum())
            tpr, realized = true / len(inside), false / len(outside)
            shown = {
                cell.get_attribute("data-value"): cell.text
                for cell in row.find_elements(By.CSS_SELECTOR, "td")
            }
            assert shown["true"] == f"{true:,} of {len(inside):,}", (text, shown)
            assert shown["false"] == f"{false:,} of {len(outside):,}"
            assert shown["tpr"] == percent(tpr) and shown["realized"] == percent(realized)
            assert shown["precision"] == percent(tpr / (tpr + realized))


def test_the_member_share_changes_the_precision_and_nothing_else(opened):
    def cells(kind):
        return [
            cell.text
            for cell in opened.find_elements(
                By.CSS_SELECTOR, f'[data-testid="roc-point"] td[data-value="{kind}"]'
            )
        ]

    before = {kind: cells(kind) for kind in ("tpr", "precision", "realized")}
    box = at(opened, "share-number")
    box.clear()
    box.send_keys("1", Keys.TAB)
    assert cells("tpr") == before["tpr"] and cells("realized") == before["realized"]
    for old, new in zip(before["precision"], cells("precision"), strict=True):
        assert float(new.removesuffix("%")) < float(old.removesuffix("%"))


def test_attacks_are_filtered_and_sorted(opened, audit):
    at(opened, "open-all").click()
    Select(at(opened, "filter-slice")).select_by_visible_text("class=1")
    Select(at(opened, "filter-metric")).select_by_visible_text("AUC")
    at(opened, "sort-value").click()
    expected = sorted(
        (
            (row["value"], row["attack"])
            for row in audit.table
            if (row["slice"], row["metric"], row["target"]) == ("class=1", "auc", None)
        ),
        reverse=True,
    )
    shown = table(at(opened, "attack-table"))
    directions = [[name for _, name in expected], [name for _, name in expected][::-1]]
    assert [row[0] for row in shown] in directions
    at(opened, "sort-value").click()
    again = table(at(opened, "attack-table"))
    assert [row[0] for row in again] == [row[0] for row in shown][::-1]


def test_a_download_is_what_report_json_says(opened, page):
    at(opened, "open-all").click()
    report = json.loads((page / "report.json").read_text())
    element = at(opened, "attack-table")
    bar = element.find_element(By.XPATH, "./following::p[contains(@class,'downloads')][1]")
    buttons = {button.text: button for button in bar.find_elements(By.TAG_NAME, "button")}
    buttons["JSON"].click()
    rows = json.loads(downloaded(opened, "attack-table.json"))
    assert rows
    for row in rows:
        target = row.get("target")
        match = [
            known
            for known in report["results"]
            if known["attack"] == row["attack"]
            and known["slice"] == row["slice"]
            and known["metric"] == row["metric"]
            and known["target"] == target
        ]
        assert match and match[0]["value"] == pytest.approx(row["value"], abs=1e-12), row
    buttons["CSV"].click()
    text = downloaded(opened, "attack-table.csv")
    assert len(text.strip().splitlines()) == len(rows) + 1


def test_names_from_data_are_text(opened):
    at(opened, "open-all").click()
    options = Select(at(opened, "filter-slice")).options
    assert any(HOSTILE in option.text for option in options)
    assert not opened.find_elements(By.CSS_SELECTOR, 'img[src="x"]')


def test_printing_opens_every_section(opened):
    pdf = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 2


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_problem(opened, theme):
    assert not serious_problems(opened, theme, opens="open-all")


def serious_problems(opened, theme, opens=None):
    """Returns {rule: elements} of what axe-core calls serious on the page in a theme."""
    if not AXE.exists():
        pytest.skip("npm pack axe-core@4.14.1, unpacked in build/axe")
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        dict(features=[dict(name="prefers-color-scheme", value=theme)]),
    )
    opened.refresh()
    if opens is not None:
        at(opened, opens).click()
    opened.execute_script(AXE.read_text(encoding="utf-8"))
    found_by_axe = opened.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document).then((result) => done(result.violations));"
    )
    return {
        violation["id"]: [node["target"] for node in violation["nodes"]][:3]
        for violation in found_by_axe
        if violation["impact"] in ("serious", "critical")
    }


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """A page with pictures of records and one with values and hostile ids."""
    folder = tmp_path_factory.mktemp("cards")
    ids = np.array([f"{HOSTILE} {n}" for n in range(records_test.N)])
    values = records_test.audit(report=dict(show_records="contents"), column_id=ids).report
    for name, report in (("pictures", records_test.pictured()), ("values", values)):
        (folder / f"{name}.html").write_text(html.report(report), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "kind, theme",
    [
        ("pictures", "light"),
        ("values", "dark"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("pictures", "dark"), ("values", "light"))
        ),
    ],
)
def test_cards_of_records_are_drawn_and_accessible(browser, cards, kind, theme):
    """Every thumbnail is drawn from the page itself; ids are text; nothing runs over its card."""
    browser.get_log("browser")
    browser.get((cards / f"{kind}.html").as_uri())
    assert not serious_problems(browser, theme, opens="open-all")
    pictures = browser.find_elements(By.CSS_SELECTOR, '[data-testid="records"] img')
    drawn = "return arguments[0].complete && arguments[0].naturalWidth > 0"
    assert len(pictures) == (4 if kind == "pictures" else 0)
    assert all(browser.execute_script(drawn, picture) for picture in pictures)
    assert (HOSTILE in at(browser, "records").text) == (kind == "values")
    wide = "return [...arguments[0].children].every(c => c.scrollWidth <= arguments[0].clientWidth)"
    for card in browser.find_elements(By.CSS_SELECTOR, ".record"):
        assert browser.execute_script(wide, card)
    assert not [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"]


@pytest.fixture(scope="module")
def comparison(audit, tmp_path_factory):
    """The page of a comparison of three audits, one of a hostile name and one without scores, and
    its JSON.
    """
    from mia_jax.measures import comparison as measure
    from mia_jax.measures import two_audits
    from mia_jax.report import comparison as speaking

    def scores(results):
        return {name: results.target_scores(name) for name in results.scores}

    tight = planted(0.9)
    runs = [
        measure.Run("leaky", two_audits.Audit(audit.report, audit.evidence, scores(audit)), {}),
        measure.Run(HOSTILE, two_audits.Audit(tight.report, tight.evidence, scores(tight)), {}),
        measure.Run("alone", two_audits.Audit(tight.report, {}, {}), dict(learner="x" * 500)),
    ]
    made = measure.compare(runs)
    path = tmp_path_factory.mktemp("comparison") / "compare.html"
    path.write_text(speaking.page_html(made, runs), encoding="utf-8")
    return path, made.to_json()


@pytest.fixture
def compared(browser, comparison):
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(comparison[0].as_uri())
    return browser


def test_a_comparison_loads_nothing_and_its_names_are_text(compared):
    messages = [
        json.loads(entry["message"])["message"] for entry in compared.get_log("performance")
    ]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked
    assert not [entry for entry in compared.get_log("browser") if entry["level"] != "INFO"]
    assert HOSTILE in at(compared, "runs-table").text
    assert not compared.find_elements(By.CSS_SELECTOR, 'img[src="x"]')


def test_a_comparison_draws_the_curves_that_are_chosen(compared):
    def drawn():
        rows = compared.find_elements(By.CSS_SELECTOR, '[data-testid="roc-point"] tbody tr')
        return [row.get_attribute("data-attack") for row in rows]

    runs = ("leaky", HOSTILE, "alone")
    strongest = drawn()
    assert [name.rpartition(": ")[0] for name in strongest] == list(runs)
    select = Select(at(compared, "roc-choose"))
    for option in [option.text for option in select.options][1:]:
        select.select_by_visible_text(option)
        assert drawn() == [f"{run}: {option.removesuffix(', all runs')}" for run in runs]
    select.select_by_index(0)
    assert drawn() == strongest


def test_tables_of_a_comparison_are_sorted_by_their_numbers(compared, comparison):
    values = {run["run"]: run["rows"]["auc"]["value"] for run in comparison[1]["runs"]}
    header = at(compared, "runs-table").find_elements(By.CSS_SELECTOR, "thead th")
    (column,) = (cell for cell in header if cell.text.strip() == "AUC")
    for direction, reverse in (("ascending", False), ("descending", True)):
        column.find_element(By.TAG_NAME, "button").click()
        assert column.get_attribute("aria-sort") == direction
        shown = [values[row[0]] for row in table(at(compared, "runs-table"))]
        assert shown == sorted(values.values(), reverse=reverse)


def test_downloads_of_a_comparison_are_its_numbers(compared, comparison):
    at(compared, "json-differences").click()
    rows = json.loads(downloaded(compared, "differences.json"))
    columns = list(comparison[1]["differences"][0])
    assert rows == [{name: row[name] for name in columns} for row in comparison[1]["differences"]]
    at(compared, "csv-runs").click()
    lines = downloaded(compared, "runs.csv").splitlines()
    assert len(lines) == 4 and lines[0].startswith("run,data,leak")
    auc = comparison[1]["runs"][0]["rows"]["auc"]
    assert all(str(auc[key]) in lines[1] for key in ("value", "low", "high"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_problem_in_a_comparison(compared, theme):
    assert not serious_problems(compared, theme)


def test_the_keyboard_reaches_every_control(opened):
    """Tab from the top of the page comes to the slider, and its arrows move it."""
    slider = at(opened, "fpr")
    body = opened.find_element(By.TAG_NAME, "body")
    for _ in range(60):
        (opened.switch_to.active_element or body).send_keys(Keys.TAB)
        if opened.switch_to.active_element == slider:
            break
    assert opened.switch_to.active_element == slider
    before = at(opened, "fpr-value").text
    slider.send_keys(Keys.ARROW_RIGHT)
    assert at(opened, "fpr-value").text != before


def plot_of(opened, name: str, text: str):
    """What a script says about the plot of an element."""
    code = f"const plot = document.querySelector('[data-testid=\"{name}\"]').plot; return {text};"
    return opened.execute_script(code)


def test_the_page_is_open_in_a_second(opened):
    """From the start of the navigation to the end of the load event, with all scripts run."""
    assert opened.execute_script("return document.documentElement.dataset.ready") == "true"
    times = []
    for _ in range(3):
        opened.refresh()
        times.append(
            opened.execute_script(
                "const entry = performance.getEntriesByType('navigation')[0];"
                "return entry.loadEventEnd - entry.startTime;"
            )
        )
    assert 0 < min(times) < 1000, times


def test_the_curve_of_the_guarantee_is_drawn_over_the_attacks(opened):
    """min(1, e^epsilon FPR + delta, 1 - e^-epsilon (1 - delta - FPR)), and a row of the table."""
    labels = plot_of(opened, "roc-plot", "plot.series.map((s) => s.label)")
    at_series = labels.index("differential privacy")
    x, y = plot_of(opened, "roc-plot", f"[plot.data[0], plot.data[{at_series}]]")
    drawn = [(fpr, tpr) for fpr, tpr in zip(x, y, strict=True) if tpr is not None]
    assert len(drawn) > 50 and drawn[-1] == (1, 1)
    epsilon, delta = GUARANTEE["epsilon"], GUARANTEE["delta"]
    for fpr, tpr in drawn:
        line = np.exp(epsilon) * fpr + delta
        assert tpr == pytest.approx(min(1, line, 1 - np.exp(-epsilon) * (1 - delta - fpr)))
    fpr = float(at(opened, "fpr-value").text.removesuffix("%")) / 100
    bound = opened.find_element(By.CSS_SELECTOR, '[data-value="bound"]').text
    assert bound == f"at most {percent(np.exp(epsilon) * fpr + delta)}"
    cells = [row for row in table(at(opened, "roc-point")) if row[0].startswith("bound")]
    assert len(cells) == 1 and len(cells[0]) == 7


def test_the_figure_has_fewer_pixels_than_its_curves_are_kept_for(opened):
    """A vertex is kept if it is a pixel away in a figure of WIDTH x HEIGHT from one count to all;
    the drawn axes are no longer and reach at least as far down.
    """
    from mia_jax.measures import curves

    for width in (1200, 2400):
        opened.set_window_size(width, 1600)
        opened.refresh()
        wide, high = plot_of(opened, "roc-plot", "[plot.over.clientWidth, plot.over.clientHeight]")
        low_x, low_y = plot_of(opened, "roc-plot", "[plot.scales.x.min, plot.scales.y.min]")
        assert wide <= curves.WIDTH and high <= curves.HEIGHT
        n_member, n_nonmember = N * M / 2, N * M / 2
        assert low_x <= 1 / n_nonmember and low_y <= max(1 / n_member, 1e-3)
    opened.set_window_size(1200, 1600)


def test_epochs_show_leakage_and_accuracy_and_the_path_of_both(opened, page):
    at(opened, "open-all").click()
    report = json.loads((page / "report.json").read_text())
    over = report["epochs"]
    select = Select(at(opened, "epochs-metric"))
    for metric, name in (("auc", "AUC"), ("tpr@0.01", "TPR at 1% FPR")):
        select.select_by_visible_text(name)
        labels = plot_of(opened, "epochs-plot", "plot.series.map((s) => s.label)")
        lines = plot_of(opened, "epochs-plot", "plot.data")
        assert lines[0] == [1, 2, 3, 4]
        for side in ("train", "validation"):
            place = labels.index(f"accuracy on {'members' if side == 'train' else 'non-members'}")
            assert lines[place] == [row[f"{side}_accuracy"] for row in over["accuracy"]]
        names = {group["label"] for group in plot_of(opened, "epochs-path", "plot.groups")}
        assert names and names <= set(over["attacks"])
        for group in plot_of(opened, "epochs-path", "plot.groups"):
            points = over["attacks"][group["label"]]
            assert lines[labels.index(group["label"])] == [p[metric]["value"] for p in points]
            assert [(point["x"], point["y"]) for point in group["points"]] == [
                (row["validation_accuracy"], p[metric]["value"])
                for row, p in zip(over["accuracy"], points, strict=True)
                if p[metric]["value"] is not None
            ]


def test_every_target_is_a_point_of_overfitting_against_leakage(opened, page, audit):
    """From loss and labels alone the quality is the loss; the axis can be chosen."""
    at(opened, "open-all").click()
    measured = json.loads((page / "report.json").read_text())["overfitting"]
    assert len(measured["targets"]) == M
    Select(at(opened, "overfitting-metric")).select_by_visible_text("AUC")
    for value in ("gap", "validation", "train"):
        Select(at(opened, "overfitting-axis")).select_by_value(value)
        for group in plot_of(opened, "overfitting-plot", "plot.groups"):
            assert [(point["x"], point["y"]) for point in group["points"]] == [
                (point[value], point["attacks"][group["label"]]["auc"]["value"])
                for point in measured["targets"]
            ]
    rows = table(opened.find_element(By.CSS_SELECTOR, "#section-overfitting table[data-download]"))
    assert len(rows) == M  # the page lists every target


def test_every_table_can_be_downloaded_and_no_cell_is_a_formula(opened):
    """Each has two buttons; what a spreadsheet would run as a formula gets an apostrophe."""
    at(opened, "open-all").click()
    tables = len(opened.find_elements(By.CSS_SELECTOR, "main table:not(.u-legend)"))
    bars = opened.find_elements(By.CSS_SELECTOR, ".downloads")
    assert tables == len(bars) > 8
    assert all(len(bar.find_elements(By.TAG_NAME, "button")) == 2 for bar in bars)
    opened.execute_script(
        "document.querySelector('#best tbody code').textContent = '=cmd()|calc';"
        "document.querySelectorAll('#best tbody td')[1].textContent = '@SUM(1)';"
    )
    bar = opened.find_element(By.CSS_SELECTOR, "#best .downloads")
    bar.find_elements(By.TAG_NAME, "button")[0].click()
    text = downloaded(opened, "best.csv")
    cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
    assert "'=cmd()|calc" in cells and "'@SUM(1)" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "@", "\t", "+"))]
