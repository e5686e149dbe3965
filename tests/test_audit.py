"""The pinned dependencies stand above every advisory on the list."""

import re

import audit
import pytest
from packaging.version import Version


def test_no_pinned_version_has_a_known_flaw(capsys):
    assert audit.problems(audit.pinned()) == []
    assert audit.main() in (0, 1) and "constraints.txt: " in capsys.readouterr().out


def test_an_old_version_is_found_and_a_new_one_is_not():
    assert "torch.load ran code" in audit.problems({"torch": "2.5.1"})[0]
    assert audit.problems({"torch": "2.10.0", "pyyaml": "6.0", "unknown": "0.1"}) == []


def test_a_release_that_was_not_the_authors_is_found():
    assert "GHSA-w37p-236h-pfx3" in str(audit.problems({"pytorch-lightning": "2.6.3"}))
    assert audit.problems({"pytorch-lightning": "2.6.6"}) == []


def test_the_list_is_whole():
    lines, known = audit.advisories(), audit.pinned()
    assert len(lines) >= 20 and len(known) > 80
    for line in lines:
        assert all(line.values()) and re.match(r"CVE-\d{4}-\d+$|GHSA(-\w{4}){3}$", line["advisory"])
        assert re.search(r"[\w.-]+/[\w.-]+#\d+$", line["confirmed_by"]), line
        assert Version(line["safe_from"]) and line["package"].lower() in known, line
    with pytest.raises(KeyError):
        known["no such package"]
