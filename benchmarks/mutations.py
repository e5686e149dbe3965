"""Damage to files, and harm: bytes, lengths of chunks, values and names of JSON, YAML and CSV, members of archives.

Everything is drawn from a ``random.Random``: the same seed makes the same file.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import random
import re
import struct
import warnings
import zipfile
from typing import Any

import yaml

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2**31 - 1, 2**31, 2**63, 10**30, 10**400, -0.0, 1e308, -1e308, 1e-320, float("nan"), float("inf"), 0.5,
    65_537, 10**9,
)  # fmt: skip
TEXTS: tuple[Any, ...] = (
    "", "x", "\x00", "../../etc/passwd", "/dev/zero", "/dev/stdin", "a" * 5000, "\ud800",
    "'\"<script>alert(1)</script>", "line\nline", "\u202e\u2028", "${oc.env:HOME}", "${now:}", "???", "null", "nan",
    "1e999", "9" * 5000, "-", "!!x", "*a",
    "__import__('os').system('true')", "%s%s%n", "{0.__class__}", "true", "1:1:1:1", "2026-02-30",
)  # fmt: skip
SHAPES: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None] * 5,
    {"_target_": "os.system"},
    {"": ""},
    [0] * 70_000,
)
INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 0x10000000)


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped bits, a cut, an extreme integer, a piece that is missing, doubled or noise."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not data:
            break
        # Headers decide more than what follows them.
        at = rng.randrange(min(len(data), rng.choice((16, 64, 256, len(data)))))
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            form = rng.choice(("<I", ">I", "<H", ">H"))
            size = struct.calcsize(form)
            data[at : at + size] = struct.pack(form, rng.choice(INTEGERS) & (256**size - 1))
        elif kind == 3:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            data[at:at] = data[at : at + rng.randrange(1, 512)]
        elif kind == 5:
            data[at : at + 4] = rng.randbytes(4)
        else:
            data += rng.randbytes(rng.randrange(1, 64))
    return bytes(data)


def of_chunks(data: bytes, rng: random.Random) -> bytes:
    """RIFF and AIFF: lengths, names, order and the fields of the format; FLAC: its STREAMINFO."""
    if rng.random() < 0.4:
        return of_bytes(data, rng)
    out = bytearray(data)
    if data[:4] == b"fLaC":
        field = rng.choice(((5, 3), (8, 2), (10, 2), (18, 8), (18, 8), (21, 5), (12, 3)))
        out[field[0] : field[0] + field[1]] = rng.choice((b"\xff", b"\x00", b"\x7f", rng.randbytes(1))) * field[1]
        return bytes(out)
    order = "<" if data[:4] == b"RIFF" else ">"
    places = [m.start() for m in re.finditer(rb"RIFF|FORM|fmt |data|COMM|SSND|fact|PEAK|FVER", data[:4096])]
    for _ in range(rng.randrange(1, 4)):
        at = rng.choice(places)
        kind = rng.randrange(4)
        if kind == 0:
            out[at + 4 : at + 8] = struct.pack(order + "I", rng.choice(INTEGERS))
        elif kind == 1:
            out[at : at + 4] = rng.choice((b"LIST", b"fmt ", b"COMM", b"data", b"SSND", b"\0\0\0\0", b"JUNK"))
        elif kind == 2:  # a field of the format
            inner = at + 8 + 2 * rng.randrange(0, 12)
            size = rng.choice((2, 4))
            out[inner : inner + size] = struct.pack(order + "I", rng.choice(INTEGERS))[-size:]
        else:
            out[at:at] = out[at : at + rng.choice((8, 24, 48))]
    return bytes(out)


def _places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found, waiting = [], [(content, path)]
    while waiting:
        one, at = waiting.pop()
        found.append(at)
        inner = one.items() if isinstance(one, dict) else enumerate(one[:6]) if isinstance(one, list) else ()
        waiting += [(value, (*at, key)) for key, value in inner]
    return found


def value(rng: random.Random) -> Any:
    """Something that nobody expects."""
    deep: Any = 1
    for _ in range(rng.choice((3, 70, 900))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    return rng.choice((rng.choice(NUMBERS), rng.choice(TEXTS), copy.deepcopy(rng.choice(SHAPES)), deep))


def of_tree(content: Any, rng: random.Random) -> Any:
    """Values replaced, removed, renamed, moved; the whole replaced."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.choice(_places(content))
        if not place:
            if rng.random() < 0.05:
                return value(rng)
            continue
        holder = content
        for key in place[:-1]:
            holder = holder[key]
        kind = rng.random()
        if isinstance(holder, dict) and kind < 0.2:
            del holder[place[-1]]
        elif isinstance(holder, dict) and kind < 0.3:
            holder[str(rng.choice(TEXTS))] = holder.pop(place[-1])
        elif isinstance(holder[place[-1]], (int, float)) and kind < 0.7:
            holder[place[-1]] = rng.choice(NUMBERS)
        else:
            holder[place[-1]] = value(rng)
    return content


