"""Reads `cargo metadata` and Cargo.lock and writes what is compiled into the programs: as CycloneDX, and the texts of its
licences, which ask to go along with the programs.

Usage: cargo metadata … | sbom.py VERSION LIST NOTICES
"""

import collections
import datetime
import json
import os
import pathlib
import re
import sys
import tomllib
import uuid

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

# Whose dependencies are built in; the rest of the workspace is for tests and measurements.
PROGRAMS = ("postroom-cli", "postroom-control-plane", "postroom-worker")


def built_in(metadata: dict) -> dict[str, list[str]]:
    """Every package that is compiled into a program, with those it needs. Crates for tests are none of it."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [id for id, package in packages.items() if package["name"] in PROGRAMS]
    found: dict[str, list[str]] = {}
    while waiting:
        id = waiting.pop()
        if id in found:
            continue
        kinds = lambda dep: {kind["kind"] for kind in dep["dep_kinds"]}
        found[id] = sorted(dep["pkg"] for dep in nodes[id]["deps"] if kinds(dep) != {"dev"})
        waiting += found[id]
    return found


def notices(packages: list[dict]) -> str:
    """Each text once, below the names of those that come with it."""
    bearers = collections.defaultdict(list)
    for package in packages:
        folder = pathlib.Path(package["manifest_path"]).parent
        texts = sorted(it for it in folder.iterdir() if re.match(r"(?i)(licen[cs]e|copying|notice|copyright)", it.name))
        name = f"{package['name']} {package['version']} ({package['license']})"
        for text in texts:
            if text.is_file():
                bearers[text.read_text(encoding="utf-8", errors="replace").strip()].append(name)
        if not texts:
            bearers["No text comes with it; the licences that it names are well known."].append(name)
    ordered = sorted(bearers.items(), key=lambda it: sorted(it[1]))
    parts = ["\n".join(sorted(set(names))) + "\n\n" + text + "\n" for text, names in ordered]
    return ("\n" + "-" * 80 + "\n\n").join(["What is compiled into Postroom, and the terms it comes under.\n", *parts])


def main() -> None:
    version, list_file, notices_file = sys.argv[1:]
    metadata = json.load(sys.stdin)
    with open("Cargo.lock", "rb") as lock:
        locked = tomllib.load(lock)["package"]
    digests = {(it["name"], it["version"]): it.get("checksum") for it in locked}
    packages = {package["id"]: package for package in metadata["packages"]}
    needs = built_in(metadata)
    licenses = LicenseFactory()

    def component(package: dict) -> Component:
        purl = PackageURL("cargo", name=package["name"], version=package["version"])
        digest = digests.get((package["name"], package["version"]))
        # Old crates write a slash where SPDX has OR.
        license = re.sub(r"\s*/\s*", " OR ", package["license"] or "NOASSERTION")
        return Component(
            name=package["name"],
            version=package["version"],
            type=ComponentType.LIBRARY,
            bom_ref=str(purl),
            purl=purl,
            licenses=[licenses.make_from_string(license)],
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else [],
        )

    components = {id: component(packages[id]) for id in needs}
    # The same sources make the same list: neither number nor time are drawn.
    content = json.dumps(sorted(str(it.purl) for it in components.values()))
    bom = Bom(components=components.values(), serial_number=uuid.uuid5(uuid.NAMESPACE_URL, version + content))
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
    bom.metadata.component = Component(name="postroom", version=version, type=ComponentType.APPLICATION, bom_ref="postroom")
    bom.register_dependency(bom.metadata.component, [it for id, it in components.items() if packages[id]["name"] in PROGRAMS])
    for id, others in needs.items():
        bom.register_dependency(components[id], [components[other] for other in others])

    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if fault is not None:
        sys.exit(f"error: the list is no CycloneDX: {fault}")
    if len(components) < 100:
        sys.exit(f"error: only {len(components)} crates were found")
    pathlib.Path(list_file).write_text(text + "\n", encoding="utf-8")
    others = [packages[id] for id in needs if packages[id]["source"] is not None]
    pathlib.Path(notices_file).write_text(notices(others), encoding="utf-8")


main()
