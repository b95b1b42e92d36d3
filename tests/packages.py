"""Little packages as pip leaves them: modules, and a dist-info folder that tells their entry points."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

ENGINE = '''
"""An engine that starts any command, as modelgrid's own `custom` does."""

from modelgrid.engines.custom import Custom


class Shout(Custom):
    name = "shout"
    summary = "shouts"


SHOUT = Shout()
'''


def install(
    site: Path, name: str, modules: Mapping[str, str], engines: Mapping[str, str], version: str = "1.0"
) -> None:
    """Put a package into the folder `site`: its `modules`, and its `engines` as ``{name: "module:object"}``."""
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    rows = "".join(f"{engine} = {target}\n" for engine, target in engines.items())
    (info / "entry_points.txt").write_text(f"[modelgrid.engines]\n{rows}")


def wheel(folder: Path, name: str, modules: Mapping[str, str], version: str = "1.0") -> None:
    """Write a wheel of the package `name`, whose `modules` are its files, into `folder`."""
    info = f"{name}-{version}.dist-info"
    files = {f"{name}/{module}.py": source for module, source in modules.items()}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as made:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            made.writestr(file, text)
