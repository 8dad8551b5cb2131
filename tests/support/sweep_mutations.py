"""Random mutations of sweep files: of bytes, of structure and of values; a number gives one."""

import copy
import dataclasses
import datetime
import math
import random
import re
from collections.abc import Callable
from typing import Any

import yaml

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 1.5, 2**31, 2**53, 2**63 - 1, 2**63, 2**70,
    -(2**63), 10**400, math.inf, -math.inf, math.nan, 1e300, -1e300, 1e-300, "", " ", "x",
    "no", "null", "2017", "0x1F", "../../x", "/dev/null", "/proc/self", ".", "~", "~nobody/x",
    "$HOME/x", "$UNSET_VARIABLE/x",
    "${}", "x" * 300, "x" * 5000, "a/b", "a b", "a|b", "<b>", "[red]x", "心室", "שלום", "\u202ex",
    "\x00", "\x1b[31m", "{{ 7 * 7 }}", "%s%n", "'", '"', "#", "&a", "*a",
    "!!python/name:os.system", [], [[]], [None], {}, {"": {}}, {"x": {"y": []}}, [1, "a", None],
    ["x"] * 200,
    datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4), b"\x00\xff", {"a", "b"},
    "unet", "none", "js_stability", "random", "store", "external", "nnunet", "acdc", "seed",
)  # fmt: skip
"""Values that somebody may write, and values that nobody would."""
KEYS: tuple[Any, ...] = (
    "name", "datasets", "grid", "together", "include", "exclude", "stages", "backbones", "pruners",
    "resources", "tracking", "store", "study", "tuned", "compare", "type", "path", "layout",
    "seed", "pruner", "split.fold", "split.file", "cell.form", "retrain.seed", "augmentation",
    "epochs", "experiment", "uri", "patient_pattern", "leave_out", "encoder_weights", 2017,
    False, None, 1.5, datetime.date(2020, 1, 2), "", "x/../y", "x" * 300, "心室", "<<",
)  # fmt: skip
INSERTED = (
    b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\t", b"\r", b"\x1b", b"[", b"{", b"]", b"}",
    b":", b"- ", b"#", b"&a ", b"*a", b"!!binary ", b"!!set ", b"!!python/tuple ", b"<<: *a\n",
    b"|", b">", b"'", b'"', b"%", b"@", b"`", b"---\n", b"...\n", b"? ", b"~", b"\xc3",
    b"\xe2\x80\xa8", b"9" * 5000, b"[" * 3000, b"{a: " * 500, b".inf", b"1e999",
    b"2020-01-01", b"\\x00",
)  # fmt: skip
BOMB = (
    "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
)  # fmt: skip


def mutated(text: str, seed: int) -> tuple[str, bytes]:
    """Return the kind of a mutation and the file after it.

    Args:
        text: A sweep file.
        seed: Of everything that is drawn.
    """
    rng = random.Random(seed)
    kind = rng.choice(list(MUTATIONS))
    found = MUTATIONS[kind](text, rng)
    if rng.random() < 0.2:
        raw = found if isinstance(found, bytes) else found.encode("utf-8", "surrogatepass")
        return f"{kind}, bytes", _bytes(raw.decode("utf-8", "replace"), rng)
    raw = found if isinstance(found, bytes) else found.encode("utf-8", "surrogatepass")
    return kind, raw


def _bytes(text: str, rng: random.Random) -> bytes:
    """Flip, cut, repeat or insert bytes."""
    raw = bytearray(text.encode())
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(raw) + 1)
        end = min(len(raw), start + rng.choice([1, 1, 3, 20, 300]))
        what = rng.choice(["flip", "cut", "repeat", "insert", "end"])
        if what == "flip" and start < len(raw):
            raw[start] ^= 1 << rng.randrange(8)
        elif what == "cut":
            del raw[start:end]
        elif what == "repeat":
            raw[start:start] = raw[start:end] * rng.choice([1, 2, 50])
        elif what == "insert":
            raw[start:start] = rng.choice(INSERTED)
        elif what == "end" and rng.random() < 0.2:
            del raw[start:]
    return bytes(raw)


