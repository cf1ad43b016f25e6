"""One whole release of a workload in a new process, and where its time goes.

    python jobs/benchmarks/whole_release.py FOLDER NORM WIDTH COMPONENTS hard|soft

Prints JSON: the seconds inside passes, and the times at which the release began and ended. The
process that starts it measures the whole. Time that is spent neither in a pass nor by Python itself
(start, imports, shutdown) is work of the driver. The package is compiled to bytecode first, as pip
does for an installed package: where Python may not write bytecode, every process would compile the
checkout again.
"""

from __future__ import annotations

import argparse
import compileall
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from workload import Workload

import dpgmm_dist
from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.engine.base import Fraction
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.passes.run import PassContext
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.spec.release_spec import ReleaseSpec


@dataclass(frozen=True)
class WholeRelease:
    """Wall seconds of a release."""

    whole: float
    """The whole process."""
    start: float
    """From the start of the process to the beginning of the release."""
    end: float
    """From the end of the release to the end of the process."""
    passes: float

    @property
    def driver(self) -> float:
        """The rest: noise, estimation and writing."""
        return self.whole - self.start - self.passes - self.end


def whole_release(load: Workload, assignment: str) -> WholeRelease:
    """Time a release of all rows by the default engine in a new process."""
    d, components = load.truth.dimension, load.truth.n_components
    arguments = [str(load.folder), repr(load.norm), str(d), str(components), assignment]
    for folder in (*dpgmm_dist.__path__, Path(__file__).parent):
        compileall.compile_dir(folder, quiet=2)
    start = time.time()
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True
    )
    end = time.time()
    times = json.loads(done.stdout)
    return WholeRelease(end - start, times["began"] - start, end - times["ended"], times["passes"])


class TimedEngine(LocalEngine):
    """The default engine, which also adds up the time of its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def run(
        self, context: PassContext, units: Sequence[PlanUnit], report: Fraction
    ) -> ExactStatistic:
        """Run one pass and add its wall seconds."""
        start = time.perf_counter()
        try:
            return super().run(context, units, report)
        finally:
            self.seconds += time.perf_counter() - start


def main() -> None:
    """Release; print when the release began and ended, and the seconds inside passes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("norm", type=float)
    parser.add_argument("width", type=int)
    parser.add_argument("components", type=int)
    parser.add_argument("assignment", choices=["hard", "soft"])
    options = parser.parse_args()

    began = time.time()
    spec = ReleaseSpec.from_dict(
        {
            "dataset": {"path": options.folder, "features": "x", "width": options.width},
            "bounds": {"norm": options.norm},
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
            "model": {"components": options.components, "assignment": options.assignment},
        }
    )
    engine = TimedEngine()
    with TemporaryDirectory() as folder:
        release(spec, output=str(Path(folder) / "release"), engine=engine)
    print(json.dumps({"began": began, "ended": time.time(), "passes": engine.seconds}))


if __name__ == "__main__":
    main()
