"""The page of a parity report, read without a browser; tests/browser looks at the same reports with one."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from convlab.parity.html import parity_page
from convlab.parity.run import Cell, Failure, Report

BACKENDS = ("jax", "mxnet", "numpy", "tensorflow", "torch")
GRADIENTS = ("gradient of X", "gradient of K", "gradient of bias")
HOSTILE = "</style><script>document.title='caught'</script>\"'><img src=http://example.invalid/x onerror=alert(1)>&amp;"
LONG = "word" * 500
COMMAND = "convlab parity --backends jax,mxnet,numpy,tensorflow,torch --seed 7 --seconds 10"


def agreeing(names=BACKENDS) -> Report:
    report = Report(7, COMMAND, trials=142, seconds=12.34)
    for i, name in enumerate(names):
        report.versions[name] = {name: f"{i + 1}.2.0", "numpy": "2.3.1", "convlab": "0.4.0", "python": "3.12.3"}
        report.cells["exact", name, "result"] = Cell(57)
        for j, quantity in enumerate(("result", *(() if name == "numpy" else GRADIENTS))):
            report.cells["bounded", name, quantity] = Cell(31, 0, 0.11 + 0.07 * i + 0.05 * j)
            report.cells["reproducible", name, quantity] = Cell(26)
        report.cells["learned", name, "kernel"] = Cell(2, 0, 0.02 * i)
        report.cells["learned", name, "losses"] = Cell(2, 0, 0.004)
        for j, other in enumerate(names[i + 1 :]):
            report.pairs[name, other] = 0.13 + 0.11 * i + 0.17 * j
    return report


def failure(backend="torch", image=None, **changes) -> Failure:
    facts = {
        "trial": "random 12 float32 bounded forward",
        "tier": "bounded",
        "quantity": "result",
        "worst": 812.5,
        "message": "12 of 48 elements; the worst, [0, 1, 3], is 1.25 instead of -4.0. kernel flipped: the kernel is "
        "flipped on both axes, as in a true convolution. That leaves an error of 0.31 rounding bounds.\n"
        "To mend it: flip the kernel back: K[..., ::-1, ::-1].",
        "command": f"convlab parity --backends {backend} --seed 7 --only 'random 12 float32 bounded forward'",
    }
    return Failure(**{**facts, **changes}, backend=backend, image=image)


def pictures() -> list[np.ndarray | None]:
    """Pictures of every size that they may have."""
    rng = np.random.default_rng(0)
    large = 10.0 ** rng.uniform(-2, 5, (2000, 2000))
    large[700:900, 300:1700] = np.inf
    border = rng.uniform(0, 0.9, (24, 32))
    border[:, -1] = border[-1] = 400.0
    thin = 10.0 ** rng.uniform(-1, 2, (3, 500))
    return [np.array([[np.inf]]), thin, large, None, border, thin.T, np.zeros((0, 0))]


def disagreeing() -> Report:
    """Several failures, a backend that died on the way, one that didn't start and one that isn't there."""
    report = agreeing()
    report.failed = {
        "mxnet": "it was killed by SIGKILL (out of memory?) in random 12 float32 bounded gradients.",
        "cupy": "ImportError: libcudart.so.12: cannot open shared object file.\n    pip install convlab[cupy]",
    }
    report.absent = {"mlx": "mlx isn't installed: pip install mlx"}
    report.cells["bounded", "torch", "result"] = Cell(31, 3, 812.5)
    report.cells["bounded", "jax", "gradient of K"] = Cell(31, 1, np.inf)
    report.cells["reproducible", "torch", "result"] = Cell(26, 2, np.inf)
    report.cells["exact", "torch", "result"] = Cell(57, 24, np.inf)
    for i, other in enumerate(("jax", "mxnet", "numpy", "tensorflow")):
        report.pairs[other, "torch"] = (812.9, 1.4, 45.0, np.inf)[i]
    report.failures = [failure(image=image) for image in pictures()]
    report.failures.append(failure("jax", quantity="gradient of K", worst=np.inf, message="ValueError: no such axis"))
    report.failures.append(failure(tier="reproducible", worst=np.inf, image=np.where(np.eye(9) > 0, np.inf, 0)))
    report.wrong = 30
    return report


def hostile() -> Report:
    report = agreeing(("numpy", HOSTILE))
    report.command += f" --case {HOSTILE}"
    report.failed = {f"{HOSTILE} failed": f"{LONG} \x1b[31mred\x00\udcff\n{HOSTILE}"}
    report.absent = {f"{HOSTILE} absent": HOSTILE}
    report.cells["bounded", HOSTILE, HOSTILE] = Cell(1, 1, 2.0)
    report.failures = [failure(HOSTILE, **dict.fromkeys(("trial", "quantity", "message", "command"), HOSTILE + LONG))]
    report.wrong = 1
    return report


class Page(HTMLParser):
    """Counts tags, collects attributes and text, and insists on balanced tags."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(parity_page(report))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs) -> None:
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in {"meta", "link", "img", "source"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def of(self, tag, name) -> list[str]:
        return [attributes[name] for each, attributes in self.attributes if each == tag and name in attributes]

    @property
    def verdict(self) -> str:
        (verdict,) = self.texts["h1"]
        return verdict


def decoded(url: str) -> np.ndarray:
    """A PNG as rows by columns by 3; each of its chunks must be whole."""
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, start = {}, 8
    while start < len(data):
        (size,) = struct.unpack_from(">I", data, start)
        kind, body = data[start + 4 : start + 8], data[start + 8 : start + 8 + size]
        assert struct.unpack_from(">I", data, start + 8 + size) == (zlib.crc32(kind + body),)
        chunks[kind], start = body, start + 12 + size
    width, height, *form = struct.unpack(">2I5B", chunks[b"IHDR"])
    assert form == [8, 2, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def with_image(image) -> Page:
    report = agreeing()
    report.wrong, report.failures = 1, [failure(image=np.asarray(image, float))]
    return Page(report)


def only(tier: str, backends=("torch",), **more) -> Report:
    """Three wrong results of each of these backends in one tier."""
    report = agreeing()
    for name in backends:
        report.cells[tier, name, "result"] = Cell(57, 3, np.inf)
    report.wrong = 3 * len(backends)
    for name, value in more.items():
        setattr(report, name, value)
    return report


class TestVerdict:
    @pytest.mark.parametrize(
        ("names", "verdict"),
        [
            (BACKENDS, "All 5 backends agree."),
            (("jax", "numpy"), "Both backends agree."),
            (("numpy",), "numpy computes what it should."),
            ((), "No backend could be tested."),
        ],
    )
    def test_agreement(self, names, verdict):
        assert Page(agreeing(names)).verdict == verdict

    @pytest.mark.parametrize(
        ("tier", "how"),
        [
            ("bounded", "off by more than rounding allows"),
            ("exact", "not equal bit for bit"),
            ("reproducible", "not equal bit for bit"),
        ],
    )
    def test_disagreement(self, tier, how):
        report = only(tier)
        total = sum(cell.trials for (_, name, _), cell in report.cells.items() if name == "torch")
        assert Page(report).verdict == f"torch disagrees: 3 of {total} results are {how}."

    def test_several(self):
        report = only("exact", ("torch", "jax"))
        report.cells["bounded", "jax", "result"] = Cell(9, 1, 2.0)
        report.wrong = 7
        assert re.fullmatch(r"jax and torch disagree: 7 of \d+ results are wrong\.", Page(report).verdict)

    def test_a_failed_worker(self):
        report = agreeing(("numpy", "torch"))
        report.failed = {"mxnet": "it was killed by SIGKILL (out of memory?)"}
        page = Page(report)
        assert page.verdict == "mxnet could not be tested: it was killed by SIGKILL (out of memory?)."
        assert "numpy and torch agree." in page.texts["header"][0]
        report.versions["mxnet"] = {"mxnet": "1.9.1"}
        assert Page(report).verdict.startswith("mxnet could not be tested to the end: ")

    def test_disagreement_and_failed_workers(self):
        failed = {"mxnet": "gone", "cupy": "absent"}
        assert Page(only("exact", failed=failed)).verdict.endswith("bit. cupy and mxnet could not be tested.")

    def test_what_was_run(self):
        words = " ".join(re.findall(r"[a-z]+|[\d.]+", Page(agreeing()).texts["dl"][0]))
        assert words.startswith("trials 142 results")
        assert words.endswith("wrong 0 seconds 12.3 seed 7")


class TestTables:
    def test_the_matrix_is_symmetric(self):
        rows = Page(disagreeing()).texts["table"][0].split("\n")
        rows = [row for row in rows if row]
        assert rows[0] == "jaxmxnetnumpytensorflowtorch"
        assert rows[1] == "jax✗ ∞0.130.300.47✗ 813"  # The diagonal has the worst of all quantities.
        cells = re.findall(
            r"<td[^>]*>([^<]*)</td>", parity_page(disagreeing()).split('id="matrix"')[1].split("</tbody>")[0]
        )
        matrix = np.array(cells[1:]).reshape(5, 5)  # The first cell is the corner.
        assert (matrix == matrix.T).all()
        assert list(matrix[-1]) == ["✗ 813", "1.40", "✗ 45.0", "✗ ∞", "✗ 812"]

    def test_bits_are_counted_and_errors_measured(self):
        page = parity_page(disagreeing())
        assert "<b>✓ 57</b> <small>equal bit for bit" in page
        assert "<b>✗ 24</b> <small>of 57 differ" in page
        assert "<b>✗ 812</b> 3 of 31 failed" in page

    def test_who_took_part(self):
        starts = ["jax✗ disagrees289, 1 wrong", "numpy✓ agrees", "tensorflow✓", "torch✗ disagrees289, 29 wrong"]
        starts += ["cupy✗ not testedImportError: libcudart", "mxnet✗ stoppedit was killed", "mlxnot installedmlx isn't"]
        page = Page(disagreeing())
        rows = page.texts["tr"][-7:]  # Backends that failed come late, and absent ones last.
        assert [row[: len(start)] for row, start in zip(rows, starts, strict=True)] == starts
        assert {"numpy 2.3.1", "torch 5.2.0", "python 3.12.3"} <= set(page.texts["li"])

    def test_the_same_order_of_quantities_in_every_tier(self):
        report = agreeing(("numpy",))
        report.cells = {("bounded", "numpy", name): Cell(1) for name in ("losses", "gradient of K", "kernel", "result")}
        assert re.findall('<th scope="col">(.*?)</th>', parity_page(report))[2:6] == [
            "result",
            "gradient of K",
            "kernel",
            "losses",
        ]

    def test_headers_have_a_scope(self):
        page = Page(disagreeing())
        assert page.tags["th"] == len(page.of("th", "scope"))
        assert page.tags["table"] == 6


class TestFailures:
    def test_a_card_for_each(self):
        report = disagreeing()
        page = Page(report)
        assert page.tags["article"] == len(report.failures) == 9
        assert "21 more wrong results are not shown." in page.texts["p"]
        assert page.texts["code"] == [each.command for each in report.failures] + [report.command]
        assert report.failures[0].message in page.texts["p"]

    def test_none(self):
        page = Page(agreeing())
        assert not page.tags["article"]
        assert "What failed" not in page.texts["h2"]

    def test_what_is_hostile_is_text(self):
        report = hostile()
        page = Page(report)
        assert not page.tags["script"]
        assert not page.tags["img"]
        assert page.texts["code"] == [report.failures[0].command, report.command]
        assert page.verdict.startswith(HOSTILE)
        assert "\ufffd[31mred\ufffd\ufffd" in "".join(page.texts["td"])
        assert b"\0" not in parity_page(report).encode()

    def test_very_long_messages_are_cut_and_commands_are_not(self):
        report = only("exact", failures=[failure(message="m" * 10**6, command="c" * 10**4)])
        assert len(parity_page(report)) < 60_000
        assert "c" * 10**4 in parity_page(report)


class TestPictures:
    def test_pixels(self):
        errors = [[0, 0.25, 0.3, 1, 1.5], [2, 10, 1001, np.inf, np.nan]]
        light, dark = (decoded(with_image(errors).of(*each)[0]) for each in (("img", "src"), ("source", "srcset")))
        assert light.shape == dark.shape == (2, 5, 3)
        for pixels, direction in ((light, -1), (dark, 1)):
            flat = pixels.reshape(10, 3)
            same = [(0, 1), (4, 5), (8, 9)]
            assert all((flat[a] == flat[b]).all() for a, b in same)
            grey = flat @ [0.2126, 0.7152, 0.0722]
            assert (np.diff(grey)[[1, 2, 3, 5, 6, 7]] * direction > 0).all()

    def test_the_worst_error_survives(self):
        image = np.full((2000, 1777), 0.1)
        image[1999, 1776] = image[0, 900] = np.inf
        page = with_image(image)
        pixels = decoded(page.of("img", "src")[0])
        assert pixels.shape[0] * pixels.shape[1] <= 90 * 90
        assert pixels.shape[0] / pixels.shape[1] == pytest.approx(2000 / 1777, rel=0.02)
        assert int((pixels != pixels[1, 1]).any(2).sum()) == 2
        assert (pixels[-1, -1] != pixels[1, 1]).any()
        assert page.of("img", "alt") == ["Errors of 2000 by 1777 elements; 2 of 3,554,000 are beyond the bound."]
        assert "2,000 rows × 1,777 columns, each pixel the worst of 22 × 22" in page.texts["figcaption"][0]

    @pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (1, 5000), (90, 101), (2000, 2000)])
    def test_proportions(self, shape):
        page = with_image(np.zeros(shape))
        height, width = (int(page.of("img", name)[0]) for name in ("height", "width"))
        small = decoded(page.of("img", "src")[0]).shape
        assert height / width == small[0] / small[1]
        assert min(height, width) >= 4
        assert max(height, width) <= 2400


def test_the_page_is_small_whatever_is_in_it():
    rng = np.random.default_rng(0)
    steps = (0.1, 0.4, 0.9, 1.5, 7.0, 70.0, 700.0, 7000.0, np.inf)
    report = only("exact", failures=[failure(image=rng.choice(steps, (90, 90))) for _ in range(24)])
    assert len(parity_page(report).encode()) < 400_000


def test_the_same_report_gives_the_same_page():
    assert parity_page(disagreeing()) == parity_page(disagreeing())


def test_nothing_is_fetched():
    page = Page(disagreeing())
    for name in ("src", "srcset", "href", "action", "data"):
        for _, attributes in page.attributes:
            assert attributes.get(name, "#").startswith(("data:", "#"))
    assert "url(" not in parity_page(disagreeing())
    assert "@import" not in parity_page(disagreeing())
