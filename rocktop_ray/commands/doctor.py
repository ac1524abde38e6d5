"""``rocktop doctor``: one page about this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rocktop_ray.doctor import Report


def doctor(as_json: Annotated[bool, typer.Option("--json", help="The same facts as JSON.")] = False) -> None:
    """Show what this machine has and lacks. Exit code 0 if the bundle can run, else 1."""
    from rocktop_ray.doctor import examine

    report = examine()
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps({"ready": report.ready, **asdict(report)}, indent=2))
    else:
        typer.echo(page(report))
    if not report.ready:
        raise typer.Exit(1)


def page(report: Report) -> str:
    """The report as lines of text."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    gpus = [
        f"{gpu.kind}: {gpu.name}" + (f", {gpu.memory / 2**30:.0f} GiB" if gpu.memory else "")
        for gpu in report.accelerators
    ]
    threads = ", ".join(f"{name}={value}" for name, value in report.thread_settings.items())
    codecs = ", ".join(f"{codec.name} {_ability(codec.decodes, codec.encodes)}" for codec in report.codecs)
    programs = ", ".join(f"{name} {path or 'not found (optional)'}" for name, path in report.programs.items())
    rows = [
        ("versions", versions),
        ("platform", report.platform),
        ("accelerator", f"{'; '.join(gpus) or 'none, the CPU is used'} (torch for {report.torch_build})"),
        (
            "cores",
            f"{report.cores}, usable {report.usable_cores}, torch threads {report.torch_threads}"
            + f" ({threads})" * bool(threads),
        ),
        ("sound files", f"libsndfile {report.sound_files}"),
        ("codecs", codecs),
        ("programs", programs),
        ("home", f"{report.home}, {report.home_free / 1e9:.1f} GB free"),
        (
            "voices",
            f"{report.voices} in the library, the bundled voice is {'there' if report.bundle_voice else 'missing'}",
        ),
    ]
    lines = [f"{name:<12} {text}" for name, text in rows]
    lines += ["", "models"]
    for model in report.models:
        state = model.path if model.installed else f"missing; run: {model.command}"
        lines.append(f"  {model.name:<24} {state}")
    lines.append("")
    lines += [f"warning: {text}" for text in report.warnings]
    lines += [f"problem: {text}" for text in report.problems]
    lines.append("The bundle can run." if report.ready else "The bundle cannot run yet.")
    return "\n".join(lines)


def _ability(decodes: bool, encodes: bool) -> str:
    if decodes and encodes:
        return "read+write"
    return "read" if decodes else "write" if encodes else "no"