def of_json(data: bytes, rng: random.Random) -> bytes:
    """The tree, a name that stands twice, or the text."""
    kind = rng.random()
    if kind < 0.2:
        return of_bytes(data, rng)
    text = _json(of_tree(json.loads(data), rng))
    if kind < 0.35 and '":' in text:  # a second time, with another value
        name = rng.choice(re.findall(r'"[^"]*"(?=:)', text)[:200])
        place = text.index(name)
        text = text[:place] + f"{name}: {_json(value(rng))}, " + text[place:]
    return (
        text.encode(errors="surrogatepass")
        if kind < 0.9
        else text[: rng.randrange(len(text) + 1)].encode(errors="replace")
    )


def _json(content: Any) -> str:
    try:
        return json.dumps(content)
    except (ValueError, RecursionError):  # whole numbers of many digits
        return '{"a": ' + "9" * 5000 + "}"


def of_yaml(data: bytes, rng: random.Random) -> bytes:
    """The tree, or what YAML alone can do: anchors that multiply, tags, dates, names that stand twice."""
    kind = rng.random()
    if kind < 0.25:
        return of_bytes(data, rng)
    if kind < 0.4:
        more = rng.choice((
            "\nboom: &a [x, x]\nbang: [&b [*a, *a], &c [*b, *b]]\n",
            "\nbomb: " + "".join(f"&a{i} [" for i in range(9)) + "x" + "]" * 9 + "\n" + "".join(
                f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" if i else "b0: &b0 [x]\n" for i in range(9)
            ),
            "\nevil: !!python/object/apply:os.system ['true']\n", "\nwhen: 2026-99-99\n", "\n? [a, b]\n: c\n",
            "\nmodel: 1\nmodel: 2\n", "\ndeep: " + "[" * 2000 + "]" * 2000 + "\n", "\nlong: 0x" + "f" * 6000 + "\n",
            "\nsexagesimal: " + "1:" * 3000 + "1\n", "\nc: \"\\UFFFFFFFF\"\n", "\nf: !!float 'x'\n",
            "\nb: !!binary '?'\n",
            "\n<<: {a: 1}\n", "\ns: !!set {a, b}\n", "\n--- {}\n", "\no: !!omap [a: 1]\n", "\nt: !!timestamp 'x'\n",
        ))  # fmt: skip
        text = data.decode()
        return (text + more if rng.random() < 0.7 else more + text).encode()
    try:
        return yaml.safe_dump(of_tree(yaml.safe_load(data), rng)).encode(errors="surrogatepass")
    except (ValueError, RecursionError, yaml.YAMLError):
        return of_bytes(data, rng)


def of_csv(data: bytes, rng: random.Random) -> bytes:
    """Cells, columns and lines."""
    if rng.random() < 0.25:
        return of_bytes(data, rng)
    rows = list(csv.reader(io.StringIO(data.decode())))
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rows[rng.choice((0, rng.randrange(len(rows))))]
        at, kind = rng.randrange(len(row) + 1), rng.random()
        if kind < 0.7 and row:
            row[min(at, len(row) - 1)] = str(
                rng.choice((rng.choice(TEXTS), str(rng.choice(NUMBERS[:7])), rng.choice(("nan", "inf"))))
            )
        elif kind < 0.8 and row:
            del row[min(at, len(row) - 1)]
        elif kind < 0.9:
            row.insert(at, rng.choice(("1", "x", "dry", "epoch", "a" * 200_000)))
        else:
            rows.insert(rng.randrange(len(rows) + 1), list(row))
        rows = rows or [[]]
    out = io.StringIO()
    csv.writer(out, lineterminator=rng.choice(("\n", "\r\n", "\r"))).writerows(rows)
    text = out.getvalue()
    return (rng.choice(("", "", "\ufeff", '"')) + text).encode(errors="surrogatepass")