def _lines(text: str, rng: random.Random) -> str:
    """Leave out, repeat, swap or indent lines."""
    lines = text.splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        first, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        what = rng.choice(["cut", "repeat", "swap", "indent", "alias"])
        if what == "cut" and len(lines) > 1:
            del lines[first]
        elif what == "repeat":
            lines.insert(other, lines[first])
        elif what == "swap":
            lines[first], lines[other] = lines[other], lines[first]
        elif what == "indent":
            lines[first] = " " * rng.randint(1, 4) + lines[first]
        elif what == "alias":
            lines[first] = lines[first].replace(
                ": ", rng.choice([": &a ", ": *a ", ": !!map "]), 1
            )
        if not lines:
            lines = ["\n"]
    return "".join(lines)


def _encoding(text: str, rng: random.Random) -> bytes:
    """Write the file in another encoding."""
    text = text.replace("name:", rng.choice(["name:", "# é ü 心\n    name:"]), 1)
    name = rng.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "cp437"])
    return text.encode(name, "replace")


def _aliases(text: str, rng: random.Random) -> str:
    """Put aliases that expand without end, or to themselves, before the sweep or into it."""
    word = rng.choice(["bomb", "in", "self", "merge"])
    if word == "bomb":
        return BOMB + text
    if word == "in":
        body = "".join(f"      {line}\n" for line in BOMB.splitlines())
        return text.replace("    grid:\n", f"    stages:\n{body}    grid:\n", 1)
    if word == "self":
        return text.replace("    grid:", "    grid: &g", 1).replace(
            "seed: [", rng.choice(["seed: [*g, ", "<<: *g\n      seed: ["]), 1
        )
    merge = (
        "    backbones: &b\n      unet: &u {widths: [16, 32]}\n      deep: {<<: *u, type: unet}\n"
    )
    return re.sub(r"    backbones:\n", merge, text, count=1)


def _words(text: str, rng: random.Random) -> str:
    """Replace some words and numbers of the text by nasty ones, or by near ones."""
    places = list(re.finditer(r"[A-Za-z0-9_.-]+", text))
    for match in sorted(rng.sample(places, min(len(places), rng.randint(1, 3))), key=_start)[::-1]:
        text = text[: match.start()] + _other(match[0], rng) + text[match.end() :]
    return text


