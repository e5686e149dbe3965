"""The pinned dependencies stand above every advisory on the list."""

import audit
import pytest
from packaging.version import Version


def test_no_pinned_version_has_a_known_flaw(capsys):
    assert audit.problems(audit.pinned()) == []
    assert audit.main() in (0, 1) and "constraints.txt: " in capsys.readouterr().out


def test_an_old_version_is_found_and_a_new_one_is_not():
    assert "torch.load ran code" in audit.problems({"torch": "2.5.1"})[0]
    assert audit.problems({"torch": "2.8.0", "pyyaml": "6.0", "unknown": "0.1"}) == []


def test_the_list_is_whole():
    lines, known = audit.advisories(), audit.pinned()
    assert len(lines) >= 20 and len(known) > 80
    for line in lines:
        assert all(line.values()) and Version(line["safe_from"]) and line["package"].lower() in known, line
    with pytest.raises(KeyError):
        known["no such package"]
