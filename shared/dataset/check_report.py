"""The findings of `emit check` on one screen of text."""

BARS = " ▁▂▃▄▅▆▇█"
SHOWN = 3
"""Examples of each kind; the report has all."""


def page(report: dict) -> str:
    """Lines to print."""
    lines = [f"{report['source']}: {report['clips']} clips, read with layout {report['layout']!r}"]
    splits = {name or "no split": count for name, count in report["splits"].items()}
    lines.append("  splits       " + ", ".join(f"{name} {count}" for name, count in splits.items()))
    lines += [f"  note         {_indented(note)}" for note in report["notes"]]
    lines += _files(report) + _headers(report["headers"]) + _words(report) + _labels(report["labels"])
    for split, counts in report["zero_rows"].items():
        if counts["zero"]:
            share = counts["zero"] / counts["rows"]
            lines.append(f"  zero rows    {counts['zero']} of {counts['rows']} in {split or 'all'} ({share:.0%})")
    for name, group in report["groups"].items():
        each = group["clips_each"]
        sizes = f", {each['median']:.0f} clips each ({each['most']:.0f} at most)" if each else ""
        without = f"; {group['clips_without']} clips without" if group["clips_without"] else ""
        lines.append(f"  group        {name}: {group['values']} values{sizes}{without}")
    for what, sets in report["duplicates"].items():
        if sets:
            some = "; ".join(" = ".join(ids[:SHOWN]) for ids in sets[:SHOWN])
            which = {
                "files": "files of equal content",
                "sounds": "sound files of equal content",
                "transcripts": "nearly equal words",
            }[what]
            lines.append(f"  duplicates   {sum(map(len, sets))} clips in {len(sets)} sets with {which}: {some}")
    for what, found in report["leakage"].items():
        lines.append(
            f"  LEAKAGE      {what}: {found['clips']} clips in {found['sets']} sets lie on both sides of a split: "
            + "; ".join(found["examples"])
        )
    if not report["leakage"] and len([name for name in report["splits"] if name]) > 1:
        lines.append("  leakage      none found between the splits")
    if report["remarks"]:
        some = [f"{name} {said[0]}" for name, said in list(report["remarks"].items())[:SHOWN]]
        lines.append(f"  remarks      on {len(report['remarks'])} clips: {'; '.join(some)}")
    return "\n".join(lines)


def _indented(note: str) -> str:
    return note.replace("\n", "\n" + " " * 13)


def _files(report: dict) -> list[str]:
    files = report["files"]
    kinds = ", ".join(f"{count} {kind or 'without a suffix'}" for kind, count in files["kinds"].items())
    lines = [f"  files        {files['there']} of {report['clips']} there ({kinds})"]
    for what in ("missing", "empty"):
        if files[what]:
            lines.append(f"  {what:<13}{len(files[what])} files: {', '.join(files[what][:SHOWN])}" + _more(files[what]))
    for what, words in (("sound_of_its_own", "sound"), ("crops_of_its_own", "face crops")):
        if files[what]:
            lines.append(f"  {'':<13}{files[what]} clips have {words} in files of their own")
    return lines


def _headers(headers: dict) -> list[str]:
    if not headers["of"]:
        return []
    some = f"{headers['looked_at']} of {headers['of']} files" if headers["looked_at"] < headers["of"] else "all files"
    lines = []
    if headers["seconds"]:
        s = headers["seconds"]
        lines.append(
            f"  seconds      {s['least']:.2f} to {s['most']:.2f}, median {s['median']:.2f}, 95 % below {s['p95']:.2f}; "
            f"about {headers['hours']:.1f} h in all (headers of {some})"
        )
    if headers["frame_rate"]:
        r, odd = headers["frame_rate"], headers["implausible_rates"]
        doubt = f"; {odd} claim an impossible rate, frames are taken by their time stamps" if odd else ""
        lines.append(f"  frames/s     {r['least']:.4g} to {r['most']:.4g}, median {r['median']:.4g}{doubt}")
    if headers["sample_rates"]:
        rates = ", ".join(f"{n} at {int(rate)}" for rate, n in headers["sample_rates"].items())
        lines.append(f"  sound, Hz    {rates}")
    for what, words in (("no_picture", "no picture"), ("no_sound", "no sound")):
        if headers[what]:
            lines.append(f"  {words:<13}{headers[what]} of {headers['looked_at']}")
    bad = [f"{path.rsplit('/', 1)[-1]}: {reason}" for path, reason in headers["unreadable"].items()]
    if bad:
        lines.append(f"  unreadable   {len(bad)}: {'; '.join(bad[:SHOWN])}" + _more(bad))
    return lines


def _words(report: dict) -> list[str]:
    found = report["transcripts"]
    if not found["there"]:
        return ["  words        none"]
    words = found["words"]
    return [
        f"  words        {found['there']} of {report['clips']} clips; {words['least']:.0f} to {words['most']:.0f} "
        f"words, median {words['median']:.0f}"
    ]


def _labels(labels: dict) -> list[str]:
    lines = []
    for name, found in labels.items():
        if "histogram" not in found:
            lines.append(f"  {name:<18}not labelled")
            continue
        low, high = found["bins"]
        lacking = f"; {found['missing']} clips without" if found["missing"] else ""
        constant = "; CONSTANT, nothing can be learned" if found["constant"] else ""
        shown = f"{low:>6.3g} |{bars(found['histogram'])}| {high:<6.3g}"
        lines.append(
            f"  {name[:17]:<18}{shown} above 0: {found['above_zero']:>4.0%}, mean {found['mean']:.3f}, "
            f"most {found['range'][1]:.3g}{lacking}{constant}"
        )
    return lines


def bars(counts: list[int]) -> str:
    """One character a bin: a blank for none, else the higher the more."""
    most = max([1, *counts])
    return "".join(BARS[0] if n == 0 else BARS[max(1, round(n / most * 8))] for n in counts)


def _more(items) -> str:
    return f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