def _mild(text: str, rng: random.Random) -> str:
    """Replace some words by others of the file, numbers by near ones: many are still sweeps."""
    places = list(re.finditer(r"(?<![#\w])[A-Za-z0-9_.]+", text))
    words = sorted({match[0] for match in places})
    for match in sorted(rng.sample(places, min(len(places), rng.randint(1, 4))), key=_start)[::-1]:
        word = match[0]
        if re.fullmatch(r"\d+", word):
            word = str(
                rng.choice([int(word) + 1, 2 * int(word), 10 * int(word), 1, int(word) // 2])
            )
        elif rng.random() < 0.3:
            word = rng.choice(words)
        text = text[: match.start()] + word + text[match.end() :]
    return text


def _start(match: re.Match[str]) -> int:
    return match.start()


def _other(word: str, rng: random.Random) -> str:
    if re.fullmatch(r"\d+", word) and rng.random() < 0.6:
        return str(rng.choice([0, 1, -1, 2, 3, 7, int(word) + 1, int(word) * 10, int(word) // 2]))
    value = rng.choice(NASTY)
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
    )


def _tree(text: str, rng: random.Random) -> str:
    """Change the sweep as data: keys and values are removed, renamed, replaced, moved, nested."""
    data = yaml.safe_load(text)
    for _ in range(rng.randint(1, 3)):
        containers = [one for one in _containers(data) if one]
        if not containers:
            break
        box = rng.choice(containers)
        key = rng.choice(list(box) if isinstance(box, dict) else range(len(box)))
        rng.choice(_CHANGES)(box, key, containers, rng)
    try:
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=rng.random() < 0.5)
    except RecursionError:
        return "[" * 2000


def _cut(box: Any, key: Any, _: list[Any], __: random.Random) -> None:
    del box[key]


def _replace(box: Any, key: Any, _: list[Any], rng: random.Random) -> None:
    box[key] = copy.deepcopy(rng.choice(NASTY))


def _rename(box: Any, key: Any, _: list[Any], rng: random.Random) -> None:
    if isinstance(box, dict):
        box[rng.choice(KEYS)] = box.pop(key)


def _add(box: Any, _: Any, __: list[Any], rng: random.Random) -> None:
    if isinstance(box, dict):
        box[rng.choice(KEYS)] = copy.deepcopy(rng.choice(NASTY))


def _nest(box: Any, key: Any, _: list[Any], rng: random.Random) -> None:
    for _level in range(rng.choice([1, 2, 40, 400])):
        box[key] = rng.choice([[box[key]], {"x": box[key]}])


def _copy(box: Any, key: Any, containers: list[Any], rng: random.Random) -> None:
    box[key] = copy.deepcopy(rng.choice(containers))


def _grow(box: Any, key: Any, _: list[Any], rng: random.Random) -> None:
    if isinstance(box[key], int | float):
        box[key] *= rng.choice([-1, 0, 2, 10, 1000, 10**6])


def _many(box: Any, _: Any, __: list[Any], rng: random.Random) -> None:
    if isinstance(box, list):
        box.extend(range(rng.choice([5, 500, 20_000])))


_CHANGES = (_cut, _replace, _replace, _replace, _rename, _add, _nest, _copy, _grow, _grow, _many)


def _settings(text: str, rng: random.Random) -> str:
    """Set some settings of any class to the ends of their ranges, or beyond."""
    from iac_core.ranges import largest
    from orchestrator.resources import ResourceSettings, StageResources
    from orchestrator.session import tables
    from orchestrator.spec import STAGE_SETTINGS
    from orchestrator.study_settings import StudySettings

    known = tables()
    data = yaml.safe_load(text)
    sweep = data["metadata"]["sweep"]
    backbones, pruners = sweep["grid"]["backbone"], sweep["grid"]["pruner"]
    boxes: list[tuple[list[str], Any]] = [
        *((["stages", section], kind) for section, kind in STAGE_SETTINGS.items()),
        *((["backbones", name], kind) for name, kind in known.backbones.items()),
        *((["pruners", name], kind) for name, kind in known.pruners.items()),
        (["resources"], ResourceSettings),
        (["resources", rng.choice(["prepare", "search", "evaluate"])], StageResources),
    ]
    boxes += [(["study"], StudySettings)] * (3 if "study" in sweep else 0)
    boxes = [(path, kind) for path, kind in boxes if dataclasses.fields(kind)]
    for _ in range(rng.randint(1, 4)):
        path, kind = rng.choice(boxes)
        field = rng.choice(dataclasses.fields(kind))
        box = sweep
        for key in path:
            box = box[key] if isinstance(box.get(key), dict) else box.setdefault(key, {})
        end = largest(field.name)
        number = rng.choice([0, 1, 2, 16, 1e-9, 0.5, end, int(end), end / 2, end * 2, -end])
        levels = getattr(field.default, "__len__", lambda: 0)()
        value = [number] * rng.choice([levels, 2, 16, 17]) if levels else number
        box[field.name] = rng.choice([value, value, value, copy.deepcopy(rng.choice(NASTY))])
        if path[0] == "backbones" and path[1] not in backbones:
            backbones.append(path[1])
        if path[0] == "pruners" and path[1] not in pruners:
            pruners.append(path[1])
    return yaml.safe_dump(data, sort_keys=False)


def _containers(data: Any) -> list[Any]:
    """Every mapping and list below ``metadata``, it too."""
    found, open_ = [], [data["metadata"]] if isinstance(data.get("metadata"), dict) else [data]
    while open_:
        one = open_.pop()
        if isinstance(one, dict | list):
            found.append(one)
            open_ += list(one.values()) if isinstance(one, dict) else one
    return found


MUTATIONS: dict[str, Callable[[str, random.Random], str | bytes]] = {
    "bytes": _bytes,
    "lines": _lines,
    "encoding": _encoding,
    "aliases": _aliases,
    "words": _words,
    "mild": _mild,
    "more mild": _mild,
    "tree": _tree,
    "more of the tree": _tree,
    "settings": _settings,
    "more settings": _settings,
}
