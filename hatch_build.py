"""Compiles the request path with mypyc where MODELGRID_COMPILE=1 asks for it; else wheels are plain Python.

Wheels for users are built so, for each platform. The working tree, and what is built without being asked, have no
compiled modules: nothing can be stale, and no C compiler is needed. Both are the same program.

What a compiled class asks of its source:

- It is derived from object, a protocol or another compiled class, and what derives from it is compiled too.
- Each attribute has the type that is said of it at any time: a check stands where a type checker has narrowed it.
- A default in the body of a class is copied to each instance. One of None for a protocol is lost: `__init__` sets it.
- It is no msgspec.Struct, whose modules stay Python.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def is_asked() -> bool:
    """To compile."""
    return os.environ.get("MODELGRID_COMPILE") == "1"


class CompileRequestPath(BuildHookInterface[Any]):
    """The hook that hatchling calls."""

    def dependencies(self) -> list[str]:
        """What a build in an environment of its own needs: types come from what is imported."""
        return ["mypy[mypyc]", *self.metadata.core.dependencies] if is_asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a wheel is written."""
        if version == "editable" or not is_asked():
            return
        folder = Path(self.root, "build", "mypyc")
        _compile(Path(self.root), self.config["compiled"], folder)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for file in folder.glob("lib/**/*.so"):
            build_data["force_include"][str(file)] = str(file.relative_to(folder / "lib"))


def _compile(root: Path, names: list[str], folder: Path) -> None:
    from mypyc.build import mypycify
    from setuptools import Distribution

    shutil.rmtree(folder / "lib", ignore_errors=True)
    os.chdir(root)  # where mypy finds its configuration
    modules = [f"src/modelgrid/gateway/{name}.py" for name in names]
    extensions = mypycify(
        modules, opt_level="3", debug_level="0", target_dir=str(folder / "c"), group_name="modelgrid_gateway"
    )
    build = Distribution({"name": "modelgrid", "ext_modules": extensions}).get_command_obj("build_ext")
    build.build_lib, build.build_temp = str(folder / "lib"), str(folder / "objects")
    build.ensure_finalized()
    build.run()
