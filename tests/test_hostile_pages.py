"""Pages of names that are made to do harm: no element, no attribute and no address comes from them."""

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz_runs import run_folder
from test_hostile_run import HOSTILE, RATE_HZ, hostile

from revox_lightning.capture import instructions
from revox_lightning.capture.layout import Layout
from revox_lightning.commands import capture, listen, measure
from revox_lightning.measure.tape import Section
from revox_lightning.report import alignment, data_sheet, page_parts, sounds_page, table
from revox_lightning.report.data_sheet import read_json

torch.set_num_threads(1)
NAME = """a"><script>window.hacked=1</script><img src=x onerror=hacked()>'&`$(touch hacked)`$^$[/b]\n\u2028#|_*"""
ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "footer", "h1", "h2", "p", "ul", "ol", "li", "code",
    "b", "table", "thead", "tbody", "tr", "th", "td", "div", "span", "figure", "figcaption", "img", "script",
}  # fmt: skip


class Elements(HTMLParser):
    """Every element of a page, every attribute, and every text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def harmless(page: str, scripts: int) -> Elements:
    """The page's elements, once nothing in it comes from a name."""
    seen = Elements(page)
    assert {tag for tag, _ in seen.found} <= ELEMENTS
    assert sum(tag == "script" and "type" not in how for tag, how in seen.found) == scripts
    for tag, how in seen.found:
        assert not any(name.startswith("on") for name in how), (tag, how)
        assert all(str(how[name]).startswith(("data:", "#")) for name in ("src", "href") if name in how), (tag, how)
        assert "hacked" not in json.dumps({name: value for name, value in how.items() if name != "alt"}), (tag, how)
    policies = [how["content"] for tag, how in seen.found if how.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'")
    assert "'unsafe" not in policies[0].replace("style-src 'unsafe-inline'", "")
    return seen


def test_the_page_of_a_transfer(tmp_path):
    x = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    rows = [(NAME, x, RATE_HZ), ("</script><script>hacked()", x, RATE_HZ)]
    sounds_page.page(tmp_path / "p.html", NAME, rows, (NAME, "b"), [(NAME, "</td><script>hacked()</script>")])
    text = (tmp_path / "p.html").read_text()
    seen = harmless(text, scripts=2)
    assert any("window.hacked=1" in one for one in seen.texts), "it is there to read"
    data = json.loads(re.findall(r'id="sounds-data">(.*?)</script>', text)[0])
    assert data["sounds"][0]["name"] == NAME and (page_parts._hash(page_parts.part("page.css"))) in text


def test_a_listening_test(tmp_path, capsys):
    run = hostile(tmp_path / "run", name=HOSTILE)
    listen.listen([str(run), f"out={tmp_path / 'l.html'}", "kind=abx", "seconds=1"])
    harmless((tmp_path / "l.html").read_text(), scripts=3)


def layout() -> Layout:
    """A test tape whose sections are named by somebody else."""
    one = [Section(NAME, kind, 0, 4000, (0,), {}) for kind in ("programme", "level", "tone")]
    return Layout(RATE_HZ, 1, 8000, -18.0, 10.0, tuple(one), 4000, ())


def test_the_instructions_beside_a_tape():
    name = NAME.replace("\n", " ").replace("/", "_")
    seen = harmless(instructions.page(layout(), Path(name + ".wav"), Path(name + "_loopback.wav")), scripts=0)
    text = "".join(seen.texts)
    command = text[text.index("revox align") : text.index("(without")]
    assert shlex.split(command)[2] == name + ".wav", "the command is one word for the shell, and nothing is run"


def test_capture_writes_it_so(tmp_path, capsys):
    out = tmp_path / "it's <b>$(touch hacked)<b>.wav"
    capture.capture([str(out), "channels=1", "sample_rate_hz=16000", "speed_seconds=5"])
    harmless(out.with_suffix(".html").read_text(), scripts=0)
    assert set(tmp_path.iterdir()) == {
        out, out.with_suffix(".html"), out.with_suffix(".json"), tmp_path / f"{out.stem}_loopback.wav"
    }  # fmt: skip


def test_the_page_of_an_alignment(tmp_path):
    section = {
        "name": NAME, "method": NAME, "kind": "programme", "seconds": 1.0, "delay_mean_ms": 0.0, "delay_std_ms": 0.0,
        "gain_db": [0.0], "gain_drift_db": [0.0], "correlation": [1.0], "level_dbfs": [-20.0],
    }  # fmt: skip
    figures = {
        "sections": [section], "findings": [{"severity": 'note" onclick="hacked()', "sentence": NAME}],
        "start_seconds": 0.0, "time_ratio_ppm": 0.0, "wander_std_ms": 0.0, "polarity": 1,
    }  # fmt: skip
    alignment.write_page(tmp_path / "a.html", NAME, figures, b"png")
    page = (tmp_path / "a.html").read_text()
    seen = Elements(page)
    assert not any(name.startswith("on") for _, how in seen.found for name in how)
    figures["findings"][0]["severity"] = "note"
    alignment.write_page(tmp_path / "a.html", NAME, figures, b"png")
    harmless((tmp_path / "a.html").read_text(), scripts=0)


def sheet() -> dict:
    """A data sheet whose words are somebody else's, with one curve for its legend."""
    curve = [0.0, 1.0, 2.0]
    return {
        "kind": "tape", "sample_rate_hz": RATE_HZ, "mode": NAME, "notes": [NAME], "published": {},
        "missed": {"target": NAME, "sentences": [NAME]},
        "harmonics": {"frequency_hz": [100.0, 1000.0, 3000.0], "third_percent": [[0.1, 0.2, 0.3]], "second_percent": []},
        "response": {"frequency_hz": [100.0, 1000.0, 3000.0], "level_db": [curve], "lower_minus_3db_hz": [30.0]},
    }  # fmt: skip


def test_a_data_sheet_as_page_markdown_and_picture(tmp_path):
    sheets = [(NAME, sheet()), (NAME + "2", sheet())]
    data_sheet.write_page(sheets, tmp_path / "s.html")
    harmless((tmp_path / "s.html").read_text(), scripts=0)
    data_sheet.write_table(sheets, tmp_path / "s.md")
    bare = re.sub(r"\\.", "", (tmp_path / "s.md").read_text())
    assert "<" not in bare and "`" not in bare and "$" not in bare and bare.count("\n#") == 0
    data_sheet.write_json(sheets, tmp_path / "s.json")
    assert read_json(tmp_path / "s.json")[0][0] == NAME


def test_a_name_with_dollars_is_no_formula():
    from matplotlib.figure import Figure

    from revox_lightning.report import sheet_plots

    figure = Figure()
    for legend in (sheet_plots._legend, alignment._legend):
        ax = figure.subplots()
        ax.plot([0, 1], label="$^$")  # a formula that matplotlib cannot read
        legend(ax)
    figure.canvas.draw()


@pytest.mark.parametrize("name", ["[/b]", "[red]", "a\x1b[31mb", NAME])
def test_a_table_on_the_screen_shows_names_as_they_are(name, capsys):
    table.show(name, [name, "b"], [[name, "1"]])
    shown = capsys.readouterr().out
    assert "\x1b[31mb" not in shown and name.replace("\x1b", "?")[:4] in shown


def test_measuring_a_run_of_a_bad_name_leads_nowhere_else(tmp_path, monkeypatch, capsys):
    run = run_folder(tmp_path / "runs" / "a$^$[b]")
    monkeypatch.setattr(measure.subjects, "of_run", lambda path, how, _: ([(NAME, sheet())], None))
    before = set(tmp_path.rglob("*"))
    place = tmp_path / "sheets"
    measure.measure([f"run={run}", f"out={place}"])
    made = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert made and all(path.parent == place for path in made)
    harmless(next(path for path in made if path.suffix == ".html").read_text(), scripts=0)
    assert np.all([path.stat().st_size for path in made])
