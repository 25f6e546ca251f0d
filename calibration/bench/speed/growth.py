"""Growth: how a step's time grows with the batch, the prompt and the layers, as a picture."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from calibration.bench.speed.step_times import decode_ms, medians, prefill_ms
from calibration.bench.speed.throughput import prompts_of
from detector.engine.model.checkpoint import DTYPES, Checkpoint, load_checkpoint
from detector.engine.model.text import Text

BATCHES = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
LAYERS = (4, 8, 16, 24, 30)


@dataclass(frozen=True)
class Curve:
    """Median milliseconds, guarded at every look and unguarded, at each value of `x`."""

    title: str
    unit: str
    x: tuple[int, ...]
    guarded: tuple[float, ...]
    unguarded: tuple[float, ...]

    def __str__(self) -> str:
        rows = zip(self.x, self.guarded, self.unguarded, strict=True)
        return "\n".join(
            [f"{self.title}, ms:"]
            + [f"  {x:5} {self.unit:9} {a:8.1f} guarded {b:8.1f} unguarded" for x, a, b in rows]
        )


def _shallow(checkpoint: Checkpoint, n_layers: int) -> Checkpoint:
    """A random model of the same shape with fewer layers."""
    config = copy.deepcopy(checkpoint.model.config)
    config.num_hidden_layers = n_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:n_layers]
    model = AutoModelForCausalLM.from_config(config).to(DTYPES[checkpoint.fingerprint.dtype])
    return Checkpoint.of(f"{n_layers} layers", model, checkpoint.tokenizer)


def growth(model: str, dtype: str) -> list[Curve]:
    """Decode steps by batch and by layers, prefill by prompt length."""
    checkpoint = load_checkpoint(model, dtype)
    text = Text(checkpoint.tokenizer)
    (prompt,) = prompts_of(text, 1)
    depth = checkpoint.model.config.get_text_config().num_hidden_layers
    layers = tuple(n for n in LAYERS if n <= depth)
    with tqdm(total=len(BATCHES) + len(LENGTHS) + len(layers), unit="point") as progress:

        def each(
            values: Sequence[int], point: Callable[[int], tuple[float, float]]
        ) -> list[tuple[float, float]]:
            points = []
            for value in values:
                points.append(point(value))
                progress.update()
            return points

        by_batch = each(
            BATCHES,
            lambda n: medians(checkpoint, n, 64, lambda e: decode_ms(e, n, prompt)),
        )
        by_length = each(
            LENGTHS,
            lambda length: medians(
                checkpoint,
                1,
                length,
                lambda e: prefill_ms(e, prompts_of(text, 1, length)[0]),
            ),
        )

        def at_depth(n_layers: int) -> tuple[float, float]:
            shallow = _shallow(checkpoint, n_layers)
            return medians(shallow, 8, 64, lambda e: decode_ms(e, 8, prompt))

        by_layers = each(layers, at_depth)

    def curve(title: str, unit: str, x: Sequence[int], points: list[tuple[float, float]]) -> Curve:
        return Curve(
            title, unit, tuple(x), tuple(p[0] for p in points), tuple(p[1] for p in points)
        )

    return [
        curve("decode step", "requests", BATCHES, by_batch),
        curve("prefill of one prompt", "tokens", LENGTHS, by_length),
        curve("decode step of 8 requests", "layers", layers, by_layers),
    ]


def picture(curves: Sequence[Curve]) -> bytes:
    """The curves side by side, as SVG."""
    with mpl.rc_context({"svg.hashsalt": "trajguard", "font.size": 9}):
        figure, panels = plt.subplots(1, len(curves), figsize=(11, 3.4), layout="constrained")
        for panel, curve in zip(panels, curves, strict=True):
            panel.plot(curve.x, curve.unguarded, "o-", color="#8896a8", label="unguarded")
            panel.plot(
                curve.x, curve.guarded, "o--", color="#1f6f4a", label="guarded at every look"
            )
            if curve.unit != "layers":
                panel.set_xscale("log", base=2)
                panel.set_xticks(curve.x, [str(x) for x in curve.x])
            panel.set(title=curve.title, xlabel=curve.unit, ylabel="ms", ylim=(0, None))
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(axis="y", color="#e3e8ee")
        panels[0].legend(frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        plt.close(figure)
    return out.getvalue()
