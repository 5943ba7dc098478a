"""How much gradient reaches GoogLeNet's stem, with and without its auxiliary heads.

    python benchmarks/stem_gradient.py FOLDER [--steps 5]

FOLDER holds pictures; a batch is eight random parts of them at 224x224, each with the number of its
picture as its class. The same seed, first weights and batches on both sides.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from netdsl import find
from netdsl.train import Augment, Batches, Examples, Settings, Stepper
from netdsl.train.initial import first_weights


def main() -> None:
    """Prints a row a step."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--steps", type=int, default=5)
    asked.add_argument("--init", default="xavier")
    asked.add_argument("--rate", type=float, default=0.01)
    given = asked.parse_args()
    graph = find.graph_of("googlenet")
    files = [p for p in sorted(given.folder.iterdir()) if p.suffix in (".png", ".jpg")]
    for file in files:
        Image.open(file).close()
    repeated = [files[i % len(files)] for i in range(8 * given.steps)]
    labels = np.arange(8 * given.steps) % len(files)
    data = Examples("pictures", repeated, labels)
    op = graph.input_op("input")
    batches = Batches(data, op, 8, augment=Augment.parse("scale=0.3,flip"))
    settings = Settings(batch=8, rate=given.rate, schedule="constant")
    for name, net in (("with heads", graph), ("without", replace(graph, aux=()))):
        kept = first_weights(graph, given.init, 0)
        wanted = net.without_aux() if not net.aux else net
        stepper = Stepper(wanted, {n: kept[n] for n in wanted.all_parameters()}, settings)
        for number, (inputs, targets) in enumerate(batches.epoch(0), 1):
            outcome = stepper.step(inputs, targets)
            found = stepper.plan.gradients()
            norms = {
                n: float(np.linalg.norm(found[f"{n}.weight"])) for n in ("conv1", "conv2", "conv3")
            }
            shown = "  ".join(f"{n} {norm:.3e}" for n, norm in norms.items())
            print(f"{name:10}  step {number}  loss {outcome.loss:.4f}  {shown}", flush=True)


if __name__ == "__main__":
    main()