def of_archive(data: bytes, rng: random.Random) -> bytes:
    """Checkpoints and .npz: the archive's bytes, or one member's: its pickle, its header, its numbers."""
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    likely = [i for i, (name, _) in enumerate(members) if name.endswith((".pkl", ".npy"))]
    at = rng.choice(likely) if likely and rng.random() < 0.8 else rng.randrange(len(members))
    name, content = members[at]
    kind = rng.random()
    if kind < 0.15:
        del members[at]
    elif kind < 0.25:
        members.append((rng.choice(("../../evil", "data.pkl", name, "x" * 300)), content))
    elif kind < 0.45 and name.endswith(".npy"):
        shape = rng.choice(("(10000000000,)", "(-1,)", "()", "(1, 0)", "(1e3,)", "(99, 99, 99, 99, 99)", "[1]"))
        kinds = rng.choice(("<f4", "|O", "<f8", "<U9", "<M8[s]", "<c16", "|V8", "<i8", "x"))
        head = f"{{'descr': '{kinds}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
        members[at] = (name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content[128:])
    elif kind < 0.6 and name.endswith(".pkl"):
        members[at] = (name, _pickle(content, rng))
    else:
        members[at] = (name, of_bytes(content, rng))
    out = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", how) as archive:
        warnings.simplefilter("ignore")  # a name that is there twice is meant
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name[:60_000]), content, how)
    return out.getvalue()


def _pickle(content: bytes, rng: random.Random) -> bytes:
    """A pickle with other numbers, or one that asks for something to be called."""
    if rng.random() < 0.5:  # integers: BININT1 (K), BININT2 (M), BININT (J): sizes, strides, offsets
        places = [m.start() for m in re.finditer(rb"[KMJ]", content)]
        at = rng.choice(places or [0])
        size = {b"K": 1, b"M": 2, b"J": 4}.get(content[at : at + 1], 1)
        return (
            content[: at + 1]
            + rng.choice((b"\xff", b"\x7f", b"\x00", rng.randbytes(1))) * size
            + content[at + 1 + size :]
        )
    return rng.choice((
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x06\x00\x00\x00rot_13\x86R.",
        b"\x80\x02ctorch\nSize\n]\x85R.", b"\x80\x02" + b"(" * 5000 + b".", b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02" + b"]" * 3000 + b"a" * 2999 + b".", b"\x80\x02}q\x00(X\x0a\x00\x00\x00state_dicth\x00u.",
        b"\x80\x02N.",
    ))  # fmt: skip


def of_words(data: bytes, rng: random.Random) -> bytes:
    """Overrides, one a line: their names, signs and values."""
    words = data.decode().split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(words))
        name, _, old = words[at].partition("=")
        kind = rng.random()
        odd = rng.choice((
            str(rng.choice(TEXTS)), str(rng.choice(NUMBERS[:6])), "[" * 200 + "]" * 200, "{a:" * 90 + "1" + "}" * 90,
            "[1,2", "{a:1,a:2}", "range(0,1e9)", "glob(*)", "choice(1,2)", "1,2,3", "${seed}", "${nothing}",
            "${run_dir}", "${oc.env:WANDB_API_KEY}", "${oc.create:{_target_:os.system}}", "{_target_:os.system}", "'a",
            "\\", "a b",
            "sort(1,2)", "int(x)", "float(nan)", "1e999", "[[[1]]]", "{}", "null", "???", "\u202e",
        ))  # fmt: skip
        if kind < 0.6:
            words[at] = f"{name}={odd}"
        elif kind < 0.75:
            words[at] = (
                f"{rng.choice(('+', '++', '~', '', '@', '-', '=', '.', '/', 'hydra/', 'hydra.run.'))}{name}={old}"
            )
        elif kind < 0.9:
            names = (name + ".x", name[:-1], name + "@x", "..", "model._target_", name.upper(), "a" * 3000)
            words[at] = f"{rng.choice(names)}={old}"
        else:
            words[at] = of_bytes(words[at].encode(), rng).decode(errors="replace")
    return "\n".join(words).encode(errors="surrogatepass")
