"""CITATION.cff holds what the Citation File Format 1.2.0 asks for, and says what the package says of itself."""

import re
from pathlib import Path

import yaml

from revox_lightning import __version__

ROOT = Path(__file__).parents[1]
# Of the schema (github.com/citation-file-format/citation-file-format, 1.2.0): nothing beside these may stand there.
REQUIRED = {"authors", "cff-version", "message", "title"}
ALLOWED = REQUIRED | {
    "abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url",
    "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url", "version",
}  # fmt: skip
ENTITY = {
    "address", "alias", "city", "country", "date-end", "date-start", "email", "fax", "location", "name", "orcid",
    "post-code", "region", "tel", "website",
}  # fmt: skip


def problems(text: str) -> list[str]:
    """What of the schema a file breaks, of the rules that concern this one."""
    told = yaml.safe_load(text)
    found = [f"{name} is missing" for name in sorted(REQUIRED - set(told))]
    found += [f"{name} is no key" for name in sorted(set(told) - ALLOWED)]
    if told.get("cff-version") != "1.2.0":  # a string: 1.2 would be a number
        found.append("cff-version is not 1.2.0")
    if told.get("type", "software") not in ("software", "dataset"):
        found.append("type is neither software nor dataset")
    for name in ("message", "title", "abstract", "version", "license"):
        if not isinstance(told.get(name, "x"), str) or not told.get(name, "x"):
            found.append(f"{name} is no text")
    authors = told.get("authors")
    if not isinstance(authors, list) or not authors or not all(isinstance(one, dict) for one in authors):
        found.append("authors is no list of them")
    elif any("name" not in one or not set(one) <= ENTITY for one in authors):
        found.append("an author is no entity")
    words = told.get("keywords", ["x"])
    if not isinstance(words, list) or not words or len(words) != len(set(words)):
        found.append("keywords is no list of different words")
    return found


def test_it_follows_the_schema():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert problems(text) == []
    assert problems(text.replace("cff-version: 1.2.0", "cff-version: 1.2")) == ["cff-version is not 1.2.0"]
    assert problems(text.replace("message:", "massage:")) == ["message is missing", "massage is no key"]
    assert problems(re.sub(r"  - name: .*", "  - named: x", text)) == ["an author is no entity"]


def test_it_says_what_the_package_says():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert told["version"] == __version__
    assert f'license = {{ text = "{told["license"]}" }}' in project
    assert f'authors = [{{ name = "{told["authors"][0]["name"]}" }}]' in project
    assert f'name = "{told["title"]}"' in project and told["abstract"] in project
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith(f"{told['license']} License")
