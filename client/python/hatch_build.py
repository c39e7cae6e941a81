"""What hatchling does beside packing: it generates the stubs, and takes along the programs that deploy/dist/build.sh has staged."""

import os
import pathlib
import subprocess
import sys

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        subprocess.run([sys.executable, str(pathlib.Path(self.root, "generate.py"))], check=True)
        stage = os.environ.get("SORTINGHAT_STAGE")
        if not stage:
            # The client alone, which runs everywhere.
            return
        programs, data = pathlib.Path(stage, "bin"), pathlib.Path(stage, "lib")
        build_data["shared_scripts"] = {str(path): path.name for path in programs.iterdir()}
        build_data["shared_data"] = {str(path): f"lib/{path.relative_to(data)}" for path in data.rglob("*") if path.is_file()}
        build_data["pure_python"] = False
        # Programs do not depend on a version of Python. auditwheel writes the name of the system.
        build_data["tag"] = "py3-none-linux_x86_64"
