"""Writes the bills of materials: `python -m release.sbom FOLDER`, in CycloneDX 1.6 JSON.

Each lists what one lock pins: names, versions and the hashes of the files that may be installed.
The same locks give the same bytes, so the documents carry no time and a serial number made of
their content.
"""

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import headgate
from release.locks import DEVELOPMENT_LOCK, ONEBOX_LOCK, SERVE_LOCK, Locked, read_lock

_SERIAL_NAMESPACE = uuid.UUID("6f3c7c4e-6f0e-5d0b-9a55-3b2d1f0c8e11")

BILLS = {"serve": SERVE_LOCK, "onebox": ONEBOX_LOCK, "development": DEVELOPMENT_LOCK}
"""By the name of what is described (the two images, the development environment), its lock."""


def bill(lock: list[Locked]) -> dict[str, Any]:
    """The CycloneDX document of one lock, with each of its packages as a component."""
    components = [_component(locked) for locked in lock]
    root = f"headgate@{headgate.__version__}"
    content: dict[str, Any] = {
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": "headgate",
                "version": headgate.__version__,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": components,
        "dependencies": [
            {"ref": root, "dependsOn": [component["bom-ref"] for component in components]}
        ],
    }
    serial = uuid.uuid5(_SERIAL_NAMESPACE, json.dumps(content, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial.urn,
        "version": 1,
        **content,
    }


def _component(locked: Locked) -> dict[str, Any]:
    purl = f"pkg:pypi/{locked.name}@{locked.version}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": locked.name,
        "version": locked.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in sorted(locked.sha256)],
    }
    if locked.marker is not None:
        component["properties"] = [{"name": "python:marker", "value": str(locked.marker)}]
    return component


def write_bills(folder: Path) -> list[Path]:
    """Writes `headgate-VERSION-NAME.cdx.json` for each of BILLS; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, lock in BILLS.items():
        path = folder / f"headgate-{headgate.__version__}-{name}.cdx.json"
        path.write_text(json.dumps(bill(read_lock(lock)), indent=2) + "\n", encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    for _path in write_bills(Path(sys.argv[1])):
        print(_path)
